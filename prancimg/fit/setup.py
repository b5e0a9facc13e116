"""What is fitted and how: the setup of a fit, the constants of all fits, and what pays at which rate."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from prancimg.format.header import FROZEN, SEEDED, SYNTHESIS, Adapted, Header, coded_by
from prancimg.format.layout import NEUTRAL_RATE, STEP_CODES, Kind
from prancimg.network.field import grid_step
from prancimg.network.prior import load_prior

PRIOR = 3
"""The prior that the field starts from."""
LMBDAS = (1e-6, 0.24)
"""The least and the greatest λ: squared error, on samples from 0 to 1, that a bit a pixel may cost."""
RATE_INDICES = 80, 176
"""The least and the greatest rate index that the prior was trained at."""
NEGLIGIBLE_ERROR = 2e-6
"""Mean squared error (57 dB) below which more bits are not worth having: rounding to 8 bits adds 1.3e-6."""
FULL_CHROMA = 2e-5, 4.5
"""λ below which, and bits a pixel above which, chroma has grids of the picture's size: else 44 dB are the end."""


@dataclass(frozen=True)
class Optimisation:
    """How the coefficients move. All values were chosen on held-out photographs; docs/field.md has the measurements."""

    grid_learning_rate: float = 0.25
    """Of the grids, in units of the quantiser's step. 0.08 and softer settings of Adam were 6 % worse at 100 steps."""
    alike: float = 60.0
    """Divided by the steps: how much the mean of a grid's squared gradients counts in what Adam divides by, beside a
    coefficient's own. A short fit has no time to find out how steep it is for each of them."""
    network_learning_rate: float = 1.2e-2
    """Of the networks' weights."""
    temperature: tuple[float, float] = (0.6, 0.5)
    """Of the soft rounding: at the start, and how much it falls. A start at 0.35 was worse at 100 steps."""
    noise: tuple[float, float] = (0.22, 0.15)
    """Standard deviation of the noise within the soft rounding: at the start, and at the end of a long fit."""
    shrinkage: float = 0.3
    """What the start's coefficients are moved towards zero by: a fit adds bits more easily than it sheds them."""
    step_offset: int = 30
    """Step codes above the rate index: a field that has no time to grow starts with a coarser step."""
    fine_steps: tuple[int, float] = (96, 1.25)
    """The step code below which the grids learn faster, by a power of the ratio of the steps: the way from the start
    is as long as ever in colours, but more steps long. At λ = 6e-6 36 steps of a fit got to 46.7 dB instead of 41."""
    start_damping: tuple[float, ...] = (1.0, 1.0, 1.0)
    """How far each of the start's Newton steps goes."""
    start_damping_full_chroma: tuple[float, ...] = (1.0, 1.0, 0.5, 0.3, 0.3)
    """With chroma grids of the picture's size, where whole steps soon diverge: the filter's slope is not one."""
    short: int = 40
    """Steps of a fit below which the networks learn more slowly: their first directions are unsure."""
    long: int = 110
    """Steps from which the noise need not fall further than it does."""
    networks_rounded_from: float = 0.7
    """The share of the steps after which the networks' coefficients are rounded, with a straight-through gradient."""
    synthesis_settled_from: float = 0.85
    """And from which those of what paints stay what they are: a late change of one by a step shows all over the
    picture, and the grids can no longer make up for it."""
    contexts_every: int = 3
    """Of so many steps one asks the context model, which takes most of its time; the others go by what it said."""
    sampled_blocks: int = 4
    """One of so many blocks of rows tells the gradient by a context network's matrices, if few coefficients move it."""
    active_every: int = 3
    """How often the context model is asked before it is looked up again which contexts are active."""
    masking_window: int = 33
    """Side, in pixels, of the window in which the variance of luma is taken."""
    masking_floor: float = 3e-3
    """Variance of luma below which all is the same to the eye. 0.00045 gave 2.2 % of MS-SSIM for 5.2 % of PSNR."""
    masking_unit: float = 1e-2
    """Variance of luma, with the floor, where an error counts for one."""


