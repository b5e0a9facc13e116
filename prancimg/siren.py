"""The network that paints the picture: a SIREN from pixel coordinates to RGB, and its seeded start θ0.

Sitzmann et al., "Implicit neural representations with periodic activation functions" (NeurIPS 2020). The usual
factor ω0 = 30 is part of the weights here: a hidden layer is sin(W h + b). Rendering is written once, for NumPy
(decoding) and torch (fitting).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from prancimg.arrays import Array, namespace
from prancimg.philox import philox4x32

FRACTION = 20
"""Parameters are integers in units of 2**-20."""
_INITIAL = 0x1000
"""Last Philox counter word of θ0; basis kinds use the small numbers."""
_OMEGA = 30
_TILE = 1 << 14
"""Pixels rendered at a time, so that activations stay in cache."""


@dataclass(frozen=True)
class Siren:
    """``layers`` hidden layers of ``hidden`` sine units each, then a linear layer to three channels."""

    hidden: int
    layers: int

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Tensors in the order of the parameter vector: W0, b0, W1, b1, ...; weights are (out, in), row-major."""
        widths = [2, *[self.hidden] * self.layers, 3]
        return [shape for fan_in, fan_out in pairwise(widths) for shape in ((fan_out, fan_in), (fan_out,))]

    @property
    def sizes(self) -> list[int]:
        """The number of entries of every tensor."""
        return [math.prod(shape) for shape in self.shapes]

    def seeded(self, seed: int) -> np.ndarray:
        """θ0 drawn from the seed: (D,) int64 in units of 2**-20, by integer arithmetic alone.

        Entry i of tensor t is uniform in ±bound from word i%4 of Philox counter (i//4, t, 0, 0x1000). Bounds: 15 for
        W0, sqrt(6 / fan-in) for the other weights (over 30 for the last), π for phases, 0 for the last bias.
        """
        parts = []
        for t, shape in enumerate(self.shapes):
            size, last = math.prod(shape), t >= 2 * self.layers
            if len(shape) == 1:
                bound = 0 if last else 3294199  # floor(π · 2**20)
            elif t == 0:
                bound = _OMEGA << FRACTION - 1
            else:
                bound = math.isqrt((6 << 2 * FRACTION) // shape[1]) // (_OMEGA if last else 1)
            groups = np.arange(-(-size // 4), dtype=np.int64)
            words = np.stack(philox4x32((groups, t, 0, _INITIAL), seed), 1).reshape(-1)[:size]
            parts.append((words * (2 * bound) >> 32) - bound)
        return np.concatenate(parts)

    def split(self, theta: Array) -> list[Array]:
        """Views of the parameter vector (D,), one for each tensor."""
        ends = np.cumsum(self.sizes).tolist()
        return [
            theta[end - size : end].reshape(shape)
            for end, size, shape in zip(ends, self.sizes, self.shapes, strict=True)
        ]

    def __call__(self, tensors: list[Array], coordinates: Array) -> Array:
        """Coordinates (2, N) to RGB (3, N), where -1 is black and 1 is white."""
        sin = namespace(coordinates).sin
        h = coordinates
        for weight, bias in zip(tensors[:-2:2], tensors[1:-2:2], strict=True):
            h = sin(weight @ h + bias[:, None])
        return tensors[-2] @ h + tensors[-1][:, None]


def coordinates(height: int, width: int, top: int = 0, bottom: int | None = None) -> np.ndarray:
    """Pixel centres of rows ``top .. bottom-1``: (2, rows * width) float32, x then y, the longer side from -1 to 1."""
    rows = np.arange(top, height if bottom is None else bottom)
    x = (2 * np.arange(width) + 1 - width) / max(height, width)
    y = (2 * rows + 1 - height) / max(height, width)
    return np.stack((np.tile(x, len(rows)), np.repeat(y, width))).astype(np.float32)


def render(siren: Siren, theta: np.ndarray, height: int, width: int) -> np.ndarray:
    """The picture (height, width, 3) uint8 that integer parameters (D,) paint. Memory beyond it is one tile."""
    tensors = [tensor.astype(np.float32) for tensor in siren.split(theta / float(1 << FRACTION))]
    picture = np.empty((height, width, 3), np.uint8)
    step = max(1, _TILE // width)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        rgb = siren(tensors, coordinates(height, width, top, bottom))
        picture[top:bottom] = to_samples(rgb).T.reshape(-1, width, 3)
    return picture


def to_samples(rgb: np.ndarray) -> np.ndarray:
    """Network output to 8-bit samples, uint8."""
    return np.rint(np.clip((rgb + 1) * 127.5, 0, 255)).astype(np.uint8)
