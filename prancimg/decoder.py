"""Bytes to picture: NumPy and constriction only, no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prancimg import bitstream
from prancimg.basis import Basis, Kind, block_basis, column_norm, expand, positions
from prancimg.bitstream import Header, Segment
from prancimg.coder import Decoder
from prancimg.errors import PrancImgError
from prancimg.prior import load_prior
from prancimg.siren import Siren, render


@dataclass(frozen=True)
class Model:
    """What a header alone determines: the network, its start and its basis."""

    siren: Siren
    theta0: np.ndarray
    """(D,) int64 in units of 2**-20."""
    basis: Basis

    @staticmethod
    def of(header: Header) -> Model:
        """The model that a header names."""
        siren = Siren(header.hidden, header.layers)
        theta0 = load_prior(header.prior, siren) if header.prior else siren.seeded(header.seed)
        basis = block_basis(siren.sizes, Kind(header.kind), header.seed, rows=1 << header.rows)
        return Model(siren, theta0, basis)

    def owners(self, k: int) -> np.ndarray:
        """The tensor that each of ``k`` coefficients belongs to: (k,) int64."""
        ends = np.cumsum(self.siren.sizes)
        owner = np.empty(k, np.int64)
        for block, where in zip(self.basis.blocks, positions(self.basis, k), strict=True):
            owner[where] = np.searchsorted(ends, block.start, "right")
        return owner

    def norms(self) -> np.ndarray:
        """The column norm of every tensor's (first) block: (T,) float64."""
        starts = [block.start for block in self.basis.blocks]
        first = np.searchsorted(starts, np.cumsum([0, *self.siren.sizes[:-1]]))
        return np.array([column_norm(self.basis.blocks[i]) for i in first])

    def parameters(self, alpha: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """θ = θ0 + s · B α: coefficients (k,) and a step for every tensor, integers, to (D,) int64, exactly."""
        offsets: np.ndarray = expand(self.basis, alpha.astype(np.float64)).astype(np.int64)
        theta: np.ndarray = self.theta0 + np.repeat(steps, self.siren.sizes) * offsets
        return theta


def read_header(data: bytes, max_pixels: int | None = bitstream.MAX_PIXELS) -> tuple[Header, dict[int, bytes]]:
    """The checked header and all segments of a file."""
    segments = bitstream.read(data)
    header = Header.unpack(segments[Segment.HEADER])
    if max_pixels is not None and header.width * header.height > max_pixels:
        raise PrancImgError(
            f"the picture has {header.width} x {header.height} pixels, more than the limit of {max_pixels}"
        )
    return header, segments


def read_coefficients(header: Header, model: Model, payload: bytes) -> np.ndarray:
    """The coefficient vector (k,) int64 of a weights segment: tensor by tensor, in the order of the vector."""
    alpha, owner, decoder = np.zeros(header.k, np.int64), model.owners(header.k), Decoder(payload)
    for tensor, scale in enumerate(header.scales):
        where = np.flatnonzero(owner == tensor)
        alpha[where] = decoder.take(len(where), scale)
    return alpha


def decode_array(data: bytes, max_pixels: int | None = bitstream.MAX_PIXELS) -> np.ndarray:
    """The picture in a .prc file: (height, width, 3) uint8 sRGB. Raises PrancImgError on anything else."""
    header, segments = read_header(data, max_pixels)
    model = Model.of(header)
    alpha = read_coefficients(header, model, segments[Segment.WEIGHTS])
    steps = np.array([bitstream.step_size(code) for code in header.steps], np.int64)
    return render(model.siren, model.parameters(alpha, steps), header.height, header.width)
