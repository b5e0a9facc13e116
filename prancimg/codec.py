"""The library's front door: encode, decode and info, on paths, bytes and Pillow images."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from prancimg import decoder
from prancimg.basis import Kind
from prancimg.bitstream import MAX_FILE, MAX_PIXELS, SIGNATURE, VERSION, Segment
from prancimg.errors import PrancImgError

ImageLike = str | os.PathLike[str] | BinaryIO | Image.Image | np.ndarray
DataLike = bytes | bytearray | memoryview | str | os.PathLike[str]


def encode(
    image: ImageLike,
    *,
    bpp: float | None = None,
    size: int | None = None,
    quality: float | None = None,
    psnr: float | None = None,
    model: str = "field",
    effort: int = 5,
    seed: int | None = None,
    device: str = "auto",
    progress: Callable[[float], None] | None = None,
) -> bytes:
    """Fit a network to a picture and return the bytes of its .prc file.

    At most one of ``bpp``, ``size``, ``quality`` and ``psnr`` may be given; without any, ``quality`` is 50.

    Args:
        image: a path, an open file, a Pillow image, or a uint8 array (H, W), (H, W, 3) or (H, W, 4). Everything
            becomes 8-bit RGB; transparency is flattened onto white.
        bpp: bits per pixel of the whole file: never more, and at least 97 % of it where the picture can use them.
        size: bytes of the whole file, likewise.
        quality: 0 (smallest) to 100, in even steps of the logarithm of the price of a bit.
        psnr: in dB over RGB: at least that, in as few bytes as this encoder finds.
        model: ``field``, a small network that reads a field of local features, or ``siren``, one global network.
        effort: 1 (fastest) to 9 (best).
        seed: of the basis, 0 to 2**32-1; by default 0, and for ``siren`` from effort 5 the best of a few.
        device: ``auto``, ``cpu`` or ``cuda``, where the fit runs.
        progress: called with the fraction done, 0 to 1.

    Raises:
        PrancImgError: not an image, a rate out of reach, no such device.
        OSError: a file that cannot be read.
    """
    from prancimg import encoder  # the only way to torch, which takes seconds to import

    target = encoder.Target(bpp=bpp, size=size, quality=quality, psnr=psnr)
    options = encoder.Options(model=model, effort=effort, seed=seed, device=device)
    pixels = load_image(image)
    try:
        return encoder.encode_array(pixels, target, options, progress)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):  # torch's word for it
            raise
        extent = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise PrancImgError(f"there is not enough memory to encode a picture of {extent} pixels") from error


def decode(source: DataLike, *, max_pixels: int | None = MAX_PIXELS, allow_partial: bool = False) -> Image.Image:
    """The picture in a .prc file (bytes, or a path): an RGB Pillow image.

    Args:
        source: the file.
        max_pixels: the largest picture to decode; memory is about 70 bytes a pixel. None: no limit.
        allow_partial: of a ``field`` file that is cut short or damaged, make the softer picture that its beginning
            describes, with a :class:`UserWarning` that says what is missing.

    Raises:
        PrancImgError: not a .prc file, damaged, from a later version, of more than ``max_pixels`` pixels, or more than
            the memory there is.
        OSError: a file that cannot be read.
    """

    def warn(text: str) -> None:
        warnings.warn(text, stacklevel=3)

    with _contained():
        return Image.fromarray(decoder.decode_array(_bytes(source), max_pixels, warn if allow_partial else None))


def info(source: DataLike) -> dict[str, Any]:
    """What a .prc file (bytes, or a path) says of itself, without rendering it. All checksums are verified."""
    with _contained():
        data = _bytes(source)
        header, segments = decoder.read_header(data, None)
    return {
        "format": "prc",
        "version": VERSION,
        "width": header.width,
        "height": header.height,
        "bytes": len(data),
        "bpp": 8 * len(data) / (header.width * header.height),
        "model": "field" if header.channels else "siren",
        "hidden": header.hidden,
        "layers": header.layers,
        "parameters": sum(header.siren.sizes),
        "coefficients": sum(coded.k for coded in header.tensors),
        "basis": Kind(header.kind).name.lower(),
        "seed": header.seed,
        "prior": header.prior,
        "segments": {
            Segment(kind).name.lower() if kind in Segment.__members__.values() else str(kind): len(payload)
            for kind, payload in segments.items()
        },
    }


def load_image(image: ImageLike) -> np.ndarray:
    """Anything :func:`encode` takes, as (H, W, 3) uint8 RGB, upright, with transparency flattened onto white."""
    try:
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8:
                raise PrancImgError(f"the array holds {image.dtype}, not uint8")
            if image.size == 0 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))):
                raise PrancImgError(f"an array of shape {image.shape} is not a picture: (H, W), (H, W, 3) or (H, W, 4)")
            image = Image.fromarray(image)
        elif not isinstance(image, Image.Image):
            image = Image.open(image)
        image = ImageOps.exif_transpose(image)
        if image.has_transparency_data:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        return np.asarray(image.convert("RGB"))
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


def save_image(picture: Image.Image, suffix: str) -> bytes:
    """A picture as the bytes of an image file, the format chosen by a file name's suffix such as ``.png``."""
    kind = Image.registered_extensions().get(suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise PrancImgError(f"no image format for the ending {suffix!r}")
    buffer = io.BytesIO()
    try:
        picture.save(buffer, kind)
    except (OSError, KeyError, ValueError) as error:
        raise PrancImgError(f"cannot write {kind}: {error}") from error
    return buffer.getvalue()


def _bytes(source: DataLike) -> bytes:
    if not isinstance(source, str | os.PathLike):
        return bytes(source)
    with Path(source).open("rb") as file:
        return read_prc(file)


def read_prc(file: BinaryIO) -> bytes:
    """What there is in an open file, but not what cannot be a .prc file: neither much of it nor for long."""
    start = file.read(len(SIGNATURE))
    return start + file.read(MAX_FILE + 1 - len(start)) if start == SIGNATURE else start


@contextlib.contextmanager
def _contained() -> Iterator[None]:
    """Turn what a file can provoke below into the one family of exceptions."""
    try:
        yield
    except MemoryError as error:
        raise PrancImgError("there is not enough memory to decode this picture") from error
