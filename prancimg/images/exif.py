"""EXIF by its bytes: changed in place, so that everything else, maker notes too, stays where it was.

The structure is that of TIFF 6.0: a header, then directories of tags of twelve bytes each.
"""

from __future__ import annotations

import operator
import struct
from fractions import Fraction

from PIL import Image

from prancimg.errors import PrancImgError

PREFIX = b"Exif\0\0"
"""Stands before EXIF in JPEG files and in Pillow's ``info``."""
ORIENTATION = 0x0112
_X_RESOLUTION, _Y_RESOLUTION, _UNIT = 282, 283, 296
_NO_UNIT, _INCH, _CENTIMETRE = 1, 2, 3
_SHORT, _RATIONAL = 3, 5
_THUMBNAIL = ((513, 514), (273, 279))
"""Where a thumbnail begins and how long it is: a JPEG file, or samples in one strip."""
# Tags of a TIFF file that say how it is stored, which is nothing to carry on.
STORAGE = {
    254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 284, 288, 289, 292, 293, 297, 317, 320,
    322, 323, 324, 325, 330, 338, 339, 347, 512, 513, 514, 529, 530, 531, 532, 700, 34675,
}  # fmt: skip


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


def upright(raw: bytes) -> bytes:
    """With an orientation of 1."""
    changed = bytearray(raw)
    try:
        order, _, tags, _ = _directory(raw)
        if ORIENTATION in tags:
            struct.pack_into(order + "H", changed, tags[ORIENTATION] + 8, 1)
    except struct.error:  # damaged, but somebody may still make sense of it
        pass
    return bytes(changed)


def says_nothing(raw: bytes) -> bool:
    """Whether there is no tag but, perhaps, an orientation of 1."""
    try:
        order, _, tags, after = _directory(raw)
        (second,) = struct.unpack_from(order + "I", raw, after)
        return not second and tags.keys() <= {ORIENTATION} and all(_number(raw, order, at) == 1 for at in tags.values())
    except struct.error:
        return False


def without_thumbnail(raw: bytes) -> tuple[bytes, int]:
    """Without the small copy of the picture, and how many bytes that had: it is large, and shows another picture."""
    try:
        order, _, _, after = _directory(raw)
        (second,) = struct.unpack_from(order + "I", raw, after)
        if not second:
            return raw, 0
        _, _, tags, _ = _directory(raw, second)
        changed = bytearray(raw)
        struct.pack_into(order + "I", changed, after, 0)  # no second directory
        for place, length in _THUMBNAIL:
            if place in tags and length in tags:
                start, size = _number(raw, order, tags[place]), _number(raw, order, tags[length])
                if after + 4 <= start and start + size <= len(raw):
                    changed[start : start + size] = bytes(size if start + size < len(raw) else 0)
                    return bytes(changed), size
        return bytes(changed), 0
    except struct.error:
        return raw, 0


def dots_per_inch(raw: bytes) -> tuple[float, float] | None:
    """The resolution, across and down; None where there is none in a unit of length."""
    try:
        order, _, tags, _ = _directory(raw)
        unit = _number(raw, order, tags[_UNIT]) if _UNIT in tags else _INCH
        x, y = (_ratio(raw, order, tags[tag]) for tag in (_X_RESOLUTION, _Y_RESOLUTION))
    except (struct.error, LookupError, ZeroDivisionError):
        return None
    if unit not in (_INCH, _CENTIMETRE) or not (x > 0 and y > 0):
        return None
    scale = 1 if unit == _INCH else 2.54
    return x * scale, y * scale


def with_resolution(raw: bytes, x: float, y: float, *, inches: bool = True) -> bytes:
    """With another resolution, in dots per inch, or a mere aspect ratio.

    EXIF may be empty; damaged EXIF stays as it is. The first directory is written again behind everything else, so
    that nothing moves.
    """
    changed = bytearray(raw or b"II*\0" + bytes(4))
    try:
        order, start, tags, after = _directory(raw) if raw else ("<", 0, {}, 0)
        following = raw[after : after + 4] if raw else bytes(4)
        kept = {tag: raw[at : at + 12] for tag, at in tags.items()}
    except struct.error:
        return raw
    if start >= 8:
        changed[start : after + 4] = bytes(after + 4 - start)
    changed += bytes(len(changed) % 2)
    for tag, value in ((_X_RESOLUTION, x), (_Y_RESOLUTION, y)):
        ratio = Fraction(value).limit_denominator(1000)
        kept[tag] = struct.pack(order + "HHII", tag, _RATIONAL, 1, len(changed))
        changed += struct.pack(order + "II", ratio.numerator, ratio.denominator)
    kept[_UNIT] = struct.pack(order + "HHIHH", _UNIT, _SHORT, 1, _INCH if inches else _NO_UNIT, 0)
    struct.pack_into(order + "I", changed, 4, len(changed))
    table = b"".join(entry for _, entry in sorted(kept.items()))
    return bytes(changed) + struct.pack(order + "H", len(kept)) + table + following


def _directory(raw: bytes, start: int | None = None) -> tuple[str, int, dict[int, int], int]:
    """Byte order, start, the place of every tag and of what follows the last; by default of the first directory."""
    order = "<" if raw[:2] == b"II" else ">"
    if start is None:
        (start,) = struct.unpack_from(order + "I", raw, 4)
    (count,) = struct.unpack_from(order + "H", raw, start)
    places = range(start + 2, start + 2 + 12 * count, 12)
    tags = {struct.unpack_from(order + "H", raw, at)[0]: at for at in places}
    struct.unpack_from("12s", raw, places[-1]) if count else None
    return order, start, tags, start + 2 + 12 * count


def _number(raw: bytes, order: str, at: int) -> int:
    """A whole number of 16 or 32 bits in a tag itself."""
    (kind,) = struct.unpack_from(order + "H", raw, at + 2)
    value: int = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), raw, at + 8)[0]
    return value


def _ratio(raw: bytes, order: str, at: int) -> float:
    kind, count, place = struct.unpack_from(order + "HII", raw, at + 2)
    if (kind, count) != (_RATIONAL, 1):
        raise LookupError("no ratio")
    over, under = struct.unpack_from(order + "II", raw, place)
    return float(over / under)
