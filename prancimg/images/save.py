"""Pictures as they go: image files of any format that Pillow writes, and 16 bits a sample where one holds them."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from prancimg.errors import PrancImgError
from prancimg.format.extras import Metadata
from prancimg.images.deep import BITS, PHOTOMETRIC, PLAIN_ALPHA, RGB
from prancimg.images.exif import PREFIX, dots_per_inch, read_tags
from prancimg.images.png import XMP_KEYWORD
from prancimg.images.profile import fitting

DEEP_FORMATS = ("PNG", "TIFF", "PPM")
"""Formats that can hold 16 bits a sample in colour here."""


def to_image(samples: np.ndarray, metadata: Metadata) -> Image.Image:
    """Samples (H, W, 1 to 4), 8-bit or 16-bit grey, as a Pillow image; colour of 16 bits is reduced to 8."""
    if samples.dtype == np.uint16 and samples.shape[2] > 1:
        samples = np.rint(samples / 257).astype(np.uint8)
    image = Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples)
    for name, data in (("icc_profile", metadata.icc), ("exif", metadata.exif), ("xmp", metadata.xmp)):
        if data:
            image.info[name] = PREFIX + data if name == "exif" else data
    if dots := dots_per_inch(metadata.exif):
        image.info["dpi"] = dots
    return image


def format_of(name: str) -> str:
    """The Pillow name of a format, from an ending (``.png``) or a name (``png``, ``jpeg``)."""
    ending = f".{name.lower().removeprefix('.')}"
    Image.preinit()  # the usual plugins; loading every one takes longer
    kind = Image.EXTENSION.get(ending) or Image.registered_extensions().get(ending, name.upper())
    if kind == "PRC":
        raise PrancImgError("a .prc file is made by encode")
    if kind not in Image.SAVE:
        raise PrancImgError(f"no image format for the ending {name!r}")
    return kind


def save_samples(samples: np.ndarray, metadata: Metadata, kind: str) -> tuple[bytes, list[str]]:
    """Samples (H, W, 1 to 4) as an image file of a Pillow format, and what could not be kept, in words."""
    notes: list[str] = []
    if samples.shape[2] in (2, 4) and kind in ("JPEG", "PPM", "BMP", "MPO", "PCX", "EPS", "PDF"):
        notes.append(f"{kind} has no transparency: flattened onto white")
        most = np.iinfo(samples.dtype).max
        share = samples[:, :, -1:] / most
        samples = np.rint(share * samples[:, :, :-1] + (1 - share) * most).astype(samples.dtype)
    if samples.dtype == np.uint16 and kind == "TIFF" and samples.shape[2] == 2:
        notes.append("grey of 16 bits with transparency written as RGB, which more programs read")
        samples = samples[:, :, [0, 0, 0, 1]]
    metadata, lost = _held(metadata, kind, grey=samples.shape[2] < 3 and kind not in _NO_GREY)
    notes += lost
    if samples.dtype == np.uint16 and (samples.shape[2] > 1 or kind not in DEEP_FORMATS):
        deep = _deep_file(samples, metadata, kind)
        if deep is not None:
            return deep, notes
        hint = (
            " (pip install 'prancimg[deep]' to keep them)"
            if kind in DEEP_FORMATS
            else f": {kind} is not written with more"
        )
        notes.append(f"16-bit samples reduced to 8 bits{hint}")
        samples = np.rint(samples / 257).astype(np.uint8)
    image = to_image(samples, metadata)
    if kind in _NO_GREY and image.mode.startswith("L"):
        image = image.convert("RGBA" if "A" in image.mode else "RGB")
    image.info.clear()  # some writers look there for what they are not given
    buffer = io.BytesIO()
    try:
        if kind in _JPEG and max(image.size) > _JPEG_SIDE:  # its library would say so by itself, on stderr
            raise ValueError(f"no side may have more than {_JPEG_SIDE} pixels")
        image.save(buffer, kind, **_parameters(metadata, kind))
    except MemoryError:
        raise
    except Exception as error:  # each writer has its own
        raise PrancImgError(f"cannot write {kind}: {error}") from error
    return buffer.getvalue(), notes


def _held(metadata: Metadata, kind: str, grey: bool) -> tuple[Metadata, list[str]]:
    """What a format takes of them, beside pixels of grey or colour, and in words what it does not."""
    given = [what.upper() for what in ("icc", "exif", "xmp") if getattr(metadata, what)]
    if kind not in _CARRIERS:
        return Metadata(), [f"{kind} does not hold {' and '.join(given)}: left out"] if given else []
    notes = []
    for what, most in _JPEG_MOST.items() if kind == "JPEG" else ():
        if (size := len(getattr(metadata, what))) > most:
            notes.append(f"JPEG does not hold {size} bytes of {what.upper()}: left out")
            metadata = replace(metadata, **{what: b""})
    icc, said = fitting(metadata.icc, grey)
    metadata = replace(metadata, icc=icc)
    notes += said
    if metadata.exif and kind in ("TIFF", "AVIF"):  # whose writers read it
        try:
            read_tags(metadata.exif)
        except PrancImgError as error:
            notes.append(f"{error}: left out")
            metadata = replace(metadata, exif=b"")
    return metadata, notes


_JPEG, _JPEG_SIDE = ("JPEG", "MPO", "PDF"), 65500
_JPEG_MOST = {"icc": 255 * (65533 - 14), "exif": 65533 - len(PREFIX), "xmp": 65533 - 29}
"""A segment of a JPEG file has 65533 bytes and says in some of them what it holds; only profiles may have up to 255."""
_NO_GREY = ("QOI", "WEBP", "AVIF")
"""Formats that are written in colour, grey pictures too."""
_CARRIERS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF")
"""Formats that Pillow writes a colour profile, EXIF and XMP to."""


def _parameters(metadata: Metadata, kind: str) -> dict[str, Any]:
    """What Pillow's save takes for them."""
    parameters = dict(_QUALITY.get(kind, {})) | ({"icc_profile": metadata.icc} if metadata.icc else {})
    if kind == "TIFF":
        tags = read_tags(metadata.exif)
        if metadata.xmp:
            tags[_XMP_TAG] = metadata.xmp
        return parameters | ({"exif": tags} if len(tags) else {})
    if metadata.exif:
        parameters["exif"] = PREFIX + metadata.exif
    if kind in ("PNG", "JPEG") and (dots := _dots(metadata)):
        parameters["dpi"] = dots
    if metadata.xmp and kind == "PNG":
        from PIL.PngImagePlugin import PngInfo

        parameters["pnginfo"] = PngInfo()
        parameters["pnginfo"].add_itxt(XMP_KEYWORD, metadata.xmp.decode("utf-8", "replace"))
    elif metadata.xmp:
        parameters["xmp"] = metadata.xmp
    return parameters


