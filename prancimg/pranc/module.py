"""PRANC for any torch module: its weights become θ0 + s·B(seed)·α, and only α is trained or stored.

    model = Pranc(torch.nn.Linear(784, 10), k=100, seed=7)
    optimizer = torch.optim.Adam(model.parameters())     # one tensor of 100 numbers
    loss = model(x).square().mean(); loss.backward()     # B is made again, chunk by chunk, and dropped
    model.save("model.prn")                              # integers, a seed and checksums: no weights
    model = load("model.prn", torch.nn.Linear(784, 10))  # makes a weight when a layer reads it

Nooralinejad et al., "PRANC: Pseudo RAndom Networks for Compacting deep models" (ICCV 2023).
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Collection, Mapping
from types import MethodType
from typing import Any, NoReturn, Self

import numpy as np
import torch
from torch import Tensor, nn

from prancimg.errors import PrancImgError
from prancimg.format import files
from prancimg.format.bitstream import step_size
from prancimg.format.layout import Kind
from prancimg.format.range_coder import MAGNITUDE
from prancimg.network import basis as pb
from prancimg.pranc.compact import (
    FRACTION,
    MAX_ENTRIES,
    MIN_ROWS,
    MODEL,
    SORTS,
    START_FRACTION,
    STEP_FRACTION,
    STEPS,
    Apart,
    Layout,
    Network,
    Recipe,
    Start,
    Structure,
    rounded,
)

_NORMS = (nn.modules.batchnorm._BatchNorm,)


def products(block: pb.Block, like: Tensor) -> Any:
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
        return products(block, a).expand_block(seed, index, block, a)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None, Tensor]:
        g, back = gradients[0], products(ctx.block, gradients[0]).expand_block_transposed
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
        exclude = _excluded(module, exclude)
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
        self._apart = list(_apart(module, own))
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
            parts = tuple(buffers[f"{name}{index}"] for name in ("signs", "rows", "columns"))
            return _ExpandHadamard.apply(parts, a)  # type: ignore[no-any-return, no-untyped-call]
        return expand_block(self.layout.recipe.seed, index, block, a)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own result, with :meth:`weights` in place of its parameters."""
        return _run(self.module, self.weights(), args, kwargs)

    def network(self, step: float) -> Network:
        """The model in integers: α over the nearest step there is, rounded, and the rest as docs/format.md says."""
        code = step_code(step)
        alpha = self.alpha.detach().double().cpu().numpy() * (2**STEP_FRACTION / step_size(code))
        if not np.isfinite(alpha).all():
            raise ValueError("the coefficients are not finite")
        if (most := float(np.abs(np.rint(alpha)).max())) >= MAGNITUDE:
            raise ValueError(f"a coefficient is {most:.0f} steps, more than {MAGNITUDE - 1}: take a larger step")
        tensors = _apart(self.module)
        if list(tensors) != self._apart:
            raise ValueError("the module has not got the tensors that it had: parameters or buffers came or went")
        sorts, apart = _sorts(self.module, tensors), {}
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


