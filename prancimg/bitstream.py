"""The container: a signature, then checksummed segments, coarse before fine. docs/format.md specifies it.

Every size is checked against a cap here, before anything is allocated for it: a file is hostile until proven
otherwise.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import IntEnum

from prancimg.basis import Kind
from prancimg.coder import SCALES
from prancimg.errors import PrancImgError

SIGNATURE = b"\x8bPRC\r\n\x1a\n"
"""Like PNG's: a byte above 127 and line ends of both kinds, so that text-mode transfers are noticed."""
VERSION = 1
MAX_PIXELS = 178_956_970
"""Default cap on width · height, the same as Pillow's decompression-bomb error."""
MAX_SIDE = 1 << 20
MAX_HIDDEN, MAX_LAYERS = 512, 16
MAX_ENTRIES = 1 << 31
"""Cap on the entries of B a decoder may have to generate."""
MAX_WORK = 1 << 43
"""Cap on multiply-accumulates of a whole render."""
STEPS = 160
"""Step codes c mean the integer (8 + c % 8) << c // 8."""


class Segment(IntEnum):
    """What a segment holds. Unknown numbers below 128 are refused, others skipped."""

    HEADER = 1
    WEIGHTS = 2


@dataclass(frozen=True)
class Header:
    """All that decides how the coefficients are read and what they mean."""

    width: int
    height: int
    prior: int
    """0: θ0 drawn from the seed; otherwise the number of a prior that ships with the format."""
    hidden: int
    layers: int
    """Hidden (sine) layers, each ``hidden`` wide."""
    seed: int
    kind: int
    """The kind of the basis blocks, :class:`prancimg.basis.Kind`."""
    rows: int
    """Base-2 logarithm of the largest number of rows of a block."""
    k: int
    steps: tuple[int, ...]
    """A step code for every tensor."""
    scales: tuple[int, ...]
    """A scale index for every tensor: how its coefficients are distributed."""

    @property
    def tensors(self) -> int:
        """The number of weight and bias tensors."""
        return 2 * (self.layers + 1)

    @property
    def size(self) -> int:
        """D, the number of parameters."""
        return 3 * self.hidden + (self.layers - 1) * self.hidden * (self.hidden + 1) + 3 * (self.hidden + 1)

    def pack(self) -> bytes:
        """All fields in order, as varints."""
        numbers = [getattr(self, name) for name in _SCALARS]
        return b"".join(map(varint, [*numbers, *self.steps, *self.scales]))

    @staticmethod
    def unpack(data: bytes) -> Header:
        """Parse and check every field but the cap on pixels, which is the caller's."""
        numbers, at = [], 0
        while at < len(data):
            number, at = read_varint(data, at)
            numbers.append(number)
        count = len(_SCALARS)
        if len(numbers) < count:
            raise PrancImgError("the header is too short")
        scalars = dict(zip(_SCALARS, numbers, strict=False))
        tensors = 2 * (min(scalars["layers"], MAX_LAYERS) + 1)
        rest = tuple(numbers[count:])
        header = Header(**scalars, steps=rest[:tensors], scales=rest[tensors:])
        header._check()
        return header

    def _check(self) -> None:
        _in_range("width", self.width, 1, MAX_SIDE)
        _in_range("height", self.height, 1, MAX_SIDE)
        _in_range("hidden width", self.hidden, 1, MAX_HIDDEN)
        _in_range("number of layers", self.layers, 1, MAX_LAYERS)
        _in_range("basis kind", self.kind, 0, len(Kind) - 1)
        _in_range("block size", self.rows, 0, 20)
        _in_range("number of coefficients", self.k, 0, self.size)
        if len(self.steps) != self.tensors or len(self.scales) != self.tensors:
            raise PrancImgError("the header has the wrong length")
        for step, scale in zip(self.steps, self.scales, strict=True):
            _in_range("step", step, 0, STEPS - 1)
            _in_range("scale", scale, 0, SCALES - 1)
        _in_range("basis work", self.k * min(self.size, 1 << self.rows), 0, MAX_ENTRIES)
        _in_range("rendering work", self.width * self.height * self.size, 0, MAX_WORK)


_SCALARS = tuple(field.name for field in fields(Header) if field.name not in ("steps", "scales"))


def step_size(code: int) -> int:
    """The integer step of a step code, in units of 2**-20."""
    return (8 + code % 8) << code // 8


def write(segments: Iterable[tuple[int, bytes]]) -> bytes:
    """A whole file from its segments."""
    out = [SIGNATURE, bytes([VERSION])]
    for kind, payload in segments:
        body = bytes([kind]) + varint(len(payload)) + payload
        out += [body, zlib.crc32(body).to_bytes(4, "little")]
    return b"".join(out)


def read(data: bytes) -> dict[int, bytes]:
    """The payloads of a file's segments by kind, every checksum verified."""
    if data[: len(SIGNATURE)] != SIGNATURE:
        if SIGNATURE.startswith(data):
            raise PrancImgError("the file is empty" if not data else "the file ends within its signature")
        raise PrancImgError("not a .prc file (wrong signature)")
    at = len(SIGNATURE) + 1
    if len(data) < at:
        raise PrancImgError("the file ends within its signature")
    if data[at - 1] != VERSION:
        raise PrancImgError(f"format version {data[at - 1]} is not supported (this is a decoder of version {VERSION})")
    segments: dict[int, bytes] = {}
    while at < len(data):
        start, kind = at, data[at]
        length, at = read_varint(data, at + 1)
        end = at + length
        if end + 4 > len(data):
            raise PrancImgError(f"the file is cut short: {end + 4 - len(data)} bytes or more are missing")
        if zlib.crc32(data[start:end]) != int.from_bytes(data[end : end + 4], "little"):
            raise PrancImgError(f"wrong checksum: the {_name(kind)} is damaged")
        if kind < 128 and kind not in Segment.__members__.values():
            raise PrancImgError(f"the file needs feature {kind}, which this version does not know")
        if kind in segments:
            raise PrancImgError(f"the file has more than one {_name(kind)}")
        segments[kind] = data[at:end]
        at = end + 4
    for needed in Segment:
        if needed not in segments:
            raise PrancImgError(f"the file is cut short: its {_name(needed)} is missing")
    return segments


def varint(number: int) -> bytes:
    """LEB128: seven bits a byte, low bits first, the top bit set on all but the last."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at ``data[at:]``, at most 2**64-1, and the offset behind it."""
    number = 0
    for i in range(10):
        if at + i >= len(data):
            raise PrancImgError("the file is cut short within a number")
        number |= (data[at + i] & 127) << 7 * i
        if data[at + i] < 128:
            if number >= 1 << 64:
                break
            return number, at + i + 1
    raise PrancImgError("a number in the file is too large")


def _in_range(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise PrancImgError(f"the {what} {value} is out of range ({low} to {high})")


def _name(kind: int) -> str:
    return f"{Segment(kind).name.lower()} segment" if kind in Segment.__members__.values() else f"segment {kind}"
