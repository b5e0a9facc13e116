"""Picture to bytes with the field: one fit for a size or λ, a few for a PSNR, and landing on the rate."""

from __future__ import annotations

import math

import numpy as np
import torch

from prancimg.decoding.decoder import Model, decode_array
from prancimg.errors import PrancImgError
from prancimg.fit.fit_field import fit_field
from prancimg.fit.large import LARGE, fit_large
from prancimg.fit.loss import RateDistortion, to_planes
from prancimg.fit.networks import Networks
from prancimg.fit.rate_control import falling_root
from prancimg.fit.rdoq import Fitted
from prancimg.fit.search import Progress, Search, network_segments
from prancimg.fit.setup import FULL_CHROMA, LMBDAS, TUNES, Setup, relative_rate
from prancimg.format import bitstream
from prancimg.format.bitstream import Segment
from prancimg.format.header import Header
from prancimg.format.layout import MAX_LEVELS
from prancimg.network import context
from prancimg.network.field import Coefficients, grid_step
from prancimg.network.siren import FRACTION

EFFORTS = {1: 28, 2: 48, 3: 80, 4: 130, 5: 240, 6: 520, 7: 1100, 8: 2250, 9: 4600}
"""Steps of a fit: each takes about one and a half times as long as the one before, from 6 on twice, with all else."""
UNUSED_SHARE = 0.028
"""The share of a size that may be left over: coefficients that fill it would not be worth their bits."""
ONE_COLOR_LMBDA = 2e-3
"""λ of the header of a file of one colour: its step hits the colour, in few bytes."""
MIN_PIXELS = 256
"""A bit a pixel counts as if there were so many pixels at least: else a picture of one would not have its colour."""
FEWER, TRIES = 0.7, 3
"""Where a fit of fewer bytes may be the better one: by how many fewer, and how often, that is tried."""
NEAR, GOOD = 4, 1e-3
"""How many times less than that of one colour an error must be to be surely less; an error that is good anyway."""
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
        super().__init__(image, effort, device, progress)
        self.seed, self.setup, self.iterations = seed, setup, EFFORTS[effort]
        self.variance = float(np.mean(image.var((0, 1)))) / 255**2
        setup.header(image, LMBDAS[0], (0, 0)).check()

    def at_size(self, size: int) -> bytes:
        """See :class:`Search`."""
        least = _file(*_empty_field(self.image))
        self.check_size(size, len(least))
        best, error = self._near_size(size, least)
        best = self._no_worse_than_one_color(best, error, size)
        fewer, tries = FEWER * size, 0
        while self._doubtful(fewer, error) and fewer > len(least) and tries < TRIES:
            tries += 1
            other, error = self._near_size(round(fewer), least, tries / (TRIES + 1))
            best = max(best, other, key=lambda data: _psnr(self.image, data))
            fewer *= FEWER
        return best

    def _doubtful(self, size: float, error: float) -> bool:
        """Whether a fit of more than these bytes may be farther from the picture than one of as many.

        So it is at high rates, and where it is hardly nearer than one colour, as with noise, dithering and stripes.
        """
        bpp = 8 * size / self.pixels
        poor = self.variance < NEAR * error or (bpp > 1 and self.variance < 8 * NEAR * error)
        return bpp > FULL_CHROMA[1] or (poor and error > GOOD)

    def _near_size(self, size: int, least: bytes, start: float = 0.0) -> tuple[bytes, float]:
        """The file of one fit, or ``least``; and its error, about."""
        share = 1 / (TRIES + 1) if start or 8 * FEWER * size > FULL_CHROMA[1] * self.pixels else 1.0
        fitted = self._fit(bits=8.0 * (size - len(least)) + 8, start=start, share=share)
        files: dict[float, bytes] = {}

        def excess(shift: float) -> float:
            files[shift] = file_of(fitted, shift)
            return math.log(len(files[shift]) / size)

        off = excess(0.0)
        if not -UNUSED_SHARE <= off <= 0:
            falling_root(excess, 2 * off + 0.01, -0.5, (fitted.finest, fitted.coarsest), 0.01, 8)
        fitting = {shift: data for shift, data in files.items() if len(data) <= size}
        shift = max(fitting, key=lambda shift: len(fitting[shift]), default=math.inf)
        data = fitting.get(shift, least)
        known = abs(shift) < 1 and math.isfinite(fitted.error)
        return data, fitted.error if known else 10 ** (-_psnr(self.image, data) / 10)

    def _no_worse_than_one_color(self, data: bytes, error: float, size: float = math.inf) -> bytes:
        """A file, or that of the mean colour where that is nearer to the picture and not larger than ``size``."""
        if NEAR * error < self.variance:
            return data
        reached = _psnr(self.image, data)
        if reached >= 10 * math.log10(1 / max(self.variance, 1e-10)):
            return data
        flat = _one_color(self.image, self.device)
        return flat if len(flat) <= size and _psnr(self.image, flat) > reached else data

    def at_lmbda(self, lmbda: float) -> bytes:
        """See :class:`Search`; a picture counts for ``MIN_PIXELS`` at least."""
        fitted = self._fit(lmbda=max(lmbda * min(1.0, self.pixels / MIN_PIXELS), LMBDAS[0]))
        return self._no_worse_than_one_color(file_of(fitted, 0.0), fitted.error)

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
        start = min(max(math.log((3 if wanted < 40 else 0.6) * 10 ** (-wanted / 10)), low), high)
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


def _one_color(image: np.ndarray, device: torch.device) -> bytes:
    """The file of a picture's mean colour: the coarsest grids alone, as they start."""
    mean = np.broadcast_to(image.mean((0, 1), keepdims=True), image.shape)
    header = Setup().header(image, ONE_COLOR_LMBDA, (MAX_LEVELS - 1, MAX_LEVELS - 1))
    objective = RateDistortion(to_planes(mean, device), header.pyramid)
    weights = Networks(Model.of(header), header.tensors, device).theta0
    with torch.no_grad():
        y = objective.start(weights, grid_step(header.step), relative_rate(header.rate)).round()
    q = header.pyramid.split(y.cpu().numpy().astype(np.int32))
    return _file(header, [np.zeros(0, np.int64)] * len(header.tensors), q)


def file_of(fitted: Fitted, shift: float) -> bytes:
    """The file of a fit, of fewer bits the higher the shift."""
    header, q = fitted.rounded(shift)
    return _file(header, list(fitted.alpha), q)


def _file(header: Header, alpha: list[np.ndarray], q: Coefficients) -> bytes:
    """Header, coefficients of the networks, and the field in up to three segments, coarse to fine."""
    theta = Model.of(header).parameters(alpha, header.tensors)
    nets = context.networks(theta, FRACTION, header.rate, header.pace)
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
