"""PRANC for any torch module: its weights become θ0 + s·B(seed)·α, and only α is trained or stored.

    model = Pranc(torch.nn.Linear(784, 10), k=100, seed=7)
    optimizer = torch.optim.Adam(model.parameters())     # one tensor of 100 numbers
    loss = model(x).square().mean(); loss.backward()     # B is made again, chunk by chunk, and dropped
    torch.save(model.state_dict(), path)                 # α, buffers and a recipe: no weights

Nooralinejad et al., "PRANC: Pseudo RAndom Networks for Compacting deep models" (ICCV 2023).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prancimg import basis as pb
from prancimg.philox import philox4x32

INITIAL = 0x1000
"""Last Philox counter word of the initial weights; block kinds use the small numbers."""


@dataclass(frozen=True)
class Recipe:
    """Everything but α that the weights follow from."""

    seed: int
    basis: str
    structure: str
    exclude: tuple[str, ...]


def products(block: pb.Block, like: Tensor) -> Any:
    """The module with the products of a block on the device of ``like``: Triton's on a GPU, where there is Triton."""
    if like.is_cuda and like.dtype in (torch.float32, torch.float64):
        try:
            from prancimg import basis_triton
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
        return products(block, a).expand_block(seed, index, block, a)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None, Tensor]:
        g, back = gradients[0], products(ctx.block, gradients[0]).expand_block_transposed
        return None, None, None, back(ctx.seed, ctx.index, ctx.block, g, ctx.k)


def expand_block(seed: int, index: int, block: pb.Block, a: Tensor) -> Tensor:
    """Differentiable :func:`prancimg.basis.expand_block`."""
    return _ExpandBlock.apply(seed, index, block, a)  # type: ignore[no-any-return, no-untyped-call]


class Pranc(nn.Module):
    """A module whose only trainable tensor is its coefficient vector ``alpha`` (k,), zero at the start.

    θ0 is drawn from the seed, not taken from the module: He-uniform for tensors of two or more dimensions, ones
    for one-dimensional ``weight`` tensors (norm layers), zeros for the rest (biases). ``s`` is the standard
    deviation of a tensor's θ0 (0.1 for one-dimensional tensors) over the norm of a column of B. All of it follows from
    (seed, basis, structure, exclude), so ``state_dict()`` holds α, the module's buffers, the excluded parameters
    and that recipe. A model with fewer coefficients is the prefix of one with more.

    Args:
        module: any module; it is taken over, its own parameters are released.
        k: the number of coefficients, 1 to the number of parameters.
        seed: 0 to 2**64-1.
        basis: ``sign`` (±1), ``popcount`` (near-Gaussian), ``hadamard`` (±1, orthogonal) or ``identity`` (the control).
        structure: ``tensor``, a block for each tensor (tensors of at most 256 entries whole), or ``dense``, one block
            over everything, as in the paper.
        exclude: names of parameters that stay ordinary trainable parameters.
    """

    alpha: nn.Parameter
    theta0: Tensor
    scale: Tensor

    def __init__(
        self,
        module: nn.Module,
        *,
        k: int,
        seed: int = 0,
        basis: str = "sign",
        structure: str = "tensor",
        exclude: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.recipe = Recipe(seed, basis, structure, tuple(sorted(exclude)))
        named = dict(module.named_parameters())
        own = {name: parameter for name, parameter in named.items() if name not in exclude}
        missing = set(exclude) - named.keys()
        if len(list(module.named_parameters(remove_duplicate=False))) != len(named):
            raise ValueError("a module that shares a parameter between two places cannot be reparametrised")
        if missing:
            raise ValueError(f"no such parameters to exclude: {', '.join(sorted(missing))}")
        if structure not in ("tensor", "dense"):
            raise ValueError(f"structure {structure!r} is neither 'tensor' nor 'dense'")
        if basis.upper() not in pb.Kind.__members__:
            raise ValueError(f"basis {basis!r} is not one of {', '.join(kind.name.lower() for kind in pb.Kind)}")
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"seed {seed} is not between 0 and 2**64-1")
        self.shapes = {name: parameter.shape for name, parameter in own.items()}
        kind, sizes = pb.Kind[basis.upper()], [parameter.numel() for parameter in own.values()]
        make = pb.block_basis if structure == "tensor" else pb.dense_basis
        self.basis = make(sizes, kind, seed)
        if not 1 <= k <= self.basis.size:
            raise ValueError(f"k = {k} is not between 1 and the number of parameters, {self.basis.size}")

        like = next(iter(own.values()))
        theta0 = np.concatenate([_initial(name, shape, i, seed) for i, (name, shape) in enumerate(self.shapes.items())])
        spread = np.repeat([_spread(shape) for shape in self.shapes.values()], sizes)
        norms = np.repeat([pb.column_norm(block) for block in self.basis.blocks], [b.rows for b in self.basis.blocks])
        self.register_buffer("theta0", torch.from_numpy(theta0).to(like), persistent=False)
        self.register_buffer("scale", torch.from_numpy(spread / norms).to(like), persistent=False)
        self.alpha = nn.Parameter(torch.zeros(k, dtype=like.dtype, device=like.device))
        for name in own:
            owner, _, leaf = name.rpartition(".")
            module.get_submodule(owner)._parameters[leaf] = None
        self.module = module

    def weights(self) -> dict[str, Tensor]:
        """The parameters by name, differentiable with respect to ``alpha``."""
        theta = self.theta0 + self.scale * pb.expand(self.basis, self.alpha, expand_block)
        parts = torch.split(theta, [shape.numel() for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own result, with :meth:`weights` in place of its parameters."""
        return torch.func.functional_call(self.module, self.weights(), args, kwargs)

    def get_extra_state(self) -> dict[str, Any]:
        """The recipe, as torch's ``state_dict`` stores it."""
        return asdict(self.recipe)

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Check that loaded coefficients belong to this module's recipe."""
        found = Recipe(**{**state, "exclude": tuple(state["exclude"])})
        if found != self.recipe:
            raise ValueError(f"the coefficients belong to {found}, this module is {self.recipe}")


def _initial(name: str, shape: torch.Size, index: int, seed: int) -> np.ndarray:
    """θ0 of one tensor, flat, float64: from 31-bit integers, so the same on every machine."""
    if len(shape) < 2:
        return np.full(shape.numel(), 1.0 if name.rpartition(".")[2] == "weight" else 0.0)
    groups = np.arange(-(-shape.numel() // 4), dtype=np.int64)
    words = np.stack(philox4x32((groups, index, 0, INITIAL), seed), 1).reshape(-1)[: shape.numel()]
    return ((words >> 1) + 0.5 - 2**30) * (_bound(shape) / 2**30)


def _bound(shape: torch.Size) -> float:
    return math.sqrt(6 / max(1, shape[1:].numel()))


def _spread(shape: torch.Size) -> float:
    return _bound(shape) / math.sqrt(3) if len(shape) >= 2 else 0.1
