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

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from prancimg import basis, coder, context, fused
from prancimg.basis import Kind
from prancimg.bitstream import Coded, Header, step_size
from prancimg.decoder import Model
from prancimg.errors import PrancImgError
from prancimg.field import COMPONENTS, MAX_LEVELS, STEP_CODES, Coefficients, Pyramid, directions, features, step_value
from prancimg.fit import laplace_bits
from prancimg.prior import load_prior
from prancimg.siren import FRACTION
from prancimg.soap import Soap

PRIOR = 2
"""The prior that the field starts from."""
PRICES = (4e-6, 0.24)
"""What a bit a pixel may cost in squared error on samples from 0 to 1; the rate index spans no more."""
RATE, NETWORK_RATE = 0.08, 1.2e-2
"""Learning rates: of the grids in units of the step, of the networks."""
HARD, HARD_NETWORKS = 0.86, 0.7
"""Shares of the steps after which the grids, and before them the networks' coefficients, are rounded."""
WORTHWHILE = 12_000
"""Bits of a file below which networks of its own are not worth theirs."""
FLAWLESS = 1.5e-5
"""Mean squared error (48 dB) below which more bits are not worth having."""
_COARSER = 30
"""Step codes above the rate index: a field that has no time to grow starts with a coarser step than 0.04 at 1e-3."""
_DEAD = 0.03
"""How far a dead zone may widen before a coarser step takes over."""
LUMA_CHROMA = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))

Grids = Mapping[tuple[int, int], Tensor]

Adapted = Mapping[str, tuple[int, int | None]]
"""By tensor: the step code of its coefficients, and their number where that is not the tensor's size."""

_PAINT: Adapted = {
    "w0": (56, None),
    "b0": (48, None),
    "w1": (48, None),
    "b1": (40, None),
    "scale": (104, None),
    "taps": (56, None),
    "residual": (48, None),
}


def _contexts(a: tuple[int, int | None], b: tuple[int, int | None], bias: tuple[int, int | None]) -> Adapted:
    tensors = {"a": a, "b": b, "bias": bias, "b0": (104, None), "c": (96, None), "c0": (104, None)}
    return {f"{kind}.{tensor}": how for kind in context.KINDS for tensor, how in tensors.items()}


FROZEN: Adapted = {}
PRANC: Adapted = {**_PAINT, **_contexts((72, 48), (72, 48), (88, 24))}
WHOLE: Adapted = {**_PAINT, **_contexts((96, None), (96, None), (104, None))}


@dataclass(frozen=True)
class Setup:
    """What is fitted: the encoder's own choice, or one of its controls."""

    prior: int = PRIOR
    adapted: Adapted | None = None
    """None: what pays for a file of its size."""
    levels: tuple[int, int] | None = None
    """Finest levels of luma and chroma; None: chosen for picture and price."""
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
        siren, theta0 = load_prior(self.prior)
        rate = min(max(round(context.NEUTRAL_RATE + 16 * math.log2(price / 1e-3)), 0), context.MAX_RATE)
        tensors = []
        for name, tensor in theta0.items():
            step, k = adapted.get(name, (0, 0))
            k = len(tensor) if k is None else k
            tensors.append(Coded(k, step) if k else Coded(0))
        return Header(
            width=image.shape[1],
            height=image.shape[0],
            prior=self.prior,
            hidden=siren.hidden,
            layers=siren.layers,
            seed=seed,
            kind=Kind.SIGN,
            tensors=tuple(tensors),
            channels=siren.channels,
            luma_from=levels[0],
            chroma_from=levels[1],
            rate=rate,
            step=min(rate + _COARSER, STEP_CODES - 1),
        )


@dataclass(frozen=True)
class Fitted:
    """A fit before its grids are rounded for good."""

    header: Header
    alpha: Sequence[np.ndarray]
    """Integer coefficients of every tensor, as many as the header says."""
    field: np.ndarray
    """All grids one after the other, float32 in units of the header's step."""
    finest: float
    """The most negative shift of the step that is worth its bits."""

    def rounded(self, shift: float) -> tuple[Header, Coefficients]:
        """Integer grids for a step that is ``shift`` codes coarser; its fraction widens the dead zone instead."""
        header, scale = _coarser(self.header, shift)
        pyramid = header.pyramid
        values = _round(torch.from_numpy(self.field) * scale, shift).numpy().astype(np.int32)
        ends = np.cumsum([grid.count for grid in pyramid.grids])
        parts = np.split(values, ends[:-1])
        return header, {g.key: part.reshape(g.height, g.width) for g, part in zip(pyramid.grids, parts, strict=True)}

    def bits(self, shift: float) -> float:
        """Exact bits of the coefficients, without what the container and the coder add."""
        header, q = self.rounded(shift)
        theta = Model.of(header).parameters(self.alpha, header.tensors)
        bits = context.cost(header.pyramid, q, context.networks(theta, FRACTION, header.rate))
        return bits + sum(coder.cost(a, how.scale) for a, how in zip(self.alpha, header.tensors, strict=True) if how.k)


