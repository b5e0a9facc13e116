"""The loss of a fit: distortion and rate of a picture with its pyramid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from prancimg.fit.ops.contexts import active_contexts
from prancimg.fit.ops.picture import picture_error, residual_filter, sines
from prancimg.fit.ops.rate import field_bits
from prancimg.fit.ops.resampling import upsample, upsample_add
from prancimg.fit.ops.rounding import soft_round
from prancimg.fit.setup import OPTIMISATION, relative_rate
from prancimg.format.header import Header
from prancimg.format.layout import COMPONENTS, KINDS, Pyramid, features_of
from prancimg.network.field import channel_gains, feature_field, grid_step


class RateDistortion:
    """A picture with its pyramid, and the two terms of the loss D + λ R as functions of the coefficients.

    Coefficients are packed: a vector of all grids one after the other. ``weights`` are all tensors of the networks,
    ``step`` is the grids' quantiser step, ``r`` the rate that the networks are told
    (:func:`prancimg.fit.setup.relative_rate`).
    """

    def __init__(self, pixels: Tensor, pyramid: Pyramid, masking: float = 0.0) -> None:
        """``pixels``: (3, h, w) from 0 to 1; errors count by their :func:`visibility`."""
        self.pixels, self.pyramid, self.masking = pixels, pyramid, masking

    @cached_property
    def error_weights(self) -> Tensor:
        """What an error counts for at every pixel, (h, w): made when first asked for, which the start never does."""
        return visibility(self.pixels, self.masking)

    @property
    def damping(self) -> tuple[float, ...]:
        """How far each of the start's Newton steps goes."""
        full_chroma = any(grid.key == (1, 0) for grid in self.pyramid.grids)
        return OPTIMISATION.start_damping_full_chroma if full_chroma else OPTIMISATION.start_damping

    def start(self, weights: Mapping[str, Tensor], step: float, r: float) -> Tensor:
        """The analytic start: a pyramid that shows the picture, by Newton steps with one slope everywhere."""
        y = self.pixels.new_zeros(sum(grid.count for grid in self.pyramid.grids))
        for damping in self.damping:
            y = y.round()
            y += damping * self.laplacian_pyramid(self.pixels - self.render(y, weights, step, r), weights, step, r)
        return y

    def laplacian_pyramid(self, rest: Tensor, weights: Mapping[str, Tensor], step: float, r: float) -> Tensor:
        """What to add to the grids so that the picture, were the network linear, changed by ``rest`` (3, h, w).

        A Laplacian pyramid from coarse to fine, in which each level makes up for the rounding of the one before.
        """
        phases = weights["b0"] + weights["slope"] * r
        linear = weights["w1"] @ (phases.cos()[:, None] * weights["w0"])
        linear = linear + weights["residual"].view(3, 3, 9).sum(2) @ linear
        gains = channel_gains(weights) * step
        present = {grid.key for grid in self.pyramid.grids}
        out: list[Tensor] = []
        shown: Tensor | None = None
        for level in reversed(range(self.pyramid.levels)):
            size = self.pyramid.size(level)
            here = interpolate(rest[None], size=size, mode="bicubic", antialias=True)[0] if level else rest
            if shown is not None:
                shown = upsample(shown, weights["taps"], *size)
                here = here - shown
            basis = linear @ gains[level].t()
            y = torch.linalg.solve(basis, here.reshape(3, -1))
            y *= y.new_tensor([(c, level) in present for c in range(COMPONENTS)])[:, None]
            out += [y[c] for c in range(COMPONENTS) if (c, level) in present]
            added = (basis @ y.round()).view_as(here)
            shown = added if shown is None else shown + added
        return torch.cat(out)

    def field(self, q: Tensor, weights: Mapping[str, Tensor], step: float) -> Tensor:
        """The field that the network reads, (channels, h, w)."""
        field: Tensor = feature_field(self.pyramid, self.pyramid.split(q), weights, step, upsample_add)
        return field

    def render(self, q: Tensor, weights: Mapping[str, Tensor], step: float, r: float) -> Tensor:
        """The picture (3, h, w)."""
        field = self.field(q, weights, step)
        phases = weights["b0"] + weights["slope"] * r
        rgb = sines(field.reshape(len(field), -1), weights["w0"], phases, weights["w1"], weights["b1"])
        return residual_filter(rgb.view_as(self.pixels), weights["residual"])

    def distortion(self, q: Tensor, weights: Mapping[str, Tensor], step: float, r: float) -> Tensor:
        """Mean squared error of the picture, weighted by visibility."""
        field, phases = self.field(q, weights, step), weights["b0"] + weights["slope"] * r
        net = weights["w0"], phases, weights["w1"], weights["b1"], weights["residual"]
        return picture_error(field, self.pixels, self.error_weights, *net)

    def bits(
        self,
        q: Tensor,
        u: Tensor,
        weights: Mapping[str, Tensor],
        r: float,
        rate_weights: Sequence[float] = (1.0,),
        active: Tensor | None = None,
    ) -> Tensor:
        """Bits of all grids; ``u`` are the coefficients squashed. See :func:`prancimg.fit.ops.rate.field_bits`."""
        return self.rate(q, u, weights, r, rate_weights, active)[0]

    def rate(
        self,
        q: Tensor,
        u: Tensor,
        weights: Mapping[str, Tensor],
        r: float,
        rate_weights: Sequence[float] = (1.0,),
        active: Tensor | None = None,
        sampling: tuple[int, int] = (1, 0),
    ) -> tuple[Tensor, Tensor]:
        """The same, with the distributions that they come of."""
        nets = {}
        for kind in KINDS:
            a, bias, slope, *rest = (weights[f"{kind}.{name}"] for name in ("a", "bias", "slope", "b", "b0", "c", "c0"))
            nets[kind] = a, bias + slope * r, *rest
        return field_bits(self.pyramid, q, u, nets, rate_weights, active, sampling)

    def active(self, q: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """Which contexts hold anything but zeros: :func:`prancimg.fit.ops.contexts.active_contexts`."""
        features = {kind: features_of(kind, weights[f"{kind}.a"].shape[1]) for kind in KINDS}
        return active_contexts(self.pyramid, q, features)


def visibility(pixels: Tensor, masking: float) -> Tensor:
    """What a squared error counts for at every pixel of a picture (3, h, w): (h, w), about 1 on average.

    A power of the variance nearby: structural similarity divides by it, and so in effect does the eye (Teo and Heeger,
    1994).
    """
    size = min(OPTIMISATION.masking_window, *(side - 1 + side % 2 for side in pixels.shape[1:]))
    luma = pixels.mean(0)[None]
    both = torch.cat([luma, luma.square()])
    for sides in ((size, 1), (1, size)):
        both = avg_pool2d(both, sides, 1, [side // 2 for side in sides], count_include_pad=False)
    variance = (both[1] - both[0].square()).clamp_min(0)
    return ((variance + OPTIMISATION.masking_floor) / OPTIMISATION.masking_unit) ** -masking


def noisy_soft_round(y: Tensor, temperature: float, noise: float, generator: torch.Generator) -> Tensor:
    """Soft rounding with noise of a standard deviation in it."""
    normal = torch.empty_like(y).normal_(generator=generator)
    return soft_round(y, normal.mul_(noise), temperature)


def initial_grids(objective: RateDistortion, weights: Mapping[str, Tensor], header: Header) -> Tensor:
    """The analytic start moved towards zero by ``OPTIMISATION.shrinkage``."""
    y = objective.start(weights, grid_step(header.step), relative_rate(header.rate))
    return torch.copysign((y.abs() - OPTIMISATION.shrinkage).clamp_min(0), y)


def to_planes(image: np.ndarray, device: torch.device) -> Tensor:
    """(H, W, 3) uint8 to (3, H, W) from 0 to 1."""
    return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1).contiguous().to(device) / 255
