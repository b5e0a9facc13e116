"""Products with the blocks of a basis that are differentiable, and on a GPU made by Triton."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prancimg.network import basis as pb


def implementation(block: pb.Block, like: Tensor) -> Any:
    """The module with the products of a block on the device of ``like``: Triton's on a GPU, where there is Triton."""
    if like.is_cuda and like.dtype in (torch.float32, torch.float64):
        try:
            from prancimg.pranc import basis_triton
        except ImportError:
            return pb
        if block.kind in basis_triton.KINDS:
            return basis_triton
    return pb


class _ExpandBlock(torch.autograd.Function):
    """A block's product whose backward pass makes the block anew instead of keeping it."""

    @staticmethod
    def forward(ctx: Any, seed: int, index: int, block: pb.Block, a: Tensor) -> Tensor:
        ctx.seed, ctx.index, ctx.block, ctx.k = seed, index, block, len(a)
        return implementation(block, a).expand_block(seed, index, block, a)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None, Tensor]:
        g, back = gradients[0], implementation(ctx.block, gradients[0]).expand_block_transposed
        return None, None, None, back(ctx.seed, ctx.index, ctx.block, g, ctx.k)


class _ExpandHadamard(torch.autograd.Function):
    """The same for a Hadamard block whose signs and orders are at hand."""

    @staticmethod
    def forward(ctx: Any, parts: tuple[Tensor, Tensor, Tensor], a: Tensor) -> Tensor:
        ctx.parts, ctx.k = parts, len(a)
        return pb.hadamard_product(parts, a)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, pb.hadamard_product_transposed(ctx.parts, gradients[0], ctx.k)


def expand_block(seed: int, index: int, block: pb.Block, a: Tensor) -> Tensor:
    """Differentiable :func:`prancimg.network.basis.expand_block`."""
    return _ExpandBlock.apply(seed, index, block, a)  # type: ignore[no-any-return, no-untyped-call]


def expand_hadamard(parts: tuple[Tensor, Tensor, Tensor], a: Tensor) -> Tensor:
    """Differentiable :func:`prancimg.network.basis.hadamard_product`."""
    return _ExpandHadamard.apply(parts, a)  # type: ignore[no-any-return, no-untyped-call]
