"""The rate term of a fit on CPUs: one grid through the context network, forward and backward, compiled by Numba.

What :func:`prancimg.fused.grid_bits` computes, three times as fast: a tile of a row goes through all layers and back
while it is in the first-level cache. Sums are taken in an order that does not depend on the number of threads.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

TILE = 192
"""Positions of a row that go through the network at a time."""
ROWS = 8
"""Rows of a block; neighbouring blocks write to shared rows, so even ones go before odd ones."""

_compiled = njit(fastmath=True, cache=True, nogil=True)


@_compiled
def _add_product(out: np.ndarray, w: np.ndarray, x: np.ndarray, n: int) -> None:
    """Add w @ x to out, over the first n columns."""
    rows, inner = w.shape
    four = inner - inner % 4
    for i in range(0, rows - rows % 2, 2):
        for j in range(0, four, 4):
            a0, a1, a2, a3 = w[i, j], w[i, j + 1], w[i, j + 2], w[i, j + 3]
            b0, b1, b2, b3 = w[i + 1, j], w[i + 1, j + 1], w[i + 1, j + 2], w[i + 1, j + 3]
            for t in range(n):
                x0, x1, x2, x3 = x[j, t], x[j + 1, t], x[j + 2, t], x[j + 3, t]
                out[i, t] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                out[i + 1, t] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
        for j in range(four, inner):
            a0, b0 = w[i, j], w[i + 1, j]
            for t in range(n):
                out[i, t] += a0 * x[j, t]
                out[i + 1, t] += b0 * x[j, t]
    for i in range(rows - rows % 2, rows):
        for j in range(inner):
            a0 = w[i, j]
            for t in range(n):
                out[i, t] += a0 * x[j, t]


@_compiled
def _add_outer(out: np.ndarray, g: np.ndarray, x: np.ndarray, n: int) -> None:
    """Add g @ x.T to out, over the first n columns."""
    rows, inner = out.shape
    for i in range(rows):
        for j in range(inner):
            s = out.dtype.type(0)
            for t in range(n):
                s += g[i, t] * x[j, t]
            out[i, j] += s


@_compiled
def _laplace(
    q: np.ndarray, out: np.ndarray, g_out: np.ndarray, g_q: np.ndarray, low: float, high: float, n: int
) -> float:
    """:func:`prancimg.fused.laplace` for a tile: the sum of ln P, and its gradients in place."""
    total = 0.0
    for t in range(n):
        scale = min(max(out[1, t], low), high)
        inverse = math.exp(-scale * math.log(2.0))
        d = q[t] - out[0, t]
        size = abs(d)
        inside = size - 0.5
        e1, e = math.exp(-(size + 0.5) * inverse), math.exp(-inverse)
        if inside > 0:
            outer = max(1 - e, 1e-12)
            total += math.log(0.5 * outer) - inside * inverse
            by_q = -inverse
            by_scale = e / outer - inside
        else:
            e0 = math.exp(inside * inverse)
            inner = max(1 - 0.5 * (e0 + e1), 1e-12)
            total += math.log(inner)
            by_q = -0.5 * inverse * (e0 - e1) / inner
            by_scale = 0.5 * ((size + 0.5) * e1 - inside * e0) / inner
        by_scale *= -inverse * math.log(2.0)
        if (out[1, t] < low and by_scale < 0) or (out[1, t] > high and by_scale > 0):
            by_scale = 0.0
        by_q = by_q if d > 0 else -by_q if d < 0 else 0.0
        g_q[t], g_out[0, t], g_out[1, t] = by_q, -by_q, by_scale
    return total


@njit(fastmath=True, cache=True, nogil=True, parallel=True)
def grid_cost(
    q: np.ndarray,
    planes: np.ndarray,
    taps: np.ndarray,
    bounds: tuple[float, float],
    a: np.ndarray,
    bias: np.ndarray,
    b: np.ndarray,
    b0: np.ndarray,
    c: np.ndarray,
    c0: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Σ ln P of a grid q (h, w) and the gradients of that sum.

    ``planes`` (p, h + 4, w + 4) are read at ``taps`` (inputs, 3): plane (-1: zeros), row and column, 0 to 4. ``bounds``
    hold the scale. Returns the sums by block (blocks,), the gradients by q and by planes, and those by a, bias, b, b0,
    c, c0, flat, by block (blocks, size).
    """
    height, width = q.shape
    inputs, hidden, kind = len(taps), len(bias), q.dtype
    blocks = (height + ROWS - 1) // ROWS
    sums = np.zeros(blocks)
    g_q, g_planes = np.empty_like(q), np.zeros_like(planes)
    size = hidden * (inputs + hidden + 4) + 2
    g_net = np.zeros((blocks, size), kind)
    a_t, b_t, c_t = a.T.copy(), b.T.copy(), c.T.copy()
    for parity in range(2):
        for half in prange((blocks + 1 - parity) // 2):
            block = 2 * half + parity
            x, g_x = np.zeros((inputs, TILE), kind), np.empty((inputs, TILE), kind)
            h1, r, h2 = np.empty((hidden, TILE), kind), np.empty((hidden, TILE), kind), np.empty((hidden, TILE), kind)
            g_h, g_r = np.empty((hidden, TILE), kind), np.empty((hidden, TILE), kind)
            out, g_out = np.empty((2, TILE), kind), np.empty((2, TILE), kind)
            net = g_net[block]
            at = hidden * inputs
            g_a = net[:at].reshape(hidden, inputs)
            g_bias = net[at : at + hidden]
            g_b = net[at + hidden : at + hidden + hidden * hidden].reshape(hidden, hidden)
            at += hidden + hidden * hidden
            g_b0, g_c, g_c0 = net[at : at + hidden], net[at + hidden : at + 3 * hidden].reshape(2, hidden), net[-2:]
            for y in range(block * ROWS, min(height, (block + 1) * ROWS)):
                for start in range(0, width, TILE):
                    n = min(TILE, width - start)
                    for f in range(inputs):
                        p, dy, dx = taps[f]
                        if p >= 0:
                            for t in range(n):
                                x[f, t] = planes[p, y + dy, start + dx + t]
                    for i in range(hidden):
                        for t in range(n):
                            h1[i, t] = bias[i]
                            r[i, t] = b0[i]
                    _add_product(h1, a, x, n)
                    for i in range(hidden):
                        for t in range(n):
                            h1[i, t] = max(h1[i, t], 0)
                    _add_product(r, b, h1, n)
                    for i in range(hidden):
                        for t in range(n):
                            r[i, t] = max(r[i, t], 0)
                            h2[i, t] = h1[i, t] + r[i, t]
                    for t in range(n):
                        out[0, t], out[1, t] = c0[0], c0[1]
                    _add_product(out, c, h2, n)
                    sums[block] += _laplace(
                        q[y, start : start + n], out, g_out, g_q[y, start : start + n], bounds[0], bounds[1], n
                    )
                    _add_outer(g_c, g_out, h2, n)
                    g_h[:, :n] = 0
                    _add_product(g_h, c_t, g_out, n)
                    for i in range(hidden):
                        for t in range(n):
                            g_r[i, t] = g_h[i, t] if r[i, t] > 0 else 0
                    _add_outer(g_b, g_r, h1, n)
                    _add_product(g_h, b_t, g_r, n)
                    for i in range(hidden):
                        s0 = s1 = kind.type(0)
                        for t in range(n):
                            g_h[i, t] = g_h[i, t] if h1[i, t] > 0 else 0
                            s0 += g_h[i, t]
                            s1 += g_r[i, t]
                        g_bias[i] += s0
                        g_b0[i] += s1
                    for t in range(n):
                        g_c0[0] += g_out[0, t]
                        g_c0[1] += g_out[1, t]
                    _add_outer(g_a, g_h, x, n)
                    g_x[:, :n] = 0
                    _add_product(g_x, a_t, g_h, n)
                    for f in range(inputs):
                        p, dy, dx = taps[f]
                        if p >= 0:
                            for t in range(n):
                                g_planes[p, y + dy, start + dx + t] += g_x[f, t]
    return sums, g_q, g_planes, g_net
