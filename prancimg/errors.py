"""The one family of exceptions the library raises on purpose."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterable, Iterator
from typing import Any


class PrancImgError(ValueError):
    """A request that cannot be met: a bad file, a bad option, an unreachable rate.

    Its message is one line meant for a person; the command prints it and exits with 1.
    """


class OutOfReach(PrancImgError):
    """A rate or a PSNR that no file of this kind has."""

    def __init__(self, message: str, lowest: int = 0) -> None:
        super().__init__(message)
        self.lowest = lowest
        """The least bytes that would do; 0 where it is not about bytes."""


def too_few(size: int, lowest: int, pixels: int) -> OutOfReach:
    """Of bytes for a picture of so many pixels."""
    least = f"{lowest} bytes, {8 * lowest / pixels:.4f} bpp"
    return OutOfReach(f"{size} bytes are too few: the lowest possible is {least}", lowest)


@contextlib.contextmanager
def enough_memory(extent: str) -> Iterator[None]:
    """Lack of memory as an error of ours."""
    try:
        yield
    except MemoryError as error:
        raise PrancImgError(f"there is not enough memory to decode a picture of {extent} pixels") from error


def whole_number(name: str, value: Any) -> int:
    """An integer of any kind, NumPy's too, as Python's own."""
    try:
        return operator.index(value)
    except TypeError:
        raise PrancImgError(f"{name} {value!r:.60} is not a whole number") from None


def whole_numbers(name: str, values: Iterable[Any], count: int) -> list[int]:
    """So many of them."""
    try:
        numbers = [operator.index(value) for value in values]
    except TypeError:
        numbers = []
    if len(numbers) != count:
        raise PrancImgError(f"{name} {values!r:.60} is not {count} whole numbers")
    return numbers
