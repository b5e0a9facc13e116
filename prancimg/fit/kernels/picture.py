"""The picture term: SIREN, filter and weighted squared error of a field, forward and backward at once."""

from __future__ import annotations

import numpy as np
from numba import prange

from prancimg.fit.kernels.arithmetic import (
    TILE,
    TWO,
    ZERO,
    add_outer,
    add_product,
    add_row_sums,
    clear,
    compiled,
    copy,
    f32,
    fill_rows,
    parallel,
    sine_cosine,
)

BAND = 16
"""Rows of a block of the picture, which also renders two rows more on either side."""


@compiled
def _read(x: np.ndarray, planes: np.ndarray, y: int, start: int, n: int) -> None:
    """Columns from ``start`` of row y of planes (p, height, width) to x (p or more, n)."""
    for i in range(len(planes)):
        copy(x[i], planes[i, y, start:], n)


@compiled
def _write(x: np.ndarray, planes: np.ndarray, y: int, start: int, n: int) -> None:
    """The reverse of :func:`_read`."""
    for i in range(len(planes)):
        copy(planes[i, y, start:], x[i], n)


@compiled
def _read_around(x: np.ndarray, planes: np.ndarray, y: int, start: int, n: int) -> None:
    """What :func:`_read` reads at y - 1, y, y + 1 and start, start + 1, start + 2, to x (9 p or more, n)."""
    for i in range(len(planes)):
        for dy in range(3):
            for dx in range(3):
                copy(x[9 * i + 3 * dy + dx], planes[i, y - 1 + dy, start + dx :], n)


@compiled
def _sines(sine: np.ndarray, cosine: np.ndarray, w0: np.ndarray, b0: np.ndarray, x: np.ndarray, n: int) -> None:
    """sin(w0 x + b0) and its derivative, the cosine."""
    fill_rows(sine, b0, n)
    add_product(sine, w0, x, n)
    for i in range(len(sine)):
        for t in range(n):
            sine[i, t], cosine[i, t] = sine_cosine(sine[i, t])


@parallel
def picture_error(
    field: np.ndarray,
    pixels: np.ndarray,
    error_weights: np.ndarray,
    w0: np.ndarray,
    b0: np.ndarray,
    w1: np.ndarray,
    b1: np.ndarray,
    residual: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """Half the sum of squared differences between ``pixels`` (3, h, w) and what a field (channels, h, w) shows.

    One at a pixel counts for ``error_weights`` (h, w). The network's tensors have their rows and columns filled up
    with zeros to multiples of 4. Returns the sums by block (blocks,), their gradient by the field, and those by w0,
    b0, w1, b1 and residual by block.
    """
    _, height, width = field.shape
    hidden, inputs = w0.shape
    blocks = (height + BAND - 1) // BAND
    sums, g_field = np.zeros(blocks), np.empty_like(field)
    g_w0, g_b0 = np.zeros((blocks, hidden, inputs), f32), np.zeros((blocks, hidden), f32)
    g_w1, g_b1 = np.zeros((blocks, 4, hidden), f32), np.zeros((blocks, 4), f32)
    g_residual = np.zeros((blocks, 4, 28), f32)
    w0_t, w1_t = w0.T.copy(), w1.T.copy()
    turned = np.zeros_like(residual)  # what a difference does to the colours around it
    for i in range(3):
        for j in range(3):
            turned[i, 9 * j : 9 * j + 9] = residual[j, 9 * i : 9 * i + 9][::-1]
    for block in prange(blocks):
        top, bottom = block * BAND, min(height, (block + 1) * BAND)
        # Row y of the picture is row y - top + 2 here, after one more column of colours, two of differences.
        rgb, g = np.zeros((3, BAND + 4, width + 2), f32), np.zeros((3, BAND + 4, width + 4), f32)
        g_rgb = np.zeros((3, 1, width + 2), f32)
        x, g_x = np.zeros((inputs, TILE), f32), np.empty((inputs, TILE), f32)
        sine, cosine, g_h = np.empty((hidden, TILE), f32), np.empty((hidden, TILE), f32), np.empty((hidden, TILE), f32)
        out, near = np.zeros((4, TILE), f32), np.zeros((28, TILE), f32)
        for y in range(max(0, top - 2), min(height, bottom + 2)):
            row = y - top + 2
            for start in range(0, width, TILE):
                n = min(TILE, width - start)
                _read(x, field, y, start, n)
                _sines(sine, cosine, w0, b0, x, n)
                fill_rows(out, b1, n)
                add_product(out, w1, sine, n)
                _write(out, rgb, row, 1 + start, n)
            for i in range(3):
                rgb[i, row, 0], rgb[i, row, width + 1] = rgb[i, row, 1], rgb[i, row, width]
        for i in range(3):
            if top == 0:
                copy(rgb[i, 1], rgb[i, 2], width + 2)
            if bottom + 1 >= height:
                copy(rgb[i, height - top + 2], rgb[i, height - top + 1], width + 2)
        for y in range(max(0, top - 1), min(height, bottom + 1)):
            row = y - top + 2
            for start in range(0, width, TILE):
                n = min(TILE, width - start)
                _read(out, rgb, row, 1 + start, n)
                _read_around(near, rgb, row, start, n)
                add_product(out, residual, near, n)
                energy = ZERO
                for i in range(3):
                    target, weight = pixels[i, y, start:], error_weights[y, start:]
                    for t in range(n):
                        difference = out[i, t] - target[t]
                        out[i, t] = weight[t] * difference
                        energy += out[i, t] * difference
                _write(out, g, row, 2 + start, n)
                if top <= y < bottom:
                    sums[block] += energy / TWO
                    add_outer(g_residual[block], out, near, n)
        for y in range(top, bottom):
            row = y - top + 2
            for i in range(3):
                g_rgb[i, 0, 0] = g_rgb[i, 0, width + 1] = ZERO
                copy(g_rgb[i, 0, 1:], g[i, row, 2:], width)
            # What was read beyond the edge belongs to the edge.
            for beyond in range(row - (y == 0), row + 1 + (y == height - 1)):
                for start in range(0, width + 2, TILE):
                    n = min(TILE, width + 2 - start)
                    _read(out, g_rgb, 0, start, n)
                    _read_around(near, g, beyond, start, n)
                    add_product(out, turned, near, n)
                    _write(out, g_rgb, 0, start, n)
            for i in range(3):
                g_rgb[i, 0, 1] += g_rgb[i, 0, 0]
                g_rgb[i, 0, width] += g_rgb[i, 0, width + 1]
            for start in range(0, width, TILE):
                n = min(TILE, width - start)
                _read(x, field, y, start, n)
                _sines(sine, cosine, w0, b0, x, n)
                _read(out, g_rgb, 0, 1 + start, n)
                add_outer(g_w1[block], out, sine, n)
                add_row_sums(g_b1[block], out, n)
                clear(g_h, n)
                add_product(g_h, w1_t, out, n)
                for i in range(hidden):
                    for t in range(n):
                        g_h[i, t] *= cosine[i, t]
                add_outer(g_w0[block], g_h, x, n)
                add_row_sums(g_b0[block], g_h, n)
                clear(g_x, n)
                add_product(g_x, w0_t, g_h, n)
                _write(g_x, g_field, y, start, n)
    return sums, g_field, g_w0, g_b0, g_w1, g_b1, g_residual
