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

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from prancimg.format.layout import (
    COMPONENTS,
    KINDS,
    MAX_LEVELS,
    NEUTRAL_RATE,
    TRAPEZOID,
    Features,
    Grid,
    Plane,
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
from prancimg.network.field import Coefficients

SQUASH_LIMIT = 256

_CHUNK = 1 << 12
"""Positions that go through a network at a time, so that they stay in cache."""
_COST_CHUNK = 1 << 22
"""Positions whose cost is summed at a time, so that memory has a bound."""
_BLOCK = 1 << 15
"""Positions a decoder gathers the features of at a time."""
_WEIGHT_BITS, _SQUASH_BITS, _HIDDEN_BITS = 12, 6, 8
_WEIGHT_MAX = _HIDDEN_MAX = (1 << 15) - 1
_MEAN_MAX = 1 << 13
_SCALE_ZERO = 16
# 64 asinh(v) at v = 0, 1, 2, 4, ..., 256, rounded; straight lines (rounded down) in between.
_KNOTS = ((0, 0), (1, 56), (2, 92), (4, 134), (8, 178), (16, 222), (32, 266), (64, 311), (128, 355), (256, 399))
_SUM_KNOTS = ((0, 0), (1, 16), (2, 31), *((4 * v, s) for v, s in _KNOTS[1:]))


def _piecewise_linear(knots: tuple[tuple[int, int], ...]) -> np.ndarray:
    """The values at 0, 1, ... up to the last knot."""
    xs, ys = np.array(knots).T
    v = np.arange(xs[-1] + 1)
    i = np.minimum(np.searchsorted(xs, v, "right") - 1, len(xs) - 2)
    values: np.ndarray = ys[i] + (ys[i + 1] - ys[i]) * (v - xs[i]) // (xs[i + 1] - xs[i])
    return values


SQUASH = np.concatenate([-_piecewise_linear(_KNOTS)[:0:-1], _piecewise_linear(_KNOTS)]).astype(np.int16)
"""squash(-256) ... squash(256), in units of 2**-6, int16: 16 times their largest still fits."""
_MAGNITUDE = _piecewise_linear(_SUM_KNOTS).astype(np.int16)


def squash(q: np.ndarray) -> np.ndarray:
    """Compress integers to features, int16: odd, piecewise linear, like 64 asinh, flat beyond ±256."""
    features: np.ndarray = SQUASH.take(q + SQUASH_LIMIT, mode="clip")
    return features


def magnitude(total: np.ndarray) -> np.ndarray:
    """A sum of sizes to a feature, int16, like 64 asinh of a quarter of it, flat beyond 1024."""
    features: np.ndarray = _MAGNITUDE.take(total, mode="clip")
    return features


def sizes(q: np.ndarray) -> np.ndarray:
    """What coefficients add to a sum: their absolute values up to 256."""
    clipped: np.ndarray = np.minimum(np.abs(q), SQUASH_LIMIT)
    return clipped


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
        return np.concatenate([np.column_stack([self._a[:, _own_first(self.features)], bias]), one])

    def __call__(self, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First-layer sums (units + 1, n), which are lost, to means in eighths and tables, each (n,) int64."""
        h = _doubled_relu(first, self._cut_first)
        h += _doubled_relu(self._b @ h, self._cut_second)
        out = self._c @ h
        np.maximum(out, 0.0, out=out)
        np.minimum(out, _OUT_MAX, out=out)
        mean, table = out.astype(np.int64)  # the whole part
        mean -= _MEAN_MAX
        return mean, table


_OUT_MAX = np.array([[2 * _MEAN_MAX], [TABLES - 1]])


def _doubled_relu(x: np.ndarray, cut: bool) -> np.ndarray:
    """In place, twice the whole part of x where it is positive, else 0."""
    np.floor(x, out=x)
    x += np.abs(x)
    if cut:
        np.minimum(x, 2 * _HIDDEN_MAX, out=x)
    return x


def networks(theta: Mapping[str, np.ndarray], fraction: int, rate: int) -> dict[str, Network]:
    """Both networks."""
    return {kind: Network(kind, theta, fraction, rate) for kind in KINDS}


def upsample_bilinear(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear enlargement of integers (h, w), times 16; edges repeated, cut to (height, width)."""
    for axis in (0, 1):
        x = np.moveaxis(x, axis, 0)
        before, after = np.concatenate([x[:1], x[:-1]]), np.concatenate([x[1:], x[-1:]])
        x = np.stack([before + 3 * x, 3 * x + after], 1).reshape(-1, x.shape[1])
        x = np.moveaxis(x, 0, axis)
    return x[:height, :width]


def _upsampled(x: np.ndarray | None, height: int, width: int) -> np.ndarray | None:
    """Features enlarged, rounded down."""
    return None if x is None else upsample_bilinear(x, height, width) >> 4


def _box_sums(q: np.ndarray, reach: int = 2) -> np.ndarray:
    """Sums of sizes over the (2 reach + 1)**2 coefficients around every place, 0 outside."""
    height, width = q.shape
    wide = np.pad(sizes(q), reach)
    rows = np.sum([wide[dy : dy + height] for dy in range(2 * reach + 1)], 0)
    total: np.ndarray = np.sum([rows[:, dx : dx + width] for dx in range(2 * reach + 1)], 0)
    return total


def _known_plane(plane: Plane, grid: Grid, done: Coefficients) -> np.ndarray | None:
    """A plane (h, w) int16 of features made of another grid; None if there is no such grid."""
    (component, level), size = grid.key, (grid.height, grid.width)

    def squashed(key: tuple[int, int]) -> np.ndarray | None:
        return squash(done[key]) if key in done else None

    parent = component, level + 1
    match plane:
        case Plane.NEAREST:
            near = squashed(parent)
            return None if near is None else near.repeat(2, 0)[: size[0]].repeat(2, 1)[:, : size[1]]
        case Plane.PARENT:
            return _upsampled(squashed(parent), *size)
        case Plane.PARENT_SUM:
            return _upsampled(magnitude(_box_sums(done[parent])), *size) if parent in done else None
        case Plane.GRANDPARENT:
            between = _upsampled(squashed((component, level + 2)), -(-size[0] // 2), -(-size[1] // 2))
            return _upsampled(between, *size)
        case Plane.OTHER | Plane.OTHER_2:
            other = 2 if plane == Plane.OTHER_2 else (COMPONENTS - component if component else 1)
            values = _upsampled(squashed((other, level + 1)), *size)
            return None if values is None else np.abs(values)
        case Plane.LUMA:
            return squashed((0, level))
        case _:
            return squashed((1, level)) if component == 2 else None


_CAUSAL = Plane.OWN, Plane.OWN_SUM
"""What is known of the grid that is being coded."""
_EDGE = 4
"""How far features lie from their position, at most."""


@dataclass(frozen=True)
class _Features:
    """Where the features of a grid's positions are found: padded planes (h + 8, w + 8), and a plane and an offset each.

    Memory is what counts here: planes are of 16 bits a position.
    """

    planes: list[np.ndarray]
    taps: list[tuple[int, int, int]]
    """Plane (-1: the feature is 0), dy and dx of every feature."""

    @staticmethod
    def known(grid: Grid, done: Coefficients, features: Features) -> _Features:
        """The features from grids that came before, which ``done`` holds."""
        planes: list[np.ndarray] = []
        taps: list[tuple[int, int, int]] = []
        for which, offsets in features:
            if which not in _CAUSAL:
                plane = _known_plane(which, grid, done)
                taps.extend((-1 if plane is None else len(planes), dy, dx) for dy, dx in offsets)
                if plane is not None:
                    planes.append(np.pad(plane, _EDGE, mode="edge"))
        return _Features(planes, taps)

    @staticmethod
    def causal(q: np.ndarray, features: Features) -> _Features:
        """The features from what comes before in a grid."""
        planes: list[np.ndarray] = []
        taps: list[tuple[int, int, int]] = []
        for which, offsets in features:
            if which in _CAUSAL:
                taps.extend((len(planes), dy, dx) for dy, dx in offsets)
                planes.append(np.pad(squash(q) if which == Plane.OWN else magnitude(_causal_sums(q)), _EDGE))
        return _Features(planes, taps)

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


def _own_first(features: Features) -> np.ndarray:
    """The order in which those of the grid itself come first."""
    own = np.concatenate([[plane in _CAUSAL] * len(offsets) for plane, offsets in features])
    return np.argsort(~own, kind="stable")


def features(grid: Grid, q: np.ndarray, done: Coefficients, design: Features) -> np.ndarray:
    """What a network reads at all positions of a grid q: (features, h, w) int16; ``done`` holds the grids before it."""
    causal, known = _Features.causal(q, design), _Features.known(grid, done, design)
    out = np.empty((len(causal.taps) + len(known.taps), grid.height, grid.width), np.int16)
    causal.rows(grid, 0, out[: len(causal.taps)])
    known.rows(grid, 0, out[len(causal.taps) :])
    return out[np.argsort(_own_first(design))]


def _causal_sums(q: np.ndarray) -> np.ndarray:
    """Sums of sizes over the trapezoid before every position, 0 outside."""
    height, width = q.shape
    sums = np.pad(sizes(q), _EDGE)[: height + _EDGE].cumsum(1)
    sums = np.pad(sums, ((0, 0), (1, 0)))  # sums[y + 4, x + 5]: of the row y up to column x
    total = np.zeros_like(q)
    for dy, first, last in TRAPEZOID:
        row = sums[_EDGE + dy : _EDGE + dy + height]
        total += row[:, _EDGE + last + 1 :][:, :width] - row[:, _EDGE + first :][:, :width]
    return total


@dataclass(frozen=True)
class Wavefronts:
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


def distributions(grid: Grid, q: np.ndarray, done: Coefficients, network: Network) -> tuple[np.ndarray, np.ndarray]:
    """The encoder's side, all positions of a grid: means in eighths and tables, (h * w,) int16 in raster order.

    ``done`` holds the grids that were coded before.
    """
    layer, causal = network.first_layer(grid), _Features.causal(q, network.features)
    known = _Features.known(grid, done, network.features)
    mean, table = np.empty((2, grid.height, grid.width), np.int16)
    rows, nothing = max(1, _CHUNK // grid.width), np.eye(layer.shape[1])[-1]
    for top in range(0, grid.height, rows):
        inputs = np.ones((layer.shape[1], min(rows, grid.height - top), grid.width))
        causal.rows(grid, top, inputs[: len(causal.taps)])
        known.rows(grid, top, inputs[len(causal.taps) : -1])
        active = inputs[:-1].any(0)
        found = network(layer @ np.column_stack([nothing, inputs[:, active]]))
        for out, values in zip((mean[top : top + rows], table[top : top + rows]), found, strict=True):
            out[:] = values[0]  # most contexts hold nothing but zeros
            out[active] = values[1:]
    return mean.reshape(-1), table.reshape(-1)


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


_RING = 16
"""Wavefronts that are kept: causal features are at most 13 waves old."""


class _RecentWaves:
    """The last waves of a grid, in rings: wave t in row t % 16, y in column y + 4. What is outside the grid is 0."""

    def __init__(self, grid: Grid, features: Features) -> None:
        pitch, column = grid.height + _EDGE, np.arange(grid.height)
        neighbours = [offset for plane, offsets in features if plane == Plane.OWN for offset in offsets]
        self._summed = any(plane == Plane.OWN_SUM for plane, _ in features)
        self._values, self._sums = np.zeros((2, _RING, pitch))
        """Squashed, and the sums of sizes of a row up to a position."""
        self._bounds = [(0, 0)] * _RING

        def places(offsets: list[tuple[int, int]]) -> list[np.ndarray]:
            return [
                np.array([[(t + dx + 2 * dy) % _RING * pitch + dy + _EDGE] for dy, dx in offsets]) + column
                for t in range(_RING)
            ]

        self._near = places(neighbours)
        self._ends = places([(dy, last) for dy, _, last in TRAPEZOID] + [(dy, first - 1) for dy, first, _ in TRAPEZOID])

    def read(self, t: int, top: int, out: np.ndarray) -> None:
        """The causal features of the positions of wave t from row ``top`` on, to ``out`` (features, n)."""
        here = slice(top, top + out.shape[1])
        near = self._near[t % _RING]
        out[: len(near)] = self._values.reshape(-1).take(near[:, here])
        if self._summed:
            ends = self._sums.reshape(-1).take(self._ends[t % _RING][:, here])
            out[len(near)] = magnitude((_SIGNS @ ends).astype(np.int64))

    def add(self, t: int, top: int, q: np.ndarray) -> None:
        """The coefficients of wave t."""
        row, (before, after) = self._values[t % _RING], self._bounds[t % _RING]
        row[before:after] = 0
        self._bounds[t % _RING] = first, last = top + _EDGE, top + _EDGE + len(q)
        row[first:last] = squash(q)
        if self._summed:
            sums = self._sums[t % _RING]
            sums[:] = self._sums[(t - 1) % _RING]
            sums[first:last] += sizes(q)


_SIGNS = np.repeat([1.0, -1.0], len(TRAPEZOID))


def _decode_grid(grid: Grid, out: np.ndarray, decoder: Decoder, network: Network, done: Coefficients) -> None:
    """Fill one grid ``out``. Beyond it and the planes of its features, memory is that of a block of positions."""
    features, waves = _Features.known(grid, done, network.features), Wavefronts(grid.height, grid.width)
    layer, recent = network.first_layer(grid), _RecentWaves(grid, network.features)
    causal = layer.shape[1] - 1 - len(features.taps)
    for block in waves.blocks(_BLOCK):
        y, x = waves.positions(block)
        inputs = np.ones((layer.shape[1], len(y)))
        features.at(grid, y, x, inputs[causal:-1])
        values, start = np.empty(len(y), np.int32), 0
        firsts, counts = (each[block.start : block.stop].tolist() for each in (waves.first, waves.counts))
        try:
            for t, top, count in zip(block, firsts, counts, strict=True):
                end, here = start + count, inputs[:, start : start + count]
                if count:
                    recent.read(t, top, here[:causal])
                    values[start:end] = decoder.take_conditional(*network(layer @ here))
                recent.add(t, top, values[start:end])
                start = end
        finally:
            out[y[:start], x[:start]] = values[:start]
