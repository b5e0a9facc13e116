"""The context model of the field: which distribution each coefficient has, given those already decoded.

Exact integer arithmetic, held in float64 where a BLAS product helps: every intermediate is an integer (or an integer
over a power of two) below 2**53 for any weights a file may hold, so no order of summation can matter.

A position's features are its causal neighbours, taps of the coarser grids raised to its size, and for chroma taps of
luma and the first chroma component, each passed through the compressive function :func:`squash`
(:class:`prancimg.format.layout.Plane` has the whole list). A small network for luma and one for chroma turns them into
a mean and a scale:

    h = relu(A u + bias[component, level] + rate · slope[level]);    h += relu(B h + b);    mean, log2 scale = C h + c

which choose a table of :func:`prancimg.format.range_coder.frequencies`. Decoding runs along wavefronts t = x + 2y: the
positions of one t do not depend on each other. The encoder computes all positions at once with the same functions, or
where the network learns (:mod:`prancimg.network.learning`) those up to its next step.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

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
from prancimg.network.learning import PARAMETER_MAX, Learner
from prancimg.network.wavefronts import RecentWaves, Wavefronts

_CHUNK = 1 << 12
"""Positions that go through a network at a time, so that they stay in cache."""
_COST_CHUNK = 1 << 22
"""Positions whose cost is summed at a time, so that memory has a bound."""
_BLOCK = 1 << 13
"""Positions a decoder gathers the features of at a time."""
_WEIGHT_BITS, _SQUASH_BITS, _HIDDEN_BITS, _FINE_BITS = 12, 6, 8, 20
_WEIGHT_MAX = _HIDDEN_MAX = (1 << 15) - 1
_MEAN_MAX = 1 << 13
_SCALE_ZERO = 16


Parameters = tuple[np.ndarray, np.ndarray]
"""Weights (outputs, inputs) of a layer and its biases (outputs, 1)."""


class Network:
    """One context network with integer weights, for one rate index (0 to 255)."""

    def __init__(self, kind: str, theta: Mapping[str, np.ndarray], fraction: int, rate: int, pace: int = 0) -> None:
        """``theta``: flat integer tensors in units of 2**-fraction; cut to 2**-12 and to 16 bits.

        ``pace``: how fast it learns in every grid; 0: not at all.
        """
        self.pace, self._kind, self._theta, self._fraction = pace, kind, theta, fraction
        self._units = units = len(theta[f"{kind}.b0"])

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
        self.second = np.concatenate([b, 0 * one])
        # Outputs: the mean in eighths and the table, both rounded, and the mean shifted to where nothing is negative.
        c = np.column_stack([tensor("c", 2, units), tensor("c0", 2) * 2.0**_HIDDEN_BITS])
        c *= 2.0 ** -(_WEIGHT_BITS + _HIDDEN_BITS)
        self.last = (c * [[MEANS], [4]] + [[0.5 + _MEAN_MAX], [0.5 + _SCALE_ZERO]] * one) / 2
        # Weights of ordinary size cannot reach the bound, and then there is nothing to cut.
        most = (np.abs(self._a).sum(1) * SQUASH[-1] + np.abs(self._bias).max((0, 1))).max()
        self.cut_first = bool(most > _HIDDEN_MAX)
        self.cut_second = bool((np.abs(b).sum(1) * 2 * min(most, _HIDDEN_MAX)).max() > _HIDDEN_MAX)

    def first_layer(self, grid: Grid) -> np.ndarray:
        """What makes the first layer's sums (units + 1, n) of a grid's features and a row of ones.

        (units + 1, features + 1); the features of the grid itself come first, so that a decoder has them together.
        """
        bias, one = self._bias[max(grid.component - 1, 0), grid.level], np.eye(1, self._a.shape[1] + 1)[:, ::-1]
        return np.concatenate([np.column_stack([self._a[:, own_first(self.features)], bias]), one])

    def parameters(self, grid: Grid) -> tuple[Parameters, Parameters, Parameters]:
        """What a grid's layers are made of, float64 integers in units of 2**-20: the features as in the first layer."""

        def tensor(name: str, *shape: int) -> np.ndarray:
            fine = self._theta[f"{self._kind}.{name}"] * 2.0 ** (_FINE_BITS - self._fraction)
            return np.clip(fine, -PARAMETER_MAX, PARAMETER_MAX).reshape(shape)

        units = self._units
        a = tensor("a", units, -1)[:, own_first(self.features)]
        bias = tensor("bias", -1, MAX_LEVELS, units, 1)[max(grid.component - 1, 0), grid.level]
        b, b0, c, c0 = tensor("b", units, units), tensor("b0", units, 1), tensor("c", 2, units), tensor("c0", 2, 1)
        return (a, bias), (b, b0), (c, c0)

    def room(self, most: int) -> np.ndarray:
        """What :meth:`__call__` works in: fresh memory for every product would take as long as the product."""
        return np.empty((3, len(self.second) * most))

    def __call__(self, layer: np.ndarray, inputs: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features and a row of ones (features + 1, n) to means in eighths and tables, each (n,) int64.

        ``layer``: :meth:`first_layer`; ``room``: :meth:`room` of at least n.
        """
        h, more = self.hidden(layer, inputs, room)
        h += more
        return self.outputs(h)

    def hidden(self, layer: np.ndarray, inputs: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the first layer gives and what the second adds, both doubled, with a last row of twos and of zeros."""
        size = len(layer), inputs.shape[1]
        h, more, spare = (part[: size[0] * size[1]].reshape(size) for part in room)
        _doubled_relu(np.matmul(layer, inputs, out=h), spare, self.cut_first)
        _doubled_relu(np.matmul(self.second, h, out=more), spare, self.cut_second)
        return h, more

    def outputs(self, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means and tables of what :meth:`hidden` gives, summed."""
        out = self.last @ total
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


def networks(theta: Mapping[str, np.ndarray], fraction: int, rate: int, pace: int = 0) -> dict[str, Network]:
    """Both networks."""
    return {kind: Network(kind, theta, fraction, rate, pace) for kind in KINDS}


def distributions(grid: Grid, q: np.ndarray, done: Coefficients, network: Network) -> tuple[np.ndarray, np.ndarray]:
    """The encoder's side, all positions of a grid: means in eighths and tables, (h * w,) int16 in raster order.

    ``done`` holds the grids that were coded before.
    """
    if network.pace:
        return _learning_distributions(grid, q, done, network)
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


def _learning_distributions(
    grid: Grid, q: np.ndarray, done: Coefficients, network: Network
) -> tuple[np.ndarray, np.ndarray]:
    """The same where the network learns: waves up to the next step at a time."""
    waves, learner = Wavefronts(grid.height, grid.width), Learner(network, grid)
    causal, known = FeatureTaps.causal(q, network.features), FeatureTaps.known(grid, done, network.features)
    mean, table = np.empty((2, grid.count), np.int16)
    quiet, room = np.eye(learner.first.shape[1])[:, -1:], network.room(learner.missing + int(waves.counts.max()))
    for block in waves.blocks(_BLOCK):
        y, x = waves.positions(block)
        place, inputs = y * grid.width + x, np.ones((len(quiet), len(y)))
        causal.at(grid, y, x, inputs[: len(causal.taps)])
        known.at(grid, y, x, inputs[len(causal.taps) : -1])
        active = np.flatnonzero(inputs[:-1].any(0))
        values, ends = q.reshape(-1)[place[active]], np.cumsum(waves.counts[block.start : block.stop])
        before = np.searchsorted(active, ends)  # how many are active up to the end of every wave
        start = first = 0
        while start < len(y):
            wave = min(int(np.searchsorted(before, first + learner.missing)), len(ends) - 1)
            end, last = int(ends[wave]), int(before[wave])
            mean[place[start:end]], table[place[start:end]] = learner(quiet, room)
            if last > first:
                here = place[active[first:last]]
                mean[here], table[here] = learner(inputs.take(active[first:last], 1), room)
                learner.tell(np.arange(last - first), values[first:last])
            start, first = end, last
    return mean, table


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
    learner = Learner(network, grid) if network.pace else None
    predict = learner or partial(network, layer)
    quiet = np.eye(len(layer.T))[:, -1:]
    quiet_mean, quiet_table = predict(quiet, room)
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
                    columns = active
                    if count < _FEW or len(active) > _MOST * count:
                        mean, table = predict(here, room)
                    else:
                        columns = np.arange(len(active))
                        mean, table = quiet_mean.repeat(count), quiet_table.repeat(count)
                        mean[active], table[active] = predict(here.take(active, 1), room)
                    values[start:end] = decoder.take_conditional(mean, table)
                    if learner and learner.tell(columns, values[start:end][active]):
                        quiet_mean, quiet_table = predict(quiet, room)
                recent.add(t, top, values[start:end])
                start = end
        finally:
            out[y[:start], x[:start]] = values[:start]
