"""PRANC for any torch module: its weights become θ0 + s·B(seed)·α, and only α is trained or stored.

    model = Pranc(torch.nn.Linear(784, 10), k=100, seed=7)
    optimizer = torch.optim.Adam(model.parameters())     # one tensor of 100 numbers
    loss = model(x).square().mean(); loss.backward()     # B is made again, chunk by chunk, and dropped
    model.save("model.prn")                              # integers, a seed and checksums: no weights
    model = load("model.prn", torch.nn.Linear(784, 10))  # makes a weight when a layer reads it

Nooralinejad et al., "PRANC: Pseudo RAndom Networks for Compacting deep models" (ICCV 2023).
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prancimg.format import files
from prancimg.format.header import step_size
from prancimg.format.layout import Kind
from prancimg.format.range_coder import MAGNITUDE
from prancimg.network import basis as pb
from prancimg.pranc.compact import (
    FRACTION,
    MIN_ROWS,
    SORTS,
    START_FRACTION,
    STEP_FRACTION,
    STEPS,
    Layout,
    Network,
    Recipe,
    Start,
    Structure,
    rounded,
)
from prancimg.pranc.products import expand_block, expand_hadamard
from prancimg.pranc.tensors import excluded_parameters, run_with, storage_of, tensors_apart


class Pranc(nn.Module):
    """A module whose only trainable tensor is its coefficient vector ``alpha`` (k,), zero at the start.

    Threads may run it at the same time, and its layers may be checkpointed: every run has a module tree of its own.

    θ0 is drawn from the seed, not taken from the module: He-uniform for tensors of two or more dimensions, ones
    for one-dimensional ``weight`` tensors (norm layers), zeros for the rest (biases). ``s`` is the standard
    deviation of a tensor's θ0 (0.1 for one-dimensional tensors) over the norm of a column of B. All of it follows from
    the recipe, so ``state_dict()`` holds α, the module's buffers, the excluded parameters and that recipe. A model
    with fewer coefficients is the prefix of one with more.

    Args:
        module: any module; it is taken over, its own parameters are released.
        k: the number of coefficients, 1 to the number of parameters.
        seed: 0 to 2**64-1.
        basis: ``sign`` (±1), ``popcount`` (near-Gaussian), ``hadamard`` (±1, orthogonal) or ``identity`` (the control).
        structure: ``tensor``, a block for each tensor (tensors of at most 256 entries whole), ``dense``, one block
            over everything, as in the paper, or ``chunks``, blocks of at most ``rows`` rows within each tensor.
        rows: of a chunk, 64 or more.
        exclude: names of parameters that stay ordinary parameters; those of :func:`apart_parameters` unless given.
            Frozen parameters (``requires_grad`` off, while others have it on) stay as they are in any case.
        start: ``seed``, or ``zero`` for θ0 = 0.
        keep: bytes of memory that may be spent on keeping sign and popcount blocks, in the module's dtype, as long as
            the model lives; those that fit are not made again at every step.

    Attributes:
        prefix: how many coefficients count, the others are taken as zero; None for all. A model that is trained with
            random prefixes remains good when it is cut.
    """

    alpha: nn.Parameter
    theta0: Tensor
    scale: Tensor
    order: Tensor

    def __init__(
        self,
        module: nn.Module,
        *,
        k: int,
        seed: int = 0,
        basis: str = "sign",
        structure: str = "tensor",
        rows: int = 0,
        exclude: Collection[str] | None = None,
        start: str = "seed",
        keep: int = 0,
    ) -> None:
        super().__init__()
        exclude = excluded_parameters(module, exclude)
        named = dict(module.named_parameters())
        own = {name: parameter for name, parameter in named.items() if name not in exclude}
        missing = set(exclude) - named.keys()
        if len(list(module.named_parameters(remove_duplicate=False))) != len(named):
            raise ValueError("a module that shares a parameter between two places cannot be reparametrised")
        if missing:
            raise ValueError(f"no such parameters to exclude: {', '.join(sorted(missing))}")
        if any(tensor.is_meta for tensor in named.values()):
            raise ValueError("the module is on the meta device, where nothing has values: see Module.to_empty")
        for given, what, known in (
            (structure, "structure", Structure),
            (basis, "basis", Kind),
            (start, "start", Start),
        ):
            if given.upper() not in known.__members__:
                raise ValueError(f"{what} {given!r} is not one of {', '.join(one.name.lower() for one in known)}")
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"seed {seed} is not between 0 and 2**64-1")
        if (rows < MIN_ROWS) if structure == "chunks" else rows:
            raise ValueError(f"rows = {rows}: chunks take {MIN_ROWS} or more, other structures none")
        recipe = Recipe(seed, Kind[basis.upper()], Structure[structure.upper()], rows, Start[start.upper()])
        self.layout = Layout({name: parameter.shape for name, parameter in own.items()}, recipe)
        if not 1 <= k <= self.layout.size:
            raise ValueError(f"k = {k} is not between 1 and the number of parameters, {self.layout.size}")

        like = next(iter(own.values()))
        none = torch.zeros(0, dtype=torch.int64, device=like.device)
        theta0 = (
            torch.cat([self.layout.start(name, 0, p.numel(), none) for name, p in own.items()]).double()
            / 2**START_FRACTION
        )
        pieces = [piece for pieces in self.layout.pieces.values() for piece in pieces]
        scale = np.repeat([piece.scale / 2**FRACTION for piece in pieces], [piece.rows for piece in pieces])
        where = pb.positions(self.layout.basis, k)
        self.register_buffer("theta0", theta0.to(like), persistent=False)
        self.register_buffer("scale", torch.from_numpy(scale).to(like), persistent=False)
        self.register_buffer("order", torch.from_numpy(np.concatenate(where)).to(like.device), persistent=False)
        self._counts = [len(part) for part in where]
        self._keep(keep, like)
        self.alpha = nn.Parameter(torch.zeros(k, dtype=like.dtype, device=like.device))
        self._prefix: int | None = None
        self._apart = list(tensors_apart(module, own))
        for name in own:
            owner, _, leaf = name.rpartition(".")
            module.get_submodule(owner)._parameters[leaf] = None
        self.module = module

    @property
    def prefix(self) -> int | None:
        """How many coefficients count."""
        return self._prefix

    @prefix.setter
    def prefix(self, prefix: int | None) -> None:
        if prefix is not None and prefix not in range(1, len(self.alpha) + 1):
            raise ValueError(f"prefix = {prefix} is not between 1 and the number of coefficients, {len(self.alpha)}")
        self._prefix = prefix

    def _keep(self, budget: int, like: Tensor) -> None:
        """Keep what does not change from step to step: Hadamard's signs and orders, and blocks within the budget."""
        seed = self.layout.recipe.seed
        for index, (block, count) in enumerate(zip(self.layout.basis.blocks, self._counts, strict=True)):
            if block.kind == Kind.HADAMARD:
                for name, part in zip(
                    ("signs", "rows", "columns"), pb.hadamard_parts(seed, index, block.rows), strict=True
                ):
                    self.register_buffer(f"{name}{index}", torch.from_numpy(part).to(like.device), persistent=False)
            elif block.kind != Kind.IDENTITY and block.rows * count * like.element_size() <= budget:
                budget -= block.rows * count * like.element_size()
                kept = torch.empty(block.rows, count, dtype=like.dtype, device=like.device)
                for column in range(0, count, 64):
                    last = min(column + 64, count)
                    kept[:, column:last] = pb.entries(seed, index, block, column, last, like=like)
                self.register_buffer(f"block{index}", kept, persistent=False)

    def weights(self) -> dict[str, Tensor]:
        """The parameters by name, differentiable with respect to ``alpha``."""
        alpha: Tensor = self.alpha
        if self.prefix is not None:
            alpha = alpha * (torch.arange(len(alpha), device=alpha.device) < self.prefix)
        parts = torch.split(alpha.index_select(0, self.order), self._counts)
        theta = self.theta0 + self.scale * torch.cat([self._product(i, part) for i, part in enumerate(parts)])
        shapes = self.layout.shapes
        tensors = torch.split(theta, [math.prod(shape) for shape in shapes.values()])
        return {name: tensor.view(shape) for (name, shape), tensor in zip(shapes.items(), tensors, strict=True)}

    def _product(self, index: int, a: Tensor) -> Tensor:
        buffers, block = self._buffers, self.layout.basis.blocks[index]
        if f"block{index}" in buffers:
            return buffers[f"block{index}"] @ a  # type: ignore[operator]
        if block.kind == Kind.HADAMARD:
            signs, rows, columns = (buffers[f"{name}{index}"] for name in ("signs", "rows", "columns"))
            assert signs is not None and rows is not None and columns is not None
            return expand_hadamard((signs, rows, columns), a)
        return expand_block(self.layout.recipe.seed, index, block, a)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own result, with :meth:`weights` in place of its parameters."""
        return run_with(self.module, self.weights(), args, kwargs)

    def network(self, step: float) -> Network:
        """The model in integers: α over the nearest step there is, rounded, and the rest as docs/format.md says."""
        code = step_code(step)
        alpha = self.alpha.detach().double().cpu().numpy() * (2**STEP_FRACTION / step_size(code))
        if not np.isfinite(alpha).all():
            raise ValueError("the coefficients are not finite")
        if (most := float(np.abs(np.rint(alpha)).max())) >= MAGNITUDE:
            raise ValueError(f"a coefficient is {most:.0f} steps, more than {MAGNITUDE - 1}: take a larger step")
        tensors = tensors_apart(self.module)
        if list(tensors) != self._apart:
            raise ValueError("the module has not got the tensors that it had: parameters or buffers came or went")
        sorts, apart = storage_of(self.module, tensors), {}
        for name, tensor in tensors.items():
            if tensor.is_complex():
                raise ValueError(f"{name} is complex, which a model file cannot hold")
            array = (tensor.detach().double() if tensor.is_floating_point() else tensor).cpu().numpy()
            with np.errstate(over="ignore"):  # refused below
                apart[name] = rounded(array) if sorts[name].sort == "float" else array.astype(SORTS[sorts[name].sort])
            if (np.isinf(apart[name]) & np.isfinite(array)).any():
                raise ValueError(f"{name} has values too large for 16 bits")
        return Network(self.layout, code, np.rint(alpha).astype(np.int64), apart)

    def save(self, path: str | os.PathLike[str], step: float = 1 / 16) -> None:
        """Write a model file, see :meth:`network` and docs/format.md; the file is there in full or not at all."""
        files.write(os.fspath(path), self.network(step).pack())

    def get_extra_state(self) -> dict[str, Any]:
        """The recipe, as torch's ``state_dict`` stores it."""
        recipe = self.layout.recipe
        numbers = {"seed": recipe.seed, "basis": recipe.kind.name, "structure": recipe.structure.name}
        return {**numbers, "rows": recipe.rows, "start": recipe.start.name, "tensors": list(self.layout.shapes)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Check that loaded coefficients belong to this module's recipe."""
        if state != self.get_extra_state():
            raise ValueError(f"the coefficients belong to {state}, this module is {self.get_extra_state()}")


def direct(module: nn.Module, exclude: Collection[str] | None = None) -> Pranc:
    """A trained module as it is, every weight a coefficient of its own: for files of networks without a basis.

    The module is taken over.
    """
    exclude = excluded_parameters(module, exclude)
    weights = {name: p.detach().flatten() for name, p in module.named_parameters() if name not in exclude}
    size = sum(weight.numel() for weight in weights.values())
    model = Pranc(module, k=size, basis="identity", start="zero", exclude=exclude)
    offsets = torch.split(torch.cat(list(weights.values())) / model.scale, [b.rows for b in model.layout.basis.blocks])
    parts = [
        pb.expand_block_transposed(0, i, block, offsets[i], block.rows)
        for i, block in enumerate(model.layout.basis.blocks)
    ]
    with torch.no_grad():
        model.alpha[model.order] = torch.cat(parts)
    return model


def step_code(step: float) -> int:
    """The step code nearest to a step of α."""
    return min(range(STEPS), key=lambda code: abs(math.log(step_size(code) / 2**STEP_FRACTION / step)))
