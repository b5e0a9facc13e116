"""A field raised to twice its resolution, with the grids of a level added, as the renderer does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from prancimg.fit.kernels import resampling as kernels
from prancimg.fit.ops import backend
from prancimg.fit.ops.backend import as_arrays, sum_blocks
from prancimg.network.field import upsample_add as plain_upsample_add


class _UpsampleAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        return torch.from_numpy(kernels.upsample_add(*as_arrays(*tensors)))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        _, taps, _, gain = ctx.saved_tensors
        g_field, g_taps, g_q, g_gain = kernels.upsample_add_back(*as_arrays(*ctx.saved_tensors, *gradients))
        return torch.from_numpy(g_field), sum_blocks(g_taps, taps), torch.from_numpy(g_q), sum_blocks(g_gain, gain)


def upsample(x: Tensor, taps: Tensor, height: int, width: int) -> Tensor:
    """:func:`prancimg.network.field.upsample`."""
    return upsample_add(x, taps, (), x.new_zeros(0, len(x)), height, width)


def upsample_add(field: Tensor, taps: Tensor, q: Sequence[Tensor], gain: Tensor, height: int, width: int) -> Tensor:
    """:func:`prancimg.network.field.upsample_add`."""
    if backend.compiled(field):
        stacked = torch.stack(list(q)) if q else field.new_zeros(0, height, width)
        return _UpsampleAdd.apply(field, taps, stacked, gain)  # type: ignore[no-untyped-call,no-any-return]
    plain: Tensor = plain_upsample_add(field, taps, q, gain, height, width)
    return plain
