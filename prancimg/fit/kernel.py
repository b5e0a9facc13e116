"""The heavy parts of a fit's step on CPUs, forward and backward at once, compiled by Numba.

What :mod:`prancimg.fit.fused` computes in plain torch, several times as fast: a tile of a row goes through all
layers and back while it is in cache. All arrays are float32. Sums are taken in an order that does not depend on the
number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

TILE = 128
"""Positions of a row that go through a network at a time."""
ROWS = 8
"""Rows of a block of a grid; neighbouring blocks write to shared rows, so even ones go before odd ones."""
SPAN = 4096
"""Numbers of a vector in a block. (The last ones of a block, too few for a register, may be rounded otherwise.)"""
BAND = 16
"""Rows of a block of the picture, which also paints two rows more on either side."""

_compiled = njit(fastmath=True, error_model="numpy", cache=True, nogil=True)
# Threads for prange only: to make every operation on arrays parallel as well takes minutes to compile.
_OTHERS = ("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion")
_PRANGE: Any = {"prange": True, **dict.fromkeys(_OTHERS, False)}
_parallel = njit(parallel=_PRANGE, fastmath=True, error_model="numpy", cache=True, nogil=True)

# With fastmath, what is compiled in a process and what a later one loads from the cache can differ in the last bit.
_strict = njit(parallel=_PRANGE, error_model="numpy", cache=True, nogil=True)

# Numba takes plain constants for 64 bits wide, which would halve the lanes of a vector.
_f, _i = np.float32, np.int32
_0, _QUARTER, _HALF, _THREE_QUARTERS, _1, _2 = _f(0), _f(0.25), _f(0.5), _f(0.75), _f(1), _f(2)
_LN2, _LOG2E, _PI, _PER_PI = _f(np.log(2)), _f(1 / np.log(2)), _f(np.pi), _f(1 / np.pi)
_TINY, _LOWEST = _f(1e-12), _f(-126)
_BIAS, _SHIFT, _MANTISSA, _ROOT_HALF = _i(127), _i(23), _i(0x007FFFFF), _i(0x3F3504F3)
# Minimax polynomials: 2**x for |x| <= 1/2, ln((1 + s) / (1 - s)) for |s| < 0.172, sine and cosine for |x| <= π/2.
_E0, _E1, _E2, _E3, _E4, _E5 = map(_f, (1.00000007, 0.693146967, 0.240221197, 0.0555071328, 0.0096755415, 0.0013276472))
_L0, _L1, _L2, _L3 = map(_f, (2.0, 0.666668161, 0.399747803, 0.299260615))
_S1, _S2, _S3, _S4 = map(_f, (-0.166666567, 0.00833302516, -0.000198074200, 2.60190521e-6))
_C1, _C2, _C3, _C4 = map(_f, (-0.499999054, 0.0416635850, -0.00138537057, 2.31539571e-5))


@_compiled
def _exp2(x: np.float32) -> np.float32:
    x = max(x, _LOWEST)
    whole = np.floor(x + _HALF)
    f = x - whole
    power = _i((_i(whole) + _BIAS) << _SHIFT).view(np.float32)
    result: np.float32 = power * (_E0 + f * (_E1 + f * (_E2 + f * (_E3 + f * (_E4 + f * _E5)))))
    return result


@_compiled
def _log(x: np.float32) -> np.float32:
    bits = _i(_f(x).view(np.int32) - _ROOT_HALF)
    m = _i(_i(bits & _MANTISSA) + _ROOT_HALF).view(np.float32)  # from the root of 1/2 to that of 2
    s = (m - _1) / (m + _1)
    z = s * s
    return _f(_i(bits >> _SHIFT)) * _LN2 + s * (_L0 + z * (_L1 + z * (_L2 + z * _L3)))


@_compiled
def _sine_cosine(x: np.float32) -> tuple[np.float32, np.float32]:
    half_turns = np.floor(x * _PER_PI + _HALF)
    r = x - half_turns * _PI
    sign = _1 - _2 * (half_turns - _2 * np.floor(half_turns * _HALF))
    z = r * r
    sine = r * (_1 + z * (_S1 + z * (_S2 + z * (_S3 + z * _S4))))
    cosine = _1 + z * (_C1 + z * (_C2 + z * (_C3 + z * _C4)))
    return sign * sine, sign * cosine


@_compiled
def _copy(out: np.ndarray, x: np.ndarray, n: int) -> None:
    for t in range(n):
        out[t] = x[t]


@_compiled
def _add(out: np.ndarray, x: np.ndarray, n: int) -> None:
    for t in range(n):
        out[t] += x[t]


@_compiled
def _fill(out: np.ndarray, values: np.ndarray, n: int) -> None:
    """Every row of out to its value, over the first n columns."""
    for i in range(len(out)):
        for t in range(n):
            out[i, t] = values[i]


@_compiled
def _clear(out: np.ndarray, n: int) -> None:
    for i in range(len(out)):
        for t in range(n):
            out[i, t] = _0


@_compiled
def _add_product(out: np.ndarray, w: np.ndarray, x: np.ndarray, n: int) -> None:
    """Add w @ x to out, over the first n columns; both sides of w are multiples of 4."""
    rows, inner = w.shape
    for i in range(0, rows, 4):
        for j in range(0, inner, 4):
            a0, a1, a2, a3 = w[i, j], w[i, j + 1], w[i, j + 2], w[i, j + 3]
            b0, b1, b2, b3 = w[i + 1, j], w[i + 1, j + 1], w[i + 1, j + 2], w[i + 1, j + 3]
            c0, c1, c2, c3 = w[i + 2, j], w[i + 2, j + 1], w[i + 2, j + 2], w[i + 2, j + 3]
            d0, d1, d2, d3 = w[i + 3, j], w[i + 3, j + 1], w[i + 3, j + 2], w[i + 3, j + 3]
            for t in range(n):
                x0, x1, x2, x3 = x[j, t], x[j + 1, t], x[j + 2, t], x[j + 3, t]
                out[i, t] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                out[i + 1, t] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                out[i + 2, t] += c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
                out[i + 3, t] += d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3


@_compiled
def _add_outer(out: np.ndarray, g: np.ndarray, x: np.ndarray, n: int) -> None:
    """Add g @ x.T to out, over the first n columns; out has an even number of rows, a multiple of 4 of columns."""
    rows, inner = out.shape
    for i in range(0, rows, 2):
        for j in range(0, inner, 4):
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = _0
            for t in range(n):
                g0, g1 = g[i, t], g[i + 1, t]
                x0, x1, x2, x3 = x[j, t], x[j + 1, t], x[j + 2, t], x[j + 3, t]
                a0 += g0 * x0
                a1 += g0 * x1
                a2 += g0 * x2
                a3 += g0 * x3
                b0 += g1 * x0
                b1 += g1 * x1
                b2 += g1 * x2
                b3 += g1 * x3
            out[i, j] += a0
            out[i, j + 1] += a1
            out[i, j + 2] += a2
            out[i, j + 3] += a3
            out[i + 1, j] += b0
            out[i + 1, j + 1] += b1
            out[i + 1, j + 2] += b2
            out[i + 1, j + 3] += b3


@_compiled
def _add_sums(out: np.ndarray, x: np.ndarray, n: int) -> None:
    """Add the sum of every row of x to out, over the first n columns."""
    for i in range(len(out)):
        s = _0
        for t in range(n):
            s += x[i, t]
        out[i] += s


@_compiled
def _laplace(
    q: np.ndarray, out: np.ndarray, g_q: np.ndarray, low: np.float32, high: np.float32, unit: np.float32, n: int
) -> float:
    """:func:`prancimg.fit.fused.laplace` for a tile: the sum of ln P.

    The gradients of that sum times ``unit`` go to g_q and, by mean and scale, in place to out (2, n).
    """
    total = _0
    for t in range(n):
        raw = out[1, t]
        inverse = _exp2(-min(max(raw, low), high))
        d = q[t] - out[0, t]
        size = abs(d)
        inside = size - _HALF
        e = _exp2(-inverse * _LOG2E)
        e0 = _exp2(-abs(inside) * inverse * _LOG2E)
        e1 = e / e0  # exp(-(size + 1/2) * inverse), where that is read
        far = inside > _0
        p = max(_HALF * (_1 - e) if far else _1 - _HALF * (e0 + e1), _TINY)
        total += _log(p) - (inside * inverse if far else _0)
        by_q = -inverse if far else -_HALF * inverse * (e0 - e1) / p
        by_scale = _HALF * (e if far else (size + _HALF) * e1 - inside * e0) / p - (inside if far else _0)
        by_scale *= -inverse * _LN2
        blocked = (raw < low and by_scale < _0) or (raw > high and by_scale > _0)
        by_q = unit * (by_q if d > _0 else (-by_q if d < _0 else _0))
        g_q[t], out[0, t], out[1, t] = by_q, -by_q, _0 if blocked else unit * by_scale
    return float(total)


@_compiled
def _edges(plane: np.ndarray) -> None:
    """Repeat the edge of what lies two rows and columns inside a plane."""
    height, width = plane.shape
    for y in range(2, height - 2):
        plane[y, 0] = plane[y, 1] = plane[y, 2]
        plane[y, width - 2] = plane[y, width - 1] = plane[y, width - 3]
    for y in range(2):
        _copy(plane[y], plane[2], width)
        _copy(plane[height - 1 - y], plane[height - 3], width)


@_compiled
def _edges_back(plane: np.ndarray) -> None:
    """What was read beyond the edge belongs to the edge."""
    height, width = plane.shape
    for y in range(2):
        _add(plane[2], plane[y], width)
        _add(plane[height - 3], plane[height - 1 - y], width)
    for y in range(2, height - 2):
        plane[y, 2] += plane[y, 0] + plane[y, 1]
        plane[y, width - 3] += plane[y, width - 2] + plane[y, width - 1]


@_compiled
def _raise_row(near: np.ndarray, straight: np.ndarray, x: np.ndarray, y: int, width: int) -> None:
    """Row y of a grid x raised twofold, samples repeated and along straight lines."""
    h, w = x.shape
    mine, other = x[y // 2], x[min(y // 2 + 1, h - 1) if y % 2 else max(y // 2 - 1, 0)]
    before = _QUARTER * other[0] + _THREE_QUARTERS * mine[0]
    here = before
    for i in range(w):
        after = _QUARTER * other[min(i + 1, w - 1)] + _THREE_QUARTERS * mine[min(i + 1, w - 1)]
        near[2 * i] = mine[i]
        straight[2 * i] = _QUARTER * before + _THREE_QUARTERS * here
        if 2 * i + 1 < width:
            near[2 * i + 1] = mine[i]
            straight[2 * i + 1] = _THREE_QUARTERS * here + _QUARTER * after
        before, here = here, after


@_parallel
def gather(u: np.ndarray, parent: np.ndarray, others: tuple[np.ndarray, np.ndarray], number: int) -> np.ndarray:
    """The ``number`` planes (h + 4, w + 4) that the context of a grid u (h, w) is read from, two rows wider all around.

    The grid itself, zero outside; its parent raised twofold, once by repetition and once along straight lines; and
    others of its size, all with the edge repeated. Those that are empty become zero.
    """
    height, width = u.shape
    planes = np.empty((number, height + 4, width + 4), _f)
    for y in prange(height + 4):
        for x in range(width + 4):
            planes[0, y, x] = _0
        if 2 <= y < height + 2:
            _copy(planes[0, y, 2:], u[y - 2], width)
            if parent.size:
                _raise_row(planes[1, y, 2:], planes[2, y, 2:], parent, y - 2, width)
            for i in range(number - 3):
                if others[i].size:
                    _copy(planes[3 + i, y, 2:], others[i][y - 2], width)
    for i in range(1, number):
        if parent.size if i < 3 else others[i - 3].size:
            _edges(planes[i])
        else:
            planes[i] = _0
    return planes


@_parallel
def gather_back(planes: np.ndarray, u: np.ndarray, parent: np.ndarray, others: tuple[np.ndarray, np.ndarray]) -> None:
    """Add gradients by what :func:`gather` returns, which are lost, to those by what it takes."""
    height, width = u.shape
    for i in range(1, len(planes)):
        _edges_back(planes[i])
    for y in prange(height):
        _add(u[y], planes[0, y + 2, 2:], width)
        for i in range(len(planes) - 3):
            if others[i].size:
                _add(others[i][y], planes[3 + i, y + 2, 2:], width)
    h, w = parent.shape
    for i in prange(h):
        # One more column on either side, repeated: column x of the grid is x + 1 here.
        row, near = np.zeros(2 * w + 2, _f), np.zeros(2 * w, _f)
        for y in range(max(0, 2 * i - 1), min(height, 2 * i + 3)):
            inside = y // 2 == i
            end = (y == 0 and i == 0) or (y == 2 * h - 1 and i == h - 1)
            weight = _1 if end else (_THREE_QUARTERS if inside else _QUARTER)
            for x in range(width):
                row[1 + x] += weight * planes[2, y + 2, 2 + x]
            if inside:
                _add(near, planes[1, y + 2, 2:], width)
        row[0], row[2 * w + 1] = row[1], row[2 * w]
        for x in range(w):
            own = near[2 * x] + near[2 * x + 1] + _THREE_QUARTERS * (row[2 * x + 1] + row[2 * x + 2])
            parent[i, x] += own + _QUARTER * (row[2 * x] + row[2 * x + 3])


@_parallel
def any_near(planes: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Where anything but zero is read from ``planes`` (p, h + 4, w + 4) at ``taps``: (h, w) bool."""
    height, width = planes.shape[1] - 4, planes.shape[2] - 4
    found = np.zeros((height, width), np.bool_)
    for y in prange(height):
        for f in range(len(taps)):
            p, dy, dx = taps[f]
            for x in range(width):
                found[y, x] |= planes[p, y + dy, x + dx] != _0
    return found


