"""Threads and memory of a fit's process."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution

import numba
import numpy as np
import torch

from prancimg.fit.kernels import rounding as kernels

_TBB = "libtbb.so.12", "tbb12.dll"


def load_tbb() -> None:
    """Let Numba find TBB where pip puts it, which is nowhere that the system looks. Numba prefers it to OpenMP."""
    with contextlib.suppress(PackageNotFoundError, OSError):
        for file in distribution("tbb").files or ():
            if file.name in _TBB:
                ctypes.CDLL(str(file.locate()))


load_tbb()


def keep_memory() -> None:
    """Make glibc keep freed memory: it maps and clears every large tensor anew otherwise, half the time of a step."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """One thread of torch's while the compiled kernels have theirs.

    Two teams of threads would spin against each other, and torch's sums depend on their number, as bytes must not.
    """
    compiled = numba.get_num_threads()  # starts Numba's threading layer
    layer = numba.threading_layer()  # type: ignore[attr-defined]
    with _turns if layer == "workqueue" else contextlib.nullcontext():
        # Starts its threads, whose number becomes torch's where both use OpenMP.
        kernels.squash(np.zeros(1, np.float32))
        # Threads that start later inherit the number given back: the first one's, not the 1 of a fit beside.
        with _lock:
            _before.append(_before[-1] if _before else torch.get_num_threads())
        torch.set_num_threads(1)
        try:
            yield
        finally:
            with _lock:
                torch.set_num_threads(_before.pop())
            numba.set_num_threads(compiled)


_lock, _before = threading.Lock(), list[int]()
"""Torch's number of threads to give back, once for everyone in :func:`one_torch_thread`: all the same."""
_turns = threading.RLock()
"""Of fits on the layer that Numba has where it finds neither TBB nor OpenMP: two threads on it end the process."""
RETRY_EVERY = 8
"""Costly steps after which it is tried again how many threads are faster."""


class AdaptiveThreads:
    """All threads for the compiled kernels, or one: what is faster at the moment.

    Where other programs want the cores, threads that wait for each other take several times as long as one.
    """

    def __init__(self) -> None:
        self._all = numba.get_num_threads()
        self._seconds: dict[int, float] = {}
        self._costly = 0

    @contextlib.contextmanager
    def step(self, costly: bool) -> Iterator[None]:
        """A step; every now and then one of the ``costly`` ones with all threads and one with one are timed."""
        trial = {1: self._all, 2: 1}.get(self._costly % RETRY_EVERY)
        self._costly += costly
        if trial is None or self._all == 1 or not costly:
            yield
            return
        numba.set_num_threads(trial)
        began = time.perf_counter()
        yield
        self._seconds[trial] = time.perf_counter() - began
        numba.set_num_threads(min(self._seconds, key=self._seconds.__getitem__))
