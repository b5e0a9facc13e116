"""What AVIF and JPEG 2000 files say of their samples, in boxes that Pillow leaves out.

ISO/IEC 14496-12 (boxes), 23008-12 (items and their properties), AV1-ISOBMFF (av1C), 15444-1 (colr, SIZ).
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_CODESTREAM = b"\xff\x4f\xff\x51"
"""A JPEG 2000 stream begins with these markers, the second that of its sizes."""


@dataclass(frozen=True)
class Said:
    """What the boxes say; nothing that is certain where they make no sense."""

    bits: int = 8
    """The most of any channel."""
    signed: bool = False
    cicp: tuple[int, ...] | None = None
    """Colour primaries, transfer characteristics, matrix, and whether the range is full, as in ITU-T H.273."""
    enumerated: int = 0
    """JPEG 2000's number of a colour space."""
    icc: bytes = b""


def avif(data: bytes) -> Said:
    """Of the primary item."""
    with contextlib.suppress(struct.error, LookupError, ValueError):
        meta = _within(data, 0, len(data), "meta")
        start, end = meta[0] + 4, meta[1]
        at, _ = _within(data, start, end, "pitm")
        primary = struct.unpack_from(">I" if data[at] else ">H", data, at + 4)[0]
        start, end = _within(data, start, end, "iprp")
        properties = list(_boxes(data, *_within(data, start, end, "ipco")))
        owned = [properties[number - 1] for number in _associated(data, *_within(data, start, end, "ipma"), primary)]
        bits, cicp = 8, None
        for kind, at, _ in owned:
            if kind == "av1C":
                flags = data[at + 2]
                bits = max(bits, 12 if flags & 0x20 else 10 if flags & 0x40 else 8)
            elif kind == "pixi":
                bits = max(bits, *data[at + 5 : at + 5 + data[at + 4]])
            elif kind == "colr" and data[at : at + 4] == b"nclx":
                *codes, flags = struct.unpack_from(">3HB", data, at + 4)
                cicp = (*codes, flags >> 7)
        return Said(bits, cicp=cicp)
    return Said()


def jpeg2000(data: bytes) -> Said:
    """Of a codestream, bare or in a JP2 file."""
    with contextlib.suppress(struct.error, LookupError):
        start, enumerated, icc = 0, 0, b""
        if not data.startswith(_CODESTREAM):
            start, _ = _within(data, 0, len(data), "jp2c")
            for kind, at, end in _boxes(data, *_within(data, 0, len(data), "jp2h")):
                if kind == "colr" and data[at] in (2, 3):
                    icc = icc or data[at + 3 : end]
                elif kind == "colr" and data[at] == 1:
                    enumerated = enumerated or struct.unpack_from(">I", data, at + 3)[0]
        (channels,) = struct.unpack_from(">H", data, start + 40)
        depths = data[start + 42 : start + 42 + 3 * channels : 3]
        bits = max((depth & 0x7F) + 1 for depth in depths)
        return Said(max(8, bits), any(depth & 0x80 for depth in depths), None, enumerated, icc)
    return Said()


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Kind, and the beginning and end of the content, of the boxes in a part of a file."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1:
            size, head = struct.unpack_from(">Q", data, start + 8)[0], 16
        after = start + size if size else end
        if (size and size < head) or after > end:
            return
        yield kind.decode("latin-1"), start + head, after
        start = after


def _within(data: bytes, start: int, end: int, kind: str) -> tuple[int, int]:
    """The content of the first box of a kind; LookupError if there is none."""
    for name, first, last in _boxes(data, start, end):
        if name == kind:
            return first, last
    raise LookupError(kind)


def _associated(data: bytes, at: int, end: int, item: int) -> list[int]:
    """The numbers of an item's properties, from 1."""
    version, flags = data[at], data[at + 3] & 1
    (count,) = struct.unpack_from(">I", data, at + 4)
    at += 8
    for _ in range(count):
        if at >= end:
            break
        (number,) = struct.unpack_from(">I" if version else ">H", data, at)
        at += 4 if version else 2
        length, at = data[at], at + 1
        if flags:
            found = [value & 0x7FFF for value in struct.unpack_from(f">{length}H", data, at)]
        else:
            found = [value & 0x7F for value in data[at : at + length]]
        if number == item:
            return [value for value in found if value]
        at += length * (2 if flags else 1)
    raise LookupError(item)
