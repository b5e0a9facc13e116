"""A model file as a torch module again: weights are made when a layer reads them."""

from __future__ import annotations

import copy
import os
from collections.abc import Collection
from typing import Any, NoReturn, Self

import numpy as np
import torch
from torch import Tensor, nn

from prancimg.errors import PrancImgError
from prancimg.format import files
from prancimg.pranc.compact import MAX_ENTRIES, MODEL, Network, Structure
from prancimg.pranc.tensors import excluded_parameters, on_cpu, run_with, storage_of, tensors_apart


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
            for name, tensor in tensors_apart(module, spanned).items():
                (on_cpu(module, name) if tensor.is_meta else tensor).copy_(torch.from_numpy(network.apart[name]))
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
            return run_with(self.module, weights, args, kwargs)

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
    exclude = excluded_parameters(module, exclude)
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters() if name not in exclude}
    apart = storage_of(module, tensors_apart(module, shapes))
    data = files.read_prc(path, MODEL.signature)
    network = Network.unpack(data, shapes, apart, allow_partial=allow_partial, max_entries=max_entries)
    return Compact(module, network if k is None else network.prefix(k)).eval()
