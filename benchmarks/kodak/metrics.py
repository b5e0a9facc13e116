"""How far a decoded picture is from its original, and how much work it was to decode it."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from pytorch_msssim import ms_ssim

from prancimg import context
from prancimg.bitstream import Header


def measure(original: np.ndarray, picture: np.ndarray) -> dict[str, float]:
    """PSNR (dB, over all RGB samples) and MS-SSIM (RGB) of 8-bit pictures."""
    error = np.square(original.astype(np.float64) - picture).mean()
    tensors = [torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() for image in (original, picture)]
    return {
        "psnr": float(10 * np.log10(255**2 / max(error, 1e-10))),
        "ms_ssim": ms_ssim(*tensors, data_range=255).item(),
    }


def decibels(similarity: float) -> float:
    """MS-SSIM as -10 log10(1 - x), which spreads out the values near 1."""
    return -10 * math.log10(max(1 - similarity, 1e-10))


def macs_per_pixel(header: Header) -> float:
    """Multiply-accumulates a pixel that decoding a .prc file takes.

    Counted are the network's matrix products and, where there is a field, its 3 x 3 filter, the context model for
    every coefficient, the coefficients' gains, and the separable enlargement of the channels from level to level.
    Left out are biases, sines, the range coder, the shifts and adds of the context model's features, and the offsets
    θ - θ0, which are made once a file, not for every pixel.
    """
    shapes = header.siren.shapes
    macs = float(sum(math.prod(shapes[f"w{i}"]) for i in range(header.layers + 1)))
    if not header.channels:
        return macs
    pyramid, pixels = header.pyramid, header.width * header.height
    once = 0
    for grid in pyramid.grids:
        kind = context.KINDS[grid.component > 0]
        network = sum(math.prod(context.shapes()[f"{kind}.{name}"]) for name in "abc")
        once += grid.count * (network + header.channels)
    for fine, coarse in pairwise(map(pyramid.size, range(pyramid.levels))):
        once += header.channels * math.prod(shapes["taps"]) * (fine[0] * coarse[1] + fine[0] * fine[1])
    return macs + math.prod(shapes["residual"]) + once / pixels