def _coarser(header: Header, shift: float) -> tuple[Header, float]:
    """The header with another step code, and what to multiply the field with."""
    code = min(max(header.step + math.floor(shift), 0), STEP_CODES - 1)
    return replace(header, step=code), step_value(header.step) / step_value(code)


def _round(y: Tensor, shift: float, dead: float = 0.0) -> Tensor:
    """The nearest integers, with a dead zone that the fraction of ``shift`` widens."""
    dead += _DEAD * (shift - math.floor(shift))
    size = y.abs()
    whole = torch.floor(size + 0.5 - torch.where(size < 1.5, dead, dead / 2))
    return (torch.copysign(whole, y) + 0.0).clamp(1 - coder.MAGNITUDE, coder.MAGNITUDE - 1)


def softness(part: float) -> tuple[float, float]:
    """Deviation of the noise and temperature of the soft rounding, at a share of the way to hard rounding."""
    return 0.22 - 0.07 * part, 0.35 - 0.27 * part


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


class Canvas:
    """A picture, its pyramid and the two terms of the loss, as functions of grids by (component, level)."""

    def __init__(self, pixels: Tensor, pyramid: Pyramid) -> None:
        """``pixels``: (3, h, w) from 0 to 1."""
        self.pixels, self.pyramid = pixels, pyramid

    def split(self, packed: Tensor) -> dict[tuple[int, int], Tensor]:
        """All coefficients one after the other to grids (h, w)."""
        parts = torch.split(packed, [grid.count for grid in self.pyramid.grids])
        return {g.key: part.view(g.height, g.width) for g, part in zip(self.pyramid.grids, parts, strict=True)}

    def start(self, weights: Mapping[str, Tensor], step: float) -> Tensor:
        """The analytic start, packed: a Laplacian pyramid of luma and chroma that makes up for its own rounding."""
        planes = torch.einsum("ij,jhw->ihw", self.pixels.new_tensor(LUMA_CHROMA), self.pixels)
        planes[0] -= 0.5
        out: list[Tensor] = []
        gains = directions(weights) * step
        shown: list[Tensor | None] = [None] * COMPONENTS
        present = {grid.key for grid in self.pyramid.grids}
        for level in reversed(range(self.pyramid.levels)):
            size = self.pyramid.size(level)
            small = interpolate(planes[None], size=size, mode="bicubic", antialias=True)[0] if level else planes
            for c in range(COMPONENTS):
                below = shown[c]
                if below is not None:
                    below = fused.upsample(below[None], weights["taps"], *size)[0]
                if (c, level) in present:
                    gain = gains[level, c, c]
                    y = (small[c] if below is None else small[c] - below) / gain
                    out.append(y.reshape(-1))
                    below = y.round() * gain if below is None else below + y.round() * gain
                shown[c] = below
        return torch.cat(out)

    def error(self, q: Grids, weights: Mapping[str, Tensor], step: float, r: float) -> Tensor:
        """Mean squared error of the picture painted; ``r`` is (rate - 128) / 64."""
        field = features(self.pyramid, q, weights, step, fused.upsample)
        phases = weights["b0"] + weights["slope"] * r
        rgb = fused.sines(field.reshape(len(field), -1), weights["w0"], phases, weights["w1"], weights["b1"])
        return (fused.sharpen(rgb.view_as(self.pixels), weights["residual"]) - self.pixels).square().mean()

    def bits(
        self,
        q: Grids,
        u: Grids,
        weights: Mapping[str, Tensor],
        r: float,
    ) -> Tensor:
        """Bits of all grids; ``u`` are the squashed grids."""
        total = self.pixels.new_zeros(())
        small: dict[str, list[fused.Small]] = {}
        nets = {kind: [weights[f"{kind}.{name}"] for name in ("a", "b", "b0", "c", "c0")] for kind in context.KINDS}
        for grid in self.pyramid.grids:
            kind, size = context.KINDS[grid.component > 0], (grid.height, grid.width)
            planes: list[Tensor] = []
            taps: list[fused.Tap] = []
            if (parent := u.get((grid.component, grid.level + 1))) is None:
                taps += [(-1, 0, 0)] * (1 + len(context.PARENT))
            else:
                nearest = parent.repeat_interleave(2, 0).repeat_interleave(2, 1)[: size[0], : size[1]]
                planes += [nearest, fused.raise_twofold(parent, *size)]
                taps += [(0, 0, 0), *((1, dy, dx) for dy, dx in context.PARENT)]
            if grid.component:
                luma = u.get((0, grid.level))
                taps += [(-1 if luma is None else len(planes), dy, dx) for dy, dx in context.LUMA]
                planes += [] if luma is None else [luma]
                taps.append((len(planes) if grid.component == 2 else -1, 0, 0))
                planes += [u[1, grid.level]] if grid.component == 2 else []
            bias, slope = weights[f"{kind}.bias"], weights[f"{kind}.slope"]
            here = bias[max(grid.component - 1, 0), grid.level] + slope[grid.level] * r
            if grid.count <= fused.SMALL:
                small.setdefault(kind, []).append((tuple(taps), q[grid.key], u[grid.key], here, planes))
            else:
                a, *rest = nets[kind]
                total = total + fused.grid_bits(tuple(taps), q[grid.key], u[grid.key], a, here, *rest, *planes)
        for kind, grids in small.items():
            total = total + fused.small_bits(grids, *nets[kind])
        return total


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
        self._soap = Soap(len(self.a), beta2=0.95, every=5)

    def weights(self, hard: bool) -> tuple[dict[str, Tensor], Tensor]:
        """All tensors in their shapes, and about how many bits the coefficients take."""
        weights, bits = dict(self.start), next(iter(self.start.values())).new_zeros(())
        for name, a in self.a.items():
            q = a / self.step[name]
            if hard:
                q = q + (q.round() - q).detach()
            bits = bits + laplace_bits(q, (q.abs().mean() + 0.1).detach()).sum()
            weights[name] = weights[name] + (self.basis[name] @ q * self.step[name]).view(self.shapes[name])
        return weights, bits

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
            coded.append(Coded(len(a), how.step, coder.best_scale(a)) if keep else Coded(0))
        return alpha, tuple(coded)


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
    pixels = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1).contiguous().to(device) / 255
    generator = torch.Generator(device).manual_seed(seed)
    count = image.shape[0] * image.shape[1]
    steered = price is None
    plan = setup.header(image, 1e-3)
    prior, _ = Networks(Model.of(plan), plan.tensors, device).weights(False)

    def start(price: float, levels: tuple[int, int]) -> tuple[float, float]:
        """Loss and bits of the analytic start, rounded with the dead zone that a fit will learn."""
        header = setup.header(image, price, levels)
        canvas, step, r = Canvas(pixels, header.pyramid), step_value(header.step), _relative(header.rate)
        with torch.no_grad():
            q = _round(canvas.start(prior, step), 0, 0.25)
            grids = canvas.split(q)
            spent = float(canvas.bits(grids, canvas.split(fused.squash(q)), prior, r))
            return float(canvas.error(grids, prior, step, r)) + price / count * spent, max(spent, 1e-9)

    def dear(levels: tuple[int, int], guess: float) -> float:
        """The price at which a fit starts with about the bits asked for."""
        low, high = map(math.log, PRICES)
        found = seek(
            lambda x: math.log(start(math.exp(x), levels)[1] / bits), math.log(guess), -0.8, (low, high), 0.15, 6
        )
        return math.exp(found)

    levels = setup.levels or (0, 1)
    guess = min(dear(levels, 2e-3), 0.02) if price is None else price
    for component in (0, 1) if setup.levels is None else ():
        losses: list[tuple[float, tuple[int, int]]] = []
        # Chroma that is dear at first gets cheap in a fit, so it is left out by one level more than luma at most.
        for level in range(levels[component], max(3, levels[0] + 2) if component else 5):
            tried = (level, levels[1]) if component == 0 else (levels[0], level)
            losses.append((start(guess, tried)[0], tried))
            if losses[-1][0] > 1.1 * min(losses)[0]:
                break
        levels = [tried for loss, tried in losses if loss <= 1.01 * min(losses)[0]][-1]
    if price is None:
        price = dear(levels, guess)
        while start(price, levels)[1] < 0.7 * bits and levels[0] > 0:  # these grids cannot use the bits
            levels = levels[0] - 1, max(levels[1] - 1, 1)
            price = dear(levels, guess)
        while start(price, levels)[1] > 1.3 * bits and levels[0] < MAX_LEVELS - 1:  # not even the highest price will do
            levels = levels[0] + 1, max(levels)
            price = dear(levels, guess)
    adapted = setup.adapted
    if adapted is None:
        adapted = PRANC if (bits if steered else start(price, levels)[1]) > WORTHWHILE else FROZEN
    header = setup.header(image, price, levels, adapted, seed)
    canvas, networks = Canvas(pixels, header.pyramid), Networks(Model.of(header), header.tensors, device)
    with torch.no_grad():
        y = canvas.start(prior, step_value(header.step))
        y = y if setup.analytic else torch.zeros_like(y)
    y.requires_grad_()
    mean, square, time = torch.zeros_like(y), torch.zeros_like(y), 0
    spent_mean, shift, repeats, i, seen = 0.0, 0.0, 0, 0, 0.0
    fixed: Tensor | None = None
    error = pixels.new_ones(())
    table = torch.from_numpy(context.SQUASH).to(device, torch.float32) / 64

    def state() -> Fitted:
        alpha, coded = networks.integers()
        finest = 0.0 if error.item() < FLAWLESS else -32.0
        return Fitted(replace(header, tensors=coded), alpha, y.detach().cpu().numpy(), finest)

    while i < iterations:
        done = i / iterations
        if fixed is None and done >= HARD:
            if steered:
                now = state()
                off = math.log(max(now.bits(0), 1e-9) / bits)
                at_bound = price <= PRICES[0] * 1.01 if off < 0 else price >= PRICES[1] * 0.99
                if abs(off) > 0.12 and repeats < 2 and not at_bound:  # too far to make up for by the step
                    repeats, i = repeats + 1, round((HARD - 0.3) * iterations)
                    price = min(max(price * math.exp(1.5 * off), PRICES[0]), PRICES[1])
                    continue
                shift = _land(now, math.log(bits) + 0.004, 0.012)
            header, scale = _coarser(header, shift)
            with torch.no_grad():
                y.mul_(scale)
            shift -= math.floor(shift)
            fixed = _round(y.detach(), shift)
        step, r = step_value(header.step), _relative(header.rate)
        weights, own_bits = networks.weights(done >= HARD_NETWORKS)
        if fixed is None:
            part = done / HARD
            spread, temperature = softness(part)
            noise = torch.empty_like(y).normal_(generator=generator).mul_(spread)
            q = fused.soft_round(y, noise, temperature)
            squashed = fused.squash(q)
        else:
            q = fixed
            squashed = torch.copysign(table[q.abs().clamp_max(256).long() + 256], q)
        grids = canvas.split(q)
        error = canvas.error(grids, weights, step, r)
        spent = canvas.bits(grids, canvas.split(squashed), weights, r) + own_bits
        loss = error + price / count * spent
        if not math.isfinite(loss.item()):
            raise PrancImgError("the fit diverged")
        if loss.requires_grad:
            loss.backward()
        rate = (0.49 * (1 + math.cos(math.pi * done)) + 0.02) * min(1.0, (i + 1) / 2)
        networks.move(NETWORK_RATE * max(rate, 0.05), step)
        if fixed is None:
            assert y.grad is not None
            with torch.no_grad():
                time += 1
                mean.lerp_(y.grad, 0.1)
                square.mul_(0.999).addcmul_(y.grad, y.grad, value=0.001)
                root = square.sqrt().mul_(1 / math.sqrt(1 - 0.999**time)).add_(1e-12)
                y.addcdiv_(mean, root, value=-RATE * rate / (1 - 0.9**time))
                y.grad = None
            spent_mean = spent.item() if i == 0 else 0.7 * spent_mean + 0.3 * spent.item()
            if steered and i >= 4:  # towards the bits that a fit on its way takes here
                wanted = bits * (1 + 0.3 * max(0.0, 1 - done / 0.75) ** 1.5 + 1.2 * math.exp(-i / 5))
                gain = min(0.15, 0.03 + 10 / iterations)
                price *= math.exp(min(0.15, max(-0.15, gain * math.log(spent_mean / wanted))))
                price = min(max(price, PRICES[0]), PRICES[1])
                planned = setup.header(image, price)
                with torch.no_grad():
                    y.mul_(step_value(header.step) / step_value(planned.step))
                header = replace(header, rate=planned.rate, step=planned.step)
        i += 1
        if progress and i / iterations > seen:
            progress(seen := i / iterations)
    return state()


def _relative(rate: int) -> float:
    return (rate - context.NEUTRAL_RATE) / 64


def _land(fitted: Fitted, log_bits: float, below: float) -> float:
    """The shift of the step that makes a fit take so many bits."""
    bounds = (fitted.finest, float(STEP_CODES - 1 - fitted.header.step))
    return seek(lambda shift: math.log(max(fitted.bits(shift), 1e-9)) - log_bits, 0.0, -0.025, bounds, below, 8)
