"""What the context model reads: coefficients decoded before, as integer features. docs/format.md specifies them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prancimg.format.layout import COMPONENTS, TRAPEZOID, Features, Grid, Plane
from prancimg.network.field import Coefficients

SQUASH_LIMIT = 256
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
EDGE = 4
"""How far features lie from their position, at most."""


@dataclass(frozen=True)
class FeatureTaps:
    """Where the features of a grid's positions are found: padded planes (h + 8, w + 8), and a plane and an offset each.

    Memory is what counts here: planes are of 16 bits a position.
    """

    planes: list[np.ndarray]
    taps: list[tuple[int, int, int]]
    """Plane (-1: the feature is 0), dy and dx of every feature."""

    @staticmethod
    def known(grid: Grid, done: Coefficients, features: Features) -> FeatureTaps:
        """The features from grids that came before, which ``done`` holds."""
        planes: list[np.ndarray] = []
        taps: list[tuple[int, int, int]] = []
        for which, offsets in features:
            if which not in _CAUSAL:
                plane = _known_plane(which, grid, done)
                taps.extend((-1 if plane is None else len(planes), dy, dx) for dy, dx in offsets)
                if plane is not None:
                    planes.append(np.pad(plane, EDGE, mode="edge"))
        return FeatureTaps(planes, taps)

    @staticmethod
    def causal(q: np.ndarray, features: Features) -> FeatureTaps:
        """The features from what comes before in a grid."""
        planes: list[np.ndarray] = []
        taps: list[tuple[int, int, int]] = []
        for which, offsets in features:
            if which in _CAUSAL:
                taps.extend((len(planes), dy, dx) for dy, dx in offsets)
                planes.append(np.pad(squash(q) if which == Plane.OWN else magnitude(_causal_sums(q)), EDGE))
        return FeatureTaps(planes, taps)

    def rows(self, grid: Grid, top: int, out: np.ndarray) -> None:
        """The features of some rows from ``top`` on, to ``out`` (features, rows, w)."""
        for row, (plane, dy, dx) in zip(out, self.taps, strict=True):
            y, x = top + EDGE + dy, EDGE + dx
            row[:] = self.planes[plane][y : y + len(row), x : x + grid.width] if plane >= 0 else 0

    def at(self, grid: Grid, y: np.ndarray, x: np.ndarray, out: np.ndarray) -> None:
        """The features of some positions, to ``out`` (features, n)."""
        pitch = grid.width + 2 * EDGE
        place = (y + EDGE) * pitch + x + EDGE
        for row, (plane, dy, dx) in zip(out, self.taps, strict=True):
            row[:] = self.planes[plane].reshape(-1)[place + (dy * pitch + dx)] if plane >= 0 else 0


def own_first(features: Features) -> np.ndarray:
    """The order in which those of the grid itself come first."""
    own = np.concatenate([[plane in _CAUSAL] * len(offsets) for plane, offsets in features])
    return np.argsort(~own, kind="stable")


def features(grid: Grid, q: np.ndarray, done: Coefficients, design: Features) -> np.ndarray:
    """What a network reads at all positions of a grid q: (features, h, w) int16; ``done`` holds the grids before it."""
    causal, known = FeatureTaps.causal(q, design), FeatureTaps.known(grid, done, design)
    out = np.empty((len(causal.taps) + len(known.taps), grid.height, grid.width), np.int16)
    causal.rows(grid, 0, out[: len(causal.taps)])
    known.rows(grid, 0, out[len(causal.taps) :])
    return out[np.argsort(own_first(design))]


def _causal_sums(q: np.ndarray) -> np.ndarray:
    """Sums of sizes over the trapezoid before every position, 0 outside."""
    height, width = q.shape
    sums = np.pad(sizes(q), EDGE)[: height + EDGE].cumsum(1)
    sums = np.pad(sums, ((0, 0), (1, 0)))  # sums[y + 4, x + 5]: of the row y up to column x
    total = np.zeros_like(q)
    for dy, first, last in TRAPEZOID:
        row = sums[EDGE + dy : EDGE + dy + height]
        total += row[:, EDGE + last + 1 :][:, :width] - row[:, EDGE + first :][:, :width]
    return total
