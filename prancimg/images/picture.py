"""Pictures as they come: any mode, 8 or 16 bits, alpha, orientation and metadata."""

from __future__ import annotations

import io
import os
import struct
import zlib
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from prancimg.errors import PrancImgError
from prancimg.format import files
from prancimg.format.extras import Metadata, Samples
from prancimg.images import png, profile, space
from prancimg.images.deep import PHOTOMETRIC, SAMPLE_FORMAT, SIGNED, WHITE_IS_ZERO, deep_samples, stretched
from prancimg.images.metadata import UPRIGHT, metadata_of, stripped, upright, without_empty_exif

ImageLike = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | np.ndarray


@dataclass(frozen=True)
class Picture:
    """What the encoder is given."""

    colors: np.ndarray
    """(H, W, 3): uint8, or float32 on the same scale from 0 to 255 where there were 16 bits."""
    exact: np.ndarray
    """(H, W, 1 or 3) uint8 or uint16: the samples as they came, also where nobody can see them."""
    alpha: np.ndarray | None = None
    """(H, W) uint8 or uint16; None where everything is opaque."""
    samples: Samples = field(default_factory=Samples)
    metadata: Metadata = field(default_factory=Metadata)
    notes: tuple[str, ...] = ()
    """What could not be kept as it was, in words."""


