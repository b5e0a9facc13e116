"""A picture without loss: what such a segment says of itself, checked before anything is decoded.

Its samples are stored as they are, as a PNG file or as a lossless WebP bitstream; :mod:`prancimg.images.lossless`
makes and reads them. docs/format.md specifies it. Plain Python, so that a file's facts need no library.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from prancimg.errors import PrancImgError
from prancimg.format.layout import MAX_SIDE
from prancimg.format.numbers import Numbers, varint

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNKS = b"IHDR", b"PLTE", b"IDAT", b"IEND"
_PNG_KINDS = {(0, 1), (0, 8), (2, 8), (3, 1), (3, 2), (3, 4), (3, 8)}
"""Colour types and bits a sample: grey, RGB, palette."""
_WEBP_SIGNATURE = 0x2F


class Coding(IntEnum):
    """How the samples are stored. The numbers are part of the file format."""

    RAW = 0
    PNG = 1
    WEBP = 2


@dataclass(frozen=True)
class Lossless:
    """A picture, not decoded yet."""

    width: int
    height: int
    depth: int
    """Bits a sample, 8 or 16. Those of 16 are stored as 8: the high bytes as a picture, above that of the low bytes."""
    coding: Coding
    data: bytes

    @property
    def rows(self) -> int:
        """Height of what is stored."""
        return self.height * self.depth // 8

    def pack(self) -> bytes:
        """The segment's payload."""
        return b"".join(map(varint, (self.coding, self.depth, self.width, self.height))) + self.data

    @staticmethod
    def unpack(payload: bytes) -> Lossless:
        """Parse, and check that the data are of the size they are said to be; the cap on pixels is the caller's."""
        number = Numbers(payload)
        coding = Coding(number("coding of a lossless picture", 0, len(Coding) - 1))
        depth = number("depth of a lossless picture", 8, 16)
        if depth not in (8, 16):
            raise PrancImgError(f"a lossless picture of {depth} bits a sample is not possible")
        width, height = (number(name, 1, MAX_SIDE) for name in ("width", "height"))
        found = Lossless(width, height, depth, coding, number.rest)
        if coding == Coding.RAW:
            fits = len(found.data) in (width * found.rows, 3 * width * found.rows)
        else:
            fits = (width, found.rows) == (_png_size if coding == Coding.PNG else _webp_size)(found.data)
        if not fits:
            raise PrancImgError("the lossless picture is broken: its data are of another size or kind")
        return found


def _png_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG file of critical chunks alone, not interlaced, of at most 8 bits; None for others."""
    if data[:16] != PNG_SIGNATURE + b"\0\0\0\rIHDR" or len(data) < 33:
        return None
    width, height, bits, kind, *methods = struct.unpack_from(">IIBBBBB", data, 16)
    at = 8
    while at + 12 <= len(data) and data[at + 4 : at + 8] in _CHUNKS:
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return (width, height) if (kind, bits) in _PNG_KINDS and not any(methods) and at == len(data) else None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a lossless WebP bitstream (VP8L) without alpha; None for others."""
    if len(data) < 5 or data[0] != _WEBP_SIGNATURE:
        return None
    bits = int.from_bytes(data[1:5], "little")
    return ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1) if bits >> 28 == 0 else None