@_compiled
def _apply(net: tuple[np.ndarray, ...], x: np.ndarray, work: tuple[np.ndarray, ...], n: int) -> None:
    """A context network (see :func:`grid_cost`) on a tile x (inputs, n): two layers, the sum of both, the output."""
    a, bias, b, b0, c, c0 = net
    h1, r, h2, out = work
    _fill(h1, bias, n)
    _add_product(h1, a, x, n)
    for i in range(len(h1)):
        for t in range(n):
            h1[i, t] = max(h1[i, t], _0)
    _fill(r, b0, n)
    _add_product(r, b, h1, n)
    _fill(out, c0, n)
    for i in range(len(r)):
        for t in range(n):
            r[i, t] = max(r[i, t], _0)
            h2[i, t] = h1[i, t] + r[i, t]
            out[0, t] += c[0, i] * h2[i, t]
            out[1, t] += c[1, i] * h2[i, t]


@_compiled
def _apply_back(
    net: tuple[np.ndarray, ...],
    b_t: np.ndarray,
    x: np.ndarray,
    work: tuple[np.ndarray, ...],
    g_net: tuple[np.ndarray, ...],
    g_work: tuple[np.ndarray, ...],
    n: int,
) -> None:
    """Gradients by the output, now in ``work``, to those by the network, added, and by the first layer, in g_work."""
    c = net[4]
    h1, r, h2, out = work
    g_a, g_bias, g_b, g_b0, g_c, g_c0 = g_net
    g_h, g_r = g_work
    _add_outer(g_c, out, h2, n)
    _add_sums(g_c0, out, n)
    for i in range(len(h1)):
        for t in range(n):
            g_h[i, t] = c[0, i] * out[0, t] + c[1, i] * out[1, t]
            g_r[i, t] = g_h[i, t] if r[i, t] > _0 else _0
    _add_outer(g_b, g_r, h1, n)
    _add_sums(g_b0, g_r, n)
    _add_product(g_h, b_t, g_r, n)
    for i in range(len(h1)):
        for t in range(n):
            g_h[i, t] = g_h[i, t] if h1[i, t] > _0 else _0
    _add_outer(g_a, g_h, x, n)
    _add_sums(g_bias, g_h, n)


