"""A field raised to twice its resolution, with the grids of a level added; and the gradients of that."""

from __future__ import annotations

import numpy as np
from numba import prange

from prancimg.fit.kernels.arithmetic import ROWS, ZERO, add, clear, compiled, copy, f32, parallel


@compiled
def _replicate_ends(wide: np.ndarray, n: int) -> None:
    """Repeat the ends of the n values from 2 on."""
    wide[0] = wide[1] = wide[2]
    wide[n + 2] = wide[n + 3] = wide[n + 1]


@compiled
def _upsample_line(out: np.ndarray, wide: np.ndarray, taps: np.ndarray, n: int) -> None:
    """Twice as many values as the n that :func:`_replicate_ends` widened."""
    t0, t1, t2, t3 = taps
    for i in range(n):
        out[2 * i] = t0 * wide[i] + t1 * wide[i + 1] + t2 * wide[i + 2] + t3 * wide[i + 3]
        out[2 * i + 1] = t3 * wide[i + 1] + t2 * wide[i + 2] + t1 * wide[i + 3] + t0 * wide[i + 4]


@parallel
def upsample_add(field: np.ndarray, taps: np.ndarray, q: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Twice the field (channels, h, w), plus the grids q (k, height, width) along the directions gain (k, channels)."""
    channels, h, w = field.shape
    grids, height, width = q.shape
    out = np.empty((channels, height, width), f32)
    for block in prange((h + ROWS - 1) // ROWS):
        wide, row = np.empty(w + 4, f32), np.empty(2 * w, f32)
        for y in range(2 * block * ROWS, min(height, 2 * (block + 1) * ROWS)):
            first, odd = y // 2 - 2 + y % 2, y % 2 == 1
            for channel in range(channels):
                for t in range(w):
                    wide[2 + t] = ZERO
                for k in range(4):
                    tap, source = taps[3 - k if odd else k], field[channel, min(max(first + k, 0), h - 1)]
                    for t in range(w):
                        wide[2 + t] += tap * source[t]
                _replicate_ends(wide, w)
                _upsample_line(row, wide, taps, w)
                for k in range(grids):
                    for t in range(width):
                        row[t] += gain[k, channel] * q[k, y, t]
                copy(out[channel, y], row, width)
    return out


@parallel
def upsample_add_back(
    field: np.ndarray, taps: np.ndarray, q: np.ndarray, gain: np.ndarray, g: np.ndarray
) -> tuple[np.ndarray, ...]:
    """From the gradient by what :func:`upsample_add` returns: those by field and q, and by taps and gain by block."""
    channels, h, w = field.shape
    grids, height, width = q.shape
    blocks = (h + ROWS - 1) // ROWS
    g_field, g_q = np.empty_like(field), np.zeros_like(q)
    g_taps, g_gain = np.zeros((blocks, 4), f32), np.zeros((blocks, grids, channels), f32)
    t0, t1, t2, t3 = taps
    for block in prange(blocks):
        wide, g_wide, twice = np.empty(w + 4, f32), np.empty(w + 4, f32), np.empty(2 * w, f32)
        read, g_row = np.zeros((4, 2 * w), f32), np.empty(2 * w, f32)  # what tap k multiplied with the row, summed
        even, odd = np.zeros(w + 8, f32), np.zeros(w + 8, f32)
        for y in range(block * ROWS, min(h, (block + 1) * ROWS)):
            for channel in range(channels):
                copy(wide[2:], field[channel, y], w)
                _replicate_ends(wide, w)
                _upsample_line(twice, wide, taps, w)
                clear(read, width)
                for row in range(-2 if y == 0 else y, h + 2 if y == h - 1 else y + 1):  # repetitions of the edge, too
                    for k in range(4):
                        for target in (2 * (row + 2 - k), 2 * (row - 2 + k) + 1):
                            if 0 <= target < height:
                                add(read[k], g[channel, target], width)
                for t in range(2 * w):
                    g_row[t] = t0 * read[0, t] + t1 * read[1, t] + t2 * read[2, t] + t3 * read[3, t]
                for k in range(4):
                    s = ZERO
                    for t in range(width):
                        s += read[k, t] * twice[t]
                    g_taps[block, k] += s
                for i in range(w):
                    even[4 + i], odd[4 + i] = g_row[2 * i], g_row[2 * i + 1]
                a0 = a1 = a2 = a3 = ZERO
                for i in range(w + 4):
                    r0, r1 = even[i + 4] + odd[i], even[i + 3] + odd[i + 1]
                    r2, r3 = even[i + 2] + odd[i + 2], even[i + 1] + odd[i + 3]
                    g_wide[i] = t0 * r0 + t1 * r1 + t2 * r2 + t3 * r3
                    a0 += r0 * wide[i]
                    a1 += r1 * wide[i]
                    a2 += r2 * wide[i]
                    a3 += r3 * wide[i]
                g_taps[block, 0] += a0
                g_taps[block, 1] += a1
                g_taps[block, 2] += a2
                g_taps[block, 3] += a3
                g_wide[2] += g_wide[0] + g_wide[1]
                g_wide[w + 1] += g_wide[w + 2] + g_wide[w + 3]
                copy(g_field[channel, y], g_wide[2:], w)
            for k in range(grids):
                for row in range(2 * y, min(2 * y + 2, height)):
                    for channel in range(channels):
                        s = ZERO
                        for t in range(width):
                            s += g[channel, row, t] * q[k, row, t]
                            g_q[k, row, t] += gain[k, channel] * g[channel, row, t]
                        g_gain[block, k, channel] += s
    return g_field, g_taps, g_q, g_gain
