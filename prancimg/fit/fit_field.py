"""A field fitted to a picture at λ, or to a number of bits: what is fitted follows from the rate, then the fit runs.

A fit minimises distortion + λ · bits over grids, networks and context model at once. The start is analytic: a pyramid
of the picture, which the prior's network already shows faithfully. From there the grids follow gradients through a soft
rounding with noise that hardens by and by, and are rounded for the last steps, in which the networks settle. Needs
torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from prancimg.fit.optimise import fit_at_lmbda
from prancimg.fit.rate_control import SteeredFit, choose
from prancimg.fit.rdoq import Fitted
from prancimg.fit.setup import RATE_CONTROL, TUNES, Setup, paces_at, steps_at
from prancimg.fit.threads import keep_memory, one_torch_thread


@one_torch_thread()
def fit_field(
    image: np.ndarray,
    *,
    seed: int,
    iterations: int,
    device: torch.device,
    lmbda: float | None = None,
    bits: float = math.inf,
    setup: Setup = TUNES["ssim"],
    progress: Callable[[float], None] | None = None,
) -> Fitted:
    """Fit a field to a picture (H, W, 3) uint8 at ``lmbda``, or without one so that its coefficients take ``bits``.

    ``lmbda``: squared error, on samples from 0 to 1, that a bit a pixel may cost. ``iterations``: steps of a picture
    whose finest grids are used. ``progress`` is told the share that is done.
    """
    keep_memory()
    chosen = choose(image, lmbda, bits, setup, iterations, device)
    header = setup.header(image, chosen.lmbda, chosen.levels, setup.adapted_at(chosen.bits), seed)
    steps = steps_at(iterations, chosen.levels[0])
    paces = paces_at(iterations, setup)
    if lmbda is not None:
        fitted = fit_at_lmbda(image, header, lmbda, setup, steps, device, progress)
        return fitted.learning(paces)
    marks = RATE_CONTROL.marks
    if iterations < RATE_CONTROL.long_fit:
        marks = {share: marks[share] for share in RATE_CONTROL.marks_of_short_fits}
    return SteeredFit(image, header, chosen.lmbda, bits, setup, steps, device, paces).run(marks, progress)
