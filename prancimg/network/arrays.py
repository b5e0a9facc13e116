"""The small door between NumPy and torch: what the two spell differently, for code written once for both.

Decoding runs on NumPy alone, so torch is looked up among the modules already loaded and never imported here.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray or torch.Tensor


def namespace(x: Array) -> Any:
    """The module (numpy or torch) that owns the array ``x``."""
    return np if isinstance(x, np.ndarray) else sys.modules["torch"]


def arange(start: int, stop: int, like: Array) -> Array:
    """int64 integers ``start..stop-1`` of the kind and on the device of ``like``."""
    if isinstance(like, np.ndarray):
        return np.arange(start, stop, dtype=np.int64)
    return sys.modules["torch"].arange(start, stop, device=like.device)


def zeros(size: int, like: Array) -> Array:
    """A zero vector of the dtype, kind and device of ``like``."""
    return np.zeros(size, like.dtype) if isinstance(like, np.ndarray) else like.new_zeros(size)


def cast(x: Array, like: Array) -> Array:
    """``x`` in the dtype of ``like`` (both of one kind)."""
    return x.astype(like.dtype) if isinstance(x, np.ndarray) else x.to(like.dtype)


def convert(x: np.ndarray, like: Array) -> Array:
    """The NumPy array ``x`` as the kind and on the device of ``like``; its dtype stays."""
    return x if isinstance(like, np.ndarray) else sys.modules["torch"].from_numpy(x).to(like.device)
