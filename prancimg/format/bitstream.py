"""The container: a signature, then checksummed segments, coarse before fine. docs/format.md specifies it."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice

from prancimg.errors import PrancImgError
from prancimg.format.header import Header
from prancimg.format.layout import MAX_LEVELS
from prancimg.format.lossless import Lossless
from prancimg.format.numbers import read_varint, varint

SIGNATURE = b"\x8bPRC\r\n\x1a\n"
"""Like PNG's: a byte above 127 and line ends of both kinds, so that text-mode transfers are noticed."""
VERSION = 1
MAX_PIXELS = 178_956_970
"""Default cap on width · height, the same as Pillow's decompression-bomb error."""
MAX_FILE = 1 << 30
"""Cap on the bytes of a file."""
MAX_SEARCH, MAX_FOUND = 1 << 20, 8
"""Caps on the places where a last segment is looked for, and on those whose checksum is taken."""


class Segment(IntEnum):
    """What a segment holds. Unknown numbers below 128 are refused, others skipped."""

    HEADER = 1
    WEIGHTS = 2
    LOSSLESS = 3
    FIELD_0 = 16
    FIELD_1 = 17
    FIELD_2 = 18
    FIELD_3 = 19
    FIELD_4 = 20
    FIELD_5 = 21
    FIELD_6 = 22
    SAMPLES = 128
    ALPHA = 129
    ICC = 130
    EXIF = 131
    XMP = 132


@dataclass(frozen=True)
class Family:
    """A kind of file that this container holds."""

    name: str
    signature: bytes
    segments: type[IntEnum]
    needed: tuple[tuple[IntEnum, ...], ...]
    """Without all of one of these groups there is nothing to salvage."""


PICTURE = Family(".prc", SIGNATURE, Segment, ((Segment.HEADER, Segment.WEIGHTS), (Segment.LOSSLESS,)))


def write(segments: Iterable[tuple[int, bytes]], family: Family = PICTURE) -> bytes:
    """A whole file from its segments."""
    out = [family.signature, bytes([VERSION])]
    for kind, payload in segments:
        body = bytes([kind]) + varint(len(payload)) + payload
        out += [body, zlib.crc32(body).to_bytes(4, "little")]
    return b"".join(out)


def read_header(data: bytes, max_pixels: int | None = MAX_PIXELS) -> tuple[Header, dict[int, bytes]]:
    """The checked header and all segments of a file that holds a network and lacks nothing."""
    header, segments = read_beginning(data, max_pixels)
    if isinstance(header, Lossless):
        raise PrancImgError("the file holds no network but a lossless picture")
    return header, segments


def read_beginning(data: bytes, max_pixels: int | None = MAX_PIXELS) -> tuple[Header | Lossless, dict[int, bytes]]:
    """What comes first in a file that lacks nothing, checked, and all of its segments."""
    segments = read(data)
    header = beginning(segments, max_pixels)
    if isinstance(header, Header) and (lacks := _lacks(header, segments)):
        raise PrancImgError(f"the file is cut short: {lacks}")
    return header, segments


def _lacks(header: Header, kinds: Collection[int]) -> str:
    """What the field lacks of a file of some kinds of segments, in words; empty if it is all there."""
    held = [kind - Segment.FIELD_0 for kind in kinds if Segment.FIELD_0 <= kind <= Segment.FIELD_6]
    finest = min(held, default=MAX_LEVELS) if header.channels else 0
    lost = [grid for grid in header.pyramid.grids if grid.level < finest]
    return f"its field lacks {header.pyramid.share(lost)}" if lost else ""


def beginning(segments: Mapping[int, bytes], max_pixels: int | None) -> Header | Lossless:
    """The header or the lossless picture, if it has no more than ``max_pixels`` pixels."""
    header: Header | Lossless
    if Segment.LOSSLESS in segments:
        if any(Segment.HEADER <= kind <= Segment.FIELD_6 for kind in segments if kind != Segment.LOSSLESS):
            raise PrancImgError("the file holds both a network and a lossless picture")
        header = Lossless.unpack(segments[Segment.LOSSLESS])
    else:
        header = Header.unpack(segments[Segment.HEADER])
    if max_pixels is not None and header.width * header.height > max_pixels:
        raise PrancImgError(
            f"the picture has {header.width} x {header.height} pixels, more than the limit of {max_pixels}"
        )
    return header


