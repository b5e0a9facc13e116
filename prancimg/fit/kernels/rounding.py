"""Soft rounding and the squashing of coefficients, elementwise, with their derivatives."""

from __future__ import annotations

import numpy as np
from numba import prange

from prancimg.fit.kernels.arithmetic import HALF, ONE, f32, log, parallel, parallel_strict, tanh

BLOCK = 4096
"""Numbers of a vector in a block. (The last ones of a block, too few for a register, may be rounded otherwise.)"""


@parallel_strict
def soft_round(temperature: float, y: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """:func:`prancimg.fit.ops.rounding.soft_round` of a vector, and its derivative."""
    out, slope = np.empty_like(y), np.empty_like(y)
    sharpness = f32(1 / temperature)
    scale = HALF / tanh(HALF * sharpness)
    for block in prange((len(y) + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(len(y), (block + 1) * BLOCK)):
            middle = np.floor(y[i]) + HALF
            first = tanh((y[i] - middle) * sharpness)
            noisy = middle + scale * first + noise[i]
            middle = np.floor(noisy) + HALF
            second = tanh((noisy - middle) * sharpness)
            out[i] = middle + scale * second
            slope[i] = scale * sharpness * (ONE - first * first) * (scale * sharpness * (ONE - second * second))
    return out, slope


@parallel
def squash(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """:func:`prancimg.fit.ops.rounding.squash` of a vector, and its derivative."""
    out, slope = np.empty_like(q), np.empty_like(q)
    for block in prange((len(q) + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(len(q), (block + 1) * BLOCK)):
            size = abs(q[i])
            root = np.sqrt(size * size + ONE)
            out[i] = np.copysign(log(size + root), q[i])
            slope[i] = ONE / root
    return out, slope
