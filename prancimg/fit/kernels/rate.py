"""The rate term of a grid, forward and backward at once: context network, Laplace probabilities.

A tile of a row goes through all layers and back while it is in cache.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from prancimg.fit.kernels.arithmetic import (
    HALF,
    LN2,
    LOG2E,
    ONE,
    ROWS,
    TILE,
    TINY,
    ZERO,
    add_row_sums,
    clear,
    compiled,
    copy,
    exp2,
    f32,
    fill_rows,
    log,
    parallel,
)
from prancimg.fit.kernels.contexts import EDGE
from prancimg.fit.kernels.products import add_product, add_transposed_product
from prancimg.fit.kernels.rounding import BLOCK


@compiled
def _laplace(
    q: np.ndarray, out: np.ndarray, g_q: np.ndarray, low: np.float32, high: np.float32, unit: np.float32, n: int
) -> float:
    """:func:`prancimg.fit.ops.rate.laplace` for a tile: the sum of ln P.

    The gradients of that sum times ``unit`` go to g_q and, by mean and scale, in place to out (2, n).
    """
    total = ZERO
    for t in range(n):
        raw = out[1, t]
        inverse = exp2(-min(max(raw, low), high))
        d = q[t] - out[0, t]
        size = abs(d)
        inside = size - HALF
        e = exp2(-inverse * LOG2E)
        e0 = exp2(-abs(inside) * inverse * LOG2E)
        e1 = e / e0  # exp(-(size + 1/2) * inverse), where that is read
        far = inside > ZERO
        p = max(HALF * (ONE - e) if far else ONE - HALF * (e0 + e1), TINY)
        total += log(p) - (inside * inverse if far else ZERO)
        by_q = -inverse if far else -HALF * inverse * (e0 - e1) / p
        by_scale = HALF * (e if far else (size + HALF) * e1 - inside * e0) / p - (inside if far else ZERO)
        by_scale *= -inverse * LN2
        blocked = (raw < low and by_scale < ZERO) or (raw > high and by_scale > ZERO)
        by_q = unit * (by_q if d > ZERO else (-by_q if d < ZERO else ZERO))
        g_q[t], out[0, t], out[1, t] = by_q, -by_q, ZERO if blocked else unit * by_scale
    return float(total)


@compiled
def _forward(net: tuple[np.ndarray, ...], x: np.ndarray, work: tuple[np.ndarray, ...], n: int) -> None:
    """A context network on a tile of n positions x (TILE, inputs): two layers, the sum of both, the output.

    :func:`grid_log_probability` says what a network is; here a and b are transposed.
    """
    a_t, bias, b_t, b0, c, c0 = net
    h1, r, h2, out = work
    for t in range(n):
        copy(h1[t], bias, len(bias))
        copy(r[t], b0, len(b0))
    add_product(h1, x, a_t, n)
    for t in range(n):
        for i in range(len(bias)):
            h1[t, i] = max(h1[t, i], ZERO)
    add_product(r, h1, b_t, n)
    for t in range(n):
        mean = scale = ZERO
        for i in range(len(b0)):
            r[t, i] = max(r[t, i], ZERO)
            h2[t, i] = h1[t, i] + r[t, i]
            mean += c[0, i] * h2[t, i]
            scale += c[1, i] * h2[t, i]
        out[0, t], out[1, t] = c0[0] + mean, c0[1] + scale


@compiled
def _backward(
    c: np.ndarray,
    b: np.ndarray,
    x: np.ndarray,
    work: tuple[np.ndarray, ...],
    g_net: tuple[np.ndarray, ...],
    g_work: tuple[np.ndarray, ...],
    learn: bool,
    n: int,
) -> None:
    """Gradients by the output, now in ``work``, to those by the network, added, and by the first layer, in g_work.

    Those by the large matrices are left out if the network does not ``learn``.
    """
    h1, r, h2, out = work
    g_a, g_bias, g_b, g_b0, g_c, g_c0 = g_net
    g_h, g_r = g_work
    add_row_sums(g_c0, out, n)
    for t in range(n):
        mean, scale = out[0, t], out[1, t]
        for i in range(len(g_b0)):
            g_c[0, i] += mean * h2[t, i]
            g_c[1, i] += scale * h2[t, i]
            g_h[t, i] = c[0, i] * mean + c[1, i] * scale
            g_r[t, i] = g_h[t, i] if r[t, i] > ZERO else ZERO
            g_b0[i] += g_r[t, i]
    if learn:
        add_transposed_product(g_b, g_r, h1, n)
    add_product(g_h, g_r, b, n)
    for t in range(n):
        for i in range(len(g_bias)):
            g_h[t, i] = g_h[t, i] if h1[t, i] > ZERO else ZERO
            g_bias[i] += g_h[t, i]
    if learn:
        add_transposed_product(g_a, g_h, x, n)


@compiled
def _buffers(hidden: int, n: int) -> tuple[np.ndarray, ...]:
    """What :func:`_forward` works in."""
    return np.zeros((n, hidden), f32), np.zeros((n, hidden), f32), np.zeros((n, hidden), f32), np.zeros((2, n), f32)


@compiled
def _positions(active: np.ndarray, wanted: bool, top: int, bottom: int, places: np.ndarray, spots: np.ndarray) -> int:
    """Where in some rows ``active`` is as ``wanted``: the number, and indices into a grid and into a plane of it."""
    width, count = active.shape[1], 0
    for y in range(top, bottom):
        for x in range(width):
            if active[y, x] == wanted:
                places[count], spots[count] = y * width + x, y * (width + 2 * EDGE) + x
                count += 1
    return count


@compiled
def _offsets(taps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Where planes (p, height, width), end to end, are read at a tap's plane, row and column."""
    offsets: np.ndarray = (taps[:, 0] * height + taps[:, 1]) * width + taps[:, 2]
    return offsets