@_compiled
def _room(hidden: int, n: int) -> tuple[np.ndarray, ...]:
    """What :func:`_apply` works in."""
    h1, r, h2 = np.empty((hidden, n), _f), np.empty((hidden, n), _f), np.empty((hidden, n), _f)
    return h1, r, h2, np.empty((2, n), _f)


@_compiled
def _where(busy: np.ndarray, wanted: bool, top: int, bottom: int, places: np.ndarray, spots: np.ndarray) -> int:
    """Where in some rows ``busy`` is as ``wanted``: the number, and indices into a grid and into a plane of it."""
    width, count = busy.shape[1], 0
    for y in range(top, bottom):
        for x in range(width):
            if busy[y, x] == wanted:
                places[count], spots[count] = y * width + x, y * (width + 4) + x
                count += 1
    return count


@_compiled
def _pick(out: np.ndarray, x: np.ndarray, first: int, places: np.ndarray, n: int) -> None:
    for t in range(n):
        out[t] = x[first + places[t]]


@_compiled
def _put(out: np.ndarray, first: int, places: np.ndarray, x: np.ndarray, n: int) -> None:
    for t in range(n):
        out[first + places[t]] = x[t]


@_compiled
def _put_on_top(out: np.ndarray, first: int, places: np.ndarray, x: np.ndarray, n: int) -> None:
    for t in range(n):
        out[first + places[t]] += x[t]


