"""What travels with a picture: a colour profile, EXIF and XMP. And what does not, in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from prancimg.errors import PrancImgError
from prancimg.format.extras import Metadata
from prancimg.images import exif
from prancimg.images.exif import ORIENTATION, PREFIX, STORAGE

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
_USUAL_DPI = 72
"""What EXIF says of a picture whose resolution nobody knows."""
_IPTC, _EXTENDED_XMP = 0x0404, b"http://ns.adobe.com/xmp/extension/\0"
_NAMES_SHOWN = 5


def metadata_of(image: Image.Image, texts: Sequence[str] = ()) -> tuple[Metadata, int, list[str]]:
    """What an image carries, its EXIF orientation, and in words what is left out, the named texts among it."""
    info, notes = image.info, []
    tags = image.getexif()
    turned = tags.get(ORIENTATION, 1)
    raw = info.get("exif")
    if image.format == "TIFF" or not isinstance(raw, bytes):
        storage = {tag: tags[tag] for tag in STORAGE & tags.keys()}
        try:
            for tag in storage:
                del tags[tag]
            raw = tags.tobytes() if len(tags) else b""
        finally:
            tags.update(storage)  # they are the image's own, which stays as it was
    raw, dropped = exif.without_thumbnail(raw.removeprefix(PREFIX))
    if dropped:
        notes.append(f"a thumbnail of {dropped} bytes in the EXIF is left out")
    names = [*texts, *_texts(image)]
    if names:
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        notes.append(f"text left out: {', '.join(names[:_NAMES_SHOWN])}{more}")
    icc, xmp = info.get("icc_profile"), info.get("xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode()
    raw = _with_resolution(raw, info)
    return Metadata(icc if isinstance(icc, bytes) else b"", raw, xmp if isinstance(xmp, bytes) else b""), turned, notes


def _texts(image: Image.Image) -> list[str]:
    """Names of words and descriptions beside EXIF and XMP."""
    names = [] if image.info.get("comment", b"Created by")[:10] in (b"Created by", "Created by") else ["comment"]
    resources = image.info.get("photoshop")
    if isinstance(resources, dict) and _IPTC in resources:
        names.append("IPTC")
    if any(body.startswith(_EXTENDED_XMP) for _, body in getattr(image, "applist", ())):
        names.append("extended XMP")
    return names


def _with_resolution(raw: bytes, info: dict[Any, Any]) -> bytes:
    """EXIF with the resolution that stands elsewhere in a file, unless it says the same or the usual."""
    try:
        inches = "dpi" in info
        density = info.get("jfif_density", (0, 0)) if info.get("jfif_unit") == 0 else (0, 0)
        x, y = (float(number) for number in info.get("dpi") or info.get("aspect") or density)
    except (TypeError, ValueError, ZeroDivisionError):
        return raw
    known = exif.dots_per_inch(raw)
    if not (0 < x < 1e6 and 0 < y < 1e6) or (x == y and not inches):
        return raw
    if known is not None and inches and max(abs(x - known[0]), abs(y - known[1])) < 0.5:
        return raw
    if known is None and inches and round(x) == round(y) == _USUAL_DPI:
        return raw
    if inches and max(abs(x - round(x)), abs(y - round(y))) < 0.02:  # PNG counts dots per metre
        x, y = round(x), round(y)
    return exif.with_resolution(raw, x, y, inches=inches)


def upright(metadata: Metadata) -> Metadata:
    """With every word about the orientation set to 1; all else stays as it was, to the byte."""
    xmp = re.sub(rb'(tiff:Orientation\s*(?:=\s*["\']|>))\s*[2-8]', rb"\g<1>1", metadata.xmp)
    return replace(metadata, exif=exif.upright(metadata.exif), xmp=xmp)


def stripped(metadata: Metadata) -> tuple[Metadata, list[str]]:
    """With nothing but an orientation, and in words what that changes."""
    notes = ["without its colour profile the picture shows other colours"] if metadata.icc else []
    return only_orientation(metadata), notes


def without_empty_exif(metadata: Metadata) -> Metadata:
    """Without EXIF that has no tag but, perhaps, an orientation of 1, which goes without saying."""
    return replace(metadata, exif=b"") if exif.says_nothing(metadata.exif) else metadata


def only_orientation(metadata: Metadata) -> Metadata:
    """EXIF with nothing but the orientation, nothing at all where that is upright."""
    try:
        turned = exif.read_tags(metadata.exif).get(ORIENTATION, 1)
    except PrancImgError:
        return Metadata()
    if turned not in UPRIGHT:
        return Metadata()
    tags = Image.Exif()
    tags[ORIENTATION] = turned
    return Metadata(exif=tags.tobytes().removeprefix(PREFIX))
