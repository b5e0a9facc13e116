"""The optional segments: the kind of the samples, an alpha channel, a colour profile, EXIF and XMP.

All of it is optional, in segments that a decoder may skip; the colours stay the same. docs/format.md specifies them.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from prancimg.errors import PrancImgError
from prancimg.format.bitstream import Segment
from prancimg.format.lossless import Lossless
from prancimg.format.numbers import read_varint, varint

MAX_METADATA = 1 << 24
"""Cap on the bytes of a colour profile, of EXIF and of XMP."""
OPAQUE = 65535
MARGIN = 1 / 16
"""A field's alpha goes this far beyond 0 and 1; what is cut off leaves wholly clear and opaque parts clean."""
_FLAT, _PNG, _FIELD, _LOSSLESS = range(4)


@dataclass(frozen=True)
class Metadata:
    """Raw bytes that travel with a picture; empty where there are none."""

    icc: bytes = b""
    """An ICC profile."""
    exif: bytes = b""
    """From the TIFF header on, without the ``Exif\\0\\0`` of JPEG."""
    xmp: bytes = b""
    """An XMP packet, UTF-8."""


@dataclass(frozen=True)
class Samples:
    """How the samples are meant to be shown."""

    grey: bool = False
    depth: int = 8
    """Bits of the original's samples, 8 or 16."""


@dataclass(frozen=True)
class Alpha:
    """A coded alpha channel: one value everywhere, or lossless, or a .prc file."""

    flat: int | None = None
    """0 to 65535."""
    png: bytes = b""
    """A PNG file, as in files of before there were lossless pictures."""
    prc: bytes = b""
    lossless: Lossless | None = None

    def pack(self) -> bytes:
        """The segment's payload."""
        if self.flat is not None:
            return bytes([_FLAT]) + varint(self.flat)
        if self.lossless:
            return bytes([_LOSSLESS]) + self.lossless.pack()
        return bytes([_PNG]) + self.png if self.png else bytes([_FIELD]) + self.prc

    @staticmethod
    def unpack(data: bytes) -> Alpha:
        """The opposite of :meth:`pack`."""
        method = data[0] if data else None
        if method == _FLAT:
            value, end = read_varint(data, 1)
            if value > OPAQUE or end != len(data):
                raise PrancImgError("the alpha segment is broken")
            return Alpha(flat=value)
        if method == _PNG:
            return Alpha(png=data[1:])
        if method == _FIELD:
            return Alpha(prc=data[1:])
        if method == _LOSSLESS:
            return Alpha(lossless=Lossless.unpack(data[1:]))
        raise PrancImgError("the alpha segment is of an unknown kind")


@dataclass(frozen=True)
class Extras:
    """All optional segments of a file."""

    samples: Samples = field(default_factory=Samples)
    alpha: Alpha | None = None
    metadata: Metadata = field(default_factory=Metadata)

    @property
    def mode(self) -> str:
        """What Pillow calls it, at 8 bits a sample."""
        return ("L" if self.samples.grey else "RGB") + ("A" if self.alpha else "")

    def segments(self) -> list[tuple[int, bytes]]:
        """Those that say anything, to be written before the last of a file's other segments."""
        found: list[tuple[int, bytes]] = []
        if self.samples != Samples():
            found.append((Segment.SAMPLES, varint(self.samples.grey) + varint(self.samples.depth)))
        if self.alpha:
            found.append((Segment.ALPHA, self.alpha.pack()))
        for kind, what in _METADATA.items():
            data = getattr(self.metadata, what)
            if len(data) > MAX_METADATA:
                size = f"{len(data)} bytes of {what.upper()}"
                raise PrancImgError(f"{size} are more than {MAX_METADATA}: --strip (strip=True) leaves them out")
            if data:
                found.append((kind, zlib.compress(data, 9)))
        return found

    @staticmethod
    def read(segments: Mapping[int, bytes]) -> Extras:
        """From the segments of a file."""
        samples = Samples()
        if Segment.SAMPLES in segments:
            grey, at = read_varint(segments[Segment.SAMPLES], 0)
            depth, at = read_varint(segments[Segment.SAMPLES], at)
            if grey > 1 or depth not in (8, 16) or at != len(segments[Segment.SAMPLES]):
                raise PrancImgError("the samples segment is broken")
            samples = Samples(bool(grey), depth)
        alpha = Alpha.unpack(segments[Segment.ALPHA]) if Segment.ALPHA in segments else None
        metadata = {what: _inflate(segments[kind], what) for kind, what in _METADATA.items() if kind in segments}
        return Extras(samples, alpha, Metadata(**metadata))


_METADATA = {Segment.ICC: "icc", Segment.EXIF: "exif", Segment.XMP: "xmp"}


def _inflate(data: bytes, what: str) -> bytes:
    inflater = zlib.decompressobj()
    try:
        out = inflater.decompress(data, MAX_METADATA)
    except zlib.error as error:
        raise PrancImgError(f"the {what} segment is broken: {error}") from error
    if not inflater.eof or inflater.unused_data:
        raise PrancImgError(f"the {what} segment is cut short, or holds more than {MAX_METADATA} bytes")
    return out
