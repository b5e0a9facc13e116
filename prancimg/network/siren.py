"""The synthesis network: a SIREN from coordinates, or from a feature field where there is one, to colours.

Sitzmann et al., "Implicit neural representations with periodic activation functions" (NeurIPS 2020). The usual
factor ω0 = 30 is part of the weights here: a hidden layer is sin(W h + b). Rendering is written once, for NumPy
(decoding) and torch (fitting).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from prancimg.format.layout import NEUTRAL_RATE, Pyramid, Siren
from prancimg.network.arrays import Array, namespace
from prancimg.network.field import Coefficients, residual_filter, window
from prancimg.network.philox import philox4x32

FRACTION = 20
"""Parameters are integers in units of 2**-20."""
_INITIAL = 0x1000
"""Last Philox counter word of θ0; basis kinds use the small numbers."""
_OMEGA = 30
_TILE = 1 << 14
"""Pixels rendered at a time, so that activations stay in cache."""


def theta0_of_seed(siren: Siren, seed: int) -> dict[str, np.ndarray]:
    """θ0 of a network without a field, drawn from the seed: flat int64 tensors in units of 2**-20, exact.

    Entry i of tensor t is uniform in ±bound, from word i%4 of Philox counter (i//4, t, 0, 0x1000). Bounds: 15 for
    w0, sqrt(6 / fan-in) for the other weights (over 60 for the last), π for phases; the last bias is 1/2, grey.
    """
    tensors = {}
    for t, (name, shape) in enumerate(siren.shapes.items()):
        size, last = math.prod(shape), t >= 2 * siren.layers
        if len(shape) == 1:
            bound = 0 if last else 3294199  # floor(π · 2**20)
        elif t == 0:
            bound = _OMEGA << FRACTION - 1
        else:
            bound = math.isqrt((6 << 2 * FRACTION) // shape[1]) // (2 * _OMEGA if last else 1)
        groups = np.arange(-(-size // 4), dtype=np.int64)
        words = np.stack(philox4x32((groups, t, 0, _INITIAL), seed), 1).reshape(-1)[:size]
        tensors[name] = (words * (2 * bound) >> 32) - bound
    tensors[f"b{siren.layers}"] += 1 << FRACTION - 1
    return tensors


def forward(siren: Siren, weights: Mapping[str, Array], inputs: Array) -> Array:
    """Inputs (2 or channels, N) to RGB (3, N), where 0 is black and 1 is white."""
    sin = namespace(inputs).sin
    h = inputs
    for i in range(siren.layers):
        h = sin(weights[f"w{i}"] @ h + weights[f"b{i}"][:, None])
    return weights[f"w{siren.layers}"] @ h + weights[f"b{siren.layers}"][:, None]


def coordinates(height: int, width: int, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
    """Pixel centres of a part of the picture: (2, n) float32, x then y, the longer side from -1 to 1."""
    x = (2 * np.arange(width)[columns] + 1 - width) / max(height, width)
    y = (2 * np.arange(height)[rows] + 1 - height) / max(height, width)
    return np.stack((np.tile(x, len(y)), np.repeat(y, len(x)))).astype(np.float32)


def tiles(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of parts that cover a picture, of about 16,384 pixels each."""
    across = min(width, _TILE // 8)
    down = max(8, _TILE // across)
    for top in range(0, height, down):
        for left in range(0, width, across):
            yield slice(top, min(top + down, height)), slice(left, min(left + across, width))


def render(siren: Siren, theta: Mapping[str, np.ndarray], height: int, width: int) -> np.ndarray:
    """The picture (height, width, 3) uint8 of integer parameters. Memory beyond it is one tile."""
    weights = to_floats(siren, theta)
    picture = np.empty((height, width, 3), np.uint8)
    with np.errstate(all="ignore"):
        for rows, columns in tiles(height, width):
            part = picture[rows, columns]
            rgb = forward(siren, weights, coordinates(height, width, rows, columns))
            part[:] = to_samples(rgb).T.reshape(part.shape)
    return picture


def synthesise(siren: Siren, weights: Mapping[str, Array], field: Array, rate: int) -> Array:
    """A part of the field (channels, h, w) to RGB (3, h, w); its border is exact only where it is the picture's.

    ``rate`` (0 to 255) shifts the first layer's phases.
    """
    phases = weights["b0"] + weights["slope"] * ((rate - NEUTRAL_RATE) / 64)
    rgb = forward(siren, {**weights, "b0": phases}, field.reshape(siren.channels, -1))
    return residual_filter(rgb.reshape(3, *field.shape[1:]), weights["residual"])


def render_field(
    siren: Siren, theta: Mapping[str, np.ndarray], pyramid: Pyramid, q: Coefficients, step: float, rate: int
) -> np.ndarray:
    """The picture (height, width, 3) uint8 of integer parameters and a field. Memory beyond it is one tile."""
    weights = to_floats(siren, theta)
    picture = np.empty((pyramid.height, pyramid.width, 3), np.uint8)
    with np.errstate(all="ignore"):
        for rows, columns in tiles(pyramid.height, pyramid.width):
            # The 3 x 3 filter at the end needs a row and a column more on either side.
            top, left = max(0, rows.start - 1), max(0, columns.start - 1)
            box = top, left, min(rows.stop + 1, pyramid.height), min(columns.stop + 1, pyramid.width)
            rgb = synthesise(siren, weights, window(pyramid, q, weights, step, box), rate)
            inner = rgb[:, rows.start - top :, columns.start - left :]
            part = picture[rows, columns]
            part[:] = to_samples(inner[:, : part.shape[0], : part.shape[1]]).transpose(1, 2, 0)
    return picture


def to_floats(siren: Siren, theta: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Flat integer tensors to float32 weights of the network's shapes."""
    return {name: (theta[name] / 2.0**FRACTION).astype(np.float32).reshape(s) for name, s in siren.shapes.items()}


def to_samples(rgb: np.ndarray) -> np.ndarray:
    """Network output to 8-bit samples, uint8; what is not a number (absurd weights can give it) becomes 0."""
    samples: np.ndarray = np.rint(np.clip(np.nan_to_num(rgb), 0, 1) * 255)
    return samples.astype(np.uint8)
