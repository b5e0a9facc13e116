"""What a lossless segment says of itself is checked before anything is decoded, in plain Python."""

import struct
import zlib

import pytest

import prancimg
from prancimg import PrancImgError
from prancimg.format import bitstream
from prancimg.format.bitstream import Segment
from prancimg.format.lossless import Coding, Lossless
from prancimg.format.numbers import varint


def chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width=2, height=3, bits=8, kind=2, methods=b"\0\0\0", between=b"") -> bytes:
    """A PNG file, black."""
    rows = (b"\0" + bytes(-(-width * bits * (3 if kind == 2 else 1) // 8))) * height if width * height < 99 else b""
    head = struct.pack(">IIBB", width, height, bits, kind) + methods
    palette = chunk(b"PLTE", bytes(6)) if kind == 3 else b""
    body = chunk(b"IHDR", head) + palette + between + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")
    return b"\x89PNG\r\n\x1a\n" + body


def webp(width=2, height=3, alpha=0, version=0, signature=0x2F) -> bytes:
    """The first bytes of a lossless WebP bitstream, and zeros."""
    bits = width - 1 | height - 1 << 14 | alpha << 28 | version << 29
    return bytes([signature]) + bits.to_bytes(4, "little") + bytes(8)


def payload(coding, data, depth=8, width=2, height=3) -> bytes:
    return b"".join(map(varint, (coding, depth, width, height))) + data


GOOD = {
    "raw grey": payload(0, bytes(6)),
    "raw colour": payload(0, bytes(18)),
    "raw grey of 16 bits": payload(0, bytes(12), 16),
    "raw colour of 16 bits": payload(0, bytes(36), 16),
    "png": payload(1, png()),
    "png in grey": payload(1, png(kind=0)),
    "png of a bit": payload(1, png(bits=1, kind=0)),
    "png of a palette": payload(1, png(bits=2, kind=3)),
    "png of 16 bits": payload(1, png(height=6), 16),
    "webp": payload(2, webp()),
    "webp of 16 bits": payload(2, webp(height=6), 16),
}
BAD = {
    "nothing": b"",
    "no data": payload(0, b""),
    "raw, a byte too few": payload(0, bytes(17)),
    "raw, two channels": payload(0, bytes(12)),
    "raw of 16 bits in half": payload(0, bytes(18), 16),
    "raw of a terabyte": payload(0, bytes(18), 8, 1 << 20, 1 << 20),
    "an unknown coding": payload(3, bytes(18)),
    "12 bits": payload(0, bytes(18), 12),
    "no width": payload(0, b"", 8, 0),
    "too high": payload(0, b"", 8, 1, (1 << 20) + 1),
    "png of another size": payload(1, png(3)),
    "png of 16 bits in half": payload(1, png(), 16),
    "png of deeper samples": payload(1, png(bits=16, kind=0)),
    "png with alpha": payload(1, png(kind=6)),
    "png interlaced": payload(1, png(methods=b"\0\0\1")),
    "png with more": payload(1, png() + b"more"),
    "png with text": payload(1, png(between=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20))))),
    "png with frames": payload(1, png(between=chunk(b"acTL", bytes(8)))),
    "png without end": payload(1, png()[:-4]),
    "webp of another size": payload(2, webp(3)),
    "webp with alpha": payload(2, webp(alpha=1)),
    "webp of a later version": payload(2, webp(version=1)),
    "webp that is lossy": payload(2, webp(signature=0x9D)),
    "webp in its file": payload(2, b"RIFF\x1a\0\0\0WEBPVP8L" + webp()),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_a_segment_says_is_read_and_written_again(name):
    found = Lossless.unpack(GOOD[name])
    assert (found.width, found.height, found.depth) == (2, 3, 16 if "16" in name else 8)
    assert found.coding.name.lower() == name.split()[0] and found.pack() == GOOD[name]
    facts = prancimg.info(bitstream.write([(Segment.LOSSLESS, GOOD[name])]))
    assert (facts["model"], facts["coding"], facts["width"]) == ("lossless", found.coding.name.lower(), 2)


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_agree_with_itself_is_refused(name):
    data = bitstream.write([(Segment.LOSSLESS, BAD[name])])
    for read in (prancimg.info, prancimg.open, prancimg.decode):
        with pytest.raises(PrancImgError):
            read(data)


def test_the_cap_on_pixels_holds_before_anything_is_decoded():
    bomb = bitstream.write([(Segment.LOSSLESS, payload(Coding.PNG, png(50_000, 50_000), 8, 50_000, 50_000))])
    assert prancimg.info(bomb)["width"] == 50_000
    with pytest.raises(PrancImgError, match="50000 x 50000 pixels, more than the limit"):
        prancimg.open(bomb)


def test_a_file_holds_one_picture():
    header, weights = (1, b"\0" * 9), (2, b"")
    for segments in ([header, weights], [header], [weights], [(16, b"")]):
        data = bitstream.write([*segments, (Segment.LOSSLESS, GOOD["png"])])
        with pytest.raises(PrancImgError, match="both a network and a lossless picture"):
            prancimg.info(data)
    with pytest.raises(PrancImgError, match="more than one lossless segment"):
        prancimg.info(bitstream.write([(Segment.LOSSLESS, GOOD["png"])] * 2))


def test_who_wants_a_network_is_told_that_there_is_none():
    with pytest.raises(PrancImgError, match="no network but a lossless picture"):
        bitstream.read_header(bitstream.write([(Segment.LOSSLESS, GOOD["png"])]))
