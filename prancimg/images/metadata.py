"""What travels with a picture: EXIF, XMP and a colour profile, read and edited."""

from __future__ import annotations

import operator
import re
import struct
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image

from prancimg.errors import PrancImgError
from prancimg.format.extras import Metadata

ORIENTATION = 0x0112
BITS, PHOTOMETRIC, WHITE_IS_ZERO, RGB = 258, 262, 0, 2
PREMULTIPLIED, PLAIN_ALPHA = 1, 2
"""What a TIFF file says of a further channel."""
PREFIX = b"Exif\0\0"
# What makes a picture of each EXIF orientation upright.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x[:, ::-1].swapaxes(0, 1),
}
# Tags of a TIFF file that say how it is stored, which is nothing to carry on.
STORAGE = {
    254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 284, 288, 289, 292, 293, 297, 317, 320,
    322, 323, 324, 325, 330, 338, 339, 347, 512, 513, 514, 529, 530, 531, 532, 700, 34675,
}  # fmt: skip


def metadata_of(image: Image.Image) -> tuple[Metadata, int]:
    """What an image carries, and its EXIF orientation."""
    info = image.info
    exif = image.getexif()
    turned = exif.get(ORIENTATION, 1)
    if image.format == "TIFF" or "exif" not in info:
        for tag in STORAGE & exif.keys():
            del exif[tag]
        raw = exif.tobytes() if len(exif) else b""
    else:
        raw = info["exif"]
    icc, xmp = info.get("icc_profile") or b"", info.get("xmp") or b""
    if isinstance(xmp, str):
        xmp = xmp.encode()
    return Metadata(bytes(icc), bytes(raw).removeprefix(PREFIX), bytes(xmp)), turned


def upright(metadata: Metadata) -> Metadata:
    """With every word about the orientation set to 1; all else stays as it was, to the byte."""
    exif, xmp = bytearray(metadata.exif), metadata.xmp
    order = "<" if exif[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            if struct.unpack_from(order + "H", exif, at)[0] == ORIENTATION:
                struct.pack_into(order + "H", exif, at + 8, 1)
    except struct.error:  # damaged, but somebody may still make sense of it
        pass
    xmp = re.sub(rb'(tiff:Orientation\s*(?:=\s*["\']|>))\s*[2-8]', rb"\g<1>1", xmp)
    return replace(metadata, exif=bytes(exif), xmp=xmp)


def only_orientation(metadata: Metadata) -> Metadata:
    """EXIF with nothing but the orientation, nothing at all where that is upright."""
    try:
        turned = read_tags(metadata.exif).get(ORIENTATION, 1)
    except PrancImgError:
        return Metadata()
    if turned not in UPRIGHT:
        return Metadata()
    exif = Image.Exif()
    exif[ORIENTATION] = turned
    return Metadata(exif=exif.tobytes().removeprefix(PREFIX))


def read_tags(raw: bytes) -> Image.Exif:
    """EXIF as Pillow reads it, without what says how its own file was stored; raises PrancImgError for nonsense."""
    exif = Image.Exif()
    try:
        exif.load(PREFIX + raw)
        for tag in STORAGE & exif.keys():
            del exif[tag]
        exif.tobytes()
        operator.index(exif.get(ORIENTATION, 1))
    except Exception as error:  # whatever Pillow makes of it
        raise PrancImgError(f"the EXIF is broken: {error}") from error
    return exif
