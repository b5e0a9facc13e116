"""The fit of a picture by rate-distortion: coefficients, step sizes and λ, all at once. Needs torch.

distortion + λ · bits, where the bits are those of the coder's own model (a discretised Laplace distribution for each
tensor), quantisation is in the loop (uniform noise, then rounding with a straight-through gradient) and λ is
steered so that the fit ends at the number of bits asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from prancimg.decoding.decoder import Model
from prancimg.errors import PrancImgError
from prancimg.fit.ops.rate import laplace_bits
from prancimg.fit.setup import learning_rate
from prancimg.fit.soap import Soap
from prancimg.format.header import STEPS, step_size
from prancimg.format.layout import Siren
from prancimg.network.basis import column_norm
from prancimg.network.siren import FRACTION, coordinates, forward
from prancimg.pranc.products import expand_block, implementation

BATCH = 6144
"""Pixels a step."""
LEARNING_RATE = 0.04
"""Learning rate, in units of each tensor."""
CALMER_FROM = 200
"""Steps from which a network that moves in fewer directions than it has weights learns more slowly, see
docs/siren.md; where every weight has a coefficient that was no help."""
ROUNDED_FROM = 0.8
"""The share of the steps after which coefficients are rounded instead of blurred by noise."""


@dataclass(frozen=True)
class FittedSiren:
    """A fit before its coefficients are rounded."""

    alpha: list[np.ndarray]
    """For every tensor, coefficients (k,) float64 in units of their step."""
    steps: list[int]
    """For every tensor, the step code."""


def fit_siren(
    image: np.ndarray,
    model: Model,
    counts: Sequence[int],
    bits: float,
    *,
    iterations: int,
    device: torch.device,
    progress: Callable[[float], None] | None = None,
) -> FittedSiren:
    """Fit ``counts[t]`` coefficients of every tensor t to a picture (H, W, 3) uint8, to take ``bits`` bits together."""
    siren, shapes = model.siren, model.siren.shapes
    names = list(shapes)
    samples = Samples(image, bits, device)
    theta0 = {
        name: torch.from_numpy(tensor / 2.0**FRACTION).to(device, torch.float32)
        for name, tensor in model.theta0.items()
    }
    learned = {
        name: torch.from_numpy(along.floats).to(device, torch.float32) for name, along in model.directions.items()
    }
    unit = units(siren)
    norm = [column_norm(block) for block in model.blocks]
    scale = np.log(unit) - np.log(norm)  # the log of a step in the file, less that of a step in units

    def offsets(t: int, a: Tensor) -> Tensor:
        """A tensor's offsets from θ0 in units, from coefficients times their steps in units."""
        return expand_block(model.seed, t, model.blocks[t], a).view(shapes[names[t]]) / norm[t]

    a = [torch.zeros(k, device=device) for k in counts]
    log_step = torch.full((len(names),), math.log(0.02), device=device)
    log_spread = torch.full((len(names),), 1.0 if 3 * sum(counts) < bits else 0.0, device=device)
    owner = torch.repeat_interleave(torch.tensor(counts)).to(device)
    soap, table_soap, lmbda = Soap(len(names)), Soap(2, beta2=0.95), _SteeredLmbda(bits, iterations)
    calmer = 1.0 if sum(counts) == sum(siren.sizes) else min(1.0, (CALMER_FROM / iterations) ** 0.4)
    generator = torch.Generator(device).manual_seed(0)
    error_mean, hard = 0.0, False
    for i in range(iterations):
        done = i / iterations
        if not hard and done >= ROUNDED_FROM:
            hard = True
            log_step = torch.from_numpy(_CODES[_nearest(log_step, scale)] - scale).to(log_step)
        flat = torch.cat(a).requires_grad_()
        table = torch.stack((log_step, log_spread)).requires_grad_()
        step, spread = table.exp()[:, owner]
        q = flat / step
        q = q + (q.round() - q).detach() if hard else q + (torch.rand(len(q), generator=generator, device=device) - 0.5)
        spent = laplace_bits(q, spread).sum()
        parts = torch.split(q * step, list(counts))
        weights = {
            name: theta0[name].view(s) + unit[t] * offsets(t, parts[t])
            for t, (name, s) in enumerate(siren.shapes.items())
        }
        for name, along in learned.items():
            weights[name] = weights[name] + (weights[siren.design.learned_by(name)] @ along).view(shapes[name])
        inputs, target = samples.draw()
        error = (forward(siren, weights, inputs) - target).square().mean()
        if not math.isfinite(error.item() + spent.item()):
            raise PrancImgError("the fit diverged")
        error_mean = error.item() if i == 0 else 0.9 * error_mean + 0.1 * error.item()
        (error / (error_mean + 1e-12) + lmbda.value * spent).backward()
        lmbda.follow(spent.item(), done)
        with torch.no_grad():
            assert flat.grad is not None and table.grad is not None
            rate = LEARNING_RATE * calmer * min(1.0, i / 30) * learning_rate(done)
            # The gradient in weight space, as far as the basis reaches; its direction, pulled back.
            gradients = [offsets(t, g) for t, g in enumerate(torch.split(flat.grad, list(counts)))]
            for t, direction in enumerate(soap.directions(gradients)):
                transposed = implementation(model.blocks[t], direction).expand_block_transposed
                back = transposed(model.seed, t, model.blocks[t], direction.reshape(-1), counts[t])
                a[t] = a[t] - rate / norm[t] * back
            calm = 0.02 * min(1.0, max(0.1, 2 * (1 - done)))
            step_move, spread_move = table_soap.directions(list(table.grad))
            if not hard:
                log_step = log_step - calm * step_move
            log_spread = (log_spread - calm * spread_move).clamp(-3, 8)
        if progress:
            progress((i + 1) / iterations)
    codes = _nearest(log_step, scale)
    alpha = [x.cpu().numpy() / math.exp(_CODES[code] - s) for x, code, s in zip(a, codes, scale, strict=True)]
    return FittedSiren(alpha, codes.tolist())