@_parallel
def grid_cost(
    back: bool,
    free: bool,
    unit: float,
    bounds: np.ndarray,
    taps: np.ndarray,
    busy: np.ndarray,
    q: np.ndarray,
    planes: np.ndarray,
    net: tuple[np.ndarray, ...],
    g_q: np.ndarray,
    g_planes: np.ndarray,
    g_net: tuple[np.ndarray, ...],
) -> float:
    """Σ ln P of a grid q (h, w); its gradients times ``unit`` are written to g_q and, if ``back``, added to g_net.

    ``planes`` (p, h + 4, w + 4) are read at ``taps`` (inputs, 3): plane, row and column, 0 to 4; if ``free``, the
    gradient by them is added to g_planes. Where a position is not ``busy`` (h, w), zeros are read instead, all at once,
    and the gradient is that at zeros. ``bounds`` hold the scale. The network is a (hidden, inputs), bias (hidden), b,
    b0, c, c0, where the sides of a and b are multiples of 4.
    """
    height, width = q.shape
    hidden, inputs = net[0].shape
    blocks = (height + ROWS - 1) // ROWS
    sums, quiet = np.zeros(blocks), np.zeros((blocks, 2), _f)
    g_a, g_bias = np.zeros((blocks, hidden, inputs), _f), np.zeros((blocks, hidden), _f)
    g_b, g_b0 = np.zeros((blocks, hidden, hidden), _f), np.zeros((blocks, hidden), _f)
    g_c, g_c0 = np.zeros((blocks, 2, hidden), _f), np.zeros((blocks, 2), _f)
    a_t, b_t = net[0].T.copy(), net[2].T.copy()
    low, high = bounds[0], bounds[1]
    scale = _f(unit)
    # At zeros: the output, and its derivatives by what is read.
    zeros, slopes, at_zero = np.zeros((inputs, 4), _f), np.zeros((inputs, 4), _f), _room(hidden, 4)
    _apply(net, zeros, at_zero, 2)
    still = at_zero[3][:, 0].copy()
    for i in range(2):
        for j in range(2):
            at_zero[3][i, j] = _1 if i == j else _0
    unused = (g_a[0].copy(), g_bias[0].copy(), g_b[0].copy(), g_b0[0].copy(), g_c[0].copy(), g_c0[0].copy())
    g_zero = np.zeros((hidden, 4), _f), np.zeros((hidden, 4), _f)
    _apply_back(net, b_t, zeros, at_zero, unused, g_zero, 2)
    _add_product(slopes, a_t, g_zero[0], 2)
    flat_q, flat_g_q, flat, flat_g = q.reshape(-1), g_q.reshape(-1), planes.reshape(-1), g_planes.reshape(-1)
    read = (taps[:, 0] * (height + 4) + taps[:, 1]) * (width + 4) + taps[:, 2]
    for parity in range(2):
        for half in prange((blocks + 1 - parity) // 2):
            block = 2 * half + parity
            top, bottom = block * ROWS, min(height, (block + 1) * ROWS)
            places, spots = np.empty(ROWS * width, np.int64), np.empty(ROWS * width, np.int64)
            own, g_own = np.empty(TILE, _f), np.empty(TILE, _f)
            work, g_work = _room(hidden, TILE), (np.empty((hidden, TILE), _f), np.empty((hidden, TILE), _f))
            out = work[3]
            # Quiet positions: one output, one slope.
            by_out = np.zeros((2, ROWS * width), _f)
            count = _where(busy, False, top, bottom, places, spots)
            for start in range(0, count, TILE):
                n, here = min(TILE, count - start), places[start:]
                _pick(own, flat_q, 0, here, n)
                _fill(out, still, n)
                sums[block] += _laplace(own, out, g_own, low, high, scale, n)
                _put(flat_g_q, 0, here, g_own, n)
                if back:
                    _add_sums(quiet[block], out, n)
                    for i in range(2):
                        _put(by_out[i], -top * width, here, out[i], n)
            if back and free and count:
                for y in range(top, bottom):
                    by_mean, by_scale = by_out[0, (y - top) * width :], by_out[1, (y - top) * width :]
                    for f in range(len(taps)):
                        row, mean, deviation = flat_g[read[f] + y * (width + 4) :], slopes[f, 0], slopes[f, 1]
                        for t in range(width):
                            row[t] += mean * by_mean[t] + deviation * by_scale[t]
            # Busy ones: all of it.
            x, g_x = np.zeros((inputs, TILE), _f), np.empty((inputs, TILE), _f)
            g_block = g_a[block], g_bias[block], g_b[block], g_b0[block], g_c[block], g_c0[block]
            count = _where(busy, True, top, bottom, places, spots)
            for start in range(0, count, TILE):
                n, here, there = min(TILE, count - start), places[start:], spots[start:]
                _pick(own, flat_q, 0, here, n)
                for f in range(len(taps)):
                    _pick(x[f], flat, read[f], there, n)
                _apply(net, x, work, n)
                sums[block] += _laplace(own, out, g_own, low, high, scale, n)
                _put(flat_g_q, 0, here, g_own, n)
                if back:
                    _apply_back(net, b_t, x, work, g_block, g_work, n)
                if back and free:
                    _clear(g_x, n)
                    _add_product(g_x, a_t, g_work[0], n)
                    for f in range(len(taps)):
                        _put_on_top(flat_g, read[f], there, g_x[f], n)
    # No reductions of Numba's: their order depends on the number of threads.
    _apply(net, zeros, at_zero, 1)
    total, out = 0.0, at_zero[3]
    out[0, 0] = out[1, 0] = _0
    for block in range(blocks):
        total += sums[block]
        out[0, 0] += quiet[block, 0]
        out[1, 0] += quiet[block, 1]
        g_net[0][:] += g_a[block]
        g_net[1][:] += g_bias[block]
        g_net[2][:] += g_b[block]
        g_net[3][:] += g_b0[block]
        g_net[4][:] += g_c[block]
        g_net[5][:] += g_c0[block]
    _apply_back(net, b_t, zeros, at_zero, g_net, g_zero, 1)
    return total


@_compiled
def _read(x: np.ndarray, planes: np.ndarray, y: int, start: int, n: int) -> None:
    """Columns from ``start`` of row y of planes (p, height, width) to x (p or more, n)."""
    for i in range(len(planes)):
        _copy(x[i], planes[i, y, start:], n)


@_compiled
def _write(x: np.ndarray, planes: np.ndarray, y: int, start: int, n: int) -> None:
    """The reverse of :func:`_read`."""
    for i in range(len(planes)):
        _copy(planes[i, y, start:], x[i], n)


@_compiled
def _read_around(x: np.ndarray, planes: np.ndarray, y: int, start: int, n: int) -> None:
    """What :func:`_read` reads at y - 1, y, y + 1 and start, start + 1, start + 2, to x (9 p or more, n)."""
    for i in range(len(planes)):
        for dy in range(3):
            for dx in range(3):
                _copy(x[9 * i + 3 * dy + dx], planes[i, y - 1 + dy, start + dx :], n)


@_compiled
def _sines(sine: np.ndarray, cosine: np.ndarray, w0: np.ndarray, b0: np.ndarray, x: np.ndarray, n: int) -> None:
    """sin(w0 x + b0) and its derivative, the cosine."""
    _fill(sine, b0, n)
    _add_product(sine, w0, x, n)
    for i in range(len(sine)):
        for t in range(n):
            sine[i, t], cosine[i, t] = _sine_cosine(sine[i, t])


@_parallel
def picture_error(
    field: np.ndarray,
    pixels: np.ndarray,
    dues: np.ndarray,
    w0: np.ndarray,
    b0: np.ndarray,
    w1: np.ndarray,
    b1: np.ndarray,
    residual: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """Half the sum of squared differences between ``pixels`` (3, h, w) and what a field (channels, h, w) shows.

    One at a pixel counts for ``dues`` (h, w). The network's tensors have their rows and columns filled up with zeros to
    multiples of 4. Returns the sums by block (blocks,), their gradient by the field, and those by w0, b0, w1, b1 and
    residual by block.
    """
    _, height, width = field.shape
    hidden, inputs = w0.shape
    blocks = (height + BAND - 1) // BAND
    sums, g_field = np.zeros(blocks), np.empty_like(field)
    g_w0, g_b0 = np.zeros((blocks, hidden, inputs), _f), np.zeros((blocks, hidden), _f)
    g_w1, g_b1 = np.zeros((blocks, 4, hidden), _f), np.zeros((blocks, 4), _f)
    g_residual = np.zeros((blocks, 4, 28), _f)
    w0_t, w1_t = w0.T.copy(), w1.T.copy()
    turned = np.zeros_like(residual)  # what a difference does to the colours around it
    for i in range(3):
        for j in range(3):
            turned[i, 9 * j : 9 * j + 9] = residual[j, 9 * i : 9 * i + 9][::-1]
    for block in prange(blocks):
        top, bottom = block * BAND, min(height, (block + 1) * BAND)
        # Row y of the picture is row y - top + 2 here, after one more column of colours, two of differences.
        rgb, g = np.zeros((3, BAND + 4, width + 2), _f), np.zeros((3, BAND + 4, width + 4), _f)
        g_rgb = np.zeros((3, 1, width + 2), _f)
        x, g_x = np.zeros((inputs, TILE), _f), np.empty((inputs, TILE), _f)
        sine, cosine, g_h = np.empty((hidden, TILE), _f), np.empty((hidden, TILE), _f), np.empty((hidden, TILE), _f)
        out, near = np.zeros((4, TILE), _f), np.zeros((28, TILE), _f)
        for y in range(max(0, top - 2), min(height, bottom + 2)):
            row = y - top + 2
            for start in range(0, width, TILE):
                n = min(TILE, width - start)
                _read(x, field, y, start, n)
                _sines(sine, cosine, w0, b0, x, n)
                _fill(out, b1, n)
                _add_product(out, w1, sine, n)
                _write(out, rgb, row, 1 + start, n)
            for i in range(3):
                rgb[i, row, 0], rgb[i, row, width + 1] = rgb[i, row, 1], rgb[i, row, width]
        for i in range(3):
            if top == 0:
                _copy(rgb[i, 1], rgb[i, 2], width + 2)
            if bottom + 1 >= height:
                _copy(rgb[i, height - top + 2], rgb[i, height - top + 1], width + 2)
        for y in range(max(0, top - 1), min(height, bottom + 1)):
            row = y - top + 2
            for start in range(0, width, TILE):
                n = min(TILE, width - start)
                _read(out, rgb, row, 1 + start, n)
                _read_around(near, rgb, row, start, n)
                _add_product(out, residual, near, n)
                energy = _0
                for i in range(3):
                    target, due = pixels[i, y, start:], dues[y, start:]
                    for t in range(n):
                        difference = out[i, t] - target[t]
                        out[i, t] = due[t] * difference
                        energy += out[i, t] * difference
                _write(out, g, row, 2 + start, n)
                if top <= y < bottom:
                    sums[block] += energy / _2
                    _add_outer(g_residual[block], out, near, n)
        for y in range(top, bottom):
            row = y - top + 2
            for i in range(3):
                g_rgb[i, 0, 0] = g_rgb[i, 0, width + 1] = _0
                _copy(g_rgb[i, 0, 1:], g[i, row, 2:], width)
            # What was read beyond the edge belongs to the edge.
            for beyond in range(row - (y == 0), row + 1 + (y == height - 1)):
                for start in range(0, width + 2, TILE):
                    n = min(TILE, width + 2 - start)
                    _read(out, g_rgb, 0, start, n)
                    _read_around(near, g, beyond, start, n)
                    _add_product(out, turned, near, n)
                    _write(out, g_rgb, 0, start, n)
            for i in range(3):
                g_rgb[i, 0, 1] += g_rgb[i, 0, 0]
                g_rgb[i, 0, width] += g_rgb[i, 0, width + 1]
            for start in range(0, width, TILE):
                n = min(TILE, width - start)
                _read(x, field, y, start, n)
                _sines(sine, cosine, w0, b0, x, n)
                _read(out, g_rgb, 0, 1 + start, n)
                _add_outer(g_w1[block], out, sine, n)
                _add_sums(g_b1[block], out, n)
                _clear(g_h, n)
                _add_product(g_h, w1_t, out, n)
                for i in range(hidden):
                    for t in range(n):
                        g_h[i, t] *= cosine[i, t]
                _add_outer(g_w0[block], g_h, x, n)
                _add_sums(g_b0[block], g_h, n)
                _clear(g_x, n)
                _add_product(g_x, w0_t, g_h, n)
                _write(g_x, g_field, y, start, n)
    return sums, g_field, g_w0, g_b0, g_w1, g_b1, g_residual


@_compiled
def _widen(wide: np.ndarray, n: int) -> None:
    """Repeat the ends of the n values from 2 on."""
    wide[0] = wide[1] = wide[2]
    wide[n + 2] = wide[n + 3] = wide[n + 1]


@_compiled
def _double(out: np.ndarray, wide: np.ndarray, taps: np.ndarray, n: int) -> None:
    """Twice as many values as the n that :func:`_widen` widened."""
    t0, t1, t2, t3 = taps
    for i in range(n):
        out[2 * i] = t0 * wide[i] + t1 * wide[i + 1] + t2 * wide[i + 2] + t3 * wide[i + 3]
        out[2 * i + 1] = t3 * wide[i + 1] + t2 * wide[i + 2] + t1 * wide[i + 3] + t0 * wide[i + 4]


@_parallel
def lift(field: np.ndarray, taps: np.ndarray, q: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Twice the field (channels, h, w), plus the grids q (k, height, width) along the directions gain (k, channels)."""
    channels, h, w = field.shape
    grids, height, width = q.shape
    out = np.empty((channels, height, width), _f)
    for block in prange((h + ROWS - 1) // ROWS):
        wide, row = np.empty(w + 4, _f), np.empty(2 * w, _f)
        for y in range(2 * block * ROWS, min(height, 2 * (block + 1) * ROWS)):
            first, odd = y // 2 - 2 + y % 2, y % 2 == 1
            for channel in range(channels):
                for t in range(w):
                    wide[2 + t] = _0
                for k in range(4):
                    tap, source = taps[3 - k if odd else k], field[channel, min(max(first + k, 0), h - 1)]
                    for t in range(w):
                        wide[2 + t] += tap * source[t]
                _widen(wide, w)
                _double(row, wide, taps, w)
                for k in range(grids):
                    for t in range(width):
                        row[t] += gain[k, channel] * q[k, y, t]
                _copy(out[channel, y], row, width)
    return out


@_parallel
def lift_back(
    field: np.ndarray, taps: np.ndarray, q: np.ndarray, gain: np.ndarray, g: np.ndarray
) -> tuple[np.ndarray, ...]:
    """From the gradient by what :func:`lift` returns: those by field and q, and by taps and gain by block."""
    channels, h, w = field.shape
    grids, height, width = q.shape
    blocks = (h + ROWS - 1) // ROWS
    g_field, g_q = np.empty_like(field), np.zeros_like(q)
    g_taps, g_gain = np.zeros((blocks, 4), _f), np.zeros((blocks, grids, channels), _f)
    t0, t1, t2, t3 = taps
    for block in prange(blocks):
        wide, g_wide, twice = np.empty(w + 4, _f), np.empty(w + 4, _f), np.empty(2 * w, _f)
        read, g_row = np.zeros((4, 2 * w), _f), np.empty(2 * w, _f)  # what tap k multiplied with the row, summed
        even, odd = np.zeros(w + 8, _f), np.zeros(w + 8, _f)
        for y in range(block * ROWS, min(h, (block + 1) * ROWS)):
            for channel in range(channels):
                _copy(wide[2:], field[channel, y], w)
                _widen(wide, w)
                _double(twice, wide, taps, w)
                _clear(read, width)
                for row in range(-2 if y == 0 else y, h + 2 if y == h - 1 else y + 1):  # repetitions of the edge, too
                    for k in range(4):
                        for target in (2 * (row + 2 - k), 2 * (row - 2 + k) + 1):
                            if 0 <= target < height:
                                _add(read[k], g[channel, target], width)
                for t in range(2 * w):
                    g_row[t] = t0 * read[0, t] + t1 * read[1, t] + t2 * read[2, t] + t3 * read[3, t]
                for k in range(4):
                    s = _0
                    for t in range(width):
                        s += read[k, t] * twice[t]
                    g_taps[block, k] += s
                for i in range(w):
                    even[4 + i], odd[4 + i] = g_row[2 * i], g_row[2 * i + 1]
                a0 = a1 = a2 = a3 = _0
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
                _copy(g_field[channel, y], g_wide[2:], w)
            for k in range(grids):
                for row in range(2 * y, min(2 * y + 2, height)):
                    for channel in range(channels):
                        s = _0
                        for t in range(width):
                            s += g[channel, row, t] * q[k, row, t]
                            g_q[k, row, t] += gain[k, channel] * g[channel, row, t]
                        g_gain[block, k, channel] += s
    return g_field, g_taps, g_q, g_gain


@_compiled
def _tanh(x: np.float32) -> np.float32:
    return _1 - _2 / (_exp2(_2 * _LOG2E * x) + _1)


@_strict
def soft_round(temperature: float, y: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """:func:`prancimg.fit.fused.soft_round` of a vector, and its derivative."""
    out, slope = np.empty_like(y), np.empty_like(y)
    sharpness = _f(1 / temperature)
    scale = _HALF / _tanh(_HALF * sharpness)
    for block in prange((len(y) + SPAN - 1) // SPAN):
        for i in range(block * SPAN, min(len(y), (block + 1) * SPAN)):
            middle = np.floor(y[i]) + _HALF
            first = _tanh((y[i] - middle) * sharpness)
            noisy = middle + scale * first + noise[i]
            middle = np.floor(noisy) + _HALF
            second = _tanh((noisy - middle) * sharpness)
            out[i] = middle + scale * second
            slope[i] = scale * sharpness * (_1 - first * first) * (scale * sharpness * (_1 - second * second))
    return out, slope


@_parallel
def squash(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """:func:`prancimg.fit.fused.squash` of a vector, and its derivative."""
    out, slope = np.empty_like(q), np.empty_like(q)
    for block in prange((len(q) + SPAN - 1) // SPAN):
        for i in range(block * SPAN, min(len(q), (block + 1) * SPAN)):
            size = abs(q[i])
            root = np.sqrt(size * size + _1)
            out[i] = np.copysign(_log(size + root), q[i])
            slope[i] = _1 / root
    return out, slope
