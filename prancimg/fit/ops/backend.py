"""Which of the two ways an operation takes, and tensors as the compiled kernels want them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def compiled(x: Tensor) -> bool:
    """Whether what is computed of x is compiled by :mod:`prancimg.fit.kernels`; plain torch takes everything."""
    return x.device.type == "cpu" and x.dtype == torch.float32


def as_arrays(*tensors: Tensor) -> list[np.ndarray]:
    """The values of tensors on the CPU, without a copy where they are contiguous."""
    return [t.detach().contiguous().numpy() for t in tensors]


def padded_arrays(*tensors: Tensor) -> list[np.ndarray]:
    """All sides filled up with zeros to multiples of 4."""
    filled = []
    for array in as_arrays(*tensors):
        filled.append(np.zeros([side + -side % 4 for side in array.shape], array.dtype))
        filled[-1][tuple(map(slice, array.shape))] = array
    return filled


def sum_blocks(g: np.ndarray, like: Tensor) -> Tensor:
    """The sum of gradients by block, cut to a tensor's shape."""
    total = torch.from_numpy(g.sum(0))
    return total[tuple(slice(side) for side in like.shape)]
