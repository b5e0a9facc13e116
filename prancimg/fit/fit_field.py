"""The fit of a field by rate-distortion: grids, network and context model at once, for distortion + price · bits.

The start is analytic: a pyramid of the picture, which the prior's network already shows faithfully. From there the
grids follow gradients through a soft rounding with noise that hardens by and by, and are rounded for the last steps,
in which the networks settle. Where a number of bits is asked for, the price is steered towards it, and the quantiser's
step follows the price. Needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from prancimg.decoding.decoder import Model
from prancimg.errors import PrancImgError
from prancimg.fit import fused
from prancimg.fit.fit_siren import laplace_bits
from prancimg.fit.soap import Soap
from prancimg.format import range_coder
from prancimg.format.bitstream import FROZEN, PRANC, WHOLE, Adapted, Coded, Header, coded_by, step_size
from prancimg.format.layout import COMPONENTS, KINDS, MAX_LEVELS, NEUTRAL_RATE, STEP_CODES, Kind, Pyramid
from prancimg.network import basis, context
from prancimg.network.field import Coefficients, directions, features, step_value
from prancimg.network.prior import load_prior
from prancimg.network.siren import FRACTION

PRIOR = 2
"""The prior that the field starts from."""
PRICES = (4e-6, 0.24)
"""What a bit a pixel may cost in squared error on samples from 0 to 1."""
RATES = 75, 192
"""The rate indices of the prices that the prior was trained at."""
RATE, NETWORK_RATE = 0.25, 1.2e-2
"""Learning rates: of the grids in units of the step, of the networks."""
SHRINK = 0.3
"""What the analytic start's coefficients are moved towards zero by."""
SURPLUS = 1.4, 1.1
"""The bits of the start, relative to those of the fit at the same price, with luma at level 0 and without."""
SCOUTS, SHORT, MISLED = 3, 1.2, 0.6
"""Short fits of tiles, if there is time; their bits relative to those of whole fits; the logarithm of being far off."""
STEERED = {
    0.3: (1.43, 0.5),
    0.4: (1.27, 0.7),
    0.5: (1.14, 1.0),
    0.6: (1.06, 1.3),
    0.68: (1.02, 1.6),
    0.74: (1.005, 2.0),
    0.78: (1.003, 2.0),
    0.82: (1.0, 2.0),
    0.845: (1.0, 2.0),
}
"""At these shares of the steps: bits if all were rounded, relative to the end's, and how the price follows them."""
STEERED_IN_HASTE = 0.5, 0.74
"""Those of a hurried fit."""
CODED = 1.0075
"""Bits that are coded, relative to those by the loss, whose means and scales are not rounded: 1.002 to 1.014."""
LANDED = -0.025, 0.03
"""Where the logarithm of a steered fit's bits, relative to those asked for, is to end.

Giving up a percent costs nothing, filling one gains nothing.
"""
HARD, HARD_NETWORKS = 0.86, 0.7
"""Shares of the steps after which the grids, and before them the networks' coefficients, are rounded."""
FEW, MANY = 25_000, 90_000
"""Bits of a file from which pseudo-random coefficients of the networks, and from which all their weights, pay."""
_PATIENCE, _MOST_PATIENCE, _POWER = 80, 1350, -0.35
"""The steps at which that many bits are needed for all weights, and the power of the steps that the number follows."""
DUES = 1.4, 1.0, 0.85, 0.7
"""What a bit counts for at levels 0, 1, 2, and at 3 and above, in the loss: the eye wants coarse features first."""
MASKING = 0.2
"""How much less an error counts where the picture is busy: the exponent of :func:`visibility`."""
FLAWLESS = 1.5e-5
"""Mean squared error (48 dB) below which more bits are not worth having."""
_SPARSE = 0.1
"""Bits a pixel below which even the highest price may not do, at the levels that are usual."""
_NEARBY, _HARDLY_BUSY, _BUSY = 33, 3e-3, 1e-2
"""Side of the window, and variances in it below which all is the same to the eye, and where an error counts for one."""
REFRESH = 8
"""Steps after which it is looked up again which contexts hold anything but zeros."""
_TILE = 128
_UNHURRIED = 30
"""Steps of a fit from which a short one beforehand is not too dear, and from which the price may change often."""
_COARSER = 30
"""Step codes above the rate index: a field that has no time to grow starts with a coarser step than 0.04 at 1e-3."""
_FILL = 0.3
"""How far the rounding threshold may sink before a finer step takes over."""
_LEAST = 0.5
"""Bits to be saved for which a coefficient is worth giving up."""


