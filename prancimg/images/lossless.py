"""Samples without loss, by codecs that are frozen: PNG and lossless WebP, whichever is smaller.

16 bits a sample are two pictures of 8, the high bytes above the low ones.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, features

from prancimg.errors import PrancImgError
from prancimg.format.lossless import Coding, Lossless

_WEBP_SIDE = 16383
_WEBP_CHUNK = 20
"""Where the bitstream begins in a WebP file of nothing else."""
_SMALL = 1 << 14
"""Samples of which the slowest search takes no time."""


def code_samples(samples: np.ndarray, *, slow: bool = False) -> Lossless:
    """The smallest file of samples (H, W) or (H, W, 1 or 3), uint8 or uint16; ``slow`` looks longer for it."""
    planes = _stacked(samples)
    height, width = samples.shape[:2]
    depth = 8 * planes.shape[0] // height
    coded = _codings(planes, slow or planes.size <= _SMALL)
    coding, data = min(coded, key=lambda each: len(each[1]))
    return Lossless(width, height, depth, coding, data)


def quick_size(samples: np.ndarray) -> int:
    """Bytes of the same by a quick search: at most four times as many as :func:`code_samples` takes, or hardly so."""
    planes = _stacked(samples)
    return len(_webp(planes, 0, 1) if _takes_webp(planes) else _png(planes))


def _stacked(samples: np.ndarray) -> np.ndarray:
    """As (height, W, 1 or 3) uint8."""
    samples = samples.reshape(*samples.shape[:2], -1)
    if samples.dtype == np.uint16 and not np.any(samples % 257):  # 8 bits in disguise
        samples = (samples // 257).astype(np.uint8)
    if samples.dtype == np.uint16:
        samples = np.concatenate([samples >> 8, samples & 255]).astype(np.uint8)
    return np.ascontiguousarray(samples)


def _codings(planes: np.ndarray, slow: bool) -> Iterator[tuple[Coding, bytes]]:
    yield Coding.RAW, planes.astype("<u1").tobytes()
    if _takes_webp(planes):
        yield Coding.WEBP, _webp(planes, 75, 4)
        if slow:
            yield Coding.WEBP, _webp(planes, 100, 6)
    if slow or not _takes_webp(planes):  # on photographs it never wins
        yield Coding.PNG, _png(planes)


def _takes_webp(planes: np.ndarray) -> bool:
    return max(planes.shape) <= _WEBP_SIDE and bool(features.check("webp"))


def _webp(planes: np.ndarray, quality: int, method: int) -> bytes:
    image, buffer = Image.fromarray(np.broadcast_to(planes, (*planes.shape[:2], 3))), io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, quality=quality, method=method)
    return buffer.getvalue()[_WEBP_CHUNK:][: struct.unpack_from("<I", buffer.getvalue(), _WEBP_CHUNK - 4)[0]]


def _png(planes: np.ndarray) -> bytes:
    """Of as few bits a sample as it takes: 1 or 8 in grey, a palette or 8 in colour."""
    if planes.shape[2] == 1:
        image = Image.fromarray(planes[:, :, 0])
        if not np.any((planes + 1) & 254):  # 0 and 255 alone
            image = image.convert("1")
    else:
        image = Image.fromarray(planes)
        if image.getcolors(256):
            image = image.convert("P", palette=Image.Palette.ADAPTIVE)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def read_samples(picture: Lossless) -> np.ndarray:
    """The samples (H, W, 1 or 3), uint8 or uint16.

    Raises:
        PrancImgError: broken, or stored in a way that the Pillow at hand does not read.
    """
    planes: np.ndarray
    if picture.coding == Coding.RAW:
        planes = np.frombuffer(picture.data, "<u1").reshape(picture.rows, picture.width, -1)
    else:
        planes = _decoded(picture)
    if picture.depth == 8:
        return planes
    high, low = planes[: picture.height], planes[picture.height :]
    samples: np.ndarray = high.astype(np.uint16) << 8 | low
    return samples


def _decoded(picture: Lossless) -> np.ndarray:
    """What is stored, (rows, W, 1 or 3) uint8. Its size is checked: Pillow's own limit need not hold."""
    try:
        if picture.coding == Coding.PNG:
            from PIL.PngImagePlugin import PngImageFile as Reader

            data = picture.data
        else:
            if not features.check("webp"):
                raise PrancImgError("the picture is stored as lossless WebP, which this Pillow was built without")
            from PIL.WebPImagePlugin import WebPImageFile as Reader  # type: ignore[assignment]

            padded = picture.data + bytes(len(picture.data) % 2)
            data = b"WEBPVP8L" + len(picture.data).to_bytes(4, "little") + padded
            data = b"RIFF" + len(data).to_bytes(4, "little") + data
        with Reader(io.BytesIO(data)) as image:
            return np.atleast_3d(np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB")))
    except PrancImgError:
        raise
    except MemoryError as error:
        raise PrancImgError("there is not enough memory to decode the picture") from error
    except (OSError, SyntaxError, ValueError, LookupError, EOFError, struct.error, zlib.error) as error:
        raise PrancImgError(f"the lossless picture is broken: {error}") from error