_QUALITY: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 4},
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "WEBP": {"quality": 95},
    "AVIF": {"quality": 90},
}
"""Of lossy formats: so that what is lost was lost in the .prc file. Of PNG: half the time for 3 % more bytes."""
_XMP_TAG = 700


def _dots(metadata: Metadata) -> tuple[float, float] | None:
    """Per inch, for what says that elsewhere than in EXIF as well."""
    dots = dots_per_inch(metadata.exif)
    return dots if dots and max(dots) < 1 << 16 else None


def _deep_file(samples: np.ndarray, metadata: Metadata, kind: str) -> bytes | None:
    """16-bit colour with its metadata as PNG, TIFF or PPM, or None without what writes that."""
    height, width, channels = samples.shape
    try:
        if kind == "PPM" and channels == 3:
            return b"P6 %d %d 65535\n" % (width, height) + samples.astype(">u2").tobytes()
        if kind == "TIFF":
            return _tiff_file(samples, metadata)
        if kind == "PNG":
            import imagecodecs

            data = bytes(imagecodecs.png_encode(np.ascontiguousarray(samples)))
            chunks = []
            if metadata.icc:
                chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc, 9)))
            if metadata.exif:
                chunks.append((b"eXIf", metadata.exif))
            if dots := _dots(metadata):
                chunks.append((b"pHYs", struct.pack(">IIB", *(round(x / 0.0254) for x in dots), 1)))
            if metadata.xmp:
                chunks.append((b"iTXt", XMP_KEYWORD.encode() + b"\0" * 5 + metadata.xmp))
            packed = [
                len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")
                for name, body in chunks
            ]
            return data[:33] + b"".join(packed) + data[33:]  # behind the signature and IHDR
    except ImportError:
        pass
    except MemoryError:
        raise
    except Exception as error:  # each library has its own
        raise PrancImgError(f"cannot write {kind}: {error}") from error
    return None


def _tiff_file(samples: np.ndarray, metadata: Metadata) -> bytes:
    """16-bit RGB or RGBA as TIFF: Pillow writes the tags, EXIF's among them, but has no mode for such pictures."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2
    from PIL.TiffTags import TAGS_V2_GROUPS

    (height, width, channels), packed = samples.shape, zlib.compress(samples.astype("<u2").tobytes())
    tags, exif = ImageFileDirectory_v2(), _parameters(metadata, "TIFF").get("exif", Image.Exif())
    for tag in exif:
        tags[tag] = exif.get_ifd(tag) if tag in TAGS_V2_GROUPS else exif[tag]
    if metadata.icc:
        tags[34675] = metadata.icc
    storage = {256: width, 257: height, BITS: (16,) * channels, 259: 8, PHOTOMETRIC: RGB, 273: 0, 277: channels}
    storage |= {278: height, 279: len(packed), 284: 1} | ({338: PLAIN_ALPHA} if channels == 4 else {})
    for tag, value in storage.items():
        tags[tag] = value
    buffer = io.BytesIO()
    tags.save(buffer)
    return buffer.getvalue() + packed