@dataclass(frozen=True)
class Setup:
    """What is fitted: the encoder's own choice, or one of its controls."""

    prior: int = PRIOR
    adapted: Adapted | None = None
    """None: what pays for a file of its size."""
    levels: tuple[int, int] | None = None
    """Finest levels of luma and chroma; None: chosen for picture and price."""
    dues: tuple[float, float, float, float] = DUES
    """What a bit counts for at levels 0, 1, 2, and at 3 and above."""
    masking: float = MASKING
    """How much less an error counts where the picture is busy."""
    analytic: bool = True
    """Start from the picture's pyramid instead of nothing."""

    def header(
        self,
        image: np.ndarray,
        price: float,
        levels: tuple[int, int] = (0, 1),
        adapted: Adapted = FROZEN,
        seed: int = 0,
    ) -> Header:
        """The plan of a fit of a picture (H, W, 3) at a price: its grids, its steps and how its networks adapt."""
        siren = load_prior(self.prior)[0]
        rate = round(NEUTRAL_RATE + 16 * math.log2(price / 1e-3))
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
            rate=min(max(rate, RATES[0]), RATES[1]),
            step=min(max(rate + _COARSER, 0), STEP_CODES - 1),
        )


TUNES = {"ssim": Setup(), "psnr": Setup(dues=(1.0, 1.0, 1.0, 1.0), masking=0.0)}
"""By what a fit is tuned for: structural similarity, or mean squared error alone."""


@dataclass(frozen=True)
class Fitted:
    """A fit whose size can still be trimmed."""

    header: Header
    alpha: Sequence[np.ndarray]
    """Integer coefficients of every tensor, as many as the header says."""
    y: np.ndarray
    """All grids one after the other, float32, before they are rounded."""
    cheapest: np.ndarray
    """Places of coefficients other than zero, in the order in which they are given up."""
    finest: float
    """The most negative shift that is worth its bits."""

    @property
    def coarsest(self) -> float:
        """The largest shift that still makes a difference."""
        return STEP_CODES - 1 - self.header.step + 1.0

    def shifted(self, shift: float) -> tuple[Header, np.ndarray]:
        """Integers in float32, of fewer bits the higher the shift.

        From 0 to 1 so large a share of the coefficients in their order moves towards zero by one; from 0 to -1 more and
        more are rounded away from zero. Beyond, the quantiser's step changes as well, by a code a unit: the dearer way.
        """
        near = min(max(shift, -1.0), 1.0)
        code = min(max(self.header.step + math.floor(shift - near), 0), STEP_CODES - 1)
        ratio = step_value(self.header.step) / step_value(code)
        if near > 0:
            q, places = np.rint(self.y), self.cheapest[: round(near * len(self.cheapest))]
            q[places] -= np.sign(q[places])
            q = np.rint(q * ratio)
        else:
            y = self.y * np.float32(ratio)
            q = np.copysign(np.maximum(np.rint(np.abs(y)), np.floor(np.abs(y) + 0.5 - _FILL * near)), y)
        return replace(self.header, step=code), q.clip(1 - range_coder.MAGNITUDE, range_coder.MAGNITUDE - 1) + 0.0

    def rounded(self, shift: float) -> tuple[Header, Coefficients]:
        """The same with the grids by (component, level)."""
        header, q = self.shifted(shift)
        return header, header.pyramid.split(q.astype(np.int32))

    def bits(self, shift: float) -> float:
        """Exact bits of the coefficients, without what the container and the coder add."""
        header, q = self.rounded(shift)
        theta = Model.of(header).parameters(self.alpha, header.tensors)
        return self.network_bits + context.cost(header.pyramid, q, context.networks(theta, FRACTION, header.rate))

    @property
    def network_bits(self) -> float:
        """Bits of the networks' coefficients."""
        coded = zip(self.alpha, self.header.tensors, strict=True)
        return sum(range_coder.cost(alpha, how.scale) for alpha, how in coded if how.k)


