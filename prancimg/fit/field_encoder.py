"""Picture to bytes with the field: one fit for a size or λ, a few for a PSNR, and landing on the rate."""

from __future__ import annotations

import math

import numpy as np
import torch

from prancimg.decoding.decoder import Model, decode_array
from prancimg.errors import PrancImgError
from prancimg.fit.fit_field import fit_field
from prancimg.fit.large import LARGE, fit_large
from prancimg.fit.rate_control import falling_root
from prancimg.fit.rdoq import Fitted
from prancimg.fit.search import Progress, Search, network_segments
from prancimg.fit.setup import LMBDAS, TUNES, Setup
from prancimg.format import bitstream
from prancimg.format.bitstream import Header, Segment
from prancimg.format.layout import MAX_LEVELS
from prancimg.network import context
from prancimg.network.field import Coefficients
from prancimg.network.siren import FRACTION

EFFORTS = {1: 16, 2: 36, 3: 80, 4: 170, 5: 360, 6: 700, 7: 1350, 8: 2500, 9: 4608}
"""Steps of a fit: each takes about twice as long as the one before, with all else that takes time."""
UNUSED_SHARE = 0.028
"""The share of a size that may be left over: coefficients that fill it would not be worth their bits."""
MIN_PIXELS = 256
"""A bit a pixel counts as if there were so many pixels at least: else a picture of one would not have its colour."""
PSNR_FITS = 5
"""Fits in search of a PSNR."""


class FieldSearch(Search):
    """By one fit to a size or at λ, or a few to a PSNR."""

    model = "field"

    def __init__(
        self,
        image: np.ndarray,
        effort: int,
        seed: int,
        device: torch.device,
        progress: Progress | None = None,
        setup: Setup = TUNES["ssim"],
    ) -> None:
        super().__init__(image, device, progress)
        self.seed, self.setup, self.iterations = seed, setup, EFFORTS[effort]
        setup.header(image, LMBDAS[0], (0, 0)).check()

    def at_size(self, size: int) -> bytes:
        """See :class:`Search`."""
        least = _file(*_empty_field(self.image))
        self.check_size(size, len(least))
        bits = 8.0 * (size - len(least)) + 8
        fitted = self._fit(bits=bits)
        files: dict[float, bytes] = {}

        def excess(shift: float) -> float:
            files[shift] = file_of(fitted, shift)
            return math.log(len(files[shift]) / size)

        off = excess(0.0)
        if not -UNUSED_SHARE <= off <= 0:
            falling_root(excess, 2 * off + 0.01, -0.5, (fitted.finest, fitted.coarsest), 0.01, 8)
        fitting = [data for data in files.values() if len(data) <= size]
        return max(fitting, key=len, default=least)

    def at_lmbda(self, lmbda: float) -> bytes:
        """See :class:`Search`; a picture counts for ``MIN_PIXELS`` at least."""
        return file_of(self._fit(lmbda=max(lmbda * min(1.0, self.pixels / MIN_PIXELS), LMBDAS[0])), 0.0)

    def at_psnr(self, wanted: float) -> bytes:
        """See :class:`Search`."""
        low, high = map(math.log, LMBDAS)
        files: list[tuple[float, bytes]] = []

        def shortfall(x: float) -> float:
            """dB above what is wanted: falls as λ grows."""
            start = len(files) / PSNR_FITS
            data = file_of(self._fit(lmbda=math.exp(x), start=start, share=1 / PSNR_FITS), 0.0)
            files.append((_psnr(self.image, data), data))
            return files[-1][0] - wanted

        # Falling as it must, and just above instead of just below zero: look for the mirrored point.
        start = min(max(math.log(3 * 10 ** (-wanted / 10)), low), high)
        falling_root(lambda x: -shortfall(-x), -start, -1.3, (-high, -low), 0.15, PSNR_FITS)
        enough = [data for reached, data in files if reached >= wanted]
        if not enough:
            shortfall(low)
            enough = [data for reached, data in files if reached >= wanted]
        if not enough:
            most = max(reached for reached, _ in files)
            raise self.out_of_reach(wanted, most)
        return min(enough, key=len)

    def _fit(
        self, *, bits: float = math.inf, lmbda: float | None = None, start: float = 0.0, share: float = 1.0
    ) -> Fitted:
        fitted = (fit_large if self.pixels > LARGE else fit_field)(
            self.image,
            seed=self.seed,
            iterations=self.iterations,
            device=self.device,
            lmbda=lmbda,
            bits=bits,
            setup=self.setup,
            progress=lambda done: self.report(start + share * done),
        )
        if not np.isfinite(fitted.y).all():
            raise PrancImgError("the fit diverged")
        return fitted


def _empty_field(image: np.ndarray) -> tuple[Header, list[np.ndarray], Coefficients]:
    """The smallest file of a picture's size: an empty field of as few grids as there can be."""
    header = Setup().header(image, LMBDAS[1], (MAX_LEVELS - 1, MAX_LEVELS - 1))
    empty = {grid.key: np.zeros((grid.height, grid.width), np.int32) for grid in header.pyramid.grids}
    return header, [np.zeros(0, np.int64)] * len(header.tensors), empty


def file_of(fitted: Fitted, shift: float) -> bytes:
    """The file of a fit, of fewer bits the higher the shift."""
    header, q = fitted.rounded(shift)
    return _file(header, list(fitted.alpha), q)


def _file(header: Header, alpha: list[np.ndarray], q: Coefficients) -> bytes:
    """Header, coefficients of the networks, and the field in up to three segments, coarse to fine."""
    theta = Model.of(header).parameters(alpha, header.tensors)
    nets = context.networks(theta, FRACTION, header.rate)
    segments, above = network_segments(header, alpha), header.pyramid.levels
    for level in (2, 1, 0):
        levels = range(level, above)
        if any(grid.level in levels for grid in header.pyramid.grids):
            segments.append((Segment.FIELD_0 + level, context.encode_field(header.pyramid, q, nets, levels)))
            above = level
    return bitstream.write(segments)


def _psnr(image: np.ndarray, data: bytes) -> float:
    decoded = decode_array(data, None)
    error = sum(float(np.square(row - image[y].astype(np.float64)).sum()) for y, row in enumerate(decoded)) / image.size
    return 10 * math.log10(255**2 / max(error, 1e-10))