@compiled
def _add_multiple(out: np.ndarray, x: np.ndarray, factor: np.float32) -> None:
    for i in range(len(out)):
        for j in range(out.shape[1]):
            out[i, j] += factor * x[i, j]


@compiled
def _take(out: np.ndarray, x: np.ndarray, first: int, places: np.ndarray, n: int) -> None:
    for t in range(n):
        out[t] = x[first + places[t]]


@compiled
def _scatter(out: np.ndarray, first: int, places: np.ndarray, x: np.ndarray, n: int) -> None:
    for t in range(n):
        out[first + places[t]] = x[t]


@parallel
def held_log_probability(unit: float, bounds: np.ndarray, q: np.ndarray, outputs: np.ndarray, g_q: np.ndarray) -> float:
    """Σ ln P of coefficients q (n) under means and scales ``outputs`` (2, n), held within ``bounds``.

    Its gradient times ``unit`` is written to g_q.
    """
    blocks = (len(q) + BLOCK - 1) // BLOCK
    sums = np.zeros(blocks)
    for block in prange(blocks):
        here = slice(block * BLOCK, min(len(q), (block + 1) * BLOCK))
        out = outputs[:, here].copy()
        sums[block] = _laplace(q[here], out, g_q[here], bounds[0], bounds[1], f32(unit), out.shape[1])
    total = 0.0
    for block in range(blocks):
        total += sums[block]
    return total


