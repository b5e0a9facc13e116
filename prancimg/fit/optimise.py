"""The optimisation of a field: grids, networks and context model at once, by gradients through soft rounding."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from prancimg.decoding.decoder import Model
from prancimg.errors import PrancImgError
from prancimg.fit.adam import GridAdam
from prancimg.fit.loss import RateDistortion, initial_grids, noisy_soft_round, to_planes
from prancimg.fit.networks import Networks
from prancimg.fit.rate_term import RateTerm
from prancimg.fit.rdoq import Fitted, rdoq_order
from prancimg.fit.setup import NEGLIGIBLE_ERROR, OPTIMISATION, Schedule, Setup, relative_rate
from prancimg.fit.threads import AdaptiveThreads, one_torch_thread
from prancimg.format.header import Header
from prancimg.network.field import grid_step


class FieldFit:
    """A fit on its way: its coefficients, their optimisers, and λ."""

    def __init__(
        self, image: np.ndarray, header: Header, lmbda: float, setup: Setup, steps: int, device: torch.device
    ) -> None:
        """``image``: (H, W, 3) uint8; ``header``: the plan, see :meth:`Setup.header`; ``lmbda``: see ``LMBDAS``."""
        pixels = to_planes(image, device)
        self.header, self.lmbda, self.setup = header, lmbda, setup
        self.schedule = Schedule(steps, grid_step(header.step))
        self.generator = torch.Generator(device).manual_seed(header.seed)
        self.objective = RateDistortion(pixels, header.pyramid, setup.masking)
        self.networks = Networks(Model.of(header), header.tensors, device)
        y = pixels.new_zeros(sum(grid.count for grid in header.pyramid.grids))
        if setup.analytic:
            with torch.no_grad():
                y = initial_grids(self.objective, self.networks.theta0, header)
        self.y = y.requires_grad_()
        self.adam = GridAdam(y, header.pyramid, self.schedule)
        sampled_blocks = OPTIMISATION.sampled_blocks if self.networks.few else 1
        self.rate = RateTerm(self.objective, setup.rate_weights, sampled_blocks)
        self.taken, self.threads = 0, AdaptiveThreads()

    @property
    def _lmbda_per_bit(self) -> float:
        """λ of a bit of the whole file, not of one a pixel."""
        return self.lmbda / self.objective.pixels[0].numel()

    def step(self, number: int) -> None:
        """One step of everything along its gradient, of this number in the schedule."""
        with self.threads.step(self.rate.due(self.taken)):
            self._step(number / self.schedule.steps)
        self.taken += 1

    def _step(self, done: float) -> None:
        step, r = grid_step(self.header.step), relative_rate(self.header.rate)
        if done >= OPTIMISATION.synthesis_settled_from:
            self.networks.settle_synthesis()
        weights, own_bits = self.networks.weights(done >= OPTIMISATION.networks_rounded_from)
        q = noisy_soft_round(self.y, *self.schedule.rounding(done), self.generator)
        error = self.objective.distortion(q, weights, step, r)
        bits = self.rate.bits(self.taken, self.y, q, weights, r) + own_bits
        loss = error + self._lmbda_per_bit * bits
        if not math.isfinite(loss.item()):
            raise PrancImgError("the fit diverged")
        loss.backward()  # type: ignore[no-untyped-call]
        rate = self.schedule.relative_learning_rate(done)
        self.networks.update(self.schedule.network_learning_rate * max(rate, 0.05), step)
        self.adam.update(rate)

    def _as_sent(self) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """All tensors with rounded coefficients, about how many bits these take, and the rounded grids, packed."""
        with torch.no_grad():
            return *self.networks.weights(True), self.y.round()

    def result(self) -> Fitted:
        """The fit as it stands."""
        alpha, coded = self.networks.integers()
        (weights, _, q), step, r = self._as_sent(), grid_step(self.header.step), relative_rate(self.header.rate)
        with torch.no_grad():
            error = self.objective.distortion(q, weights, step, r).item()
        header, y = replace(self.header, tensors=coded), self.y.detach().cpu().numpy()
        finest = 0.0 if error < NEGLIGIBLE_ERROR else -32.0
        return Fitted(header, alpha, y, np.zeros(0, np.int64), finest, error)

    def with_rdoq_order(self, groups: int) -> Fitted:
        """The same, with the order in which coefficients are given up."""
        (weights, _, q), step, r = self._as_sent(), grid_step(self.header.step), relative_rate(self.header.rate)
        order = rdoq_order(self.objective, q, weights, step, r, self.setup.rate_weights, self._lmbda_per_bit, groups)
        return replace(self.result(), rdoq_order=order)


@one_torch_thread()
def fit_at_lmbda(
    image: np.ndarray,
    header: Header,
    lmbda: float,
    setup: Setup,
    steps: int,
    device: torch.device,
    progress: Callable[[float], None] | None = None,
) -> Fitted:
    """A fit of so many steps whose λ stays what it is."""
    fit = FieldFit(image, header, lmbda, setup, steps, device)
    for number in range(steps):
        fit.step(number)
        if progress:
            progress((number + 1) / steps)
    return fit.result()
