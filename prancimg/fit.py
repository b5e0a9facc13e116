"""The fit of a picture by rate-distortion: coefficients, step sizes and their price, all at once. Needs torch.

distortion + λ · bits, where the bits are those of the coder's own model (a discretised Laplace distribution for each
tensor), quantisation is in the loop (uniform noise, then rounding with a straight-through gradient) and λ is
steered so that the fit ends at the number of bits asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from prancimg.basis import expand_transposed
from prancimg.bitstream import STEPS, step_size
from prancimg.decoder import Model
from prancimg.errors import PrancImgError
from prancimg.pranc import expand
from prancimg.siren import FRACTION, coordinates
from prancimg.soap import Soap

BATCH = 8192
"""Pixels a step."""


@dataclass(frozen=True)
class Fitted:
    """Coefficients before rounding, in units of their steps, and the step code of every tensor."""

    alpha: np.ndarray
    steps: np.ndarray


def fit_siren(
    image: np.ndarray,
    model: Model,
    k: int,
    bits: float,
    *,
    iterations: int,
    device: torch.device,
    rate: float = 0.03,
    noise: float = 0.8,
    progress: Callable[[float], None] | None = None,
) -> Fitted:
    """Fit ``k`` coefficients of a model to a picture (H, W, 3) uint8 so that they take about ``bits`` bits.

    ``rate`` is the learning rate in units of each tensor's spread, ``noise`` the share of
    the steps before hard rounding.
    """
    siren, basis = model.siren, model.basis
    pixels, where = _targets(image, bits, device)
    sizes = siren.sizes
    theta0 = torch.from_numpy(model.theta0 / float(1 << FRACTION)).to(device, torch.float32)
    # Units: frequencies move more than phases, phases more than the other weights.
    unit = torch.tensor([4.0, 2.0] + [1.0] * (len(sizes) - 2), device=device)
    units = unit.repeat_interleave(torch.tensor(sizes, device=device))
    owner = torch.from_numpy(model.owners(k)).to(device)
    norms = torch.from_numpy(model.norms()).to(device, torch.float32)
    norm = norms[owner]
    grid = torch.tensor([math.log(step_size(code)) for code in range(STEPS)], device=device)
    offset = math.log(1 << FRACTION) + unit.log() - norms.log()  # from log_step to the step of the file

    def offsets(a: Tensor) -> Tensor:
        return units * expand(basis, a / norm)

    # a holds coefficients times their step times their column's norm: unit changes of unit directions.
    a = torch.zeros(k, device=device)
    log_step = torch.full((len(sizes),), math.log(0.02), device=device)
    log_spread = torch.full((len(sizes),), 1.0 if 3 * k < bits else 0.0, device=device)
    soap, prices = Soap(len(sizes)), Soap(2, beta2=0.95)
    generator = torch.Generator(device).manual_seed(0)
    draw = np.random.default_rng(0)
    stride = max(1, round(math.sqrt(pixels.shape[1] * pixels.shape[2] / BATCH)))
    price, average = 1e-7, 0.0
    for i in range(iterations):
        done = i / iterations
        hard = done >= noise
        if hard and done - 1 / iterations < noise:
            log_step = grid[_nearest(grid, log_step + offset)] - offset
        top, left = draw.integers(stride, size=2).tolist()
        batch = pixels[:, top::stride, left::stride].reshape(3, -1)
        at = where[:, top::stride, left::stride].reshape(2, -1)
        a.requires_grad_()
        table = torch.stack((log_step, log_spread)).requires_grad_()
        step = table[0].exp()[owner]
        q = a / step
        q = q + (q.round() - q).detach() if hard else q + (torch.rand(k, generator=generator, device=device) - 0.5)
        spent = laplace_bits(q, table[1].exp()[owner]).sum()
        tensors = siren.split(theta0 + offsets(q * step))
        mse = (siren(tensors, at) - batch).square().mean()
        (mse + price * spent).backward()
        if not math.isfinite(mse.item()):
            raise PrancImgError("the fit diverged")
        average = spent.item() if i == 0 else 0.9 * average + 0.1 * spent.item()
        if done > 0.05:
            price *= math.exp(min(0.03, max(-0.03, 0.05 * (average / bits - 1))))
            price = min(1e-3, max(1e-10, price))
        with torch.no_grad():
            warm = min(1.0, i / 30) * (0.49 * (1 + math.cos(math.pi * done)) + 0.02)
            assert a.grad is not None and table.grad is not None
            gradient = siren.split(offsets(a.grad) / units)
            direction = torch.cat([d.reshape(-1) for d in soap.directions(gradient)])
            a = a.detach() - rate * warm * expand_transposed(basis, direction, k) / norm
            move = prices.directions(list(table.grad))
            calm = 0.02 * min(1.0, max(0.1, 2 * (1 - done)))
            if not hard:
                log_step = log_step - calm * move[0]
            log_spread = (log_spread - calm * move[1]).clamp(-3, 8)
        if progress:
            progress((i + 1) / iterations)
    codes = _nearest(grid, log_step + offset)
    alpha = a / (grid[codes] - offset).exp()[owner]
    return Fitted(alpha.cpu().numpy().astype(np.float64), codes.cpu().numpy())


def laplace_bits(q: Tensor, spread: Tensor) -> Tensor:
    """Bits of (noisy) values under a Laplace distribution of mean absolute deviation ``spread``,
    integrated over q ± 1/2."""
    size = q.abs()
    outside = torch.exp(-(size - 0.5).clamp(min=0) / spread) * (1 - torch.exp(-1 / spread)) * 0.5
    inside = 1 - 0.5 * (torch.exp(-(0.5 - size).clamp(min=0) / spread) + torch.exp(-(0.5 + size) / spread))
    return -torch.log2(torch.where(size < 0.5, inside, outside) + 1e-9)


def _targets(image: np.ndarray, bits: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixels (3, h, w) in [-1, 1] and their coordinates (2, h, w); halved where so few bits show no finer detail."""
    height, width = image.shape[:2]
    pixels = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1) / 127.5 - 1
    where = torch.from_numpy(coordinates(height, width)).view(2, height, width)
    if min(height, width) >= 64 and bits < 0.25 * height * width:
        pixels, where = avg_pool2d(pixels, 2), avg_pool2d(where, 2)
    return pixels.to(device), where.to(device)


def _nearest(grid: Tensor, values: Tensor) -> Tensor:
    """The index of the entry of a grid nearest to each value."""
    return (values[:, None] - grid).abs().argmin(1)
