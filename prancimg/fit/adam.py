"""Adam on the packed grids, in units of the quantiser's step. Kingma and Ba (arXiv 1412.6980)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prancimg.fit.setup import OPTIMISATION
from prancimg.network.field import grid_step


class GridAdam:
    """Adam with little memory (β₁ 0.4, β₂ 0.99): a fit has few steps."""

    def __init__(self, y: Tensor, step: float) -> None:
        """``y``: packed grids, float32, in units of the quantiser's ``step``."""
        code, power = OPTIMISATION.fine_steps
        self.learning_rate = OPTIMISATION.grid_learning_rate * max(1.0, (grid_step(code) / step) ** power)
        self.y, self.mean, self.square, self.time = y, torch.zeros_like(y), torch.zeros_like(y), 0

    @torch.no_grad()
    def update(self, rate: float) -> None:
        """One step along the gradient, which is then dropped; ``rate`` is a share of the grids' learning rate."""
        gradient = self.y.grad
        assert gradient is not None
        self.time += 1
        self.mean.lerp_(gradient, 0.6)
        self.square.mul_(0.99).addcmul_(gradient, gradient, value=0.01)
        root = self.square.sqrt().mul_(1 / math.sqrt(1 - 0.99**self.time)).add_(1e-12)
        self.y.addcdiv_(self.mean, root, value=-self.learning_rate * rate / (1 - 0.4**self.time))
        self.y.grad = None