@dataclass(frozen=True)
class RateControl:
    """How λ follows a number of bits asked for. docs/field.md has the measurements."""

    start_surplus: tuple[float, float] = (1.4, 1.1)
    """Bits of the analytic start relative to those of a fit at the same λ, with luma at level 0 and without."""
    probes: int = 3
    """Short fits of tiles that correct the first guess of λ, at most."""
    probe_surplus: float = 1.2
    """Bits of a short fit relative to those of a whole one."""
    probe_tolerance: float = 0.6
    """The logarithm of the ratio of bits from which the first guess is corrected."""
    long_fit: int = 30
    """Steps from which probes are worth their time, and from which λ may change often."""
    probe_steps: tuple[int, int, int] = (6, 10, 28)
    """Steps of a probe: the fit's divided by the first, between the second and the third."""
    finer_chroma: float = 0.98
    """Chroma gets its next finer level where the loss of a probe, relative to that without it, is less than this."""
    marks: dict[float, tuple[float, float]] = field(
        default_factory=lambda: {
            0.35: (1.43, 0.5),
            0.47: (1.27, 0.7),
            0.58: (1.14, 1.0),
            0.7: (1.06, 1.3),
            0.79: (1.02, 1.6),
            0.86: (1.005, 2.0),
            0.91: (1.003, 2.0),
            0.95: (1.0, 2.0),
        }
    )
    """At these shares of the steps: bits, were all rounded, relative to the end's, and how strongly λ follows them."""
    marks_of_short_fits: tuple[float, ...] = (0.58, 0.86)
    """The only ones of a fit with fewer steps than ``long_fit``."""
    coded_surplus: float = 1.0075
    """Bits that are coded relative to those of the loss, whose means and scales are not rounded: 1.002 to 1.014."""
    paces: dict[int, tuple[int, ...]] = field(default_factory=lambda: {50: (3,), 100: (2, 3)})
    """By the least number of steps: the paces of learning that are tried."""
    learned: float = 0.98
    """Bits relative to those of a context model that does not learn, until they are counted."""
    tolerance: tuple[float, float] = (-0.025, 0.03)
    """The logarithm of the bits relative to those asked for between which a fit need not go back.

    Giving up a percent costs nothing, filling one gains nothing.
    """
    fill: float = 0.3
    """How far the rounding threshold may sink before a finer step takes over."""
    least_saving: float = 0.5
    """Bits to be saved for which a coefficient is worth giving up."""
    synthesis_from: float = 50_000
    """Bits of a file from which sending the synthesis whole pays, instead of pseudo-random coefficients of it."""
    sparse_bpp: float = 0.1
    """Bits a pixel below which even the greatest λ may not do, at the usual finest levels."""


OPTIMISATION, RATE_CONTROL = Optimisation(), RateControl()


@dataclass(frozen=True)
class Schedule:
    """How a fit of so many steps moves grids of a quantiser's step: the fewer there are, the calmer must be its end."""

    steps: int
    quantiser_step: float

    @property
    def faster(self) -> float:
        """How many times longer the way is than usual, in the quantiser's steps."""
        code, power = OPTIMISATION.fine_steps
        return max(1.0, math.pow(grid_step(code) / self.quantiser_step, power))

    @property
    def alike(self) -> float:
        """See :class:`Optimisation`; where the way is long, all must get ahead."""
        return OPTIMISATION.alike / self.steps / self.faster**2

    @property
    def grid_learning_rate(self) -> float:
        """Of the grids, at its highest: more, where the mean slows most of them down."""
        return OPTIMISATION.grid_learning_rate * self.faster * math.cbrt(1 + self.alike)

    @property
    def network_learning_rate(self) -> float:
        """Of the networks, at its highest; up to twice as much where the way is long for the grids."""
        longer = min(2.0, self.faster)
        return OPTIMISATION.network_learning_rate * min(longer, self.faster**2 * self.steps / OPTIMISATION.short)

    def rounding(self, done: float) -> tuple[float, float]:
        """Temperature and noise of the soft rounding at a share of the steps."""
        (temperature, cooling), (first, last) = OPTIMISATION.temperature, OPTIMISATION.noise
        last *= min(1.0, self.steps / OPTIMISATION.long) ** 0.6
        return temperature - cooling * done, first + (last - first) * done

    def relative_learning_rate(self, done: float) -> float:
        """All learning rates relative to their highest; the first step is half as long."""
        return learning_rate(done) * (1.0 if done else 0.5)


