"""A plane of samples as a greyscale PNG file: how alpha channels were stored before there were lossless pictures."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from prancimg.errors import PrancImgError


def png_to_plane(data: bytes, height: int, width: int) -> np.ndarray:
    """The plane (height, width) float32 from 0 to 1 in a greyscale PNG of that very size."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.size != (width, height) or image.mode not in ("1", "L", "I;16"):
                raise PrancImgError("the alpha segment does not belong to the picture")
            deep = image.mode == "I;16"
            samples = np.asarray(image if deep else image.convert("L"))
    except (OSError, SyntaxError, ValueError, LookupError, EOFError, struct.error, zlib.error) as error:
        if isinstance(error, PrancImgError):
            raise
        raise PrancImgError(f"the alpha segment is broken: {error}") from error
    except Image.DecompressionBombError as error:
        raise PrancImgError(f"the alpha segment is broken: {error}") from error
    return samples.astype(np.float32) / np.float32(65535 if deep else 255)
