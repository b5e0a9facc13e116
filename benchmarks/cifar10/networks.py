"""The classifiers. ``width`` scales the channels: the control of fewer bytes is the same architecture, narrower."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn


def lenet(classes: int, side: int = 32, width: float = 1) -> nn.Module:
    """LeNet-5 with ReLU and max pooling: 62,006 parameters for ten classes."""
    a, b, c, d = (_scaled(n, width) for n in (6, 16, 120, 84))
    left = ((side - 4) // 2 - 4) // 2
    return nn.Sequential(
        nn.Conv2d(3, a, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(a, b, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(b * left * left, c), nn.ReLU(), nn.Linear(c, d), nn.ReLU(), nn.Linear(d, classes),
    )  # fmt: skip


def alexnet(classes: int, side: int = 32, width: float = 1) -> nn.Module:
    """AlexNet's five convolutions and three layers at a size for small pictures, without dropout."""
    a, b, c, d = (_scaled(n, width) for n in (64, 192, 384, 256))
    e, left = _scaled(1024, width), side // 8
    return nn.Sequential(
        nn.Conv2d(3, a, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(b, c, 3, padding=1), nn.ReLU(),
        nn.Conv2d(c, d, 3, padding=1), nn.ReLU(),
        nn.Conv2d(d, d, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(d * left * left, e), nn.ReLU(), nn.Linear(e, e), nn.ReLU(), nn.Linear(e, classes),
    )  # fmt: skip


class _Block(nn.Module):
    """Two convolutions beside a shortcut that has no parameters (He et al., 2016, option A)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.stride, self.more = (1 if before == after else 2), after - before
        self.conv1 = nn.Conv2d(before, after, 3, self.stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        x = x[:, :, :: self.stride, :: self.stride]
        low = self.more // 2
        return torch.relu(out + nn.functional.pad(x, (0, 0, 0, 0, low, self.more - low)))


def resnet(depth: int, classes: int, side: int = 32, width: float = 1) -> nn.Module:
    """The ResNets of He et al. for CIFAR, of depth 6n + 2; any side."""
    a, b, c = (_scaled(n, width) for n in (16, 32, 64))
    n = (depth - 2) // 6
    channels = [a] * (n + 1) + [b] * n + [c] * n
    blocks = [_Block(before, after) for before, after in pairwise(channels)]
    stem = [nn.Conv2d(3, a, 3, 1, 1, bias=False), nn.BatchNorm2d(a), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, classes))


def resnet20(classes: int, side: int = 32, width: float = 1) -> nn.Module:
    """269,722 parameters for ten classes, 1,376 of them of batch norms."""
    return resnet(20, classes, side, width)


def resnet56(classes: int, side: int = 32, width: float = 1) -> nn.Module:
    """853,018 parameters for ten classes, 4,064 of them of batch norms."""
    return resnet(56, classes, side, width)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "lenet": lenet,
    "alexnet": alexnet,
    "resnet20": resnet20,
    "resnet56": resnet56,
}


def narrow(name: str, parameters: int, classes: int, side: int) -> tuple[nn.Module, float]:
    """The widest network of at most so many parameters, and its width; the narrowest there is if all have more."""
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        size = sum(p.numel() for p in NETWORKS[name](classes, side, middle).parameters())
        low, high = (middle, high) if size <= parameters else (low, middle)
    return NETWORKS[name](classes, side, low), low


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))
