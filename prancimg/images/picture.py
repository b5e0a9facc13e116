"""Pictures as they come and as they are wanted: any mode, 8 or 16 bits, alpha, orientation and metadata, in and out."""

from __future__ import annotations

import io
import operator
import os
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from prancimg.errors import PrancImgError
from prancimg.format import files
from prancimg.format.extras import Metadata, Samples

ImageLike = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | np.ndarray

DEEP_FORMATS = ("PNG", "TIFF", "PPM")
"""Formats that can hold 16 bits a sample in colour here."""
_ORIENTATION = 0x0112
_PREFIX = b"Exif\0\0"
# What makes a picture of each EXIF orientation upright.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x[:, ::-1].swapaxes(0, 1),
}
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO, _RGB = 258, 262, 0, 2
_PREMULTIPLIED, _PLAIN_ALPHA = 1, 2
# Tags of a TIFF file that say how it is stored, which is nothing to carry on.
_STORAGE = {
    254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 284, 288, 289, 292, 293, 297, 317, 320,
    322, 323, 324, 325, 330, 338, 339, 347, 512, 513, 514, 529, 530, 531, 532, 700, 34675,
}  # fmt: skip


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
    if _is_deep(image) and not mode.startswith("I"):
        deep, said = _deep_samples(data, image)
        notes += said
    if deep is None:
        image.load()  # which turns a TIFF file upright and puts that into its metadata
    metadata, turned = _metadata(image)
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
        if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            colors = 65535 - colors
    elif mode == "F":
        raise PrancImgError("the image has floating-point samples; 8 or 16 bits are needed")
    else:
        if mode == "CMYK":
            image, metadata = _from_cmyk(image, metadata), replace(metadata, icc=b"")
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
        elif metadata.icc and _is_srgb(metadata.icc):
            metadata = replace(metadata, icc=b"")
            notes.append("the colour profile is sRGB, which goes without saying: left out")
    if orient and turned in _UPRIGHT:
        colors = _UPRIGHT[turned](colors)
        alpha = None if alpha is None else _UPRIGHT[turned](alpha)
        metadata = _upright(metadata)
    return _picture(colors, alpha, metadata=metadata, notes=tuple(notes))


_MODES = {"P": "palette", "PA": "palette", "1": "black and white", "YCbCr": "YCbCr"}


