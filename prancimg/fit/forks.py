"""What a fork leaves of an encoder's threads. Loads no library.

A forked process has the one thread that called fork. Locks that other threads held stay locked and work given to
them stays undone, so whoever counts on them waits for ever. Of Numba's threading layers TBB starts anew in a child;
GNU's OpenMP does not, and torch's own threads are GNU's OpenMP, too.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

from prancimg.errors import PrancImgError

_REMEDY = "start processes with the method 'spawn' or 'forkserver'"

_busy, _forked, _broken = list[int](), False, ""
"""Threads that encode; whether this process was forked while torch was loaded; why it cannot encode."""


@contextlib.contextmanager
def encoding() -> Iterator[None]:
    """Around all that an encoder does.

    Raises:
        PrancImgError: in a forked process that would wait for threads it does not have.
    """
    if _broken:
        raise PrancImgError(_broken)
    if _forked:
        sys.modules["torch"].set_num_threads(1)  # it has no others
    _busy.append(threading.get_ident())
    try:
        yield
    finally:
        _busy.remove(threading.get_ident())


def _after_fork() -> None:
    """What the child has to know."""
    global _forked, _broken
    _forked = _forked or "torch" in sys.modules
    if set(_busy) - {threading.get_ident()}:
        _broken = f"this process was forked while another thread encoded, whose locks nobody opens: {_REMEDY}"
    elif _layer() == "omp" and sys.platform == "linux":
        _broken = f"this process was forked after its parent encoded, and OpenMP's threads are lost: {_REMEDY}"
        _broken += ", or install tbb"
    _busy[:] = [ident for ident in _busy if ident == threading.get_ident()]


def _layer() -> str:
    """Numba's threading layer, once it has started."""
    try:
        return str(sys.modules["numba"].threading_layer())
    except (KeyError, AttributeError, ValueError):  # not loaded, not loaded to the end, not started
        return ""


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