def load_picture(image: ImageLike, *, orient: bool = True, strip: bool = False) -> Picture:
    """A path, the bytes of a file, an open one, a Pillow image or an array, with all that belongs to it.

    Args:
        image: arrays are bool, uint8 or uint16, (H, W) or (H, W, channels): grey, grey and alpha, RGB, or RGBA.
        orient: turn it upright by its EXIF orientation; otherwise the pixels stay and so does the tag.
        strip: leave out colour profile, EXIF (but for an orientation that was not applied) and XMP.

    Raises:
        PrancImgError: not an image, or a broken one.
        OSError: a file that cannot be read.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image)
    try:
        if isinstance(image, Image.Image):
            return _from_image(image, _chunks(_unread(image)), orient, strip)
        said = _chunks(_bytes(image))
        image = Image.open(io.BytesIO(said.data))
        image.info.update(said.info)
        return _from_image(image, said, orient, strip)
    except UnidentifiedImageError as error:
        raise PrancImgError("not an image in any format that Pillow reads") from error
    except Image.DecompressionBombError as error:
        raise PrancImgError(str(error)) from error
    except PrancImgError:
        raise
    except (SyntaxError, ValueError, LookupError, EOFError, RuntimeError, struct.error, zlib.error) as error:
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


def _chunks(data: bytes) -> png.Said:
    return png.read(data) if data.startswith(png.SIGNATURE) else png.Said(data)


def _unread(image: Image.Image) -> bytes:
    """The file of an image that was opened and not loaded yet, so that what Pillow leaves out can be found in it."""
    file = getattr(image, "fp", None)
    if file is None or file.closed or not getattr(image, "tile", None) or image.tell():
        return b""
    at = file.tell()
    file.seek(0)
    data = files.read_all(file)
    file.seek(at)
    return data


def _from_array(array: np.ndarray) -> Picture:
    if array.dtype == bool:
        array = array * np.uint8(255)
    if array.dtype not in (np.uint8, np.uint16, np.dtype(np.uint16).newbyteorder()):
        raise PrancImgError(f"the array holds {array.dtype}, not uint8 or uint16")
    array = array.astype(array.dtype.newbyteorder("="))
    planes = np.atleast_3d(array)
    if array.size == 0 or array.ndim not in (2, 3) or planes.shape[2] > 4:
        raise PrancImgError(f"an array of shape {array.shape} is not a picture: (H, W) or (H, W, 1 to 4)")
    if planes.shape[2] in (2, 4):
        return _picture(planes[:, :, :-1], planes[:, :, -1])
    return _picture(planes, None)


def _picture(colors: np.ndarray, alpha: np.ndarray | None, **further: Any) -> Picture:
    """From samples (H, W, 1 or 3) and alpha (H, W), uint8 or uint16."""
    deep = colors.dtype == np.uint16
    grey = colors.shape[2] == 1
    if alpha is not None and np.all(alpha == np.iinfo(alpha.dtype).max):
        alpha = None
    exact = colors
    if alpha is not None and not alpha.all():
        colors = _filled(colors, alpha)
    if deep:
        colors = colors.astype(np.float32) / np.float32(257)
    colors = np.ascontiguousarray(np.broadcast_to(colors, (*colors.shape[:2], 3)))
    return Picture(colors, exact, alpha, Samples(grey, 16 if deep else 8), **further)


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


def _from_image(image: Image.Image, said: png.Said, orient: bool, strip: bool) -> Picture:
    if 0 in image.size:
        raise PrancImgError(f"the image has no pixels: {image.width} x {image.height}")
    if isinstance(image, ImageFile.ImageFile) and image._im is None and getattr(image.fp, "closed", not image.fp):
        raise PrancImgError("the image was closed before it was read")
    deep, notes = deep_samples(said.data, image)
    clear = _clear(image)
    color_space, icc = space.of_image(image, said.data, said.cicp)
    if deep is None:
        image.load()  # which turns a TIFF file upright and puts that into its metadata
    metadata, turned, left_out = metadata_of(image, said.texts)
    icc = b"" if said.cicp else metadata.icc or icc
    if (frames := _frames(image)) > 1:
        notes.append(
            f"only {'the first' if image.tell() == 0 else f'number {image.tell() + 1}'} of {frames} frames is kept"
        )
    if deep is not None:
        transparent = deep.shape[2] in (2, 4)
        colors, alpha = (deep[:, :, :-1], deep[:, :, -1]) if transparent else (deep, None)
    elif image.mode.startswith("I"):
        colors, alpha = _integers(image, said.data)
    else:
        colors, alpha, changes = _bytes_of_samples(image, icc, clear)
        notes += changes
    if deep is None and image.mode in _CONVERTED:
        icc = b""
    elif icc and profile.is_srgb(icc):
        icc = b""
        left_out.append("the colour profile is sRGB, which goes without saying: left out")
    elif icc:
        icc, changes = profile.fitting(icc, colors.shape[2] == 1)
        left_out += changes
    elif color_space:
        colors, icc, changes = space.applied(color_space, colors)
        notes += changes
    metadata = replace(metadata, icc=icc)
    if orient and turned in UPRIGHT:
        colors = UPRIGHT[turned](colors)
        alpha = None if alpha is None else UPRIGHT[turned](alpha)
        metadata = upright(metadata)
    if strip:
        metadata, left_out = stripped(metadata)
    metadata = without_empty_exif(metadata)
    return _picture(colors, alpha, metadata=metadata, notes=(*notes, *left_out))


_MODES = {"P": "palette", "PA": "palette", "1": "black and white"}
_GREY, _PLAIN, _CONVERTED = ("1", "L", "LA", "La"), ("RGB", "RGBA", "RGBX", "RGBa", "L", "LA", "La"), ("CMYK", "LAB")


def _frames(image: Image.Image) -> int:
    """Of an animation, 1 of all else."""
    try:
        return int(getattr(image, "n_frames", 1))
    except ValueError:
        if getattr(image, "fp", None) is not None:
            raise
        return 1  # it was closed after it was read: there is no other any more


def _integers(image: Image.Image, data: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    """Grey of up to 16 bits: samples (H, W, 1) and alpha, uint16."""
    samples = np.asarray(image).astype(np.int64)
    if samples.min() < 0 or samples.max() > 65535:
        raise PrancImgError("the image has integer samples outside 0 to 65535, which 16 bits do not hold")
    alpha, clear = None, image.info.get("transparency")
    if isinstance(clear, int):
        alpha = np.where(samples == clear, 0, 65535).astype(np.uint16)
    colors = stretched(image, data, samples.astype(np.uint16))[:, :, None]
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:
        colors = 65535 - colors
    return colors, alpha


def _clear(image: Image.Image) -> list[int] | None:
    """The grey or colour that is transparent, on the scale of the samples that an image will have when it is loaded."""
    clear: Any = image.info.get("transparency")
    kind = str([tile[3] for tile in getattr(image, "tile", ())])
    if image.mode == "L" and isinstance(clear, int):
        most = 3 if "L;2" in kind else 15 if "L;4" in kind else 255
        return [(clear & most) * 255 // most]
    if image.mode == "RGB" and isinstance(clear, tuple):
        return [value >> (8 if ";16" in kind else 0) for value in clear]
    return None


def _bytes_of_samples(
    image: Image.Image, icc: bytes, clear: list[int] | None
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Anything of 8 bits or less: samples (H, W, 1 or 3) and alpha, uint8, and what changes."""
    mode, notes = image.mode, list[str]()
    if mode == "F":
        raise PrancImgError("the image has floating-point samples; 8 or 16 bits are needed")
    if SIGNED in getattr(image, "tag_v2", {}).get(SAMPLE_FORMAT, ()) and np.asarray(image).max() > 127:
        raise PrancImgError("the image has negative samples")  # which Pillow reads as large ones
    if mode == "La":
        image = image.convert("LA")
    if mode not in _PLAIN:
        notes.append(f"{_MODES.get(mode, mode)} converted to {'8-bit grey' if mode == '1' else 'RGB'}")
    if mode == "CMYK" and icc:
        image = profile.to_srgb(image, icc) or image
    if clear is not None:
        colors = np.asarray(image.convert("RGB"))
        alpha = np.where((colors == clear).all(2), 0, 255).astype(np.uint8)
    elif image.has_transparency_data:
        whole = np.asarray(image.convert("RGBA"))
        colors, alpha = whole[:, :, :3], whole[:, :, 3]
    else:
        colors, alpha = np.asarray(image.convert("RGB")), None
    return colors[:, :, :1] if mode in _GREY else colors, alpha, notes
