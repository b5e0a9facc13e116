"""What colours mean: profiles."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from prancimg.format.extras import Metadata


def from_cmyk(image: Image.Image, metadata: Metadata) -> Image.Image:
    """To sRGB, by the colour profile if it has a valid one."""
    converted = _by_profile(image, metadata.icc) if metadata.icc else None
    return image.convert("RGB") if converted is None else converted


def is_srgb(icc: bytes) -> bool:
    """Whether a profile changes no colour of 8 bits by more than a level. Such a one is often a quarter of a file."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    colors = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(len(levels), -1, 3)
    meant = _by_profile(Image.fromarray(colors), icc)
    return meant is not None and bool(np.abs(np.asarray(meant) - colors.astype(np.int16)).max() <= 1)


def _by_profile(image: Image.Image, icc: bytes) -> Image.Image | None:
    """What a colour profile means, in sRGB; None if it does not fit, and is as good as none."""
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        return ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return None
