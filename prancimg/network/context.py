"""The context model of the field: which distribution each coefficient has, given those already decoded.

Exact integer arithmetic, held in float64 where a BLAS product helps: every intermediate is an integer (or an integer
over a power of two) below 2**53 for any weights a file may hold, so no order of summation can matter.

A position's features are its causal neighbours, five taps of the next coarser grid raised to its size, and for chroma
five taps of the luma grid and the first chroma component, each passed through the compressive function
:func:`squash`. A small network for luma and one for chroma turns them into a mean and a scale:

    h = relu(A u + bias[component, level] + rate · slope[level]);    h += relu(B h + b);    mean, log2 scale = C h + c

which choose a table of :func:`prancimg.format.range_coder.frequencies`. Decoding runs along wavefronts t = x + 2y: the
positions of one t do not depend on each other. The encoder computes all positions at once with the same functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from prancimg.format.layout import CAUSAL, HIDDEN, KINDS, LUMA, NEUTRAL_RATE, PARENT, Grid, Pyramid, context_shapes
from prancimg.format.range_coder import MEANS, TABLES, BrokenOff, BrokenOffDecoder, Decoder, Encoder, escaped, near_cost
from prancimg.network.field import Coefficients

SQUASH_LIMIT = 256

_CHUNK = 1 << 12
"""Positions that go through a network at a time, so that they stay in cache."""
_MANY = 1 << 22
"""Positions whose cost is summed at a time, so that memory has a bound."""
_BLOCK = 1 << 15
"""Positions a decoder gathers the features of at a time."""
_WEIGHT_BITS, _SQUASH_BITS, _HIDDEN_BITS = 12, 6, 8
_WEIGHT_MAX = _HIDDEN_MAX = (1 << 15) - 1
_MEAN_MAX = 1 << 13
_SCALE_ZERO = 16
# 64 asinh(v) at v = 0, 1, 2, 4, ..., 256, rounded; straight lines (rounded down) in between.
_KNOTS = ((0, 0), (1, 56), (2, 92), (4, 134), (8, 178), (16, 222), (32, 266), (64, 311), (128, 355), (256, 399))


def _squash_table() -> np.ndarray:
    xs, ys = np.array(_KNOTS).T
    v = np.arange(SQUASH_LIMIT + 1)
    i = np.minimum(np.searchsorted(xs, v, "right") - 1, len(xs) - 2)
    half = ys[i] + (ys[i + 1] - ys[i]) * (v - xs[i]) // (xs[i + 1] - xs[i])
    return np.concatenate([-half[:0:-1], half]).astype(np.int16)


SQUASH = _squash_table()
"""squash(-256) ... squash(256), in units of 2**-6, int16: 16 times their largest still fits."""


def squash(q: np.ndarray) -> np.ndarray:
    """Compress integers to features, int16: odd, piecewise linear, like 64 asinh, flat beyond ±256."""
    features: np.ndarray = SQUASH.take(q + SQUASH_LIMIT, mode="clip")
    return features


class Network:
    """One context network with integer weights, for one rate index (0 to 255)."""

    def __init__(self, kind: str, theta: Mapping[str, np.ndarray], fraction: int, rate: int) -> None:
        """``theta``: flat integer tensors in units of 2**-fraction; cut to 2**-12 and to 16 bits."""

        def tensor(name: str) -> np.ndarray:
            cut: np.ndarray = np.clip(theta[f"{kind}.{name}"] >> fraction - _WEIGHT_BITS, -_WEIGHT_MAX, _WEIGHT_MAX)
            return cut.astype(np.float64).reshape(context_shapes()[f"{kind}.{name}"])

        # Few and cheap array operations are what counts, most waves being short. Every unit is a power of two, so
        # scaling a weight is exact; a row of ones carries the biases along; and activations are held doubled, because
        # x + |x| is twice as fast as a maximum.
        unit = 2.0 ** (_HIDDEN_BITS - _WEIGHT_BITS - _SQUASH_BITS)
        bias = tensor("bias") * 2.0**_SQUASH_BITS + tensor("slope") * float(rate - NEUTRAL_RATE)
        self._a, self._bias, one = tensor("a") * unit, bias * unit, np.eye(1, HIDDEN + 1, HIDDEN)
        b = np.column_stack([tensor("b"), tensor("b0") * 2.0**_HIDDEN_BITS]) * 2.0 ** (-_WEIGHT_BITS - 1)
        self._b = np.concatenate([b, 0 * one])
        # Outputs: the mean in eighths and the table, both rounded, and the mean shifted to where nothing is negative.
        c = np.column_stack([tensor("c"), tensor("c0") * 2.0**_HIDDEN_BITS]) * 2.0 ** -(_WEIGHT_BITS + _HIDDEN_BITS)
        self._c = (c * [[MEANS], [4]] + [[0.5 + _MEAN_MAX], [0.5 + _SCALE_ZERO]] * one) / 2
        # Weights of ordinary size cannot reach the bound, and then there is nothing to cut.
        most = (np.abs(self._a).sum(1) * SQUASH[-1] + np.abs(self._bias).max((0, 1))).max()
        self._cut_first = bool(most > _HIDDEN_MAX)
        self._cut_second = bool((np.abs(b).sum(1) * 2 * min(most, _HIDDEN_MAX)).max() > _HIDDEN_MAX)

    def first_layer(self, grid: Grid) -> np.ndarray:
        """What makes the first layer's sums (25, n) of a grid's features and a row of ones: (25, features + 1)."""
        bias, one = (
            self._bias[max(grid.component - 1, 0), grid.level],
            np.eye(1, self._a.shape[1] + 1, self._a.shape[1]),
        )
        return np.concatenate([np.column_stack([self._a, bias]), one])

    def __call__(self, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First-layer sums (25, n), which are lost, to means in eighths and tables, each (n,) int64."""
        h = _twice_positive(first, self._cut_first)
        h += _twice_positive(self._b @ h, self._cut_second)
        out = self._c @ h
        np.maximum(out, 0.0, out=out)
        np.minimum(out, _OUT_MAX, out=out)
        mean, table = out.astype(np.int64)  # the whole part
        mean -= _MEAN_MAX
        return mean, table