def learning_rate(done: float) -> float:
    """The cosine schedule: the learning rate at a share ``done`` of the steps, relative to its highest."""
    return 0.49 * (1 + math.cos(math.pi * done)) + 0.02


@dataclass(frozen=True)
class Setup:
    """What is fitted: the encoder's own choice, or one of its controls."""

    prior: int = PRIOR
    adapted: Adapted | None = None
    """How the networks adapt; None: what pays for a file of its size."""
    levels: tuple[int, int] | None = None
    """Finest levels of luma and chroma; None: chosen for picture and λ."""
    rate_weights: tuple[float, float, float, float] = (1.4, 1.0, 0.85, 0.7)
    """What a bit counts for at levels 0, 1, 2, and at 3 and above: MS-SSIM hardly sees the finest octave."""
    masking: float = 0.2
    """How much less an error counts where the picture is busy: :func:`prancimg.fit.loss.visibility`'s exponent."""
    analytic: bool = True
    """Start from the picture's pyramid instead of nothing."""
    learning: bool = True
    """The context model learns while it codes, where that saves bits."""

    def adapted_at(self, bits: float) -> Adapted:
        """How the networks adapt in a file of so many bits."""
        return adapted_to(bits) if self.adapted is None else self.adapted

    def header(
        self,
        image: np.ndarray,
        lmbda: float,
        levels: tuple[int, int] = (0, 1),
        adapted: Adapted = FROZEN,
        seed: int = 0,
    ) -> Header:
        """The plan of a fit of a picture (H, W, 3) at λ: its grids, its steps and how its networks adapt."""
        siren = load_prior(self.prior)[0]
        rate = round(NEUTRAL_RATE + 16 * math.log2(lmbda / 1e-3))
        return Header(
            width=image.shape[1],
            height=image.shape[0],
            prior=self.prior,
            hidden=siren.hidden,
            layers=siren.layers,
            seed=seed,
            kind=Kind.SIGN,
            tensors=coded_by(adapted, siren),
            channels=siren.channels,
            luma_from=levels[0],
            chroma_from=levels[1],
            rate=min(max(rate, RATE_INDICES[0]), RATE_INDICES[1]),
            step=min(max(rate + OPTIMISATION.step_offset, 0), STEP_CODES - 1),
        )


TUNES = {"ssim": Setup(), "psnr": Setup(rate_weights=(1.0, 1.0, 1.0, 1.0), masking=0.0)}
"""By what a fit is tuned for: structural similarity, or mean squared error alone."""


def paces_at(iterations: int, setup: Setup) -> tuple[int, ...]:
    """The paces of learning that are worth trying in a fit of so many steps: each takes the time of some."""
    tried = [paces for least, paces in RATE_CONTROL.paces.items() if iterations >= least]
    return tried[-1] if tried and setup.learning else ()


def relative_rate(rate: int) -> float:
    """What the networks are told of a rate index."""
    return (rate - NEUTRAL_RATE) / 64


def finest_levels(bpp: float, lmbda: float = math.inf) -> tuple[int, int]:
    """Finest levels of luma and chroma that pay at a rate, or at λ, measured on photographs at equal time."""
    luma = 0 if bpp > 0.17 else 1 if bpp > 0.02 else 2
    full_chroma = lmbda < FULL_CHROMA[0] or bpp > FULL_CHROMA[1]
    return luma, 0 if full_chroma else 1 if bpp > 1.2 else max(2, luma + 1)


def steps_at(iterations: int, luma_from: int) -> int:
    """The steps of a fit from a finest level on: without the finest grids a step costs less."""
    return round(iterations * (1.0, 1.5, 2.0)[min(luma_from, 2)])


def adapted_to(bits: float) -> Adapted:
    """The coefficients of the networks that pay in a file of so many bits, measured on photographs."""
    return SEEDED if bits < RATE_CONTROL.synthesis_from else SYNTHESIS
