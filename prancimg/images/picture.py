"""Pictures as they come: any mode, 8 or 16 bits, alpha, orientation and metadata."""

from __future__ import annotations

import io
import os
import struct
import zlib
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from prancimg.errors import PrancImgError
from prancimg.format import files
from prancimg.format.extras import Metadata, Samples
from prancimg.images.color import from_cmyk, is_srgb
from prancimg.images.deep import deep_samples, is_deep
from prancimg.images.metadata import PHOTOMETRIC, UPRIGHT, WHITE_IS_ZERO, metadata_of, upright

ImageLike = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | np.ndarray


@dataclass(frozen=True)
class Picture:
    """What the encoder is given."""

    colors: np.ndarray
    """(H, W, 3): uint8, or float32 on the same scale from 0 to 255 where there were 16 bits."""
    alpha: np.ndarray | None = None
    """(H, W) uint8 or uint16; None where everything is opaque."""
    samples: Samples = field(default_factory=Samples)
    metadata: Metadata = field(default_factory=Metadata)
    notes: tuple[str, ...] = ()
    """What could not be kept as it was, in words."""


def load_picture(image: ImageLike, *, orient: bool = True) -> Picture:
    """A path, the bytes of a file, an open one, a Pillow image or an array, with all that belongs to it.

    Args:
        image: arrays are uint8 or uint16, (H, W), (H, W, 3) or (H, W, 4).
        orient: turn it upright by its EXIF orientation; otherwise the pixels stay and so does the tag.

    Raises:
        PrancImgError: not an image, or a broken one.
        OSError: a file that cannot be read.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image)
    data = b""
    try:
        if not isinstance(image, Image.Image):
            data = _bytes(image)
            image = Image.open(io.BytesIO(data))
        return _from_image(image, data, orient)
    except UnidentifiedImageError as error:
        raise PrancImgError("not an image in any format that Pillow reads") from error
    except Image.DecompressionBombError as error:
        raise PrancImgError(str(error)) from error
    except PrancImgError:
        raise
    except (SyntaxError, ValueError, LookupError, EOFError, struct.error, zlib.error) as error:
        raise PrancImgError(f"the image is broken: {error}") from error  # all of them Pillow's words for that
    except MemoryError as error:
        raise PrancImgError("there is not enough memory to read the image") from error
    except OSError as error:
        if error.errno is None:  # the file could be read, the picture in it could not
            raise PrancImgError(f"the image is broken: {error}") from error
        raise


def _bytes(image: str | os.PathLike[str] | bytes | BinaryIO) -> bytes:
    if isinstance(image, str | os.PathLike):
        return files.read(image)
    data = files.read_all(image) if files.is_binary(image) else image
    if not isinstance(data, bytes | bytearray | memoryview):
        raise PrancImgError(f"{type(image).__name__} is no picture, and no path or binary file of one")
    return bytes(data)


def _from_array(array: np.ndarray) -> Picture:
    if array.dtype not in (np.uint8, np.uint16):
        raise PrancImgError(f"the array holds {array.dtype}, not uint8 or uint16")
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise PrancImgError(f"an array of shape {array.shape} is not a picture: (H, W), (H, W, 3) or (H, W, 4)")
    if array.ndim == 2:
        return _picture(array[:, :, None], None)
    return _picture(array[:, :, :3], array[:, :, 3] if array.shape[2] == 4 else None)


def _picture(colors: np.ndarray, alpha: np.ndarray | None, **further: Any) -> Picture:
    """From samples (H, W, 1 or 3) and alpha (H, W), uint8 or uint16."""
    deep = colors.dtype == np.uint16
    grey = colors.shape[2] == 1
    if alpha is not None and np.all(alpha == np.iinfo(alpha.dtype).max):
        alpha = None
    if alpha is not None and not alpha.all():
        colors = _filled(colors, alpha)
    if deep:
        colors = colors.astype(np.float32) / np.float32(257)
    colors = np.ascontiguousarray(np.broadcast_to(colors, (*colors.shape[:2], 3)))
    return Picture(colors, alpha, Samples(grey, 16 if deep else 8), **further)


def _filled(colors: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The colours, with those that nobody can see replaced by a smooth continuation of the others: cheap to code."""

    def fill(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        height, width = weight.shape[:2]
        if height == width == 1:
            return np.asarray(x / np.maximum(weight, 1e-9))
        padding = ((0, height % 2), (0, width % 2), (0, 0))
        halves = [
            np.pad(part, padding).reshape((height + 1) // 2, 2, (width + 1) // 2, 2, -1).sum((1, 3)) / 4
            for part in (x, weight)
        ]
        below = fill(*halves).repeat(2, 0).repeat(2, 1)[:height, :width]
        whole: np.ndarray = x + (1 - weight) * below
        return whole

    seen = (alpha > 0)[:, :, None].astype(np.float32)
    if not seen.any():
        return np.full_like(colors, np.iinfo(colors.dtype).max // 2)
    filled = np.rint(fill(colors * seen, seen))
    return np.asarray(filled, colors.dtype)


def _from_image(image: Image.Image, data: bytes, orient: bool) -> Picture:
    mode, notes, deep = image.mode, [], None
    if is_deep(image) and not mode.startswith("I"):
        deep, said = deep_samples(data, image)
        notes += said
    if deep is None:
        image.load()  # which turns a TIFF file upright and puts that into its metadata
    metadata, turned = metadata_of(image)
    if (frames := getattr(image, "n_frames", 1)) > 1:
        notes.append(f"only the first of {frames} frames is kept")
    alpha = None
    if deep is not None:
        transparent = deep.shape[2] in (2, 4)
        colors, alpha = (deep[:, :, :-1], deep[:, :, -1]) if transparent else (deep, None)
    elif mode.startswith("I"):
        samples = np.asarray(image).astype(np.int64)
        if samples.min() < 0 or samples.max() > 65535:
            raise PrancImgError("the image has integer samples beyond 16 bits")
        colors = samples.astype(np.uint16)[:, :, None]
        if isinstance(clear := image.info.get("transparency"), int):
            alpha = np.where(samples == clear, 0, 65535).astype(np.uint16)
        if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:
            colors = 65535 - colors
    elif mode == "F":
        raise PrancImgError("the image has floating-point samples; 8 or 16 bits are needed")
    else:
        if mode == "CMYK":
            image, metadata = from_cmyk(image, metadata), replace(metadata, icc=b"")
        if mode not in ("RGB", "RGBA", "RGBX", "RGBa", "L", "LA", "La"):
            grey = mode == "1"
            notes.append(f"{_MODES.get(mode, mode)} converted to {'8-bit grey' if grey else 'RGB'}")
        if image.has_transparency_data:
            whole = np.asarray(image.convert("RGBA"))
            colors, alpha = whole[:, :, :3], whole[:, :, 3]
        else:
            colors = np.asarray(image.convert("RGB"))
        if mode in ("1", "L", "LA", "La"):
            colors = colors[:, :, :1]
        elif metadata.icc and is_srgb(metadata.icc):
            metadata = replace(metadata, icc=b"")
            notes.append("the colour profile is sRGB, which goes without saying: left out")
    if orient and turned in UPRIGHT:
        colors = UPRIGHT[turned](colors)
        alpha = None if alpha is None else UPRIGHT[turned](alpha)
        metadata = upright(metadata)
    return _picture(colors, alpha, metadata=metadata, notes=tuple(notes))


_MODES = {"P": "palette", "PA": "palette", "1": "black and white", "YCbCr": "YCbCr"}
