"""A finished fit, and how it gives up bits: rate-distortion optimised quantisation (RDOQ)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from prancimg.decoding.decoder import Model
from prancimg.fit.loss import RateDistortion
from prancimg.fit.ops.rounding import squash
from prancimg.fit.setup import RATE_CONTROL
from prancimg.format import range_coder
from prancimg.format.header import Header
from prancimg.format.layout import STEP_CODES
from prancimg.network import context
from prancimg.network.field import Coefficients, grid_step
from prancimg.network.siren import FRACTION


@dataclass(frozen=True)
class Fitted:
    """A fit whose size can still be trimmed."""

    header: Header
    alpha: Sequence[np.ndarray]
    """Integer coefficients of every tensor, as many as the header says."""
    y: np.ndarray
    """All grids one after the other, float32, before they are rounded."""
    rdoq_order: np.ndarray
    """Places of coefficients other than zero, in the order in which they are given up."""
    finest: float
    """The most negative shift that is worth its bits."""
    error: float = math.inf
    """Mean squared error, weighted by visibility, at the end of the fit; infinite where it is not known."""

    @property
    def coarsest(self) -> float:
        """The largest shift that still makes a difference."""
        return STEP_CODES - 1 - self.header.step + 1.0

    def requantised(self, shift: float) -> tuple[Header, np.ndarray]:
        """Integers in float32, of fewer bits the higher the shift.

        From 0 to 1 so large a share of the coefficients in their order moves towards zero by one; from 0 to -1 more and
        more are rounded away from zero. Beyond, the quantiser's step changes as well, by a code a unit.
        """
        near = min(max(shift, -1.0), 1.0)
        code = min(max(self.header.step + math.floor(shift - near), 0), STEP_CODES - 1)
        ratio = grid_step(self.header.step) / grid_step(code)
        if near > 0:
            q, places = np.rint(self.y), self.rdoq_order[: round(near * len(self.rdoq_order))]
            q[places] -= np.sign(q[places])
            q = np.rint(q * ratio)
        else:
            y = self.y * np.float32(ratio)
            q = np.copysign(np.maximum(np.rint(np.abs(y)), np.floor(np.abs(y) + 0.5 - RATE_CONTROL.fill * near)), y)
        return replace(self.header, step=code), q.clip(1 - range_coder.MAGNITUDE, range_coder.MAGNITUDE - 1) + 0.0

    def rounded(self, shift: float) -> tuple[Header, Coefficients]:
        """The same with the grids by (component, level)."""
        header, q = self.requantised(shift)
        return header, header.pyramid.split(q.astype(np.int32))

    def bits(self, shift: float) -> float:
        """Exact bits of the coefficients, without what the container and the coder add."""
        header, q = self.rounded(shift)
        theta = Model.of(header).parameters(self.alpha, header.tensors)
        return self.network_bits + context.cost(
            header.pyramid, q, context.networks(theta, FRACTION, header.rate, header.pace)
        )

    def at_pace(self, pace: int) -> Fitted:
        """The same with a context model that learns at a pace."""
        return replace(self, header=replace(self.header, pace=pace))

    def bits_by_pace(self, paces: Sequence[int]) -> dict[int, float]:
        """Those bits without learning and at some paces of it, the fewest first."""
        bits = {pace: self.at_pace(pace).bits(0) for pace in (0, *paces)}
        return dict(sorted(bits.items(), key=lambda item: item[1]))

    def learning(self, paces: Sequence[int]) -> Fitted:
        """The same, learning at the pace that takes the fewest bits, if that is fewer than without."""
        return self.at_pace(next(iter(self.bits_by_pace(paces)))) if paces else self

    @property
    def network_bits(self) -> float:
        """Bits of the networks' coefficients."""
        coded = zip(self.alpha, self.header.tensors, strict=True)
        return sum(range_coder.cost(alpha, how.scale) for alpha, how in coded if how.k)


def rdoq_order(
    objective: RateDistortion,
    q: Tensor,
    weights: Mapping[str, Tensor],
    step: float,
    r: float,
    rate_weights: Sequence[float],
    lmbda_per_bit: float,
    groups: int,
) -> np.ndarray:
    """Places of coefficients other than zero that are worth giving up, those first that save most bits for their error.

    Giving up means one step towards zero. What that saves of a coefficient's own bits is integrated by Simpson's rule;
    what it does to the error, and as context to other bits, is read from the slope half-way, for one of the ``groups``
    of the coefficients at a time. ``lmbda_per_bit``, the error that a bit of the file may cost, is added to every
    error, for savings are guesses.
    """
    active = objective.active(q, weights)

    def bits(q: Tensor, u: Tensor) -> Tensor:
        return objective.bits(q, u, weights, r, rate_weights, active)

    sign, u = q.sign(), squash(q)
    change = squash(q - sign) - u
    saved, cost = torch.zeros_like(q), torch.full_like(q, math.inf)
    for part, weight in ((0.0, 1 / 6), (0.5, 4 / 6), (1.0, 1 / 6)):
        on_the_way = (q - part * sign).requires_grad_()
        saved += weight * sign * torch.autograd.grad(bits(on_the_way, u), on_the_way)[0]
    group = torch.randint(groups, q.shape, generator=torch.Generator().manual_seed(0)).to(q.device)
    for g in range(groups):
        here = (group == g) & (q != 0)
        half_way = (q - 0.5 * sign * here).requires_grad_()
        context_half_way = (u + 0.5 * change * here).requires_grad_()
        error = objective.distortion(half_way, weights, step, r)
        added = -sign * torch.autograd.grad(error, half_way)[0]
        saved_here = saved - change * torch.autograd.grad(bits(q, context_half_way), context_half_way)[0]
        cost = torch.where(
            here & (saved_here > RATE_CONTROL.least_saving), (added.clamp_min(0) + lmbda_per_bit) / saved_here, cost
        )
    order: np.ndarray = cost.argsort()[: int(cost.isfinite().sum())].cpu().numpy()
    return order