_OUT_MAX = np.array([[2 * _MEAN_MAX], [TABLES - 1]])


def _twice_positive(x: np.ndarray, cut: bool) -> np.ndarray:
    """In place, twice the whole part of x where it is positive, else 0."""
    np.floor(x, out=x)
    x += np.abs(x)
    if cut:
        np.minimum(x, 2 * _HIDDEN_MAX, out=x)
    return x


def networks(theta: Mapping[str, np.ndarray], fraction: int, rate: int) -> dict[str, Network]:
    """Both networks."""
    return {kind: Network(kind, theta, fraction, rate) for kind in KINDS}


def raise_twofold(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear enlargement of integers (h, w), times 16; edges repeated, cut to (height, width)."""
    for axis in (0, 1):
        x = np.moveaxis(x, axis, 0)
        before, after = np.concatenate([x[:1], x[:-1]]), np.concatenate([x[1:], x[-1:]])
        x = np.stack([before + 3 * x, 3 * x + after], 1).reshape(-1, x.shape[1])
        x = np.moveaxis(x, 0, axis)
    return x[:height, :width]


_EDGE = 2
"""How far features lie from their position, at most."""


@dataclass(frozen=True)
class _Features:
    """Where the features of a grid's positions are found: padded planes (h + 4, w + 4), and a plane and an offset each.

    Memory is what counts here: a decoder holds at most four planes of 16 bits a position.
    """

    planes: list[np.ndarray]
    taps: list[tuple[int, int, int]]
    """Plane (-1: the feature is 0), dy and dx of every feature."""

    @staticmethod
    def known(grid: Grid, done: Mapping[tuple[int, int], np.ndarray]) -> _Features:
        """The features from grids that came before; ``done`` holds them squashed."""
        planes: list[np.ndarray] = []
        taps: list[tuple[int, int, int]] = []

        def add(plane: np.ndarray | None, offsets: Iterable[tuple[int, int]]) -> None:
            taps.extend((-1 if plane is None else len(planes), dy, dx) for dy, dx in offsets)
            if plane is not None:
                planes.append(np.pad(plane, _EDGE, mode="edge"))

        parent = done.get((grid.component, grid.level + 1))
        if parent is None:
            add(None, ((0, 0), *PARENT))
        else:
            add(parent.repeat(2, 0)[: grid.height].repeat(2, 1)[:, : grid.width], ((0, 0),))
            add(raise_twofold(parent, grid.height, grid.width) >> 4, PARENT)
        if grid.component:
            add(done.get((0, grid.level)), LUMA)
            add(done.get((1, grid.level)) if grid.component == 2 else None, ((0, 0),))
        return _Features(planes, taps)

    @staticmethod
    def causal(q: np.ndarray) -> _Features:
        """The causal neighbours in a grid."""
        return _Features([np.pad(squash(q), _EDGE)], [(0, dy, dx) for dy, dx in CAUSAL])

    def rows(self, grid: Grid, top: int, out: np.ndarray) -> None:
        """The features of some rows from ``top`` on, to ``out`` (features, rows, w)."""
        for row, (plane, dy, dx) in zip(out, self.taps, strict=True):
            y, x = top + _EDGE + dy, _EDGE + dx
            row[:] = self.planes[plane][y : y + len(row), x : x + grid.width] if plane >= 0 else 0

    def at(self, grid: Grid, y: np.ndarray, x: np.ndarray, out: np.ndarray) -> None:
        """The features of some positions, to ``out`` (features, n)."""
        pitch = grid.width + 2 * _EDGE
        place = (y + _EDGE) * pitch + x + _EDGE
        for row, (plane, dy, dx) in zip(out, self.taps, strict=True):
            row[:] = self.planes[plane].reshape(-1)[place + (dy * pitch + dx)] if plane >= 0 else 0


@dataclass(frozen=True)
class Waves:
    """The wavefronts of a grid: wave t holds the positions with x + 2y = t, by rising y."""

    height: int
    width: int

    @cached_property
    def first(self) -> np.ndarray:
        """The least y of every wave."""
        t = np.arange(self.width + 2 * self.height - 2)
        first: np.ndarray = np.maximum(0, t - self.width + 2 >> 1)
        return first

    @cached_property
    def counts(self) -> np.ndarray:
        """The number of positions in every wave; it can be none."""
        last = np.minimum(self.height - 1, np.arange(len(self.first)) >> 1)
        counts: np.ndarray = np.maximum(0, last - self.first + 1)
        return counts

    def blocks(self, size: int) -> Iterator[range]:
        """Consecutive waves of about ``size`` positions together, or one that has more."""
        ends, start = np.cumsum(self.counts), 0
        while start < len(ends):
            before = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + size, "right")))
            yield range(start, stop)
            start = stop

    def positions(self, waves: range) -> tuple[np.ndarray, np.ndarray]:
        """y and x of all positions in some waves, wave after wave."""
        counts = self.counts[waves.start : waves.stop]
        t = np.repeat(np.arange(waves.start, waves.stop), counts)
        y = np.arange(len(t)) + np.repeat(self.first[waves.start : waves.stop] - np.cumsum(counts) + counts, counts)
        return y, t - 2 * y


def distributions(
    grid: Grid, q: np.ndarray, done: Mapping[tuple[int, int], np.ndarray], network: Network
) -> tuple[np.ndarray, np.ndarray]:
    """The encoder's side, all positions of a grid: means in eighths and tables, (h * w,) int16 in raster order."""
    layer, causal, known = network.first_layer(grid), _Features.causal(q), _Features.known(grid, done)
    mean, table = np.empty((2, grid.height, grid.width), np.int16)
    rows, nothing = max(1, _CHUNK // grid.width), np.eye(layer.shape[1])[-1]
    for top in range(0, grid.height, rows):
        inputs = np.ones((layer.shape[1], min(rows, grid.height - top), grid.width))
        causal.rows(grid, top, inputs[: len(CAUSAL)])
        known.rows(grid, top, inputs[len(CAUSAL) : -1])
        busy = inputs[:-1].any(0)
        found = network(layer @ np.column_stack([nothing, inputs[:, busy]]))
        for out, values in zip((mean[top : top + rows], table[top : top + rows]), found, strict=True):
            out[:] = values[0]  # most contexts hold nothing but zeros
            out[busy] = values[1:]
    return mean.reshape(-1), table.reshape(-1)


def cost(pyramid: Pyramid, q: Coefficients, nets: Mapping[str, Network]) -> float:
    """Bits of all grids, without the coder's constant end."""
    done: dict[tuple[int, int], np.ndarray] = {}
    bits = 0.0
    for grid in pyramid.grids:
        mean, table = distributions(grid, q[grid.key], done, nets[KINDS[grid.component > 0]])
        values = q[grid.key].reshape(-1)
        for start in range(0, grid.count, _MANY):
            here = slice(start, start + _MANY)
            bits += near_cost(values[here], mean[here], table[here])
        done[grid.key] = squash(q[grid.key])
    return bits


def encode_field(pyramid: Pyramid, q: Coefficients, nets: Mapping[str, Network], levels: range) -> bytes:
    """One stream with the grids of some levels, coarse to fine; the grids of coarser levels count as known."""
    encoder = Encoder()
    done: dict[tuple[int, int], np.ndarray] = {}
    for grid in pyramid.grids:
        if grid.level in levels:
            mean, table = distributions(grid, q[grid.key], done, nets[KINDS[grid.component > 0]])
            values, waves = q[grid.key].reshape(-1).astype(np.int64), Waves(grid.height, grid.width)
            for block in waves.blocks(_BLOCK):
                y, x = waves.positions(block)
                place, start = y * grid.width + x, 0
                counts = waves.counts[block.start : block.stop].tolist()
                if not escaped(values[place], mean[place]).any():  # what escapes follows at the end of its wave
                    counts = [len(place)]
                for count in counts:
                    here = place[start : start + count]
                    if count:
                        encoder.put_near(values[here], mean[here], table[here])
                    start += count
        done[grid.key] = squash(q[grid.key])
    return encoder.finish()


def decode_field(
    pyramid: Pyramid, data: bytes, nets: Mapping[str, Network], levels: range, known: Coefficients, whole: bool = True
) -> Coefficients:
    """The grids of some levels from their stream; ``known`` holds the grids of all coarser levels.

    Of a stream that is not ``whole``, what its beginning determines; everything else is 0.
    """
    decoder = Decoder(data) if whole else BrokenOffDecoder(data)
    done = {key: squash(grid) for key, grid in known.items()}
    out: Coefficients = {}
    ended = False
    for grid in pyramid.grids:
        if grid.level in levels:
            out[grid.key] = np.zeros((grid.height, grid.width), np.int32)
            if not ended:
                try:
                    _decode_grid(grid, out[grid.key], decoder, nets[KINDS[grid.component > 0]], done)
                except BrokenOff:
                    ended = True
                done[grid.key] = squash(out[grid.key])
    return out


def _decode_grid(
    grid: Grid, out: np.ndarray, decoder: Decoder, network: Network, done: Mapping[tuple[int, int], np.ndarray]
) -> None:
    """Fill one grid ``out``. Beyond it and the planes of its features, memory is that of a block of positions."""
    features, waves = _Features.known(grid, done), Waves(grid.height, grid.width)
    layer, causal = network.first_layer(grid), len(CAUSAL)
    # The last waves, squashed: wave t in row t % 8, y in column y + 2. All causal neighbours are at most 5 waves old.
    recent = np.zeros((8, grid.height + _EDGE))
    flat, pitch, column = recent.reshape(-1), grid.height + _EDGE, np.arange(grid.height)
    taps = [[[(t + dx + 2 * dy & 7) * pitch + dy + _EDGE] for dy, dx in CAUSAL] + column for t in range(8)]
    bounds = [(0, 0)] * 8
    for block in waves.blocks(_BLOCK):
        y, x = waves.positions(block)
        inputs = np.ones((layer.shape[1], len(y)))
        features.at(grid, y, x, inputs[causal:-1])
        values, start = np.empty(len(y), np.int32), 0
        firsts, counts = (each[block.start : block.stop].tolist() for each in (waves.first, waves.counts))
        try:
            for t, top, count in zip(block, firsts, counts, strict=True):
                if not count:
                    continue
                slot, end, here = t & 7, start + count, inputs[:, start : start + count]
                here[:causal] = flat.take(taps[slot][:, top : top + count])
                now = decoder.take_near(*network(layer @ here))
                values[start:end] = now
                before, after = bounds[slot]
                wave = recent[slot]
                wave[before:after] = 0
                bounds[slot] = before, after = top + _EDGE, top + _EDGE + count
                wave[before:after] = squash(now)
                start = end
        finally:
            out[y[:start], x[:start]] = values[:start]
