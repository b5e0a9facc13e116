"""A lossless picture as a function of a continuous place: its pixels, and between them what a Lanczos kernel makes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from prancimg.network.field import Box

_MARGIN = 4
"""Pixels around a box that the kernel may reach for."""


@dataclass(frozen=True)
class Bitmap:
    """What :class:`prancimg.decoding.view.Canvas` is for a network, in one level."""

    samples: np.ndarray
    """(H, W, 1 or 3), uint8 or uint16."""
    finest = 0

    def render(self, box: Box, height: int, width: int) -> np.ndarray:
        """A box of the picture (in its pixels) as (3, height, width) float32 from 0 to 1; never a smaller size."""
        top, left, bottom, right = box
        above, before = max(0, top - _MARGIN), max(0, left - _MARGIN)
        near = self.samples[above : bottom + _MARGIN, before : right + _MARGIN]
        planes = near.transpose(2, 0, 1) / np.float32(np.iinfo(near.dtype).max)
        inner = left - before, top - above, right - before, bottom - above
        planes = np.stack([_window(plane, inner, height, width) for plane in planes])
        return np.broadcast_to(planes, (3, height, width))

    def whole(self) -> np.ndarray:
        """All of the picture at its own size, (H, W, 3) uint8."""
        samples = self.samples if self.samples.dtype == np.uint8 else np.rint(self.samples / 257).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(samples, (*samples.shape[:2], 3)))


def _window(plane: np.ndarray, box: Box, height: int, width: int) -> np.ndarray:
    """A box (left, top, right, bottom) of a float32 plane at another size."""
    left, top, right, bottom = box
    if (height, width) == (bottom - top, right - left):
        return plane[top:bottom, left:right]
    image = Image.fromarray(np.ascontiguousarray(plane))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, box))
