"""The planes that contexts are read from, and back: grids upsampled, summed, and with their edges repeated."""

from __future__ import annotations

import numpy as np
from numba import prange

from prancimg.fit.kernels.arithmetic import (
    ONE,
    QUARTER,
    THREE_QUARTERS,
    ZERO,
    add,
    compiled,
    copy,
    f32,
    log,
    parallel,
)

EDGE = 3
"""Rows and columns that planes have beyond their grid on every side."""


@compiled
def _upsample_row(near: np.ndarray, straight: np.ndarray, x: np.ndarray, y: int, width: int) -> None:
    """Row y of a grid x raised twofold, samples repeated and along straight lines."""
    h, w = x.shape
    mine, other = x[y // 2], x[min(y // 2 + 1, h - 1) if y % 2 else max(y // 2 - 1, 0)]
    before = QUARTER * other[0] + THREE_QUARTERS * mine[0]
    here = before
    for i in range(w):
        after = QUARTER * other[min(i + 1, w - 1)] + THREE_QUARTERS * mine[min(i + 1, w - 1)]
        near[2 * i] = mine[i]
        straight[2 * i] = QUARTER * before + THREE_QUARTERS * here
        if 2 * i + 1 < width:
            near[2 * i + 1] = mine[i]
            straight[2 * i + 1] = THREE_QUARTERS * here + QUARTER * after
        before, here = here, after


@parallel
def upsampled(x: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A grid raised twofold, (height, width): samples repeated, and along straight lines."""
    near, straight = np.empty((height, width), f32), np.empty((height, width), f32)
    for y in prange(height):
        _upsample_row(near[y], straight[y], x, y, width)
    return near, straight


@parallel
def upsampled_back(near: np.ndarray, straight: np.ndarray, x: np.ndarray) -> None:
    """Add gradients by what :func:`upsampled` returns to that by what it takes."""
    height, width = near.shape
    h, w = x.shape
    for i in prange(h):
        # One more column on either side, repeated: column x of the grid is x + 1 here.
        row, repeated = np.zeros(2 * w + 2, f32), np.zeros(2 * w, f32)
        for y in range(max(0, 2 * i - 1), min(height, 2 * i + 3)):
            inside = y // 2 == i
            end = (y == 0 and i == 0) or (y == 2 * h - 1 and i == h - 1)
            weight = ONE if end else (THREE_QUARTERS if inside else QUARTER)
            for t in range(width):
                row[1 + t] += weight * straight[y, t]
            if inside:
                add(repeated, near[y], width)
        row[0], row[2 * w + 1] = row[1], row[2 * w]
        for t in range(w):
            own = repeated[2 * t] + repeated[2 * t + 1] + THREE_QUARTERS * (row[2 * t + 1] + row[2 * t + 2])
            x[i, t] += own + QUARTER * (row[2 * t] + row[2 * t + 3])


@parallel
def magnitudes(q: np.ndarray, spans: np.ndarray, limit: np.float32) -> np.ndarray:
    """asinh(Σ / 4) of sizes up to a limit over the coefficients around every place of a grid.

    ``spans`` (n, 3): rows, and first and last columns, relative to the place.
    """
    height, width = q.shape
    reach = np.abs(spans).max()
    out = np.empty((height, width), f32)
    for y in prange(height):
        total, sums = np.zeros(width), np.zeros(width + 2 * reach + 1)
        for i in range(len(spans)):
            row, first, last = y + spans[i, 0], spans[i, 1], spans[i, 2]
            if 0 <= row < height:
                s = 0.0
                for x in range(width + reach):  # sums[x + reach + 1]: up to column x
                    if x < width:
                        s += min(abs(q[row, x]), limit)
                    sums[x + reach + 1] = s
                for x in range(width):
                    total[x] += sums[x + last + reach + 1] - sums[x + first + reach]
        for x in range(width):
            quarter = QUARTER * f32(total[x])
            out[y, x] = log(quarter + np.sqrt(quarter * quarter + ONE)) if quarter > ZERO else ZERO
    return out


@parallel
def put_plane(plane: np.ndarray, x: np.ndarray, repeated: bool) -> None:
    """A grid x (h, w) to the middle of a plane (h + 6, w + 6); around it its edge ``repeated``, or zeros."""
    height, width = x.shape
    for y in prange(height):
        row = plane[y + EDGE]
        copy(row[EDGE:], x[y], width)
        for i in range(EDGE):
            row[i], row[width + EDGE + i] = (x[y, 0], x[y, width - 1]) if repeated else (ZERO, ZERO)
    for i in range(EDGE):
        for row, end in ((plane[i], plane[EDGE]), (plane[height + EDGE + i], plane[height + EDGE - 1])):
            for t in range(width + 2 * EDGE):
                row[t] = end[t] if repeated else ZERO


@parallel
def put_plane_back(plane: np.ndarray, x: np.ndarray, repeated: bool) -> None:
    """Add the gradient by a plane, which is lost, to that by the grid in it."""
    height, width = x.shape
    if repeated:  # what was read beyond the edge belongs to the edge
        for i in range(EDGE):
            add(plane[EDGE], plane[i], width + 2 * EDGE)
            add(plane[height + EDGE - 1], plane[height + 2 * EDGE - 1 - i], width + 2 * EDGE)
        for y in range(EDGE, height + EDGE):
            row = plane[y]
            row[EDGE] += row[0] + row[1] + row[2]
            row[width + EDGE - 1] += row[width + EDGE] + row[width + EDGE + 1] + row[width + EDGE + 2]
    for y in prange(height):
        add(x[y], plane[y + EDGE, EDGE:], width)


@parallel
def active_positions(planes: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Where anything but zero is read from ``planes`` (p, h + 6, w + 6) at ``taps``: (h, w) bool."""
    height, width = planes.shape[1] - 2 * EDGE, planes.shape[2] - 2 * EDGE
    found = np.zeros((height, width), np.bool_)
    for y in prange(height):
        for f in range(len(taps)):
            p, dy, dx = taps[f]
            for x in range(width):
                found[y, x] |= planes[p, y + dy, x + dx] != ZERO
    return found