class Compact(nn.Module):
    """A module that makes a weight whenever a layer reads it, and drops it after that. For inference, by any threads.

    Beyond the coefficients nothing is kept: neither B nor θ0 nor the weights. Under ``dense`` all weights are one
    product: it is taken once a call, and all of them live as long as that. What reads its weights many times, as
    ``nn.MultiheadAttention`` does, is faster after :meth:`materialise`.

    It has the dtype of the module, as ``.to`` and its like set it; copies share nothing.

    Args:
        module: of the architecture that the network belongs to; it is taken over. Where it is on the meta device it
            is brought to the CPU.
        network: as read from a file.
    """

    coefficients: Tensor
    like: Tensor

    def __init__(self, module: nn.Module, network: Network) -> None:
        super().__init__()
        spanned = {name: module.get_parameter(name) for name in network.layout.shapes}
        like = next(iter(spanned.values()))
        device = torch.device("cpu") if like.is_meta else like.device
        self.network = network
        coefficients = torch.from_numpy(network.coefficients.astype(np.int32)).to(device)
        self.register_buffer("coefficients", coefficients, persistent=False)
        self.register_buffer("like", torch.zeros(0, dtype=like.dtype, device=device), persistent=False)
        self._trained = {name: parameter.requires_grad for name, parameter in spanned.items()}
        with torch.no_grad():
            for name, tensor in _apart(module, spanned).items():
                (_real(module, name) if tensor.is_meta else tensor).copy_(torch.from_numpy(network.apart[name]))
        leaves: dict[str, dict[str, str]] = {}
        for name in spanned:
            owner, _, leaf = name.rpartition(".")
            leaves.setdefault(owner, {})[leaf] = name
        for owner, names in leaves.items():
            layer = module.get_submodule(owner)
            layer._parameters = _Made(layer._parameters, names, self)
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_meta:
                raise PrancImgError(f"{name} is on the meta device, and model files do not hold it")
        self.module = module

    def weights(self, names: Collection[str] | None = None) -> dict[str, Tensor]:
        """All weights by name, or some, float32: bit-identical on every device."""
        names = self.network.layout.shapes if names is None else names
        return self.network.weights(names, self.coefficients.double())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's result, without gradients."""
        with torch.no_grad():
            if self.network.layout.recipe.structure != Structure.DENSE:
                return self.module(*args, **kwargs)
            weights = {name: weight.to(self.like.dtype) for name, weight in self.weights().items()}
            return _run(self.module, weights, args, kwargs)

    def materialise(self) -> nn.Module:
        """The module with all its weights in place, as an ordinary module; this object is used up."""
        for name, weight in self.weights().items():
            owner, _, leaf = name.rpartition(".")
            layer = self.module.get_submodule(owner)
            layer._parameters = layer._parameters.copy()
            layer._parameters[leaf] = nn.Parameter(weight.to(self.like.dtype), self._trained[name])
        return self.module

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model file again, with the coefficients that were taken from it."""
        files.write(os.fspath(path), self.network.pack())

    def state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: the recipe belongs to the coefficients."""
        raise PrancImgError("a compact model has no state of tensors: use save() and load(), or materialise() first")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise PrancImgError("a compact model is not pickled: use save() and load(), or materialise() first")

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = memo[id(self)] = self.__new__(type(self))
        twin.__dict__ = copy.deepcopy(vars(self), memo)
        return twin


class _Made(dict[str, Any]):
    """A layer's parameters, of which those of a compact model are made whenever they are read."""

    def __init__(self, parameters: dict[str, nn.Parameter | None], names: dict[str, str], model: Compact) -> None:
        super().__init__(parameters | dict.fromkeys(names))
        self.names, self.model = names, model

    def __getitem__(self, leaf: str) -> Any:
        held = super().__getitem__(leaf)
        if held is not None or leaf not in self.names:
            return held
        name = self.names[leaf]
        return self.model.weights([name])[name].to(self.model.like.dtype)


def load(
    path: str | os.PathLike[str],
    module: nn.Module,
    *,
    exclude: Collection[str] | None = None,
    k: int | None = None,
    allow_partial: bool = False,
    max_entries: int = MAX_ENTRIES,
) -> Compact:
    """Read a model file for an architecture, in evaluation mode. Nothing in a file is ever executed.

    Args:
        path: of a file that :meth:`Pranc.save` wrote.
        module: the architecture; its weights do not matter. It is taken over, on the device where it is (from the meta
            device to the CPU).
        exclude: as it was for :class:`Pranc`, with what was frozen there, unless that is frozen here too.
        k: use only so many coefficients.
        allow_partial: take what there is of a file that is cut short.
        max_entries: refuse a basis of more entries: a limit on the time that making all weights takes.

    Raises:
        PrancImgError: the file is damaged, or belongs to another network.
    """
    exclude = _excluded(module, exclude)
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters() if name not in exclude}
    apart = _sorts(module, _apart(module, shapes))
    data = files.read_prc(path, MODEL.signature)
    network = Network.unpack(data, shapes, apart, allow_partial=allow_partial, max_entries=max_entries)
    return Compact(module, network if k is None else network.prefix(k)).eval()


def direct(module: nn.Module, exclude: Collection[str] | None = None) -> Pranc:
    """A trained module as it is, every weight a coefficient of its own: for files of networks without a basis.

    The module is taken over.
    """
    exclude = _excluded(module, exclude)
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


