"""Picture to bytes with one global SIREN: its width, its basis and the number of coefficients follow from the rate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from prancimg.decoding.decoder import Model
from prancimg.errors import PrancImgError
from prancimg.fit.fit_siren import fit_siren
from prancimg.fit.search import Progress, Search, network_segments
from prancimg.format import bitstream
from prancimg.format.header import STEPS, Coded, Header, step_size
from prancimg.format.layout import SCALES, Kind, Siren
from prancimg.format.range_coder import MAGNITUDE, best_scale
from prancimg.network.basis import IDENTITY_UP_TO
from prancimg.network.prior import load_prior
from prancimg.network.siren import render

PRIOR, LEAN_PRIOR, SHALLOW_PRIOR = 4, 5, 1
"""The priors that the encoder starts from: one of eight layers; for few bits one of lower frequencies, which has
learned directions; for short fits one of five layers, which settle sooner."""
LEAN = 30_000
"""Bits that are few, see docs/siren.md."""
SHORT = 3
"""The last effort whose fits are short."""
FLAWLESS = 1.0
"""Mean squared error on 8-bit samples (48 dB) below which more bits are not worth having."""
LARGEST = 60_000
"""Coefficients beyond which a global SIREN gains too little for the time it takes."""
EFFORTS = {effort: round(100 * 2 ** (0.75 * (effort - 1))) for effort in range(1, 10)}
"""Steps of a fit."""


@dataclass(frozen=True)
class Plan:
    """A network and its coefficients for a budget of bits."""

    siren: Siren
    prior: int
    kind: Kind
    counts: tuple[int, ...]
    """Coefficients of every tensor."""

    @staticmethod
    def direct(siren: Siren, prior: int = 0) -> Plan:
        """The control: every weight, no basis."""
        return Plan(siren, prior, Kind.IDENTITY, tuple(siren.sizes))

    @staticmethod
    def of(bits: float, prior: int | None = None) -> Plan:
        """What served best for a budget of bits on photographs; without a prior said, from the one that did."""
        if prior is None:
            prior = LEAN_PRIOR if bits <= LEAN else PRIOR
        siren = load_prior(prior)[0]
        sizes = siren.sizes
        small = sum(size for size in sizes if size <= IDENTITY_UP_TO)
        share = (4500 * (bits / 19_000) ** 0.84 - small) / (sum(sizes) - small)
        if share < 0.05:  # a prior's network would be mostly prior
            parameters = max(24.0, bits / 4)
            return Plan.direct(widest(parameters, 1 if parameters < 100 else 2 if parameters < 400 else 3))
        if share > 1.5:  # or too small
            return Plan.direct(widest(bits / 5, siren.layers))
        counts = tuple(size if size <= IDENTITY_UP_TO else min(size, round(share * size)) for size in sizes)
        return Plan(siren, prior, Kind.HADAMARD, counts)


def widest(parameters: float, layers: int) -> Siren:
    """The widest SIREN of at most so many parameters (at least one unit wide)."""
    hidden = 1
    while sum(Siren(hidden + 1, layers).sizes) <= parameters:
        hidden += 1
    return Siren(hidden, layers)


@dataclass(frozen=True)
class Encoded:
    """A finished file and how far it is from the picture: mean squared error on 8-bit samples."""

    data: bytes
    error: float

    @property
    def psnr(self) -> float:
        """In dB, over all samples."""
        return 10 * math.log10(255**2 / max(self.error, 1e-10))


class SirenSearch(Search):
    """By a fit to a size, or by several."""

    model = "siren"

    def __init__(
        self, image: np.ndarray, effort: int, seed: int, device: torch.device, progress: Progress | None
    ) -> None:
        super().__init__(image, effort, device, progress)
        self.seed, self.done = seed, 0.0
        self.prior = SHALLOW_PRIOR if effort <= SHORT else None

    def at_size(self, size: int) -> bytes:
        """See :class:`Search`."""
        return self._fit(size, 1.0).data

    def at_lmbda(self, lmbda: float) -> bytes:
        """See :class:`Search`."""
        best, least = b"", math.inf
        for encoded in self._ladder():
            loss = encoded.error / 255**2 + lmbda * 8 * len(encoded.data) / self.pixels
            if loss >= least:
                break
            best, least = encoded.data, loss
        return best

    def at_psnr(self, wanted: float) -> bytes:
        """See :class:`Search`."""
        below, best, most = 0, None, 0.0
        for encoded in self._ladder():
            most = max(most, encoded.psnr)
            if encoded.psnr >= wanted:
                best = encoded
                break
            below = len(encoded.data)
        if best is None:
            raise self.out_of_reach(wanted, most)
        for _ in range(3):
            size = round(math.sqrt(max(below, 32) * len(best.data)))
            if not below < size < len(best.data):
                break
            encoded = self._fit(size, 0.1)
            if encoded.psnr >= wanted:
                best = encoded
            else:
                below = size
        return best.data

    def _fit(self, size: int, share: float) -> Encoded:
        """A file of at most ``size`` bytes; ``share`` is the fit's part of the progress to report."""
        header = _header(self.image, Plan.of(0, self.prior), 0)
        nothing = replace(header, tensors=(Coded(0),) * len(header.tensors))
        self.check_size(size, len(_file(nothing, [])))
        began = self.done

        def advance(part: float) -> None:
            self.done = began + share * part
            self.report(self.done)

        plan = Plan.of(8.0 * size, self.prior)
        return fit_to_size(self.image, plan, self.seed, size, EFFORTS[self.effort], self.device, advance)

    def _ladder(self) -> Iterator[Encoded]:
        """Files of doubling size, up to the largest that a fit is worth."""
        size = max(64, self.pixels // 400)
        while sum(Plan.of(8.0 * size, self.prior).counts) < LARGEST:
            yield self._fit(size, 0.15)
            size *= 2


def fit_to_size(
    image: np.ndarray,
    plan: Plan,
    seed: int,
    size: int,
    iterations: int,
    device: torch.device,
    progress: Progress | None = None,
) -> Encoded:
    """One fit of one plan, rounded and written so that the file has at most ``size`` bytes."""
    header = _header(image, plan, seed)
    header.check()
    model = Model.of(header)
    bits = 8.0 * (size - len(_file(header, []))) - 32
    fitted = fit_siren(image, model, plan.counts, bits, iterations=iterations, device=device, progress=progress)
    if not all(np.isfinite(a).all() for a in fitted.alpha):
        raise PrancImgError("the fit diverged")
    ends = np.cumsum(plan.counts)

    def attempt(shift: int, cut: float) -> tuple[bytes, list[np.ndarray], Header]:
        """The file with step codes raised by ``shift`` / tensors and the least coefficients moved towards zero."""
        codes = [code + (shift + t) // len(ends) for t, code in enumerate(fitted.steps)]
        codes = [min(max(code, 0), STEPS - 1) for code in codes]
        ratios = [step_size(code) / step_size(new) for code, new in zip(fitted.steps, codes, strict=True)]
        exact = np.concatenate([a * ratio for a, ratio in zip(fitted.alpha, ratios, strict=True)])
        whole = np.clip(np.rint(exact), -MAGNITUDE, MAGNITUDE - 1).astype(np.int64)
        # How far beyond the rounding threshold: those nearest to it cost the least to move.
        excess = np.where(whole != 0, np.abs(exact) - np.abs(whole) + 0.5, np.inf)
        moved = np.argsort(excess, kind="stable")[: round(cut * len(whole))]
        whole[moved] = 0 if cut == 1 else whole[moved] - np.sign(whole[moved])
        alpha = np.split(whole, ends[:-1])
        coded = [
            Coded(len(a), code, best_scale(a)) if a.any() else Coded(0) for a, code in zip(alpha, codes, strict=True)
        ]
        full = replace(header, tensors=tuple(coded))
        return _file(full, alpha), alpha, full

    def finish(data: bytes, alpha: list[np.ndarray], full: Header) -> Encoded:
        picture = render(model.siren, model.parameters(alpha, full.tensors), *image.shape[:2])
        return Encoded(data, float(np.square(picture.astype(np.float64) - image).mean()))

    def fits(shift: int, cut: float) -> bool:
        return len(attempt(shift, cut)[0]) <= size

    # The finest steps that fit with a tenth of the coefficients moved, then as few of them as possible.
    low, high = -STEPS * len(ends), STEPS * len(ends)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle, 0.1) else (middle + 1, high)
    least, most = 0.0, 0.1 if fits(low, 0.1) else 1.0
    for _ in range(0 if fits(low, 0) else 10):
        cut = (least + most) / 2
        least, most = (least, cut) if fits(low, cut) else (cut, most)
    filled = finish(*attempt(low, 0 if fits(low, 0) else most))
    if low < 0 and filled.error < FLAWLESS:  # the picture cannot use the bits
        plain = finish(*attempt(0, 0))
        return plain if plain.error < FLAWLESS else filled
    return filled


def _header(image: np.ndarray, plan: Plan, seed: int) -> Header:
    """A header whose steps and scales are still to come, and as long as it will ever be."""
    height, width = image.shape[:2]
    coded = tuple(Coded(k, STEPS - 1, SCALES - 1) for k in plan.counts)
    return Header(width, height, plan.prior, plan.siren.hidden, plan.siren.layers, seed, plan.kind, coded)


def _file(header: Header, alpha: Sequence[np.ndarray]) -> bytes:
    return bitstream.write(network_segments(header, alpha))
