"""What a PNG file says in chunks that Pillow leaves out, reads late, or refuses to read for their length."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from prancimg.format.extras import MAX_METADATA

SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP_KEYWORD = "XML:com.adobe.xmp"
_RAW_PROFILES = {
    "Raw profile type exif": "exif",
    "Raw profile type APP1": "exif",
    "Raw profile type xmp": "xmp",
    "Raw profile type icc": "icc_profile",
    "Raw profile type icm": "icc_profile",
}
"""Names of texts that hold metadata in hexadecimal, as ImageMagick writes them, and what that is."""
_TEXT = (b"tEXt", b"zTXt", b"iTXt")


@dataclass(frozen=True)
class Said:
    """What stands beside the pixels."""

    data: bytes
    """The file without its text and profile."""
    info: dict[str, Any] = field(default_factory=dict)
    """``icc_profile``, ``exif`` and ``xmp``, as in Pillow's."""
    texts: list[str] = field(default_factory=list)
    """Names of further text."""
    cicp: tuple[int, ...] | None = None
    """Colour by the numbers of ITU-T H.273: primaries, transfer characteristics, matrix, full range."""


def read(data: bytes) -> Said:
    """The chunks of a PNG file; what is broken is left for whoever decodes it.

    Text and profiles that are larger than the format takes come one byte longer than it takes.
    """
    rest, texts = [SIGNATURE], list[str]()
    info: dict[str, Any] = {"exif": b""}  # Pillow would decode the picture to look for more
    end, cicp = len(SIGNATURE), None
    for kind, body, end in _chunks(data):
        if kind in _TEXT:
            name, content = _text(kind, body)
            if name == XMP_KEYWORD:
                info["xmp"] = content
            elif name in _RAW_PROFILES:
                what = _RAW_PROFILES[name]
                info[what] = info.get(what) or _from_hexadecimal(content)
            elif name:
                texts.append(name)
        elif kind == b"iCCP":
            info["icc_profile"] = _inflated(body.partition(b"\0")[2][1:]) or b"broken"
        else:
            if kind == b"eXIf":
                info["exif"] = b"Exif\0\0" + body
            elif kind == b"cICP" and len(body) == 4:
                cicp = tuple(body)
            rest.append(data[end - 12 - len(body) : end])
    return Said(b"".join([*rest, data[end:]]), info, texts, cicp)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Kind, body and end of every whole chunk."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data):
            return
        at += 12 + length
        yield kind, data[at - 4 - length : at - 4], at


def _text(kind: bytes, body: bytes) -> tuple[str, bytes]:
    """The name of a text and, where it may be metadata, what it says."""
    keyword, _, rest = body.partition(b"\0")
    name = keyword.decode("latin-1")
    if name != XMP_KEYWORD and name not in _RAW_PROFILES:
        return name, b""
    if kind == b"zTXt":
        return name, _inflated(rest[1:])
    if kind == b"iTXt":
        packed, *_ = rest[:1] or b"\0"
        content = rest[2:].split(b"\0", 2)[-1]  # behind two words about the language
        return name, _inflated(content) if packed else content
    return name, rest


def _inflated(packed: bytes) -> bytes:
    """At most a byte more than is taken; nothing where it is broken."""
    with contextlib.suppress(zlib.error):
        return zlib.decompressobj().decompress(packed, MAX_METADATA + 1)
    return b""


def _from_hexadecimal(content: bytes) -> bytes:
    """Behind an empty line, the kind and the length."""
    with contextlib.suppress(ValueError):
        return bytes.fromhex(b"".join(content.split(b"\n")[3:]).decode("latin-1"))
    return b""
