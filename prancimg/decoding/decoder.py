"""Bytes to picture: NumPy and constriction only, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prancimg.errors import PrancImgError
from prancimg.format import bitstream
from prancimg.format.bitstream import Damage, Segment
from prancimg.format.header import Coded, Header, step_size
from prancimg.format.layout import Kind, Siren, levels_in_words
from prancimg.format.range_coder import Decoder
from prancimg.network import context
from prancimg.network.basis import Block, expand_block
from prancimg.network.field import Coefficients, grid_step
from prancimg.network.prior import Directions, load_prior
from prancimg.network.siren import FRACTION, render, render_field, theta0_of_seed

BYTES_PER_PIXEL = 30
"""What decoding a field takes, the picture included."""


@dataclass(frozen=True)
class Model:
    """What the scalars of a header determine: the network, its start and its basis."""

    siren: Siren
    theta0: Mapping[str, np.ndarray]
    """Flat int64 tensors in units of 2**-20."""
    seed: int
    blocks: Sequence[Block]
    """One for each tensor, each starting at 0."""
    directions: Mapping[str, Directions]
    """Learned ones, of the tensors that have any."""

    @staticmethod
    def of(header: Header) -> Model:
        """The model that a header names."""
        if header.channels and not header.prior:
            raise PrancImgError("a field needs a prior")
        if header.prior:
            siren, theta0, directions = load_prior(header.prior)
        else:
            siren, theta0, directions = header.siren, theta0_of_seed(header.siren, header.seed), {}
        if siren != header.siren:
            raise PrancImgError(f"prior {header.prior} belongs to another network")
        blocks = [
            Block(0, len(tensor), Kind.IDENTITY if coded.k == len(tensor) else Kind(header.kind))
            for tensor, coded in zip(theta0.values(), header.tensors, strict=True)
        ]
        return Model(siren, theta0, header.seed, blocks, directions)

    def parameters(self, alpha: Sequence[np.ndarray], coded: Sequence[Coded]) -> dict[str, np.ndarray]:
        """θ = θ0 + s · B α, exactly: integer coefficients (k,) of each tensor to flat int64 tensors.

        To this, learned directions add their share.
        """
        theta = dict(self.theta0)
        for i, (name, a, how) in enumerate(zip(theta, alpha, coded, strict=True)):
            if how.k:
                offsets = expand_block(self.seed, i, self.blocks[i], a.astype(np.float64)).astype(np.int64)
                theta[name] = theta[name] + step_size(how.step) * offsets
        for name, directions in self.directions.items():
            theta[name] = theta[name] + directions.along(theta[self.siren.design.learned_by(name)])
        return theta


def read_coefficients(header: Header, segments: Mapping[int, bytes]) -> list[np.ndarray]:
    """The coefficients of every tensor, (k,) int64."""
    decoder = Decoder(segments[Segment.WEIGHTS])
    return [decoder.take(coded.k, coded.scale) for coded in header.tensors]


def decode_array(data: bytes, max_pixels: int | None = bitstream.MAX_PIXELS) -> np.ndarray:
    """The colours in a .prc file: (height, width, 3) uint8 sRGB. Raises PrancImgError on anything else."""
    header, segments = bitstream.read_header(data, max_pixels)
    model = Model.of(header)
    theta = model.parameters(read_coefficients(header, segments), header.tensors)
    if not header.channels:
        return render(model.siren, theta, header.height, header.width)
    q = read_field(header, segments, theta)
    return render_field(model.siren, theta, header.pyramid, q, grid_step(header.step), header.rate)


def read_field(header: Header, segments: Mapping[int, bytes], theta: Mapping[str, np.ndarray]) -> Coefficients:
    """All grids of the field, of segments that lack none."""
    return read_field_prefix(header, segments, theta, None)[0]


def read_field_prefix(
    header: Header,
    segments: Mapping[int, bytes],
    theta: Mapping[str, np.ndarray],
    damage: Damage | None,
    finest: int = 0,
) -> tuple[Coefficients, str]:
    """The grids of the levels from ``finest`` up, and what is missing of them, in words.

    What does not come before the damage is 0. Segment l of the field holds the levels from l to the coarser one before.
    """
    kinds = [kind for kind in segments if Segment.FIELD_0 <= kind <= Segment.FIELD_6]
    if kinds != sorted(kinds, reverse=True):
        raise PrancImgError("the field's segments are not in order")
    nets = context.networks(theta, FRACTION, header.rate, header.pace)
    pyramid, q = header.pyramid, Coefficients()
    above, lacks = pyramid.levels, []
    for level in reversed(range(pyramid.levels)):
        kind, levels = Segment.FIELD_0 + level, range(level, above)
        if above <= finest:
            break
        if kind in segments:
            q |= context.decode_field(pyramid, segments[kind], nets, levels, q)
            above = level
        elif damage and damage.kind == kind and damage.begun:
            q |= context.decode_field(pyramid, damage.begun, nets, levels, q, whole=False)
            lacks.append(f"part of {levels_in_words(levels)}")
            break
    lost = [grid for grid in pyramid.grids if grid.key not in q and grid.level >= finest]
    if lost:
        lacks.append(pyramid.share(lost))
    q |= {grid.key: np.zeros((grid.height, grid.width), np.int32) for grid in lost}
    q = {key: grid for key, grid in q.items() if key[1] >= finest}
    return q, f"its field lacks {' and '.join(lacks)}" if lacks else ""