def _is_deep(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet has 16 bits a sample in its file."""
    if image.format == "TIFF":
        return 16 in getattr(image, "tag_v2", {}).get(_BITS, ())
    tiles = getattr(image, "tile", ())
    if image.format == "PPM":
        return any(isinstance(tile[3], tuple) and tile[3][-1] > 255 for tile in tiles)
    return any(";16" in str(tile) for tile in tiles)


def _deep_samples(data: bytes, image: Image.Image) -> tuple[np.ndarray | None, list[str]]:
    """The 16-bit samples (H, W, channels) of a file, if what reads them is here, and what is lost, in words."""
    reduced = "16-bit samples reduced to 8 bits"
    try:
        if image.format == "PNG" and data:
            import imagecodecs

            samples = np.atleast_3d(imagecodecs.png_decode(data))
            return (samples, []) if samples.dtype == np.uint16 else (None, [reduced])
        if image.format == "TIFF" and data:
            found, notes = _tiff_samples(data)
            return found, notes if found is not None else [reduced]
        tile = (getattr(image, "tile", None) or [("",)])[0]  # none, once it is loaded
        if image.format == "PPM" and data and tile[0] == "ppm":
            _, _, offset, (_, most) = tile
            samples = np.frombuffer(data, ">u2", image.height * image.width * 3, offset) * (65535 / most)
            samples = np.rint(np.minimum(samples, 65535)).astype(np.uint16)
            return samples.reshape(image.height, image.width, 3), []
    except ImportError:
        return None, [f"{reduced} (pip install 'prancimg[deep]' to keep them)"]
    except Exception as error:  # each library has its own
        raise PrancImgError(f"the image is broken: {error}") from error
    return None, [reduced]


def _tiff_samples(data: bytes) -> tuple[np.ndarray | None, list[str]]:
    """RGB, with plain alpha if there is any; None for other kinds of colour. (Pillow reads grey itself.)"""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        samples, extra = page.asarray(), [int(kind) for kind in page.extrasamples] or [_PLAIN_ALPHA]
    samples = np.moveaxis(samples, 0, -1) if page.axes.startswith("S") else np.atleast_3d(samples)
    if page.photometric != _RGB or samples.dtype != np.uint16 or samples.shape[2] not in (3, 4):
        return None, []
    colors, alpha = samples[:, :, :3], samples[:, :, 3:]
    if alpha.size and extra[0] not in (_PREMULTIPLIED, _PLAIN_ALPHA):
        return colors, ["a channel that is neither colour nor transparency is left out"]
    if alpha.size and extra[0] == _PREMULTIPLIED:
        colors = np.rint(np.minimum(colors * (65535 / np.maximum(alpha, 1)), 65535)).astype(np.uint16)
    return np.concatenate([colors, alpha], 2), []


def _from_cmyk(image: Image.Image, metadata: Metadata) -> Image.Image:
    """To sRGB, by the colour profile if it has a valid one."""
    converted = _by_profile(image, metadata.icc) if metadata.icc else None
    return image.convert("RGB") if converted is None else converted


def _is_srgb(icc: bytes) -> bool:
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


def _metadata(image: Image.Image) -> tuple[Metadata, int]:
    """What an image carries, and its EXIF orientation."""
    info = image.info
    exif = image.getexif()
    turned = exif.get(_ORIENTATION, 1)
    if image.format == "TIFF" or "exif" not in info:
        for tag in _STORAGE & exif.keys():
            del exif[tag]
        raw = exif.tobytes() if len(exif) else b""
    else:
        raw = info["exif"]
    icc, xmp = info.get("icc_profile") or b"", info.get("xmp") or b""
    if isinstance(xmp, str):
        xmp = xmp.encode()
    return Metadata(bytes(icc), bytes(raw).removeprefix(_PREFIX), bytes(xmp)), turned


def _upright(metadata: Metadata) -> Metadata:
    """With every word about the orientation set to 1; all else stays as it was, to the byte."""
    exif, xmp = bytearray(metadata.exif), metadata.xmp
    order = "<" if exif[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            if struct.unpack_from(order + "H", exif, at)[0] == _ORIENTATION:
                struct.pack_into(order + "H", exif, at + 8, 1)
    except struct.error:  # damaged, but somebody may still make sense of it
        pass
    xmp = re.sub(rb'(tiff:Orientation\s*(?:=\s*["\']|>))\s*[2-8]', rb"\g<1>1", xmp)
    return replace(metadata, exif=bytes(exif), xmp=xmp)


def only_orientation(metadata: Metadata) -> Metadata:
    """EXIF with nothing but the orientation, nothing at all where that is upright."""
    try:
        turned = _tags(metadata.exif).get(_ORIENTATION, 1)
    except PrancImgError:
        return Metadata()
    if turned not in _UPRIGHT:
        return Metadata()
    exif = Image.Exif()
    exif[_ORIENTATION] = turned
    return Metadata(exif=exif.tobytes().removeprefix(_PREFIX))


def _tags(raw: bytes) -> Image.Exif:
    """EXIF as Pillow reads it, without what says how its own file was stored; raises PrancImgError for nonsense."""
    exif = Image.Exif()
    try:
        exif.load(_PREFIX + raw)
        for tag in _STORAGE & exif.keys():
            del exif[tag]
        exif.tobytes()
        operator.index(exif.get(_ORIENTATION, 1))
    except Exception as error:  # whatever Pillow makes of it
        raise PrancImgError(f"the EXIF is broken: {error}") from error
    return exif


def to_image(samples: np.ndarray, metadata: Metadata) -> Image.Image:
    """Samples (H, W, 1 to 4), 8-bit or 16-bit grey, as a Pillow image; colour of 16 bits is reduced to 8."""
    if samples.dtype == np.uint16 and samples.shape[2] > 1:
        samples = np.rint(samples / 257).astype(np.uint8)
    image = Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples)
    for name, data in (("icc_profile", metadata.icc), ("exif", metadata.exif), ("xmp", metadata.xmp)):
        if data:
            image.info[name] = _PREFIX + data if name == "exif" else data
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
    metadata, lost = _held(metadata, kind)
    notes += lost
    if samples.dtype == np.uint16 and kind == "TIFF" and samples.shape[2] == 2:
        notes.append("grey of 16 bits with transparency written as RGB, which more programs read")
        samples = samples[:, :, [0, 0, 0, 1]]
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
    if kind in ("QOI", "WEBP", "AVIF") and image.mode.startswith("L"):
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


def _held(metadata: Metadata, kind: str) -> tuple[Metadata, list[str]]:
    """What a format takes of them, and in words what it does not."""
    given = [what.upper() for what in ("icc", "exif", "xmp") if getattr(metadata, what)]
    if kind not in _CARRIERS:
        return Metadata(), [f"{kind} does not hold {' and '.join(given)}: left out"] if given else []
    notes = []
    for what, most in _JPEG_MOST.items() if kind == "JPEG" else ():
        if (size := len(getattr(metadata, what))) > most:
            notes.append(f"JPEG does not hold {size} bytes of {what.upper()}: left out")
            metadata = replace(metadata, **{what: b""})
    if metadata.exif and kind in ("TIFF", "AVIF"):  # whose writers read it
        try:
            _tags(metadata.exif)
        except PrancImgError as error:
            notes.append(f"{error}: left out")
            metadata = replace(metadata, exif=b"")
    return metadata, notes


_JPEG, _JPEG_SIDE = ("JPEG", "MPO", "PDF"), 65500
_JPEG_MOST = {"icc": 255 * (65533 - 14), "exif": 65533 - len(_PREFIX), "xmp": 65533 - 29}
"""A segment of a JPEG file has 65533 bytes and says in some of them what it holds; only profiles may have up to 255."""
_CARRIERS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF")
"""Formats that Pillow writes a colour profile, EXIF and XMP to."""


def _parameters(metadata: Metadata, kind: str) -> dict[str, Any]:
    """What Pillow's save takes for them."""
    parameters = dict(_QUALITY.get(kind, {})) | ({"icc_profile": metadata.icc} if metadata.icc else {})
    if kind == "TIFF":
        tags = _tags(metadata.exif)
        if metadata.xmp:
            tags[_XMP_TAG] = metadata.xmp
        return parameters | ({"exif": tags} if len(tags) else {})
    if metadata.exif:
        parameters["exif"] = _PREFIX + metadata.exif
    if metadata.xmp and kind == "PNG":
        from PIL.PngImagePlugin import PngInfo

        parameters["pnginfo"] = PngInfo()
        parameters["pnginfo"].add_itxt(_XMP_KEYWORD, metadata.xmp.decode("utf-8", "replace"))
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
_XMP_TAG, _XMP_KEYWORD = 700, "XML:com.adobe.xmp"


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
            if metadata.xmp:
                chunks.append((b"iTXt", _XMP_KEYWORD.encode() + b"\0" * 5 + metadata.xmp))
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
    storage = {256: width, 257: height, _BITS: (16,) * channels, 259: 8, _PHOTOMETRIC: 2, 273: 0, 277: channels}
    storage |= {278: height, 279: len(packed), 284: 1} | ({338: _PLAIN_ALPHA} if channels == 4 else {})
    for tag, value in storage.items():
        tags[tag] = value
    buffer = io.BytesIO()
    tags.save(buffer)
    return buffer.getvalue() + packed


def plane_to_png(plane: np.ndarray) -> bytes:
    """A plane (H, W) uint8 or uint16 as a greyscale PNG of as few bits a sample as it needs: 1, 8 or 16."""
    if plane.dtype == np.uint16 and not np.any(plane % 257):
        plane = (plane // 257).astype(np.uint8)
    image = Image.fromarray(plane)
    if plane.dtype == np.uint8 and not np.any((plane + 1) & 254):  # 0 and 255 alone
        image = image.convert("1")
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


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