def soften(y: Tensor, part: float, generator: torch.Generator) -> Tensor:
    """Soft rounding with noise, both fading, at a share of the way to hard rounding."""
    noise = torch.empty_like(y).normal_(generator=generator).mul_(0.22 - 0.07 * part)
    return fused.soft_round(y, noise, 0.6 - 0.52 * part)


def pace(done: float) -> float:
    """The learning rate at a share of the steps, relative to its highest."""
    return 0.49 * (1 + math.cos(math.pi * done)) + 0.02


def seek(
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


def visibility(pixels: Tensor, masking: float) -> Tensor:
    """What a squared error counts for at every pixel of a picture (3, h, w): (h, w), about 1 on average.

    A power of the variance nearby: structural similarity divides by it, and so in effect does the eye (Teo and Heeger,
    1994).
    """
    size = min(_NEARBY, *(side - 1 + side % 2 for side in pixels.shape[1:]))
    luma = pixels.mean(0)[None]
    both = torch.cat([luma, luma.square()])
    for sides in ((size, 1), (1, size)):
        both = avg_pool2d(both, sides, 1, [side // 2 for side in sides], count_include_pad=False)
    variance = (both[1] - both[0].square()).clamp_min(0)
    return ((variance + _HARDLY_BUSY) / _BUSY) ** -masking


class Canvas:
    """A picture, its pyramid and the two terms of the loss, as functions of all coefficients one after the other."""

    def __init__(self, pixels: Tensor, pyramid: Pyramid, masking: float = 0.0) -> None:
        """``pixels``: (3, h, w) from 0 to 1; errors count by their :func:`visibility`."""
        self.pixels, self.pyramid, self.masking = pixels, pyramid, masking

    @cached_property
    def dues(self) -> Tensor:
        """What an error counts for at every pixel, (h, w): only a fit asks for it, not a start."""
        return visibility(self.pixels, self.masking)

    def start(self, weights: Mapping[str, Tensor], step: float, r: float, rounds: int = 3) -> Tensor:
        """The analytic start, packed: a pyramid that shows the picture, by Newton steps with one slope everywhere."""
        y = self.pixels.new_zeros(sum(grid.count for grid in self.pyramid.grids))
        for _ in range(rounds):
            y = y.round()
            y += self._pyramid(self.pixels - self.paint(y, weights, step, r), weights, step, r)
        return y

    def _pyramid(self, rest: Tensor, weights: Mapping[str, Tensor], step: float, r: float) -> Tensor:
        """What to add to the grids so that the picture, were the network linear, changed by ``rest`` (3, h, w).

        A Laplacian pyramid from coarse to fine, in which each level makes up for the rounding of the one before.
        """
        phases = weights["b0"] + weights["slope"] * r
        linear = weights["w1"] @ (phases.cos()[:, None] * weights["w0"])
        linear = linear + weights["residual"].view(3, 3, 9).sum(2) @ linear
        gains = directions(weights) * step
        present = {grid.key for grid in self.pyramid.grids}
        out: list[Tensor] = []
        shown: Tensor | None = None
        for level in reversed(range(self.pyramid.levels)):
            size = self.pyramid.size(level)
            here = interpolate(rest[None], size=size, mode="bicubic", antialias=True)[0] if level else rest
            if shown is not None:
                shown = fused.upsample(shown, weights["taps"], *size)
                here = here - shown
            basis = linear @ gains[level].t()
            y = torch.linalg.solve(basis, here.reshape(3, -1))
            y *= y.new_tensor([(c, level) in present for c in range(COMPONENTS)])[:, None]
            out += [y[c] for c in range(COMPONENTS) if (c, level) in present]
            added = (basis @ y.round()).view_as(here)
            shown = added if shown is None else shown + added
        return torch.cat(out)

    def field(self, q: Tensor, weights: Mapping[str, Tensor], step: float) -> Tensor:
        """The field that the network reads, (channels, h, w)."""
        field: Tensor = features(self.pyramid, self.pyramid.split(q), weights, step, fused.lift)
        return field

    def paint(self, q: Tensor, weights: Mapping[str, Tensor], step: float, r: float) -> Tensor:
        """The picture (3, h, w); ``r`` is (rate - 128) / 64."""
        field = self.field(q, weights, step)
        phases = weights["b0"] + weights["slope"] * r
        rgb = fused.sines(field.reshape(len(field), -1), weights["w0"], phases, weights["w1"], weights["b1"])
        return fused.sharpen(rgb.view_as(self.pixels), weights["residual"])

    def error(self, q: Tensor, weights: Mapping[str, Tensor], step: float, r: float) -> Tensor:
        """Mean squared error of the picture painted, by visibility."""
        field, phases = self.field(q, weights, step), weights["b0"] + weights["slope"] * r
        net = weights["w0"], phases, weights["w1"], weights["b1"], weights["residual"]
        return fused.picture_error(field, self.pixels, self.dues, *net)

    def bits(
        self,
        q: Tensor,
        u: Tensor,
        weights: Mapping[str, Tensor],
        r: float,
        dues: Sequence[float] = (1.0,),
        busy: Tensor | None = None,
    ) -> Tensor:
        """Bits of all coefficients, packed, from what they are squashed to: :func:`prancimg.fit.fused.field_bits`."""
        nets = {}
        for kind in KINDS:
            a, bias, slope, *rest = (weights[f"{kind}.{name}"] for name in ("a", "bias", "slope", "b", "b0", "c", "c0"))
            nets[kind] = a, bias + slope * r, *rest
        return fused.field_bits(self.pyramid, q, u, nets, dues, busy)


def cheapest(
    canvas: Canvas,
    q: Tensor,
    weights: Mapping[str, Tensor],
    step: float,
    r: float,
    dues: Sequence[float],
    price: float,
    groups: int,
) -> np.ndarray:
    """Places of coefficients other than zero that are worth giving up, those first that save most bits for their error.

    Giving up means one step towards zero. What that saves of a coefficient's own bits is integrated by Simpson's rule;
    what it does to the error, and as context to other bits, is read from the slope half-way, for one of the ``groups``
    of the coefficients at a time. ``price`` is that of a bit in error: it is added to every error, for savings are
    guesses.
    """

    busy = fused.busy(canvas.pyramid, q)

    def bits(q: Tensor, u: Tensor) -> Tensor:
        return canvas.bits(q, u, weights, r, dues, busy)

    sign, u = q.sign(), fused.squash(q)
    change = fused.squash(q - sign) - u
    saved, cost = torch.zeros_like(q), torch.full_like(q, math.inf)
    for part, weight in ((0.0, 1 / 6), (0.5, 4 / 6), (1.0, 1 / 6)):
        on_the_way = (q - part * sign).requires_grad_()
        saved += weight * sign * torch.autograd.grad(bits(on_the_way, u), on_the_way)[0]
    group = torch.randint(groups, q.shape, generator=torch.Generator().manual_seed(0)).to(q.device)
    for g in range(groups):
        here = (group == g) & (q != 0)
        half_way, context_half_way = (
            (q - 0.5 * sign * here).requires_grad_(),
            (u + 0.5 * change * here).requires_grad_(),
        )
        error = canvas.error(half_way, weights, step, r)
        added = -sign * torch.autograd.grad(error, half_way)[0]
        saved_here = saved - change * torch.autograd.grad(bits(q, context_half_way), context_half_way)[0]
        cost = torch.where(here & (saved_here > _LEAST), (added.clamp_min(0) + price) / saved_here, cost)
    order: np.ndarray = cost.argsort()[: int(cost.isfinite().sum())].cpu().numpy()
    return order


class GridAdam:
    """Adam on packed grids, in units of the quantiser's step. Kingma and Ba (arXiv 1412.6980)."""

    def __init__(self, y: Tensor) -> None:
        self.y, self.mean, self.square, self.time = y, torch.zeros_like(y), torch.zeros_like(y), 0

    @torch.no_grad()
    def move(self, rate: float) -> None:
        """One step along the gradient, which is then dropped; ``rate`` is a share of ``RATE``."""
        gradient = self.y.grad
        assert gradient is not None
        self.time += 1
        self.mean.lerp_(gradient, 0.6)
        self.square.mul_(0.99).addcmul_(gradient, gradient, value=0.01)
        root = self.square.sqrt().mul_(1 / math.sqrt(1 - 0.99**self.time)).add_(1e-12)
        self.y.addcdiv_(self.mean, root, value=-RATE * rate / (1 - 0.4**self.time))
        self.y.grad = None


class Networks:
    """θ = θ0 + B a for every adapted tensor, with a in real units; and the optimiser of a."""

    def __init__(self, model: Model, coded: Sequence[Coded], device: torch.device) -> None:
        names = list(model.theta0)
        self.shapes, self.coded = model.siren.shapes, coded
        self.start = {
            name: torch.from_numpy(tensor / 2.0**FRACTION).to(device, torch.float32).view(self.shapes[name])
            for name, tensor in model.theta0.items()
        }
        self.step: dict[str, float] = {}
        self.basis: dict[str, Tensor] = {}
        self.a: dict[str, Tensor] = {}
        self.identity: set[str] = set()
        for i, (name, how) in enumerate(zip(names, coded, strict=True)):
            if how.k:
                columns = basis.entries(model.seed, i, model.blocks[i], 0, how.k, like=np.zeros(0, np.int64))
                self.basis[name] = torch.from_numpy(columns).to(device, torch.float32)
                self.step[name] = step_size(how.step) / 2**FRACTION
                self.a[name] = torch.zeros(how.k, device=device, requires_grad=True)
                if model.blocks[i].kind == Kind.IDENTITY:
                    self.identity.add(name)
        sizes = torch.tensor([len(a) for a in self.a.values()], dtype=torch.long, device=device)
        self._sizes, self._tensor = sizes, torch.repeat_interleave(torch.arange(len(sizes), device=device), sizes)
        self._steps = torch.tensor(list(self.step.values()), device=device)[self._tensor]
        self._soap = Soap(len(self.a), beta2=0.95, every=5)

    def weights(self, hard: bool) -> tuple[dict[str, Tensor], Tensor]:
        """All tensors in their shapes, and about how many bits the coefficients take."""
        weights = dict(self.start)
        if not self.a:
            return weights, next(iter(weights.values())).new_zeros(())
        q = torch.cat(list(self.a.values())) / self._steps
        if hard:
            q = q + (q.round() - q).detach()
        mean = q.new_zeros(len(self._sizes)).index_add_(0, self._tensor, q.detach().abs()) / self._sizes
        moved = torch.split(q * self._steps, self._sizes.tolist())
        for name, a in zip(self.a, moved, strict=True):
            weights[name] = weights[name] + (self.basis[name] @ a).view(self.shapes[name])
        return weights, laplace_bits(q, (mean + 0.1)[self._tensor]).sum()

    def move(self, rate: float, step: float) -> None:
        """One step along the gradients: SOAP where a tensor is sent whole, else Adam on the few coefficients.

        What paints must move less where the field's ``step`` is fine: a finer picture shows it sooner.
        """
        gradients = []
        for name, a in self.a.items():
            assert a.grad is not None
            whole = name in self.identity
            spread, shape = self.basis[name] @ a.grad, self.shapes[name]
            gradients.append(a.grad if not whole else spread if len(shape) == 1 else spread.view(-1, shape[-1]))
        if not gradients:
            return
        with torch.no_grad():
            for (name, a), direction in zip(self.a.items(), self._soap.directions(gradients), strict=True):
                # A basis that just turned may meet the squares of other directions: no step is larger than usual.
                direction = direction / direction.square().mean().sqrt().clamp(min=1.0)
                own = rate if "." in name else 0.4 * rate * min(2.0, step / 0.09)
                if name in self.identity:
                    a -= own * (self.basis[name].t() @ direction.reshape(-1))
                else:
                    a -= 0.3 * own * direction
                a.grad = None

    def integers(self) -> tuple[list[np.ndarray], tuple[Coded, ...]]:
        """The coefficients of every tensor and how to code them."""
        alpha, coded = [], []
        for name, how in zip(self.start, self.coded, strict=True):
            a = np.zeros(0, np.int64)
            if how.k:
                a = np.rint(self.a[name].detach().cpu().numpy() / self.step[name]).astype(np.int64)
            keep = bool(a.any())
            alpha.append(a if keep else a[:0])
            coded.append(Coded(len(a), how.step, range_coder.best_scale(a)) if keep else Coded(0))
        return alpha, tuple(coded)


@fused.one_torch_thread()
def fit_field(
    image: np.ndarray,
    *,
    seed: int,
    iterations: int,
    device: torch.device,
    price: float | None = None,
    bits: float = math.inf,
    setup: Setup = Setup(),
    progress: Callable[[float], None] | None = None,
) -> Fitted:
    """Fit a field to a picture (H, W, 3) uint8 at a price, or without one so that its coefficients take ``bits``."""
    fused.keep_memory()
    count = image.shape[0] * image.shape[1]
    steered = price is None
    if price is None:
        wanted = bits
        levels, price = price_for(image, bits, setup, iterations, device)
    elif setup.levels and setup.adapted is not None:  # nothing depends on what the start takes
        wanted, levels = bits, setup.levels
    else:
        wanted = Start(image, setup, device).bits(price, setup.levels or (1, 2))
        levels = setup.levels or finest_levels(wanted / count)
    marks = STEERED if iterations >= _UNHURRIED else {share: STEERED[share] for share in STEERED_IN_HASTE}
    adapted = adapted_to(wanted, iterations) if setup.adapted is None else setup.adapted
    iterations = steps_at(iterations, levels[0])
    fit = _Fit(image, setup.header(image, price, levels, adapted, seed), price, bits, setup, device)
    groups = min(max(iterations // 16, 1), 12)
    moments = {round(share * iterations): how for share, how in marks.items()} if steered else {}
    i, seen, again = 0, 0.0, steered
    while i < iterations:
        if i >= HARD * iterations and fit.fixed is None:
            off = fit.excess(exact=True) if steered else 0.0
            if again and fit.missed(off):
                fit.change_price(off, 1.0, 0.3)
                again, i = False, round((HARD - 0.25) * iterations)
                continue
            fit.settle(off, groups if steered else 0)
        fit.step(i / iterations, min(1.0, (i + 1) / 2))
        if i in moments and fit.fixed is None:
            ratio, strength = moments[i]
            fit.change_price(fit.excess() - math.log(ratio), strength, 0.5)
        i += 1
        if progress and i / iterations > seen:
            progress(seen := i / iterations)
    return fit.trimmable(groups) if steered else fit.state()


class _Fit:
    """A fit on its way."""

    def __init__(
        self, image: np.ndarray, header: Header, price: float, bits: float, setup: Setup, device: torch.device
    ) -> None:
        pixels = _planes(image, device)
        self.header, self.price, self.wanted, self.setup = header, price, bits, setup
        self.generator = torch.Generator(device).manual_seed(header.seed)
        self.canvas = Canvas(pixels, header.pyramid, setup.masking)
        self.networks = Networks(Model.of(header), header.tensors, device)
        y = pixels.new_zeros(sum(grid.count for grid in header.pyramid.grids))
        if setup.analytic:
            with torch.no_grad():
                y = start(self.canvas, self.networks.start, header)
        self.y = y.requires_grad_()
        self.adam, self.error, self.steps, self.team = GridAdam(y), math.inf, 0, fused.Team()
        self.busy: Tensor | None = None
        """Which contexts hold anything but zeros; looked up every few steps."""
        self.fixed: Tensor | None = None
        """The grids, when they are rounded for good, and squashed as the decoder does."""
        self.squashed = y

    @property
    def _each(self) -> float:
        """The price of a bit, in mean squared error."""
        return self.price / self.canvas.pixels[0].numel()

    def step(self, done: float, warm: float) -> None:
        """One step of everything along its gradient, at a share of the way; ``warm`` slows down the first ones."""
        with self.team.step(self.steps):
            self._step(done, warm)
        self.steps += 1

    def _step(self, done: float, warm: float) -> None:
        step, r = step_value(self.header.step), relative_rate(self.header.rate)
        weights, own_bits = self.networks.weights(done >= HARD_NETWORKS)
        if self.fixed is None:
            q = soften(self.y, done / HARD, self.generator)
            u = fused.squash(q)
            if self.steps % REFRESH == 0:
                self.busy = fused.busy(self.header.pyramid, self.y)
        else:
            q, u = self.fixed, self.squashed
        error = self.canvas.error(q, weights, step, r)
        loss = error + self._each * (self.canvas.bits(q, u, weights, r, self.setup.dues, self.busy) + own_bits)
        if not math.isfinite(loss.item()):
            raise PrancImgError("the fit diverged")
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        self.error, rate = error.item(), pace(done) * warm
        self.networks.move(NETWORK_RATE * max(rate, 0.05), step)
        if self.fixed is None:
            self.adam.move(rate)

    def state(self) -> Fitted:
        """The fit as it stands."""
        alpha, coded = self.networks.integers()
        header, y = replace(self.header, tensors=coded), self.y.detach().cpu().numpy()
        return Fitted(header, alpha, y, np.zeros(0, np.int64), 0.0 if self.error < FLAWLESS else -32.0)

    def trimmable(self, groups: int) -> Fitted:
        """The same, with the order in which coefficients are given up."""
        weights = {name: tensor.detach() for name, tensor in self.networks.weights(True)[0].items()}
        step, r = step_value(self.header.step), relative_rate(self.header.rate)
        q = self.y.detach().round()
        return replace(
            self.state(), cheapest=cheapest(self.canvas, q, weights, step, r, self.setup.dues, self._each, groups)
        )

    def excess(self, exact: bool = False) -> float:
        """The logarithm of the bits, were all rounded now, relative to those wanted: by the loss, or counted."""
        if exact:
            bits = self.state().bits(0)
        else:
            with torch.no_grad():
                weights, own_bits = self.networks.weights(True)
                q, r = self.y.detach().round(), relative_rate(self.header.rate)
                busy = fused.busy(self.header.pyramid, q)
                bits = CODED * float(self.canvas.bits(q, fused.squash(q), weights, r, busy=busy) + own_bits)
        return math.log(max(bits, 1e-9) / self.wanted)

    def change_price(self, excess: float, strength: float, most: float) -> None:
        """Follow an excess of bits."""
        price = self.price * math.exp(strength * min(max(excess, -most), most))
        self.price = min(max(price, PRICES[0]), PRICES[1])

    def missed(self, off: float) -> bool:
        """Whether an excess of bits is more than rounding otherwise should make good, and a price can help."""
        return not LANDED[0] < off < LANDED[1] and not self._at_bound(off)

    def _at_bound(self, off: float) -> bool:
        return self.price <= PRICES[0] * 1.01 if off < 0 else self.price >= PRICES[1] * 0.99

    def settle(self, off: float, groups: int) -> None:
        """Round for good; where the price is at its bound, otherwise than usual, to make good an excess of bits."""
        if groups and self._at_bound(off):
            now = self.trimmable(groups) if off > 0 else self.state()
            coarser, landed = now.shifted(_land(now, math.log(self.wanted), 0.005))
            self.header = replace(self.header, step=coarser.step)
            self.fixed = torch.from_numpy(landed).to(self.y)
        else:
            self.fixed = self.y.detach().round()
        self.busy = fused.busy(self.header.pyramid, self.fixed)
        table = torch.from_numpy(context.SQUASH).to(self.fixed) / 64
        self.squashed = torch.copysign(table[self.fixed.abs().clamp_max(256).long() + 256], self.fixed)
        with torch.no_grad():  # what was rounded off may still fill a file that turns out too small
            rest = self.y - self.fixed
            self.y.copy_(self.fixed + torch.where(rest.abs() < 0.499, rest, 0.0))


class Start:
    """How many bits the start of a fit takes."""

    def __init__(self, image: np.ndarray, setup: Setup, device: torch.device) -> None:
        self.image, self.setup = image, setup
        self.pixels = _planes(image, device)
        plan = setup.header(image, 1e-3)
        self.prior = Networks(Model.of(plan), plan.tensors, device).start

    def bits(self, price: float, levels: tuple[int, int]) -> float:
        """At a price, with these finest levels."""
        header = self.setup.header(self.image, price, levels)
        canvas = Canvas(self.pixels, header.pyramid)
        with torch.no_grad():
            q = start(canvas, self.prior, header).round()
            r = relative_rate(header.rate)
            return max(float(canvas.bits(q, fused.squash(q), self.prior, r)), 1e-9)


def price_for(
    image: np.ndarray, bits: float, setup: Setup, iterations: int, device: torch.device
) -> tuple[tuple[int, int], float]:
    """Finest levels, and the price at which a fit of a picture takes about so many bits.

    The bits of the start tell it; a short fit of tiles from all over the picture, whether the start misleads, as it
    does for drawings and noise.
    """
    whole, tiles = Start(image, setup, device), contact_sheet(image)
    part, count = Start(tiles, setup, device), whole.pixels[0].numel()
    levels = setup.levels or finest_levels(bits / count)
    if setup.levels is None and bits < _SPARSE * count:
        while whole.bits(PRICES[1], levels) > bits and levels[0] < MAX_LEVELS - 1:  # not even the highest price will do
            levels = levels[0] + 1, min(max(levels[0] + 2, levels[1]), MAX_LEVELS - 1)
    wanted = SURPLUS[min(levels[0], 1)] * bits

    def excess(x: float) -> float:
        return math.log(part.bits(math.exp(x), levels) / (wanted * tiles.size / image.size))

    (low, high), slope = map(math.log, PRICES), -0.8
    x = seek(excess, math.log(2e-3), slope, (low, high), 0.08, 6)
    x -= math.log(whole.bits(math.exp(x), levels) / wanted) / slope
    x = min(max(x, low), high)
    scout, steps = replace(setup, levels=levels, adapted=FROZEN), min(max(iterations // 6, 10), 28)
    for _ in range(SCOUTS if iterations >= _UNHURRIED else 0):
        price = math.exp(x)
        found = fit_field(tiles, seed=0, iterations=steps, device=device, price=price, setup=scout).bits(0)
        off = math.log(max(found, 1.0) / part.bits(price, levels) * whole.bits(price, levels) / (SHORT * bits))
        if abs(off) < MISLED:
            break
        x = min(max(x - off / slope, low), high)
    return levels, math.exp(x)


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


def finest_levels(bpp: float) -> tuple[int, int]:
    """Finest levels of luma and chroma that pay at a rate, measured on photographs at equal time."""
    luma = 0 if bpp > 0.17 else 1 if bpp > 0.02 else 2
    return luma, 1 if bpp > 1.2 else max(2, luma + 1)


def steps_at(iterations: int, luma_from: int) -> int:
    """The steps of a fit from a finest level on: without the finest grids a step costs less."""
    return round(iterations * (1.0, 1.5, 2.0)[min(luma_from, 2)])


def adapted_to(bits: float, iterations: int) -> Adapted:
    """The coefficients of the networks that pay in a file of so many bits, measured on photographs."""
    many = MANY * (min(iterations, _MOST_PATIENCE) / _PATIENCE) ** _POWER
    return FROZEN if bits < FEW else PRANC if bits < many else WHOLE


def _planes(image: np.ndarray, device: torch.device) -> Tensor:
    """(H, W, 3) uint8 to (3, H, W) from 0 to 1."""
    return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1).contiguous().to(device) / 255


def start(canvas: Canvas, weights: Mapping[str, Tensor], header: Header) -> Tensor:
    """The analytic start, a little emptier: a fit adds bits more easily than it sheds them."""
    y = canvas.start(weights, step_value(header.step), relative_rate(header.rate))
    return torch.copysign((y.abs() - SHRINK).clamp_min(0), y)


def relative_rate(rate: int) -> float:
    """What the networks are told of a rate index."""
    return (rate - NEUTRAL_RATE) / 64


def _land(fitted: Fitted, log_bits: float, below: float) -> float:
    """The shift that makes a fit take so many bits."""
    bounds = (fitted.finest, fitted.coarsest)
    return seek(lambda shift: math.log(max(fitted.bits(shift), 1e-9)) - log_bits, 0.0, -0.5, bounds, below, 8)
