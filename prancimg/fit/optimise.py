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
from prancimg.fit.loss import RateDistortion, annealed_soft_round, initial_grids, learning_rate, to_planes
from prancimg.fit.networks import Networks
from prancimg.fit.ops.rounding import squash
from prancimg.fit.rdoq import Fitted, rdoq_order
from prancimg.fit.setup import NEGLIGIBLE_ERROR, OPTIMISATION, Setup, relative_rate
from prancimg.fit.threads import AdaptiveThreads, one_torch_thread
from prancimg.format.bitstream import Header
from prancimg.network import context_features
from prancimg.network.field import grid_step


class FieldFit:
    """A fit on its way: its coefficients, their optimisers, and λ."""

    def __init__(self, image: np.ndarray, header: Header, lmbda: float, setup: Setup, device: torch.device) -> None:
        """``image``: (H, W, 3) uint8; ``header``: the plan, see :meth:`Setup.header`; ``lmbda``: see ``LMBDAS``."""
        pixels = to_planes(image, device)
        self.header, self.lmbda, self.setup = header, lmbda, setup
        self.generator = torch.Generator(device).manual_seed(header.seed)
        self.objective = RateDistortion(pixels, header.pyramid, setup.masking)
        self.networks = Networks(Model.of(header), header.tensors, device)
        y = pixels.new_zeros(sum(grid.count for grid in header.pyramid.grids))
        if setup.analytic:
            with torch.no_grad():
                y = initial_grids(self.objective, self.networks.theta0, header)
        self.y = y.requires_grad_()
        self.adam, self.error = GridAdam(y, grid_step(header.step)), math.inf
        self.steps, self.threads = 0, AdaptiveThreads()
        self.active: Tensor | None = None
        """Which contexts hold anything but zeros; looked up every few steps."""
        self.fixed: Tensor | None = None
        """The grids, once they are rounded for good."""
        self.squashed = y
        """Those, squashed as the decoder does it."""

    @property
    def _lmbda_per_bit(self) -> float:
        """λ of a bit of the whole file, not of one a pixel."""
        return self.lmbda / self.objective.pixels[0].numel()

    def step(self, done: float) -> None:
        """One step of everything along its gradient, at a share ``done`` of all steps."""
        with self.threads.step(self.steps):
            self._step(done)
        self.steps += 1

    def _step(self, done: float) -> None:
        step, r = grid_step(self.header.step), relative_rate(self.header.rate)
        weights, own_bits = self.networks.weights(done >= OPTIMISATION.networks_rounded_from)
        if self.fixed is None:
            q = annealed_soft_round(self.y, done / OPTIMISATION.grids_rounded_from, self.generator)
            u = squash(q)
            if self.steps % OPTIMISATION.refresh_active_every == 0:
                self.active = self.objective.active(self.y, weights)
        else:
            q, u = self.fixed, self.squashed
        error = self.objective.distortion(q, weights, step, r)
        sampling = OPTIMISATION.sampled_blocks if self.networks.few else 1, self.steps
        bits = self.objective.bits(q, u, weights, r, self.setup.rate_weights, self.active, sampling) + own_bits
        loss = error + self._lmbda_per_bit * bits
        if not math.isfinite(loss.item()):
            raise PrancImgError("the fit diverged")
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        self.error, rate = error.item(), learning_rate(done) * min(1.0, (self.steps + 1) / 2)
        self.networks.update(OPTIMISATION.network_learning_rate * max(rate, 0.05), step)
        if self.fixed is None:
            self.adam.update(rate)

    def result(self) -> Fitted:
        """The fit as it stands."""
        alpha, coded = self.networks.integers()
        header, y = replace(self.header, tensors=coded), self.y.detach().cpu().numpy()
        finest = 0.0 if self.error < NEGLIGIBLE_ERROR else -32.0
        return Fitted(header, alpha, y, np.zeros(0, np.int64), finest, self.error)

    def with_rdoq_order(self, groups: int) -> Fitted:
        """The same, with the order in which coefficients are given up."""
        weights = {name: tensor.detach() for name, tensor in self.networks.weights(True)[0].items()}
        step, r = grid_step(self.header.step), relative_rate(self.header.rate)
        q = self.y.detach().round()
        order = rdoq_order(self.objective, q, weights, step, r, self.setup.rate_weights, self._lmbda_per_bit, groups)
        return replace(self.result(), rdoq_order=order)

    def round_grids(self, q: Tensor | None = None) -> None:
        """Round the grids for good, to the nearest integers or to those given, packed float32."""
        self.fixed = self.y.detach().round() if q is None else q
        self.active = self.objective.active(self.fixed, self.networks.theta0)
        table = torch.from_numpy(context_features.SQUASH).to(self.fixed) / 64
        self.squashed = torch.copysign(table[self.fixed.abs().clamp_max(256).long() + 256], self.fixed)
        with torch.no_grad():  # what was rounded off may still fill a file that turns out too small
            rest = self.y - self.fixed
            self.y.copy_(self.fixed + torch.where(rest.abs() < 0.499, rest, 0.0))


@one_torch_thread()
def fit_at_lmbda(
    image: np.ndarray,
    header: Header,
    lmbda: float,
    setup: Setup,
    iterations: int,
    device: torch.device,
    progress: Callable[[float], None] | None = None,
) -> Fitted:
    """A fit of so many steps whose λ stays what it is."""
    fit = FieldFit(image, header, lmbda, setup, device)
    for i in range(iterations):
        if i >= OPTIMISATION.grids_rounded_from * iterations and fit.fixed is None:
            fit.round_grids()
        fit.step(i / iterations)
        if progress:
            progress((i + 1) / iterations)
    return fit.result()