def apart_parameters(module: nn.Module) -> set[str]:
    """The names of the parameters that the seed's start would not suit: what :class:`Pranc` leaves alone by itself.

    Those of batch norms; vectors and single numbers (at most one length is not 1) other than weights and biases, such
    as the scales of layers and class tokens; slopes of PReLU; and embeddings that have a row for padding.
    """
    names = set()
    for owner, layer in module.named_modules():
        special = isinstance(layer, (*_NORMS, nn.PReLU)) or getattr(layer, "padding_idx", None) is not None
        for leaf, parameter in layer.named_parameters(recurse=False):
            vector = parameter.numel() == max(parameter.shape, default=1)
            if special or (vector and leaf != "weight" and "bias" not in leaf):
                names.add(f"{owner}.{leaf}" if owner else leaf)
    return names


def _excluded(module: nn.Module, exclude: Collection[str] | None) -> set[str]:
    """The parameters that stay: the given or the usual ones, and what is frozen; where all is, that says nothing."""
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    if len(frozen) == len(list(module.parameters())):
        frozen = set()
    return frozen | (apart_parameters(module) if exclude is None else set(exclude))


def step_code(step: float) -> int:
    """The step code nearest to a step of α."""
    return min(range(STEPS), key=lambda code: abs(math.log(step_size(code) / 2**STEP_FRACTION / step)))


def _apart(module: nn.Module, spanned: Mapping[str, Any] | Collection[str] = ()) -> dict[str, Tensor]:
    """The parameters that no block spans and the buffers of the module's state, in the module's order."""
    tensors = module.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in tensors.items() if name not in spanned and isinstance(tensor, Tensor)}


def _sorts(module: nn.Module, apart: Mapping[str, Tensor]) -> dict[str, Apart]:
    """How tensors apart are stored: floats of batch norms in 16 bits, all else as it is."""
    norms = {name for name, layer in module.named_modules() if isinstance(layer, _NORMS)}

    def sort(name: str, tensor: Tensor) -> str:
        if tensor.is_floating_point():
            return "float" if name.rpartition(".")[0] in norms else "exact"
        return "bool" if tensor.dtype == torch.bool else "int"

    return {name: Apart(tuple(tensor.shape), sort(name, tensor)) for name, tensor in apart.items()}


def _real(module: nn.Module, name: str) -> Tensor:
    """A tensor of the module on the CPU, without values, in the place of its own on the meta device."""
    owner, _, leaf = name.rpartition(".")
    layer = module.get_submodule(owner)
    held: dict[str, Any] = layer._parameters if leaf in layer._parameters else layer._buffers
    real = torch.empty_like(held[leaf], device="cpu")
    held[leaf] = nn.Parameter(real, held[leaf].requires_grad) if held is layer._parameters else real
    return real


def _run(module: nn.Module, weights: Mapping[str, Tensor], args: Any, kwargs: Any) -> Any:
    """The module's result with weights in place of its parameters.

    They are put into copies of all layers, which share everything else: the module itself is never changed under
    another thread, and what runs again later, as a checkpoint does, finds them. What the run assigns to attributes of
    its layers comes back to the module.
    """
    twins = {id(layer): (layer, layer.__new__(type(layer))) for layer in module.modules()}

    def twinned(value: Any) -> Any:
        """With the copies of layers for the layers themselves, where attributes hold them or methods of theirs."""
        if id(value) in twins:
            return twins[id(value)][1]
        if isinstance(value, MethodType) and id(value.__self__) in twins:
            return MethodType(value.__func__, twins[id(value.__self__)][1])
        if type(value) in (list, tuple, dict):
            parts = list(value.values() if isinstance(value, dict) else value)
            others = [twinned(part) for part in parts]
            if any(part is not other for part, other in zip(parts, others, strict=True)):
                return dict(zip(value, others, strict=True)) if isinstance(value, dict) else type(value)(others)
        return value

    for layer, twin in twins.values():
        twin.__dict__ = {key: twinned(value) for key, value in dict(vars(layer)).items()}  # of one moment
        twin._parameters = layer._parameters.copy()
        twin._modules = {
            name: twins[id(child)][1] if child is not None else None for name, child in layer._modules.items()
        }
    for name, weight in weights.items():
        owner, _, leaf = name.rpartition(".")
        twins[id(module.get_submodule(owner))][1]._parameters[leaf] = weight  # type: ignore[assignment]
    before = [(layer, twin, dict(vars(twin))) for layer, twin in twins.values()]
    result = twins[id(module)][1](*args, **kwargs)
    for layer, twin, held in before:
        vars(layer).update({key: value for key, value in vars(twin).items() if held.get(key) is not value})
    return result
