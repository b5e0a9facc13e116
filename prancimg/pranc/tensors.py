"""The tensors of a torch module: which are spanned by a basis, which are stored apart, and running it with others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from prancimg.pranc.compact import Apart

_NORMS = (nn.modules.batchnorm._BatchNorm,)


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


def excluded_parameters(module: nn.Module, exclude: Collection[str] | None) -> set[str]:
    """The parameters that stay: the given or the usual ones, and what is frozen; where all is, that says nothing."""
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    if len(frozen) == len(list(module.parameters())):
        frozen = set()
    return frozen | (apart_parameters(module) if exclude is None else set(exclude))


def tensors_apart(module: nn.Module, spanned: Mapping[str, Any] | Collection[str] = ()) -> dict[str, Tensor]:
    """The parameters that no block spans and the buffers of the module's state, in the module's order."""
    tensors = module.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in tensors.items() if name not in spanned and isinstance(tensor, Tensor)}


def storage_of(module: nn.Module, apart: Mapping[str, Tensor]) -> dict[str, Apart]:
    """How tensors apart are stored: floats of batch norms in 16 bits, all else as it is."""
    norms = {name for name, layer in module.named_modules() if isinstance(layer, _NORMS)}

    def sort(name: str, tensor: Tensor) -> str:
        if tensor.is_floating_point():
            return "float" if name.rpartition(".")[0] in norms else "exact"
        return "bool" if tensor.dtype == torch.bool else "int"

    return {name: Apart(tuple(tensor.shape), sort(name, tensor)) for name, tensor in apart.items()}


def on_cpu(module: nn.Module, name: str) -> Tensor:
    """A tensor of the module on the CPU, without values, in the place of its own on the meta device."""
    owner, _, leaf = name.rpartition(".")
    layer = module.get_submodule(owner)
    held: dict[str, Any] = layer._parameters if leaf in layer._parameters else layer._buffers
    real = torch.empty_like(held[leaf], device="cpu")
    held[leaf] = nn.Parameter(real, held[leaf].requires_grad) if held is layer._parameters else real
    return real


def run_with(module: nn.Module, weights: Mapping[str, Tensor], args: Any, kwargs: Any) -> Any:
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
