"""Adam on the packed grids, in units of the quantiser's step. Kingma and Ba (arXiv 1412.6980)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prancimg.fit.setup import Schedule
from prancimg.format.layout import Pyramid


class GridAdam:
    """Adam with little memory (β₁ 0.4, β₂ 0.99), and squares that a grid's coefficients share in part.

    A fit has few steps: too few to know of every coefficient how steep it is.
    """

    def __init__(self, y: Tensor, pyramid: Pyramid, schedule: Schedule) -> None:
        """``y``: packed grids of the pyramid, float32, in units of the quantiser's step."""
        self.schedule, self._sizes = schedule, [grid.count for grid in pyramid.grids]
        self.y, self.mean, self.square, self.time = y, torch.zeros_like(y), torch.zeros_like(y), 0

    @torch.no_grad()
    def update(self, rate: float) -> None:
        """One step along the gradient, which is then dropped; ``rate`` is a share of the grids' learning rate."""
        gradient = self.y.grad
        assert gradient is not None
        self.time += 1
        self.mean.lerp_(gradient, 0.6)
        self.square.mul_(0.99).addcmul_(gradient, gradient, value=0.01)
        root = torch.cat([part + self.schedule.alike * part.mean() for part in torch.split(self.square, self._sizes)])
        root = root.sqrt_().mul_(1 / math.sqrt(1 - 0.99**self.time)).add_(1e-12)
        self.y.addcdiv_(self.mean, root, value=-self.schedule.grid_learning_rate * rate / (1 - 0.4**self.time))
        self.y.grad = None
