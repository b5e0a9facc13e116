"""The context model of the field: which distribution each coefficient has, given those already decoded.

Exact integer arithmetic, held in float64 where a BLAS product helps: every intermediate is an integer (or an integer
over a power of two) below 2**53 for any weights a file may hold, so no order of summation can matter.

A position's features are its causal neighbours, taps of the coarser grids raised to its size, and for chroma taps of
luma and the first chroma component, each passed through the compressive function :func:`squash`
(:class:`prancimg.format.layout.Plane` has the whole list). A small network for luma and one for chroma turns them into
a mean and a scale:

    h = relu(A u + bias[component, level] + rate · slope[level]);    h += relu(B h + b);    mean, log2 scale = C h + c

which choose a table of :func:`prancimg.format.range_coder.frequencies`. Decoding runs along wavefronts t = x + 2y: the
positions of one t do not depend on each other. The encoder computes all positions at once with the same functions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from prancimg.format.layout import (
    KINDS,
    MAX_LEVELS,
    NEUTRAL_RATE,
    Features,
    Grid,
    Pyramid,
    features_of,
)
from prancimg.format.range_coder import (
    MEANS,
    TABLES,
    Decoder,
    Encoder,
    Truncated,
    TruncatedDecoder,
    conditional_cost,
    escaped,
)
from prancimg.network.context_features import SQUASH, FeatureTaps, own_first
from prancimg.network.field import Coefficients
from prancimg.network.wavefronts import RecentWaves, Wavefronts

_CHUNK = 1 << 12
"""Positions that go through a network at a time, so that they stay in cache."""
_COST_CHUNK = 1 << 22
"""Positions whose cost is summed at a time, so that memory has a bound."""
_BLOCK = 1 << 13
"""Positions a decoder gathers the features of at a time."""
_WEIGHT_BITS, _SQUASH_BITS, _HIDDEN_BITS = 12, 6, 8
_WEIGHT_MAX = _HIDDEN_MAX = (1 << 15) - 1
_MEAN_MAX = 1 << 13
_SCALE_ZERO = 16


class Network:
    """One context network with integer weights, for one rate index (0 to 255)."""

    def __init__(self, kind: str, theta: Mapping[str, np.ndarray], fraction: int, rate: int) -> None:
        """``theta``: flat integer tensors in units of 2**-fraction; cut to 2**-12 and to 16 bits."""
        units = len(theta[f"{kind}.b0"])

        def tensor(name: str, *shape: int) -> np.ndarray:
            cut: np.ndarray = np.clip(theta[f"{kind}.{name}"] >> fraction - _WEIGHT_BITS, -_WEIGHT_MAX, _WEIGHT_MAX)
            return cut.astype(np.float64).reshape(shape)

        # Few and cheap array operations are what counts, most waves being short. Every unit is a power of two, so
        # scaling a weight is exact; a row of ones carries the biases along; and activations are held doubled, because
        # x + |x| is twice as fast as a maximum.
        unit = 2.0 ** (_HIDDEN_BITS - _WEIGHT_BITS - _SQUASH_BITS)
        slope = tensor("slope", MAX_LEVELS, units) * float(rate - NEUTRAL_RATE)
        bias = tensor("bias", -1, MAX_LEVELS, units) * 2.0**_SQUASH_BITS + slope
        self._a, self._bias, one = tensor("a", units, -1) * unit, bias * unit, np.eye(1, units + 1, units)
        self.features: Features = features_of(kind, self._a.shape[1])
        b = np.column_stack([tensor("b", units, units), tensor("b0", units) * 2.0**_HIDDEN_BITS])
        b *= 2.0 ** (-_WEIGHT_BITS - 1)
        self._b = np.concatenate([b, 0 * one])
        # Outputs: the mean in eighths and the table, both rounded, and the mean shifted to where nothing is negative.
        c = np.column_stack([tensor("c", 2, units), tensor("c0", 2) * 2.0**_HIDDEN_BITS])
        c *= 2.0 ** -(_WEIGHT_BITS + _HIDDEN_BITS)
        self._c = (c * [[MEANS], [4]] + [[0.5 + _MEAN_MAX], [0.5 + _SCALE_ZERO]] * one) / 2
        # Weights of ordinary size cannot reach the bound, and then there is nothing to cut.
        most = (np.abs(self._a).sum(1) * SQUASH[-1] + np.abs(self._bias).max((0, 1))).max()
        self._cut_first = bool(most > _HIDDEN_MAX)
        self._cut_second = bool((np.abs(b).sum(1) * 2 * min(most, _HIDDEN_MAX)).max() > _HIDDEN_MAX)

    def first_layer(self, grid: Grid) -> np.ndarray:
        """What makes the first layer's sums (units + 1, n) of a grid's features and a row of ones.

        (units + 1, features + 1); the features of the grid itself come first, so that a decoder has them together.
        """
        bias, one = self._bias[max(grid.component - 1, 0), grid.level], np.eye(1, self._a.shape[1] + 1)[:, ::-1]
        return np.concatenate([np.column_stack([self._a[:, own_first(self.features)], bias]), one])

    def room(self, most: int) -> np.ndarray:
        """What :meth:`__call__` works in: fresh memory for every product would take as long as the product."""
        return np.empty((3, len(self._b) * most))

    def __call__(self, layer: np.ndarray, inputs: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features and a row of ones (features + 1, n) to means in eighths and tables, each (n,) int64.

        ``layer``: :meth:`first_layer`; ``room``: :meth:`room` of at least n.
        """
        size = len(layer), inputs.shape[1]
        h, more, spare = (part[: size[0] * size[1]].reshape(size) for part in room)
        _doubled_relu(np.matmul(layer, inputs, out=h), spare, self._cut_first)
        _doubled_relu(np.matmul(self._b, h, out=more), spare, self._cut_second)
        h += more
        out = self._c @ h
        np.maximum(out, 0.0, out=out)
        np.minimum(out, _OUT_MAX, out=out)
        mean, table = out.astype(np.int64)  # the whole part
        mean -= _MEAN_MAX
        return mean, table


