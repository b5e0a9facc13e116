"""The fit of a picture by rate-distortion: coefficients, step sizes and their price, all at once. Needs torch.

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

from prancimg.basis import column_norm, expand_block_transposed
from prancimg.bitstream import STEPS, step_size
from prancimg.decoder import Model
from prancimg.errors import PrancImgError
from prancimg.pranc import expand_block
from prancimg.siren import FRACTION, coordinates
from prancimg.soap import Soap

BATCH = 6144
"""Pixels a step."""
RATE = 0.04
"""Learning rate, in units of each tensor."""
HARD = 0.8
"""The share of the steps after which coefficients are rounded instead of blurred by noise."""


@dataclass(frozen=True)
class Fitted:
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
) -> Fitted:
    """Fit ``counts[t]`` coefficients of every tensor t to a picture (H, W, 3) uint8, to take ``bits`` bits together."""
    siren, names = model.siren, list(model.siren.shapes)
    pixels, where = _targets(image, bits, device)
    theta0 = {
        name: torch.from_numpy(tensor / 2.0**FRACTION).to(device, torch.float32)
        for name, tensor in model.theta0.items()
    }
    # What a coefficient of 1 changes: frequencies move more than phases, the readout less than the layers before it.
    unit = [4.0, 2.0] + [1.0] * (len(names) - 4) + [0.5, 0.5]
    gain = [u / column_norm(block) for u, block in zip(unit, model.blocks, strict=True)]

    def offsets(t: int, a: Tensor) -> Tensor:
        """A tensor's offsets from θ0, from coefficients times their steps in units."""
        return gain[t] * expand_block(model.seed, t, model.blocks[t], a)

    codes = np.log([step_size(code) / 2**FRACTION for code in range(STEPS)])
    file_step = np.log(gain)  # the log of a step in the file, less that of a step in units
    a = [torch.zeros(k, device=device) for k in counts]
    log_step = torch.full((len(names),), math.log(0.02), device=device)
    log_spread = torch.full((len(names),), 1.0 if 3 * sum(counts) < bits else 0.0, device=device)
    soap, table_soap = Soap(len(names)), Soap(2, beta2=0.95)
    generator = torch.Generator(device).manual_seed(0)
    draw = np.random.default_rng(0)
    stride = max(1, round(math.sqrt(pixels.shape[1] * pixels.shape[2] / BATCH)))
    owner = torch.repeat_interleave(torch.tensor(counts)).to(device)
    price, spent_mean, mse_mean, hard = 0.4 / bits, 0.0, 0.0, False
    for i in range(iterations):
        done = i / iterations
        if not hard and done >= HARD:
            hard = True
            nearest = np.abs((log_step.cpu().numpy() + file_step)[:, None] - codes).argmin(1)
            log_step = torch.from_numpy(codes[nearest] - file_step).to(log_step)
        top, left = draw.integers(stride, size=2).tolist()
        target = pixels[:, top::stride, left::stride].reshape(3, -1)
        inputs = where[:, top::stride, left::stride].reshape(2, -1)
        flat = torch.cat(a).requires_grad_()
        table = torch.stack((log_step, log_spread)).requires_grad_()
        step = table[0].exp()[owner]
        q = flat / step
        q = q + (q.round() - q).detach() if hard else q + (torch.rand(len(q), generator=generator, device=device) - 0.5)
        spent = laplace_bits(q, table[1].exp()[owner]).sum()
        parts = torch.split(q * step, list(counts))
        weights = {name: (theta0[name] + offsets(t, parts[t])).view(siren.shapes[name]) for t, name in enumerate(names)}
        mse = (siren(weights, inputs) - target).square().mean()
        mse_now, spent_now = mse.item(), spent.item()
        if not math.isfinite(mse_now):
            raise PrancImgError("the fit diverged")
        mse_mean = mse_now if i == 0 else 0.9 * mse_mean + 0.1 * mse_now
        spent_mean = spent_now if i == 0 else 0.9 * spent_mean + 0.1 * spent_now
        (mse / (mse_mean + 1e-12) + price * spent).backward()
        if done > 0.1:  # steer the price towards the bits asked for, more firmly towards the end
            error = (0.03 + 0.3 * done**2) * (spent_mean / (0.992 * bits) - 1)
            most = max(0.03, 6 / iterations)
            price = min(20 / bits, max(0.005 / bits, price * math.exp(min(most, max(-most, error)))))
        with torch.no_grad():
            assert flat.grad is not None and table.grad is not None
            rate = RATE * min(1.0, i / 30) * (0.49 * (1 + math.cos(math.pi * done)) + 0.02)
            gradients = torch.split(flat.grad, list(counts))
            # The gradient in weight space, as far as the basis reaches; its direction, pulled back.
            spread = [offsets(t, g).view(siren.shapes[names[t]]) / unit[t] for t, g in enumerate(gradients)]
            for t, direction in enumerate(soap.directions(spread)):
                back = expand_block_transposed(model.seed, t, model.blocks[t], direction.reshape(-1), counts[t])
                a[t] = a[t] - rate / column_norm(model.blocks[t]) * back
            calm = 0.02 * min(1.0, max(0.1, 2 * (1 - done)))
            step_move, spread_move = table_soap.directions(list(table.grad))
            if not hard:
                log_step = log_step - calm * step_move
            log_spread = (log_spread - calm * spread_move).clamp(-3, 8)
        if progress:
            progress((i + 1) / iterations)
    nearest = np.abs((log_step.cpu().numpy() + file_step)[:, None] - codes).argmin(1)
    alpha = [x.cpu().numpy() / math.exp(codes[n] - f) for x, n, f in zip(a, nearest, file_step, strict=True)]
    return Fitted(alpha, nearest.tolist())


def laplace_bits(q: Tensor, spread: Tensor) -> Tensor:
    """Bits of (noisy) values under a Laplace distribution of mean absolute deviation ``spread``,
    integrated over q ± 1/2."""
    size = q.abs()
    outside = torch.exp(-(size - 0.5).clamp(min=0) / spread) * (1 - torch.exp(-1 / spread)) * 0.5
    inside = 1 - 0.5 * (torch.exp(-(0.5 - size).clamp(min=0) / spread) + torch.exp(-(0.5 + size) / spread))
    return -torch.log2(torch.where(size < 0.5, inside, outside) + 1e-9)


def _targets(image: np.ndarray, bits: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixels (3, h, w) in [0, 1] and their coordinates (2, h, w); halved where so few bits show no finer detail."""
    height, width = image.shape[:2]
    pixels = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1) / 255
    where = torch.from_numpy(coordinates(height, width)).view(2, height, width)
    if min(height, width) >= 64 and bits < 0.25 * height * width:
        pixels, where = avg_pool2d(pixels, 2), avg_pool2d(where, 2)
    return pixels.to(device), where.to(device)
