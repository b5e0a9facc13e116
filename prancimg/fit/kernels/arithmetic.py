"""What the kernels share: how they are compiled, elementary functions, and products of a tile.

All arrays are float32. Sums are taken in an order that does not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

TILE = 128
"""Positions of a row that go through a network at a time."""
ROWS = 8
"""Rows of a block of a grid; neighbouring blocks write to shared rows, so even ones go before odd ones."""

compiled = njit(fastmath=True, error_model="numpy", cache=True, nogil=True)
# Threads for prange only: to make every operation on arrays parallel as well takes minutes to compile.
_NOT_PARALLEL = ("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion")
_PARALLEL: Any = {"prange": True, **dict.fromkeys(_NOT_PARALLEL, False)}
parallel = njit(parallel=_PARALLEL, fastmath=True, error_model="numpy", cache=True, nogil=True)

# With fastmath, what is compiled in a process and what a later one loads from the cache can differ in the last bit.
parallel_strict = njit(parallel=_PARALLEL, error_model="numpy", cache=True, nogil=True)

# Numba takes plain constants for 64 bits wide, which would halve the lanes of a vector.
f32, _i = np.float32, np.int32
ZERO, QUARTER, HALF, THREE_QUARTERS, ONE, TWO = f32(0), f32(0.25), f32(0.5), f32(0.75), f32(1), f32(2)
LN2, LOG2E, _PI, _PER_PI = f32(np.log(2)), f32(1 / np.log(2)), f32(np.pi), f32(1 / np.pi)
TINY, _LOWEST = f32(1e-12), f32(-126)
_BIAS, _SHIFT, _MANTISSA, _ROOT_HALF = _i(127), _i(23), _i(0x007FFFFF), _i(0x3F3504F3)
# Minimax polynomials: 2**x for |x| <= 1/2, ln((1 + s) / (1 - s)) for |s| < 0.172, sine and cosine for |x| <= π/2.
_E0, _E1, _E2, _E3, _E4, _E5 = map(
    f32, (1.00000007, 0.693146967, 0.240221197, 0.0555071328, 0.0096755415, 0.0013276472)
)
_L0, _L1, _L2, _L3 = map(f32, (2.0, 0.666668161, 0.399747803, 0.299260615))
_S1, _S2, _S3, _S4 = map(f32, (-0.166666567, 0.00833302516, -0.000198074200, 2.60190521e-6))
_C1, _C2, _C3, _C4 = map(f32, (-0.499999054, 0.0416635850, -0.00138537057, 2.31539571e-5))


@compiled
def exp2(x: np.float32) -> np.float32:
    """2**x, for x from -126 to 127; below that, 2**-126."""
    x = max(x, _LOWEST)
    whole = np.floor(x + HALF)
    f = x - whole
    power = _i((_i(whole) + _BIAS) << _SHIFT).view(np.float32)
    result: np.float32 = power * (_E0 + f * (_E1 + f * (_E2 + f * (_E3 + f * (_E4 + f * _E5)))))
    return result


@compiled
def log(x: np.float32) -> np.float32:
    """The natural logarithm of a positive number."""
    bits = _i(f32(x).view(np.int32) - _ROOT_HALF)
    m = _i(_i(bits & _MANTISSA) + _ROOT_HALF).view(np.float32)  # from the root of 1/2 to that of 2
    s = (m - ONE) / (m + ONE)
    z = s * s
    return f32(_i(bits >> _SHIFT)) * LN2 + s * (_L0 + z * (_L1 + z * (_L2 + z * _L3)))


@compiled
def tanh(x: np.float32) -> np.float32:
    """The hyperbolic tangent."""
    return ONE - TWO / (exp2(TWO * LOG2E * x) + ONE)


@compiled
def sine_cosine(x: np.float32) -> tuple[np.float32, np.float32]:
    """Both of an angle in radians."""
    half_turns = np.floor(x * _PER_PI + HALF)
    r = x - half_turns * _PI
    sign = ONE - TWO * (half_turns - TWO * np.floor(half_turns * HALF))
    z = r * r
    sine = r * (ONE + z * (_S1 + z * (_S2 + z * (_S3 + z * _S4))))
    cosine = ONE + z * (_C1 + z * (_C2 + z * (_C3 + z * _C4)))
    return sign * sine, sign * cosine


@compiled
def copy(out: np.ndarray, x: np.ndarray, n: int) -> None:
    """The first n values of x to out."""
    for t in range(n):
        out[t] = x[t]


@compiled
def add(out: np.ndarray, x: np.ndarray, n: int) -> None:
    """Add the first n values of x to out."""
    for t in range(n):
        out[t] += x[t]


@compiled
def fill_rows(out: np.ndarray, values: np.ndarray, n: int) -> None:
    """Every row of out to its value, over the first n columns."""
    for i in range(len(out)):
        for t in range(n):
            out[i, t] = values[i]


@compiled
def clear(out: np.ndarray, n: int) -> None:
    """Zeros in every row of out, over the first n columns."""
    for i in range(len(out)):
        for t in range(n):
            out[i, t] = ZERO


@compiled
def add_product(out: np.ndarray, w: np.ndarray, x: np.ndarray, n: int) -> None:
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


@compiled
def add_outer(out: np.ndarray, g: np.ndarray, x: np.ndarray, n: int) -> None:
    """Add g @ x.T to out, over the first n columns; out has an even number of rows, a multiple of 4 of columns."""
    rows, inner = out.shape
    for i in range(0, rows, 2):
        for j in range(0, inner, 4):
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = ZERO
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


@compiled
def add_row_sums(out: np.ndarray, x: np.ndarray, n: int) -> None:
    """Add the sum of every row of x to out, over the first n columns."""
    for i in range(len(out)):
        s = ZERO
        for t in range(n):
            s += x[i, t]
        out[i] += s
