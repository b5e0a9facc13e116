"""Rate control: which λ leads to a number of bits, how it follows them during a fit, and how a fit lands on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from prancimg.decoding.decoder import Model
from prancimg.fit.loss import RateDistortion, initial_grids, to_planes
from prancimg.fit.networks import Networks
from prancimg.fit.ops.rounding import squash
from prancimg.fit.optimise import FieldFit, fit_at_lmbda
from prancimg.fit.rdoq import Fitted
from prancimg.fit.setup import LMBDAS, RATE_CONTROL, Setup, finest_levels, relative_rate, steps_at
from prancimg.format.header import DIRECTIONS, Header
from prancimg.format.layout import MAX_LEVELS

_TILE = 128
"""Side of the tiles of a contact sheet, in pixels."""


def falling_root(
    excess: Callable[[float], float], start: float, slope: float, bounds: tuple[float, float], below: float, rounds: int
) -> float:
    """A point where a falling function lies between -below and 0; else the best one found where it is negative.

    If it never is, the upper bound. ``slope`` is about its derivative.
    """
    (low, high), x = bounds, start
    before: tuple[float, float] | None = None
    found = False
    for _ in range(rounds):
        value = excess(x)
        if -below <= value <= 0:
            return x
        if before and before[0] != x:
            secant = (value - before[1]) / (x - before[0])
            slope = min(max(secant, 4 * slope), slope / 4)
        before = x, value
        low, high = (x, high) if value > 0 else (low, x)
        found = found or value <= 0
        x -= (value + below / 2) / slope
        if not low < x < high:
            x = (low + high) / 2 if found else high
    return high


class SteeredFit(FieldFit):
    """A fit whose λ follows the number of bits asked for."""

    def __init__(
        self,
        image: np.ndarray,
        header: Header,
        lmbda: float,
        bits: float,
        setup: Setup,
        steps: int,
        device: torch.device,
        paces: Sequence[int] = (),
    ) -> None:
        """``bits``: what all coefficients are to take; ``paces`` at which the context model may learn."""
        super().__init__(image, header, lmbda, setup, steps, device)
        self.target_bits, self.paces = bits, paces
        self.learned = RATE_CONTROL.learned if paces else 1.0
        """Bits relative to those of a context model that does not learn."""

    def excess(self, exact: bool = False) -> float:
        """The logarithm of the bits, were all rounded now, relative to those asked for, by the loss or exactly.

        Counting them also settles how fast the context model learns; the loss goes by the network as it is sent.
        """
        if exact:
            counted = self.result().bits_by_pace(self.paces)
            pace, bits = next(iter(counted.items()))
            self.header, self.learned = replace(self.header, pace=pace), bits / max(counted[0], 1e-9)
            self.paces = [pace] if pace else []  # the next time the others are not worth theirs
        else:
            weights, own_bits, q, r = *self._as_sent(), relative_rate(self.header.rate)
            with torch.no_grad():
                active = self.objective.active(q, weights)
                bits = float(self.objective.bits(q, squash(q), weights, r, active=active) + own_bits)
                bits *= RATE_CONTROL.coded_surplus * self.learned
        return math.log(max(bits, 1e-9) / self.target_bits)

    def change_lmbda(self, excess: float, strength: float, most: float) -> None:
        """Follow an excess of bits (a logarithm), of which at most ``most`` counts."""
        lmbda = self.lmbda * math.exp(strength * min(max(excess, -most), most))
        self.lmbda = min(max(lmbda, LMBDAS[0]), LMBDAS[1])

    def missed(self, off: float) -> bool:
        """Whether an excess of bits is more than rounding otherwise should make good, and another λ can help."""
        return not RATE_CONTROL.tolerance[0] < off < RATE_CONTROL.tolerance[1] and not self._at_bound(off)

    def _at_bound(self, off: float) -> bool:
        return self.lmbda <= LMBDAS[0] * 1.01 if off < 0 else self.lmbda >= LMBDAS[1] * 0.99

    def land(self, off: float, groups: int) -> None:
        """Where λ is at its bound, round the grids so that an excess ``off`` of bits is made good."""
        if not self._at_bound(off):
            return
        now = self.with_rdoq_order(groups) if off > 0 else self.result()
        coarser, landed = now.requantised(_landing_shift(now, math.log(self.target_bits), 0.005))
        self.header = replace(self.header, step=coarser.step)
        with torch.no_grad():
            self.y.copy_(torch.from_numpy(landed))

    def run(
        self, marks: Mapping[float, tuple[float, float]], progress: Callable[[float], None] | None = None
    ) -> Fitted:
        """All steps, λ steered so that all coefficients take the bits asked for.

        ``marks``: see :class:`~prancimg.fit.setup.RateControl`. A fit that is off at its end goes back a quarter of
        its steps, once.
        """
        steps = self.schedule.steps
        groups = min(max(steps // 16, 1), 12)
        moments = {round(share * steps): how for share, how in marks.items()}
        start, seen, off = 0, 0.0, 0.0
        for may_go_back in (True, False):
            for number in range(start, steps):
                self.step(number)
                if number in moments:
                    ratio, strength = moments[number]
                    self.change_lmbda(self.excess() - math.log(ratio), strength, 0.5)
                if progress and (number + 1) / steps > seen:
                    progress(seen := (number + 1) / steps)
            off = self.excess(exact=True)
            if not (may_go_back and self.missed(off)):
                break
            self.change_lmbda(off, 1.0, 0.3)
            start = steps - steps // 4
        self.land(off, groups)
        return self.with_rdoq_order(groups)


def _landing_shift(fitted: Fitted, log_bits: float, below: float) -> float:
    """The shift that makes a fit take so many bits."""
    bounds = (fitted.finest, fitted.coarsest)
    return falling_root(lambda shift: math.log(max(fitted.bits(shift), 1e-9)) - log_bits, 0.0, -0.5, bounds, below, 8)


class StartRate:
    """How many bits the analytic start of a fit takes, as a function of λ."""

    def __init__(self, image: np.ndarray, setup: Setup, device: torch.device) -> None:
        self.image, self.setup = image, setup
        self.pixels = to_planes(image, device)
        plan = setup.header(image, 1e-3)
        self.prior = Networks(Model.of(plan), plan.tensors, device).theta0

    def bits(self, lmbda: float, levels: tuple[int, int]) -> float:
        """At λ, with these finest levels of luma and chroma."""
        header = self.setup.header(self.image, lmbda, levels)
        objective = RateDistortion(self.pixels, header.pyramid)
        with torch.no_grad():
            q = initial_grids(objective, self.prior, header).round()
            r = relative_rate(header.rate)
            return max(float(objective.bits(q, squash(q), self.prior, r)), 1e-9)


@dataclass(frozen=True)
class Choice:
    """What a fit of a picture begins with."""

    lmbda: float
    levels: tuple[int, int]
    """Finest levels of luma and chroma."""
    bits: float
    """Those asked for, or about those that a fit will take; not known (infinite) where nothing depends on it."""


def choose(
    image: np.ndarray, lmbda: float | None, bits: float, setup: Setup, iterations: int, device: torch.device
) -> Choice:
    """What suits a picture at λ, or without one for a number of bits."""
    probe: Fitted | None = None
    if lmbda is None:
        levels, lmbda, probe = _initial_lmbda(image, bits, setup, iterations, device)
    elif setup.levels and setup.adapted is not None:  # nothing depends on what the start takes
        levels = setup.levels
    else:
        tiles = contact_sheet(image)
        per_sample = StartRate(tiles, setup, device).bits(lmbda, setup.levels or (1, 2)) / tiles.size
        bits, levels = per_sample * image.size, setup.levels or finest_levels(3 * per_sample, lmbda)
    return Choice(lmbda, chosen_levels(image, lmbda, levels, setup, iterations, device, probe), bits)


def _initial_lmbda(
    image: np.ndarray, bits: float, setup: Setup, iterations: int, device: torch.device
) -> tuple[tuple[int, int], float, Fitted | None]:
    """Finest levels, λ at which a fit of a picture takes about so many bits, and a short fit there, if there was one.

    The bits of the analytic start tell it; a short fit of tiles from all over the picture, whether the start
    misleads, as it does for drawings and noise.
    """
    whole, tiles = StartRate(image, setup, device), contact_sheet(image)
    part, count = StartRate(tiles, setup, device), whole.pixels[0].numel()
    levels = setup.levels or finest_levels(bits / count)
    if setup.levels is None and bits < RATE_CONTROL.sparse_bpp * count:
        while whole.bits(LMBDAS[1], levels) > bits and levels[0] < MAX_LEVELS - 1:  # not even the greatest λ will do
            levels = levels[0] + 1, min(max(levels[0] + 2, levels[1]), MAX_LEVELS - 1)
    target_bits = RATE_CONTROL.start_surplus[min(levels[0], 1)] * bits

    def excess(x: float) -> float:
        return math.log(part.bits(math.exp(x), levels) / (target_bits * tiles.size / image.size))

    (low, high), slope = map(math.log, LMBDAS), -0.8
    x = falling_root(excess, math.log(2e-3), slope, (low, high), 0.08, 6)
    x -= math.log(whole.bits(math.exp(x), levels) / target_bits) / slope
    x = min(max(x, low), high)
    for _ in range(RATE_CONTROL.probes if iterations >= RATE_CONTROL.long_fit else 0):
        lmbda = math.exp(x)
        probe = _probe(tiles, lmbda, levels, setup, iterations, device)
        expected = max(probe.bits(0), 1.0) / part.bits(lmbda, levels) * whole.bits(lmbda, levels)
        off = math.log(expected / (RATE_CONTROL.probe_surplus * bits))
        if abs(off) < RATE_CONTROL.probe_tolerance:
            return levels, lmbda, probe
        x = min(max(x - off / slope, low), high)
    return levels, math.exp(x), None


def chosen_levels(
    image: np.ndarray,
    lmbda: float,
    levels: tuple[int, int],
    setup: Setup,
    iterations: int,
    device: torch.device,
    probe: Fitted | None = None,
) -> tuple[int, int]:
    """Those finest levels, with chroma from the next finer one where short fits of tiles have the smaller loss so.

    Saturated edges want fine chroma, other pictures do not, and the rate alone does not tell them apart. ``probe``:
    that fit with these levels, where there was one.
    """
    finer = levels[0], levels[1] - 1
    if setup.levels or iterations < RATE_CONTROL.long_fit or finer[1] < max(levels[0], 1):
        return levels
    tiles, losses = contact_sheet(image), []
    for each in (levels, finer):
        fitted = probe if probe and each == levels else _probe(tiles, lmbda, each, setup, iterations, device)
        losses.append(fitted.error + lmbda * fitted.bits(0) / (tiles.size // 3))
    return finer if losses[1] < RATE_CONTROL.finer_chroma * losses[0] else levels


def _probe(
    tiles: np.ndarray, lmbda: float, levels: tuple[int, int], setup: Setup, iterations: int, device: torch.device
) -> Fitted:
    """A short fit of tiles, for a fit of so many steps."""
    part, least, most = RATE_CONTROL.probe_steps
    steps = steps_at(min(max(iterations // part, least), most), levels[0])
    return fit_at_lmbda(tiles, setup.header(tiles, lmbda, levels, DIRECTIONS), lmbda, setup, steps, device)


def contact_sheet(image: np.ndarray) -> np.ndarray:
    """Eight or sixteen tiles of a picture at random, in two rows; of a picture of less than 24, itself."""
    count = (image.shape[0] // _TILE) * (image.shape[1] // _TILE)
    if count < 24:
        return image
    tiles = random_tiles(image, _TILE, 8 if count < 64 else 16).reshape(2, -1, _TILE, _TILE, 3)
    sheet: np.ndarray = tiles.swapaxes(1, 2).reshape(2 * _TILE, -1, 3)
    return sheet


def random_tiles(image: np.ndarray, side: int, number: int) -> np.ndarray:
    """So many tiles of a picture, (number, side, side, 3), or all it has; the same ones every time."""
    rows, columns = image.shape[0] // side, image.shape[1] // side
    tiles = image[: rows * side, : columns * side].reshape(rows, side, columns, side, 3).swapaxes(1, 2)
    places = np.random.default_rng(0).permutation(rows * columns)[:number]
    chosen: np.ndarray = tiles[places // columns, places % columns]
    return chosen
