"""What both models share: the search for the file that is asked for, and the segments of a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch

from prancimg.errors import OutOfReach, too_few
from prancimg.format.bitstream import Segment
from prancimg.format.header import Header
from prancimg.format.range_coder import Encoder

Progress = Callable[[float], None]
"""Told the share that is done, 0 to 1."""


class Search(ABC):
    """Finds the file of a picture (H, W, 3) uint8 that a target asks for."""

    model: str
    """As :func:`prancimg.encode` names it."""

    def __init__(self, image: np.ndarray, effort: int, device: torch.device, progress: Progress | None) -> None:
        self.effort = effort
        self.image, self.device, self.progress = image, device, progress
        self.pixels = image.shape[0] * image.shape[1]

    @abstractmethod
    def at_size(self, size: int) -> bytes:
        """The best file of at most ``size`` bytes, and of at least 97 % of them where the picture can use them."""

    @abstractmethod
    def at_lmbda(self, lmbda: float) -> bytes:
        """The file with about the least mse + λ · bpp, mse on samples from 0 to 1."""

    @abstractmethod
    def at_psnr(self, wanted: float) -> bytes:
        """The smallest file found whose PSNR is at least ``wanted`` dB."""

    def report(self, done: float) -> None:
        """Tell the share that is done."""
        if self.progress:
            self.progress(min(1.0, done))

    def check_size(self, size: int, lowest: int) -> None:
        """Refuse a size below that of the smallest file there can be."""
        if size < lowest:
            raise too_few(size, lowest, self.pixels)

    def out_of_reach(self, wanted: float, most: float) -> OutOfReach:
        """What to say of a PSNR that no file has."""
        here = f"the {self.model} model gets to {most:.2f} dB on this picture at effort {self.effort}"
        more = "a higher effort (--effort) gets further, lossless (--lossless) is exact"
        return OutOfReach(f"{wanted} dB are out of reach: {here}; {more if self.effort < 9 else more.split(', ')[1]}")


def network_segments(header: Header, alpha: Sequence[np.ndarray]) -> list[tuple[int, bytes]]:
    """The header, and the coefficients of the networks: of every tensor (k,) integers."""
    encoder = Encoder()
    for a, coded in zip(alpha, header.tensors, strict=False):
        encoder.put(a[: coded.k], coded.scale)
    return [(Segment.HEADER, header.pack()), (Segment.WEIGHTS, encoder.finish())]
