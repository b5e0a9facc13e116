"""Picture to bytes: what may be asked for, and the search that finds it."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass

import numpy as np
import torch

from prancimg.errors import PrancImgError, whole_number
from prancimg.fit.field_encoder import FieldSearch
from prancimg.fit.search import Progress, Search
from prancimg.fit.setup import TUNES
from prancimg.fit.siren_encoder import SirenSearch
from prancimg.format.layout import MAX_SIDE


@dataclass(frozen=True)
class Target:
    """What the caller asks for: at most one of these."""

    bpp: float | None = None
    size: int | None = None
    quality: float | None = None
    psnr: float | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("bpp", "size", "quality", "psnr") if getattr(self, name) is not None]
        if len(given) > 1:
            raise PrancImgError(f"only one of {' and '.join(given)} can be asked for")
        for name in given:
            if not isinstance(getattr(self, name), numbers.Real):
                raise PrancImgError(f"{name} {getattr(self, name)!r:.60} is not a number")
        for name, top in (("bpp", 1e6), ("size", 2**53), ("psnr", 100)):
            value = getattr(self, name)
            if value is not None and not 0 < value <= top:
                raise PrancImgError(f"{name} {value} is out of range")
        if self.quality is not None and not 0 <= self.quality <= 100:
            raise PrancImgError(f"quality {self.quality} is not between 0 and 100")

    @property
    def lmbda(self) -> float:
        """λ of the quality asked for, which is 50 by default."""
        return float(10 ** (-1.5 - (50 if self.quality is None else self.quality) / 33))

    def limit(self, pixels: int) -> int | None:
        """The bytes that a picture of so many pixels may take; None where no rate is asked for."""
        return self.size if self.bpp is None else math.floor(self.bpp * pixels / 8)


@dataclass(frozen=True)
class Options:
    """How to look for it."""

    model: str = "field"
    effort: int = 5
    seed: int = 0
    device: str = "auto"
    tune: str | None = None

    def __post_init__(self) -> None:
        if self.model not in ("field", "siren"):
            raise PrancImgError(f"model {self.model!r} is not known (field, siren)")
        if self.tune not in (None, *TUNES):
            raise PrancImgError(f"cannot tune for {self.tune!r} ({', '.join(TUNES)})")
        if self.effort not in range(1, 10):
            raise PrancImgError(f"effort {self.effort} is not a whole number from 1 to 9")
        object.__setattr__(self, "seed", whole_number("seed", self.seed))
        if not 0 <= self.seed < 1 << 32:
            raise PrancImgError(f"seed {self.seed} is not between 0 and 2**32-1")
        if self.device not in ("auto", "cpu", "cuda"):
            raise PrancImgError(f"device {self.device!r} is not one of auto, cpu, cuda")


def encode_array(image: np.ndarray, target: Target, options: Options, progress: Progress | None = None) -> bytes:
    """The .prc file of a picture (H, W, 3) uint8. See :func:`prancimg.encode`."""
    height, width = image.shape[:2]
    if max(height, width) > MAX_SIDE:
        raise PrancImgError(f"the picture is {width} x {height}; the format ends at {MAX_SIDE} a side")
    size = target.limit(height * width)
    device = _device(options.device)
    search: Search
    if options.model == "field":
        setup = TUNES[options.tune or ("ssim" if target.psnr is None else "psnr")]
        search = FieldSearch(image, options.effort, options.seed, device, progress, setup)
    else:
        search = SirenSearch(image, options.effort, options.seed, device, progress)
    if target.psnr is not None:
        return search.at_psnr(target.psnr)
    return search.at_lmbda(target.lmbda) if size is None else search.at_size(size)


def _device(name: str) -> torch.device:
    found = name != "cpu" and torch.cuda.is_available()
    if found:
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
        except RuntimeError as error:  # as in a process that was forked from one that uses it
            if name == "cuda":
                raise PrancImgError(f"the CUDA device cannot be used: {error}") from error
            found = False
    if name == "cuda" and not found:
        raise PrancImgError("no CUDA device is available")
    return torch.device("cuda" if found else "cpu")