def units(siren: Siren) -> list[float]:
    """What a coefficient of 1 changes in every tensor: frequencies move most, the readout least."""
    special = {"w0": 4.0, "b0": 2.0, f"w{siren.layers}": 0.5, f"b{siren.layers}": 0.5}
    return [special.get(name, 1.0) for name in siren.shapes]


class _SteeredLmbda:
    """λ, steered so that the bits spent come to those asked for."""

    def __init__(self, bits: float, iterations: int) -> None:
        self.bits, self.most = bits, max(0.03, 6 / iterations)
        self.value, self.mean = 0.4 / bits, 0.0

    def follow(self, spent: float, done: float) -> None:
        """Move λ, more firmly towards the end."""
        self.mean = 0.9 * self.mean + 0.1 * spent if self.mean else spent
        if done > 0.1:
            pull = (0.03 + 0.3 * done**2) * (self.mean / (0.992 * self.bits) - 1)
            moved = self.value * math.exp(min(self.most, max(-self.most, pull)))
            self.value = min(20 / self.bits, max(0.005 / self.bits, moved))


class Samples:
    """Minibatches of a picture: lattices of about BATCH pixels, shifted at random."""

    def __init__(self, image: np.ndarray, bits: float, device: torch.device) -> None:
        height, width = image.shape[:2]
        self.pixels = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1) / 255
        self.places = torch.from_numpy(coordinates(height, width)).view(2, height, width)
        if min(height, width) >= 64 and bits < 0.25 * height * width:  # so few bits show no finer detail
            self.pixels, self.places = avg_pool2d(self.pixels, 2), avg_pool2d(self.places, 2)
        self.pixels, self.places = self.pixels.to(device), self.places.to(device)
        self.stride = max(1, round(math.sqrt(self.pixels[0].numel() / BATCH)))
        self.random = np.random.default_rng(0)

    def draw(self) -> tuple[Tensor, Tensor]:
        """Coordinates (2, n) and samples (3, n) in [0, 1]."""
        top, left = self.random.integers(self.stride, size=2).tolist()
        places, pixels = (x[:, top :: self.stride, left :: self.stride] for x in (self.places, self.pixels))
        return places.reshape(2, -1), pixels.reshape(3, -1)


_CODES = np.log([step_size(code) / 2**FRACTION for code in range(STEPS)])
"""The logarithm of every step that a file can hold."""


def _nearest(log_step: Tensor, scale: np.ndarray) -> np.ndarray:
    """The step code nearest to each step in units."""
    codes: np.ndarray = np.abs((log_step.cpu().numpy() + scale)[:, None] - _CODES).argmin(1)
    return codes
