"""The shared starting points θ0 that ship with the format: small integers, numbered, never edited in place."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from prancimg.errors import PrancImgError
from prancimg.format.layout import DESIGNS, FIRST, LEARNED, Design, Siren, part_of
from prancimg.network.siren import FRACTION

_DIGESTS = {
    1: "38a28afabdfbcef67eb665ab2ccadc4e8690f1896c4a2f6c490e4473ac6f974f",
    2: "7d753b1a821b7f04960e584d2ae2b071bfdc0a5d4391a75e044b50ee6b544fff",
    3: "e4ca735e527f99d104ed89e45246374f99807d7fa8b9023e4fba5230a5752abf",
    4: "039f134445c9502e29644e3eff179b749f72d0a29c3530054bc52c9905ef4deb",
    5: "8334f68bfa33235824646bfb930e17a0276dfab8139c92cf4887e81e423625a4",
}
"""SHA-256 of data/siren-N.bin for every prior number N."""


class Prior(NamedTuple):
    """A network, where it starts, and directions in which networks like it were found to move."""

    siren: Siren
    theta0: dict[str, np.ndarray]
    """Flat int64 tensors in units of 2**-20."""
    directions: Mapping[str, Directions]
    """Of the tensors of the parts that have any."""


class Directions(NamedTuple):
    """What learned coefficients move a tensor along."""

    entries: np.ndarray
    """(m, size) int8."""
    shifts: np.ndarray
    """(m, 1) int64: an entry counts for 2**-shift."""

    @property
    def floats(self) -> np.ndarray:
        """The directions as real numbers, (m, size) float64."""
        reals: np.ndarray = self.entries / 2.0**self.shifts
        return reals

    def along(self, beta: np.ndarray) -> np.ndarray:
        """The offsets (size,) int64 of coefficients (m,) int64, exact below 2**55; each is rounded down."""
        offsets: np.ndarray = (self.entries * beta[:, None] >> self.shifts).sum(0)
        return offsets


@lru_cache(maxsize=4)
def load_prior(number: int) -> Prior:
    """A prior that ships with the format."""
    if number not in _DIGESTS:
        raise PrancImgError(f"the file needs prior {number}, which this version does not have")
    import hashlib  # telling what a file holds should not wait for it

    data = _read(number)
    if hashlib.sha256(data).hexdigest() != _DIGESTS[number]:
        raise PrancImgError(f"the installed prior {number} is damaged: reinstall prancimg")
    return unpack_prior(data, DESIGNS.get(number, FIRST))


def _read(number: int) -> bytes:
    from importlib.resources import files  # nor for this

    return (files("prancimg.network") / "data" / f"siren-{number}.bin").read_bytes()


def unpack_prior(data: bytes, design: Design = FIRST) -> Prior:
    """The inverse of :func:`pack_prior`."""
    siren = Siren(int.from_bytes(data[:2], "little"), data[2], data[3], design)
    sizes = dict(zip(siren.shapes, siren.sizes, strict=True))
    own = [name for name in sizes if part_of(name) != LEARNED]
    at, tensors = 4 + len(own), {name: np.zeros(size, np.int64) for name, size in sizes.items()}
    for name, shift in zip(own, data[4:at], strict=True):
        tensors[name] = np.frombuffer(data, "<i2", sizes[name], at).astype(np.int64) << shift
        at += 2 * sizes[name]
    directions = {}
    for part, number in design.learned:
        for name in moved_by(siren, part):
            shifts, entries = data[at : at + number], data[at + number : (at := at + number * (1 + sizes[name]))]
            columns = np.frombuffer(entries, np.int8).reshape(number, sizes[name])
            directions[name] = Directions(columns, np.array([*shifts], np.int64)[:, None])
    return Prior(siren, tensors, directions)


def moved_by(siren: Siren, part: str) -> list[str]:
    """The tensors that a design's learned coefficients move, in order."""
    return [name for name in siren.shapes if siren.design.learned_by(name) == f"{LEARNED}.{part}"]


def pack_prior(siren: Siren, tensors: Mapping[str, np.ndarray], directions: Mapping[str, np.ndarray] = {}) -> bytes:
    """A prior file, little-endian: hidden (u16), layers, channels, a shift a tensor (u8 each), θ0 >> shift (i16).

    Then for every tensor that has ``directions`` (m, size): m shifts (u8 each), and the entries << shift (i8).
    """
    head, body = siren.hidden.to_bytes(2, "little") + bytes([siren.layers, siren.channels]), b""
    for name in siren.shapes:
        if part_of(name) != LEARNED:
            units = np.rint(tensors[name].astype(np.float64).ravel() * 2.0**FRACTION).astype(np.int64)
            shift = max(0, int(np.abs(units).max()).bit_length() - 15)
            head += bytes([shift])
            body += np.clip(units + (1 << shift >> 1) >> shift, -(1 << 15), (1 << 15) - 1).astype("<i2").tobytes()
    for part, _ in siren.design.learned:
        for name in moved_by(siren, part):
            most = np.maximum(np.abs(directions[name]).max(1), 2.0**-30)
            shifts = np.clip(np.floor(np.log2(127 / most)), 0, 30)
            body += shifts.astype(np.uint8).tobytes()
            body += np.rint(directions[name] * 2.0 ** shifts[:, None]).clip(-127, 127).astype(np.int8).tobytes()
    return head + body
