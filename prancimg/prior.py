"""The shared starting points θ0 that ship with the format: small integers, numbered, never edited in place."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.resources import files

import numpy as np

from prancimg.errors import PrancImgError
from prancimg.siren import FRACTION, Siren

_DIGESTS: dict[int, str] = {}
"""SHA-256 of data/siren-N.bin for every prior number N."""


@lru_cache(maxsize=4)
def _read(number: int) -> tuple[Siren, np.ndarray]:
    data = (files("prancimg") / "data" / f"siren-{number}.bin").read_bytes()
    if hashlib.sha256(data).hexdigest() != _DIGESTS[number]:
        raise PrancImgError(f"the installed prior {number} is damaged: reinstall prancimg")
    siren = Siren(*np.frombuffer(data, "<u2", 2).tolist())
    shifts = np.frombuffer(data, np.uint8, len(siren.sizes), 4).astype(np.int64)
    values = np.frombuffer(data, "<i2", sum(siren.sizes), 4 + len(shifts)).astype(np.int64)
    return siren, values << np.repeat(shifts, siren.sizes)


def load_prior(number: int, siren: Siren) -> np.ndarray:
    """θ0 of a prior: (D,) int64 in units of 2**-20."""
    if number not in _DIGESTS:
        raise PrancImgError(f"the file needs prior {number}, which this version does not have")
    made_for, theta0 = _read(number)
    if made_for != siren:
        raise PrancImgError(f"prior {number} belongs to another network")
    return theta0


def prior_siren(number: int) -> Siren:
    """The network a prior belongs to."""
    return _read(number)[0]


def pack_prior(siren: Siren, tensors: list[np.ndarray]) -> bytes:
    """The bytes of a prior file: hidden, layers (u16), a shift a tensor (u8), then θ0 >> shift (i16), little-endian."""
    shifts, values = [], []
    for tensor in tensors:
        units = np.rint(tensor.astype(np.float64) * (1 << FRACTION)).astype(np.int64).ravel()
        shift = max(0, int(np.abs(units).max()).bit_length() - 15)
        shifts.append(shift)
        values.append(np.clip(units + (1 << shift >> 1) >> shift, -(1 << 15), (1 << 15) - 1))
    head = np.array([siren.hidden, siren.layers], "<u2").tobytes() + bytes(shifts)
    return head + np.concatenate(values).astype("<i2").tobytes()
