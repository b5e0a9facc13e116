"""The order of decoding: wavefronts t = x + 2y, whose positions do not depend on each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from prancimg.format.layout import TRAPEZOID, Features, Grid, Plane
from prancimg.network.context_features import EDGE, magnitude, sizes, squash


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


_RING = 16
"""Wavefronts that are kept: causal features are at most 13 waves old."""


class RecentWaves:
    """The last waves of a grid, in rings: wave t in row t % 16, y in column y + 4. What is outside the grid is 0."""

    def __init__(self, grid: Grid, features: Features) -> None:
        pitch, column = grid.height + EDGE, np.arange(grid.height)
        neighbours = [offset for plane, offsets in features if plane == Plane.OWN for offset in offsets]
        self.summed = any(plane == Plane.OWN_SUM for plane, _ in features)
        self._values, self._sums = np.zeros((2, _RING, pitch))
        """Squashed, and the sums of sizes of a row up to a position."""
        self._bounds = [(0, 0)] * _RING

        def places(offsets: list[tuple[int, int]]) -> list[np.ndarray]:
            return [
                np.array([[(t + dx + 2 * dy) % _RING * pitch + dy + EDGE] for dy, dx in offsets]) + column
                for t in range(_RING)
            ]

        self._near = places(neighbours)
        self._ends = places([(dy, last) for dy, _, last in TRAPEZOID] + [(dy, first - 1) for dy, first, _ in TRAPEZOID])

    def read(self, t: int, top: int, out: np.ndarray) -> None:
        """The causal features of the positions of wave t from row ``top`` on, to ``out`` (features, n)."""
        here = slice(top, top + out.shape[1])
        near = self._near[t % _RING]
        out[: len(near)] = self._values.reshape(-1).take(near[:, here])
        if self.summed:
            ends = self._sums.reshape(-1).take(self._ends[t % _RING][:, here])
            out[len(near)] = magnitude((_SIGNS @ ends).astype(np.int64))

    def add(self, t: int, top: int, q: np.ndarray) -> None:
        """The coefficients of wave t."""
        row, (before, after) = self._values[t % _RING], self._bounds[t % _RING]
        row[before:after] = 0
        self._bounds[t % _RING] = first, last = top + EDGE, top + EDGE + len(q)
        row[first:last] = squash(q)
        if self.summed:
            sums = self._sums[t % _RING]
            sums[:] = self._sums[(t - 1) % _RING]
            sums[first:last] += sizes(q)


_SIGNS = np.repeat([1.0, -1.0], len(TRAPEZOID))
