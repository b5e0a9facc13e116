"""Soft rounding, and the squashing of coefficients that the context model reads."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from prancimg.fit.kernels import rounding as kernels
from prancimg.fit.ops import backend
from prancimg.fit.ops.backend import as_arrays


class _SoftRound(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, noise: Tensor, temperature: float) -> Tensor:
        if backend.compiled(y) and y.dim() == 1:
            out, ctx.slope = map(torch.from_numpy, kernels.soft_round(temperature, *as_arrays(y, noise)))
            return out
        scale = 1 / (2 * math.tanh(0.5 / temperature))
        middle = torch.floor(y).add_(0.5)
        bent = torch.tanh_((y - middle).mul_(1 / temperature))
        noisy = middle.add_(bent, alpha=scale).add_(noise)
        slope = bent.square_().neg_().add_(1)
        middle = torch.floor(noisy).add_(0.5)
        bent = torch.tanh_(noisy.sub_(middle).mul_(1 / temperature))
        out = middle.add_(bent, alpha=scale)
        ctx.slope = slope.mul_(bent.square_().neg_().add_(1)).mul_((scale / temperature) ** 2)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0] * ctx.slope, None, None


def soft_round(y: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """r(r(y) + noise), where r is a staircase of hyperbolic tangents: the identity for a high temperature."""
    return _SoftRound.apply(y, noise, temperature)  # type: ignore[no-untyped-call,no-any-return]


class _Squash(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor) -> Tensor:
        if backend.compiled(q) and q.dim() == 1:
            out, ctx.slope = map(torch.from_numpy, kernels.squash(*as_arrays(q)))
            return out
        root = (q * q).add_(1).sqrt_()
        ctx.slope = root.reciprocal()
        return torch.copysign(q.abs().add_(root).log_(), q)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        out: Tensor = gradients[0] * ctx.slope
        return out


def squash(q: Tensor) -> Tensor:
    """asinh, the smooth form of :func:`prancimg.network.context_features.squash` over 64."""
    return _Squash.apply(q)  # type: ignore[no-untyped-call,no-any-return]
