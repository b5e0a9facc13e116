"""The rate in the steps of a fit, most of which do not ask the context model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from prancimg.fit.loss import RateDistortion
from prancimg.fit.ops.rate import held_bits
from prancimg.fit.ops.rounding import squash
from prancimg.fit.setup import OPTIMISATION
from prancimg.format.layout import KINDS, part_of


class RateTerm:
    """Bits of all grids, step by step: by the context model every few steps, in between by its last answer.

    Then every coefficient keeps its distribution, so that its own bits and their slope are exact. What it does to the
    bits of others, as their context, and what the networks do follows the gradients of the last time.
    """

    def __init__(self, objective: RateDistortion, rate_weights: Sequence[float], sampled_blocks: int = 1) -> None:
        """``sampled_blocks``: see :class:`~prancimg.fit.setup.Optimisation`."""
        self.objective, self.rate_weights, self.sampled_blocks = objective, rate_weights, sampled_blocks
        self._active: Tensor | None = None
        self._distributions: Tensor | None = None
        self._by_read: tuple[Tensor, ...] = ()
        """The last gradients by the squashed coefficients and by the networks."""

    @staticmethod
    def due(step: int) -> bool:
        """Whether a step of this number asks the context model."""
        return step % OPTIMISATION.contexts_every == 0

    def bits(self, step: int, y: Tensor, q: Tensor, weights: Mapping[str, Tensor], r: float) -> Tensor:
        """Bits of the rounded coefficients ``q`` of a fit that is at ``y``; the step 0 comes first."""
        u = squash(q)
        networks = [weight for name, weight in weights.items() if part_of(name) in KINDS]
        read = [x for x in (u, *networks) if x.requires_grad]
        if not self.due(step):
            assert self._distributions is not None
            held, slope = held_bits(self.objective.pyramid, q, self._distributions, self.rate_weights)
            return _Given.apply(held, (slope, *self._by_read), q, *read)  # type: ignore[no-untyped-call,no-any-return]
        asked = step // OPTIMISATION.contexts_every
        if asked % OPTIMISATION.active_every == 0:
            self._active = self.objective.active(y, weights)
        sampling = self.sampled_blocks, asked
        bits, self._distributions = self.objective.rate(q, u, weights, r, self.rate_weights, self._active, sampling)
        self._by_read = torch.autograd.grad(bits, read, retain_graph=True)
        return bits


class _Given(torch.autograd.Function):
    """A number whose gradients are given."""

    @staticmethod
    def forward(ctx: Any, value: float, gradients: Sequence[Tensor], *inputs: Tensor) -> Tensor:
        ctx.gradients = gradients
        return inputs[0].new_tensor(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *(g * gradients[0] for g in ctx.gradients))