@parallel
def grid_log_probability(
    back: bool,
    free: bool,
    every: int,
    turn: int,
    unit: float,
    bounds: np.ndarray,
    taps: np.ndarray,
    active: np.ndarray,
    q: np.ndarray,
    planes: np.ndarray,
    net: tuple[np.ndarray, ...],
    g_q: np.ndarray,
    g_planes: np.ndarray,
    g_net: tuple[np.ndarray, ...],
    outputs: np.ndarray,
) -> float:
    """Σ ln P of a grid q (h, w); its gradients times ``unit`` are written to g_q and, if ``back``, added to g_net.

    The gradients by a and b are left out if ``every`` is 0, and taken of one of so many blocks of rows, in ``turn``,
    if it is more than 1.

    The network's output, mean and scale of every position, is written to outputs (2, h * w).

    ``planes`` (p, h + 6, w + 6) are read at ``taps`` (inputs, 3): plane, row and column, 0 to 6; if ``free``, the
    gradient by them is added to g_planes. Where a position is not ``active`` (h, w), zeros are read instead, all at
    once, and the gradient is that at zeros. ``bounds`` hold the scale. The network is a (hidden, inputs), bias
    (hidden), b, b0, c, c0, where the sides of a and b are multiples of 8.
    """
    height, width = q.shape
    hidden, inputs = net[0].shape
    blocks = (height + ROWS - 1) // ROWS
    part = every if blocks >= 4 * every else 1
    sums, inactive = np.zeros(blocks), np.zeros((blocks, 2), f32)
    g_a, g_bias = np.zeros((blocks, hidden, inputs), f32), np.zeros((blocks, hidden), f32)
    g_b, g_b0 = np.zeros((blocks, hidden, hidden), f32), np.zeros((blocks, hidden), f32)
    g_c, g_c0 = np.zeros((blocks, 2, hidden), f32), np.zeros((blocks, 2), f32)
    a, bias, b, b0, c, c0 = net
    forward = a.T.copy(), bias, b.T.copy(), b0, c, c0
    low, high = bounds[0], bounds[1]
    scale = f32(unit)
    # At zeros: the output, and its derivatives by what is read.
    zeros, slopes, at_zero = np.zeros((4, inputs), f32), np.zeros((4, inputs), f32), _buffers(hidden, 4)
    _forward(forward, zeros, at_zero, 2)
    output_at_zero = at_zero[3][:, 0].copy()
    for i in range(2):
        for j in range(2):
            at_zero[3][i, j] = ONE if i == j else ZERO
    unused = (g_a[0].copy(), g_bias[0].copy(), g_b[0].copy(), g_b0[0].copy(), g_c[0].copy(), g_c0[0].copy())
    g_zero = np.zeros((4, hidden), f32), np.zeros((4, hidden), f32)
    _backward(c, b, zeros, at_zero, unused, g_zero, False, 2)
    add_product(slopes, g_zero[0], a, 2)
    flat_q, flat_g_q, flat, flat_g = q.reshape(-1), g_q.reshape(-1), planes.reshape(-1), g_planes.reshape(-1)
    read = _offsets(taps, height + 2 * EDGE, width + 2 * EDGE)
    for parity in range(2):
        for half in prange((blocks + 1 - parity) // 2):
            block = 2 * half + parity
            top, bottom = block * ROWS, min(height, (block + 1) * ROWS)
            learn = every > 0 and (block + turn) % max(part, 1) == 0
            places, spots = np.empty(ROWS * width, np.int64), np.empty(ROWS * width, np.int64)
            own, g_own = np.empty(TILE, f32), np.empty(TILE, f32)
            work, g_work = _buffers(hidden, TILE), (np.zeros((TILE, hidden), f32), np.zeros((TILE, hidden), f32))
            out = work[3]
            # Inactive positions: one output, one slope.
            by_out = np.zeros((2, ROWS * width), f32)
            count = _positions(active, False, top, bottom, places, spots)
            for start in range(0, count, TILE):
                n, here = min(TILE, count - start), places[start:]
                _take(own, flat_q, 0, here, n)
                fill_rows(out, output_at_zero, n)
                for i in range(2):
                    _scatter(outputs[i], 0, here, out[i], n)
                sums[block] += _laplace(own, out, g_own, low, high, scale, n)
                _scatter(flat_g_q, 0, here, g_own, n)
                if back:
                    add_row_sums(inactive[block], out, n)
                    for i in range(2):
                        _scatter(by_out[i], -top * width, here, out[i], n)
            if back and free and count:
                for y in range(top, bottom):
                    by_mean, by_scale = by_out[0, (y - top) * width :], by_out[1, (y - top) * width :]
                    for f in range(len(taps)):
                        row, mean, deviation = flat_g[read[f] + y * (width + 2 * EDGE) :], slopes[0, f], slopes[1, f]
                        for t in range(width):
                            row[t] += mean * by_mean[t] + deviation * by_scale[t]
            # Active ones: all of it.
            x, g_x = np.zeros((TILE, inputs), f32), np.zeros((TILE, inputs), f32)
            g_block = g_a[block], g_bias[block], g_b[block], g_b0[block], g_c[block], g_c0[block]
            count = _positions(active, True, top, bottom, places, spots)
            for start in range(0, count, TILE):
                n, here, there = min(TILE, count - start), places[start:], spots[start:]
                _take(own, flat_q, 0, here, n)
                for t in range(n):
                    for f in range(len(read)):
                        x[t, f] = flat[read[f] + there[t]]
                _forward(forward, x, work, n)
                for i in range(2):
                    _scatter(outputs[i], 0, here, out[i], n)
                sums[block] += _laplace(own, out, g_own, low, high, scale, n)
                _scatter(flat_g_q, 0, here, g_own, n)
                if back:
                    _backward(c, b, x, work, g_block, g_work, learn, n)
                if back and free:
                    clear(g_x, inputs)
                    add_product(g_x, g_work[0], a, n)
                    for t in range(n):
                        for f in range(len(read)):
                            flat_g[read[f] + there[t]] += g_x[t, f]
    # No reductions of Numba's: their order depends on the number of threads.
    _forward(forward, zeros, at_zero, 1)
    total, out = 0.0, at_zero[3]
    out[0, 0] = out[1, 0] = ZERO
    for block in range(blocks):
        total += sums[block]
        out[0, 0] += inactive[block, 0]
        out[1, 0] += inactive[block, 1]
        _add_multiple(g_net[0], g_a[block], f32(part))
        g_net[1][:] += g_bias[block]
        _add_multiple(g_net[2], g_b[block], f32(part))
        g_net[3][:] += g_b0[block]
        g_net[4][:] += g_c[block]
        g_net[5][:] += g_c0[block]
    _backward(c, b, zeros, at_zero, g_net, g_zero, every > 0, 1)
    return total
