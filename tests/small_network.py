"""A module with every common kind of layer, and the kinds of basis that it is tried with."""

import pytest
import torch
from torch import nn

from prancimg.pranc.module import Pranc


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.GELU(), nn.Flatten(), nn.Linear(96, 20), nn.LayerNorm(20)]
    return nn.Sequential(*layers, nn.Linear(20, 4)).double()


def batch() -> torch.Tensor:
    return torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def loss_of(output: torch.Tensor) -> torch.Tensor:
    return (output - torch.arange(4)).square().mean()


cases = pytest.mark.parametrize(
    ("basis", "structure"),
    [(b, s) for b in ("sign", "popcount", "hadamard", "identity") for s in ("tensor", "dense", "chunks")],
)


ROWS = {"tensor": 0, "dense": 0, "chunks": 100}


def trained(model: Pranc) -> Pranc:
    """As if it were: coefficients, norms and statistics are no longer those of the start."""
    with torch.no_grad():
        model.alpha.copy_(torch.sin(torch.arange(len(model.alpha), dtype=torch.float64) ** 1.1))
        for name, tensor in model.module.state_dict().items():
            if tensor.is_floating_point() and tensor.numel() == 6:
                tensor += 0.01 * len(name)
    return model.eval()
