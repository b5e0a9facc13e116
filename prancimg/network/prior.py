"""The shared starting points θ0 that ship with the format: small integers, numbered, never edited in place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from prancimg.errors import PrancImgError
from prancimg.format.layout import Siren
from prancimg.network.siren import FRACTION

_DIGESTS = {
    1: "38a28afabdfbcef67eb665ab2ccadc4e8690f1896c4a2f6c490e4473ac6f974f",
    2: "7d753b1a821b7f04960e584d2ae2b071bfdc0a5d4391a75e044b50ee6b544fff",
}
"""SHA-256 of data/siren-N.bin for every prior number N."""


@lru_cache(maxsize=4)
def load_prior(number: int) -> tuple[Siren, dict[str, np.ndarray]]:
    """The network a prior belongs to, and its θ0: flat int64 tensors in units of 2**-20."""
    if number not in _DIGESTS:
        raise PrancImgError(f"the file needs prior {number}, which this version does not have")
    import hashlib
    from importlib.resources import files  # telling what a file holds should not wait for these

    data = (files("prancimg.network") / "data" / f"siren-{number}.bin").read_bytes()
    if hashlib.sha256(data).hexdigest() != _DIGESTS[number]:
        raise PrancImgError(f"the installed prior {number} is damaged: reinstall prancimg")
    return unpack_prior(data)


def unpack_prior(data: bytes) -> tuple[Siren, dict[str, np.ndarray]]:
    """The inverse of :func:`pack_prior`, with flat int64 tensors in units of 2**-20."""
    siren = Siren(int.from_bytes(data[:2], "little"), data[2], data[3])
    sizes = {name: math.prod(shape) for name, shape in siren.shapes.items()}
    at, tensors = 4 + len(sizes), {}
    for (name, size), shift in zip(sizes.items(), data[4:at], strict=True):
        tensors[name] = np.frombuffer(data, "<i2", size, at).astype(np.int64) << shift
        at += 2 * size
    return siren, tensors


def pack_prior(siren: Siren, tensors: Mapping[str, np.ndarray]) -> bytes:
    """A prior file, little-endian: hidden (u16), layers, channels, a shift a tensor (u8 each), θ0 >> shift (i16)."""
    head, body = siren.hidden.to_bytes(2, "little") + bytes([siren.layers, siren.channels]), b""
    for name in siren.shapes:
        units = np.rint(tensors[name].astype(np.float64).ravel() * 2.0**FRACTION).astype(np.int64)
        shift = max(0, int(np.abs(units).max()).bit_length() - 15)
        head += bytes([shift])
        body += np.clip(units + (1 << shift >> 1) >> shift, -(1 << 15), (1 << 15) - 1).astype("<i2").tobytes()
    return head + body
