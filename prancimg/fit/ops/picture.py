"""What a field shows, and its weighted squared error: a SIREN of one layer and a 3 x 3 filter at every pixel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from prancimg.fit.kernels import picture as kernels
from prancimg.fit.ops import backend
from prancimg.fit.ops.backend import as_arrays, padded_arrays, sum_blocks

STRIPE = 12288
"""Positions that go through a network at a time."""


class _Sines(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w0: Tensor, b0: Tensor, w1: Tensor, b1: Tensor) -> Tensor:
        ctx.save_for_backward(x, w0, b0, w1)
        out = x.new_empty(w1.shape[0], x.shape[1])
        for start in range(0, x.shape[1], STRIPE):
            h = torch.addmm(b0[:, None], w0, x[:, start : start + STRIPE])
            out[:, start : start + STRIPE] = torch.addmm(b1[:, None], w1, h.sin_())
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        (x, w0, b0, w1), (g,) = ctx.saved_tensors, gradients
        g_x, g_w0, g_b0, g_w1 = torch.empty_like(x), torch.zeros_like(w0), torch.zeros_like(b0), torch.zeros_like(w1)
        for start in range(0, x.shape[1], STRIPE):
            some, g_some = x[:, start : start + STRIPE], g[:, start : start + STRIPE]
            h = torch.addmm(b0[:, None], w0, some)
            g_w1.addmm_(g_some, h.sin().t())
            g_h = (w1.t() @ g_some).mul_(h.cos_())
            g_w0.addmm_(g_h, some.t())
            g_b0 += g_h.sum(1)
            g_x[:, start : start + STRIPE] = w0.t() @ g_h
        return g_x, g_w0, g_b0, g_w1, g.sum(1)


def sines(x: Tensor, w0: Tensor, b0: Tensor, w1: Tensor, b1: Tensor) -> Tensor:
    """w1 sin(w0 x + b0) + b1: a SIREN of one layer, (channels, N) to (3, N)."""
    return _Sines.apply(x, w0, b0, w1, b1)  # type: ignore[no-untyped-call,no-any-return]


class _Sharpen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rgb: Tensor, kernel: Tensor) -> Tensor:
        wide = pad(rgb[None], (1, 1, 1, 1), mode="replicate")[0]
        ctx.save_for_backward(wide, kernel)
        return rgb + conv2d(wide[None], kernel.view(3, 3, 3, 3))[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (wide, kernel), (g,) = ctx.saved_tensors, gradients
        _, height, width = g.shape
        g_wide, g_kernel = torch.zeros_like(wide), torch.zeros_like(kernel)
        rows = max(1, STRIPE // width)
        for top in range(0, height, rows):
            here = min(rows, height - top)
            some = g[:, top : top + here].reshape(3, -1)
            shifts = [wide[:, top + y : top + y + here, x : x + width] for y in range(3) for x in range(3)]
            g_kernel.addmm_(some, torch.stack(shifts, 1).view(27, -1).t())
            spread = (kernel.t() @ some).view(3, 3, 3, here, width)
            for y in range(3):
                for x in range(3):
                    g_wide[:, top + y : top + y + here, x : x + width] += spread[:, y, x]
        g_wide[:, 1] += g_wide[:, 0]
        g_wide[:, height] += g_wide[:, height + 1]
        g_wide[:, :, 1] += g_wide[:, :, 0]
        g_wide[:, :, width] += g_wide[:, :, width + 1]
        return g_wide[:, 1 : height + 1, 1 : width + 1] + g, g_kernel


def residual_filter(rgb: Tensor, kernel: Tensor) -> Tensor:
    """:func:`prancimg.network.field.residual_filter`."""
    return _Sharpen.apply(rgb, kernel)  # type: ignore[no-untyped-call,no-any-return]


class _PictureError(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pixels: Tensor, error_weights: Tensor, field: Tensor, *net: Tensor) -> Tensor:
        sums, g_field, *g_net = kernels.picture_error(*as_arrays(field, pixels, error_weights), *padded_arrays(*net))
        ctx.gradients = torch.from_numpy(g_field), *(sum_blocks(g, t) for g, t in zip(g_net, net, strict=True))
        ctx.scale = 2 / pixels.numel()
        return field.new_tensor(sums.sum() * ctx.scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scale = gradients[0] * ctx.scale
        return (None, None, *(g * scale for g in ctx.gradients))


def picture_error(
    field: Tensor,
    pixels: Tensor,
    error_weights: Tensor,
    w0: Tensor,
    b0: Tensor,
    w1: Tensor,
    b1: Tensor,
    residual: Tensor,
) -> Tensor:
    """Mean squared error of what a field (channels, h, w) shows, by :func:`sines` and :func:`residual_filter`.

    An error at a pixel counts for its ``error_weights`` (h, w).
    """
    if backend.compiled(field):
        return _PictureError.apply(pixels, error_weights, field, w0, b0, w1, b1, residual)  # type: ignore[no-untyped-call,no-any-return]
    rgb = sines(field.reshape(len(field), -1), w0, b0, w1, b1)
    return ((residual_filter(rgb.view_as(pixels), residual) - pixels).square() * error_weights).mean()
