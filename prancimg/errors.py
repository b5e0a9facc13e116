"""The one family of exceptions the library raises on purpose."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class PrancImgError(ValueError):
    """A request that cannot be met: a bad file, a bad option, an unreachable rate.

    Its message is one line meant for a person; the command prints it and exits with 1.
    """


@contextlib.contextmanager
def enough_memory(extent: str) -> Iterator[None]:
    """Lack of memory as an error of ours."""
    try:
        yield
    except MemoryError as error:
        raise PrancImgError(f"there is not enough memory to decode a picture of {extent} pixels") from error