_OUT_MAX = np.array([[2 * _MEAN_MAX], [TABLES - 1]])


def _doubled_relu(x: np.ndarray, spare: np.ndarray, cut: bool) -> None:
    """In place, twice the whole part of x where it is positive, else 0."""
    np.floor(x, out=x)
    x += np.abs(x, out=spare)
    if cut:
        np.minimum(x, 2 * _HIDDEN_MAX, out=x)


def networks(theta: Mapping[str, np.ndarray], fraction: int, rate: int) -> dict[str, Network]:
    """Both networks."""
    return {kind: Network(kind, theta, fraction, rate) for kind in KINDS}


def distributions(grid: Grid, q: np.ndarray, done: Coefficients, network: Network) -> tuple[np.ndarray, np.ndarray]:
    """The encoder's side, all positions of a grid: means in eighths and tables, (h * w,) int16 in raster order.

    ``done`` holds the grids that were coded before.
    """
    layer, causal = network.first_layer(grid), FeatureTaps.causal(q, network.features)
    known = FeatureTaps.known(grid, done, network.features)
    mean, table = np.empty((2, grid.height, grid.width), np.int16)
    rows, nothing, room = max(1, _CHUNK // grid.width), np.eye(layer.shape[1])[-1], network.room(_CHUNK)
    for top in range(0, grid.height, rows):
        inputs = np.ones((layer.shape[1], min(rows, grid.height - top), grid.width))
        causal.rows(grid, top, inputs[: len(causal.taps)])
        known.rows(grid, top, inputs[len(causal.taps) : -1])
        active = inputs[:-1].any(0)
        read = np.column_stack([nothing, inputs[:, active]])
        found = np.concatenate([network(layer, part, room) for part in _columns(read, _CHUNK)], 1)
        for out, values in zip((mean[top : top + rows], table[top : top + rows]), found, strict=True):
            out[:] = values[0]  # many contexts hold nothing but zeros
            out[active] = values[1:]
    return mean.reshape(-1), table.reshape(-1)


def _columns(x: np.ndarray, most: int) -> list[np.ndarray]:
    """Its columns in pieces of at most so many."""
    return [x[:, start : start + most] for start in range(0, x.shape[1], most)]


def cost(pyramid: Pyramid, q: Coefficients, nets: Mapping[str, Network]) -> float:
    """Bits of all grids, without the coder's constant end."""
    bits, done = 0.0, Coefficients()
    for grid in pyramid.grids:
        mean, table = distributions(grid, q[grid.key], done, nets[KINDS[grid.component > 0]])
        values = q[grid.key].reshape(-1)
        for start in range(0, grid.count, _COST_CHUNK):
            here = slice(start, start + _COST_CHUNK)
            bits += conditional_cost(values[here], mean[here], table[here])
        done[grid.key] = q[grid.key]
    return bits


def encode_field(pyramid: Pyramid, q: Coefficients, nets: Mapping[str, Network], levels: range) -> bytes:
    """One stream with the grids of some levels, coarse to fine; the grids of coarser levels count as known."""
    encoder, done = Encoder(), Coefficients()
    for grid in pyramid.grids:
        if grid.level in levels:
            mean, table = distributions(grid, q[grid.key], done, nets[KINDS[grid.component > 0]])
            values, waves = q[grid.key].reshape(-1).astype(np.int64), Wavefronts(grid.height, grid.width)
            for block in waves.blocks(_BLOCK):
                y, x = waves.positions(block)
                place, start = y * grid.width + x, 0
                counts = waves.counts[block.start : block.stop].tolist()
                if not escaped(values[place], mean[place]).any():  # what escapes follows at the end of its wave
                    counts = [len(place)]
                for count in counts:
                    here = place[start : start + count]
                    if count:
                        encoder.put_conditional(values[here], mean[here], table[here])
                    start += count
        done[grid.key] = q[grid.key]
    return encoder.finish()


def decode_field(
    pyramid: Pyramid, data: bytes, nets: Mapping[str, Network], levels: range, known: Coefficients, whole: bool = True
) -> Coefficients:
    """The grids of some levels from their stream; ``known`` holds the grids of all coarser levels.

    Of a stream that is not ``whole``, what its beginning determines; everything else is 0.
    """
    decoder = Decoder(data) if whole else TruncatedDecoder(data)
    done, out = dict(known), Coefficients()
    ended = False
    for grid in pyramid.grids:
        if grid.level in levels:
            out[grid.key] = np.zeros((grid.height, grid.width), np.int32)
            if not ended:
                try:
                    _decode_grid(grid, out[grid.key], decoder, nets[KINDS[grid.component > 0]], done)
                except Truncated:
                    ended = True
                done[grid.key] = out[grid.key]
    return out


_FEW, _MOST = 48, 0.8
"""Positions of a wave, and their active share, up to which to sort out the others would take longer than it saves."""


def _decode_grid(grid: Grid, out: np.ndarray, decoder: Decoder, network: Network, done: Coefficients) -> None:
    """Fill one grid ``out``. Beyond it and the planes of its features, memory is that of a block of positions."""
    features, waves = FeatureTaps.known(grid, done, network.features), Wavefronts(grid.height, grid.width)
    layer, recent = network.first_layer(grid), RecentWaves(grid, network.features)
    causal, room = layer.shape[1] - 1 - len(features.taps), network.room(int(waves.counts.max()))
    quiet_mean, quiet_table = network(layer, np.eye(len(layer.T))[:, -1:], room)
    blocks = list(waves.blocks(_BLOCK))
    most = max(int(waves.counts[block.start : block.stop].sum()) for block in blocks)
    whole = np.ones((layer.shape[1], most // 16 * 16 + 24))  # rows an odd number of cache lines apart
    for block in blocks:
        y, x = waves.positions(block)
        inputs = whole[:, : len(y)]
        features.at(grid, y, x, inputs[causal:-1])
        known = np.bitwise_or.reduce(inputs[causal:-1].view(np.int64), 0) != 0
        values, start = np.empty(len(y), np.int32), 0
        firsts, counts = (each[block.start : block.stop].tolist() for each in (waves.first, waves.counts))
        try:
            for t, top, count in zip(block, firsts, counts, strict=True):
                end, here = start + count, inputs[:, start : start + count]
                if count:
                    recent.read(t, top, here[:causal])
                    # Where a context holds nothing but zeros, the answer is known. A sum covers all neighbours.
                    lit = here[causal - 1] != 0 if recent.summed else here[:causal].any(0)
                    active = (known[start:end] | lit).nonzero()[0]
                    if count < _FEW or len(active) > _MOST * count:
                        mean, table = network(layer, here, room)
                    else:
                        mean, table = quiet_mean.repeat(count), quiet_table.repeat(count)
                        mean[active], table[active] = network(layer, here.take(active, 1), room)
                    values[start:end] = decoder.take_conditional(mean, table)
                recent.add(t, top, values[start:end])
                start = end
        finally:
            out[y[:start], x[:start]] = values[:start]
