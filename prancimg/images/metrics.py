"""How far a decoded picture is from its original. Needs torch."""

from __future__ import annotations

import math

import numpy as np
import torch
from pytorch_msssim import ms_ssim

SMALLEST = 161
"""Pixels a side from which MS-SSIM, with its five scales, is defined."""


def measure(original: np.ndarray, picture: np.ndarray) -> dict[str, float]:
    """PSNR (dB, over all RGB samples) and MS-SSIM (RGB; nan for small pictures) of 8-bit pictures (H, W, 3)."""
    error = np.square(original.astype(np.float64) - picture).mean()
    similarity = math.nan
    if min(original.shape[:2]) >= SMALLEST:
        tensors = [torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() for image in (original, picture)]
        similarity = ms_ssim(*tensors, data_range=255).item()
    return {"psnr": float(10 * np.log10(255**2 / max(error, 1e-10))), "ms_ssim": similarity}


def decibels(similarity: float) -> float:
    """MS-SSIM as -10 log10(1 - x), which spreads out the values near 1."""
    return -10 * math.log10(max(1 - similarity, 1e-10))