@dataclass(frozen=True)
class Damage:
    """Where a file stops being readable."""

    error: PrancImgError
    kind: int = 0
    """The kind of the segment that is cut short, if one is."""
    begun: bytes = b""
    """What there is of its payload."""


def read(data: bytes, family: Family = PICTURE) -> dict[int, bytes]:
    """The payloads of a file's segments by kind, every checksum verified."""
    segments, damage = salvage(data, family)
    if damage:
        raise damage.error
    return segments


def salvage(data: bytes, family: Family = PICTURE) -> tuple[dict[int, bytes], Damage | None]:
    """The payloads of the segments before the first damage, checksums verified, and that damage.

    Raises PrancImgError where there is nothing to salvage: not a file of this version, or a needed segment missing.
    """
    signature = family.signature
    if data[: len(signature)] != signature:
        if signature.startswith(data):
            raise PrancImgError("the file is empty" if not data else "the file ends within its signature")
        raise PrancImgError(f"not a {family.name} file (wrong signature)")
    at = len(signature) + 1
    if len(data) < at:
        raise PrancImgError("the file ends within its signature")
    if data[at - 1] != VERSION:
        raise PrancImgError(f"format version {data[at - 1]} is not supported (this is a decoder of version {VERSION})")
    if len(data) > MAX_FILE:
        raise PrancImgError(f"the file is larger than {MAX_FILE} bytes")
    segments: dict[int, bytes] = {}
    damage = None
    while at < len(data) and not damage:
        start, kind = at, data[at]
        known = kind in family.segments.__members__.values()
        try:
            length, at = read_varint(data, at + 1)
        except PrancImgError as error:
            damage = Damage(error if known else _stray(data, start))
            break
        end = at + length
        good = end + 4 <= len(data) and zlib.crc32(data[start:end]) == int.from_bytes(data[end : end + 4], "little")
        if not good and not known:
            damage = Damage(_stray(data, start))
        elif end + 4 > len(data):
            missing = PrancImgError(f"the file is cut short: {end + 4 - len(data)} bytes or more are missing")
            begun = data[at:end]
            damage = Damage(missing) if _wrong_length(kind, data[at:], family) else Damage(missing, kind, begun)
        elif not good:
            damage = Damage(PrancImgError(f"wrong checksum: the {_name(kind, family)} is damaged"))
        elif kind < 128 and not known:
            raise PrancImgError(f"the file needs feature {kind}, which this version does not know")
        elif kind in segments:
            raise PrancImgError(f"the file has more than one {_name(kind, family)}")
        else:
            segments[kind] = data[at:end]
            at = end + 4
    if not any(segments.keys() >= set(group) for group in family.needed):
        first = next(kind for kind in family.needed[0] if kind not in segments)
        missing = PrancImgError(f"the file is cut short: its {_name(first, family)} is missing")
        raise damage.error if damage else missing
    return segments, damage


def _wrong_length(kind: int, rest: bytes, family: Family) -> bool:
    """Whether a segment that seems cut short is whole and says a wrong length: ``rest`` is all that follows it."""
    if zlib.crc32(bytes([kind]) + varint(max(0, len(rest) - 4)) + rest[:-4]) == int.from_bytes(rest[-4:], "little"):
        return True
    last = islice(_last_segments(rest, family), MAX_FOUND)  # or it hides others, of which the last is whole
    return any(zlib.crc32(rest[start:-4]) == int.from_bytes(rest[-4:], "little") for start in last)


def _last_segments(rest: bytes, family: Family) -> Iterator[int]:
    """Where a segment that ends with ``rest`` may begin: by chance nowhere, in a hostile file everywhere."""
    kinds = {int(kind) for kind in family.segments}
    for start, kind in enumerate(rest[:MAX_SEARCH]):
        if kind in kinds:
            with contextlib.suppress(PrancImgError):
                length, at = read_varint(rest, start + 1)
                if at + length + 4 == len(rest):
                    yield start


def _stray(data: bytes, start: int) -> PrancImgError:
    return PrancImgError(f"the last {len(data) - start} bytes of the file are damaged, or do not belong to it")


def _name(kind: int, family: Family) -> str:
    known = kind in family.segments.__members__.values()
    return f"{family.segments(kind).name.lower().replace('_', ' ')} segment" if known else f"segment {kind}"
