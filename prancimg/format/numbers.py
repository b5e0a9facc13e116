"""The numbers of a header: LEB128, each read with its limits."""

from __future__ import annotations

from prancimg.errors import PrancImgError


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


class Numbers:
    """Reads the varints of a header, each with its limits."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __call__(self, what: str, low: int, high: int) -> int:
        """The next number. Raises PrancImgError outside ``low`` to ``high``."""
        value, self._at = read_varint(self._data, self._at)
        if not low <= value <= high:
            raise PrancImgError(f"the {what} {value} is out of range ({low} to {high})")
        return value

    @property
    def rest(self) -> bytes:
        """What follows the last number."""
        return self._data[self._at :]

    def end(self) -> None:
        """Refuse what follows the last number."""
        if self._at != len(self._data):
            raise PrancImgError("the header is longer than its fields")
