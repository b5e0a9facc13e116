"""The picture as a function of a continuous place: any part of it, at any resolution, from as many levels as wanted.

    o(x, y) = SIREN(F(x, y));    picture(x, y) = o(x, y) + r(x, y)

F is the field, r what the 3 x 3 filter adds to o. Both are known at the pixels and interpolated between them by one
kernel, so that the function goes through the pixels of the decoded picture. A window costs what it covers, and a little
around it; only the entropy decoding of a level is always that of the whole level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from prancimg.format.layout import NEUTRAL_RATE, Pyramid, Siren
from prancimg.network.field import Box, Coefficients, residual_filter, window
from prancimg.network.siren import forward, render, render_field, to_floats

_RADIUS = 3
"""Of the interpolation kernel (Lanczos), in pixels."""
_TILE = 1 << 14
"""Points that go through the network at a time, so that activations stay in cache."""


@dataclass(frozen=True)
class Renderer:
    """What a file's integers determine: a function from places to colours."""

    siren: Siren
    theta: Mapping[str, np.ndarray]
    """Flat integer tensors in units of 2**-20."""
    pyramid: Pyramid
    q: Coefficients
    """Grids of the levels from ``finest`` up; empty for a network that reads coordinates."""
    step: float
    rate: int
    finest: int = 0

    @cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """float32 tensors; the phases include what the rate shifts them by."""
        weights = to_floats(self.siren, self.theta)
        if self.siren.channels:
            weights["b0"] = weights["b0"] + weights["slope"] * np.float32((self.rate - NEUTRAL_RATE) / 64)
        return weights

    def render(self, box: Box, height: int, width: int) -> np.ndarray:
        """A box of the picture (in its pixels) as (3, height, width) float32, black 0, white 1, not clipped.

        The box is divided evenly into ``height`` by ``width`` points; fewer points than pixels are not averaged.
        """
        top, left, bottom, right = box
        y = top - 0.5 + (np.arange(height) + 0.5) * ((bottom - top) / height)
        x = left - 0.5 + (np.arange(width) + 0.5) * ((right - left) / width)
        if not self.siren.channels:
            return self._synthesise_places(y, x)
        if not self.finest and (height, width) == (bottom - top, right - left):
            _, rgb, added = self._known(box)
            return np.asarray(rgb + added)
        size = self.pyramid.size(self.finest)
        y, x = ((v + 0.5) / 2**self.finest - 0.5 for v in (y, x))
        first = [max(0, int(np.floor(v[0])) - _RADIUS + 1) for v in (y, x)]
        last = [min(n, int(np.floor(v[-1])) + _RADIUS + 1) for v, n in zip((y, x), size, strict=True)]
        near = (min(first[0], size[0] - 1), min(first[1], size[1] - 1), max(last[0], 1), max(last[1], 1))
        field, _, added = self._known(near)
        known = np.concatenate([field, added])
        picture = np.empty((3, height, width), np.float32)
        rows_at, rows_by = _taps(y - near[0], known.shape[1])
        columns_at, columns_by = _taps(x - near[1], known.shape[2])
        step = max(1, _TILE // width)
        for start in range(0, height, step):
            here = slice(start, start + step)
            part = sum(known[:, at] * by[:, None] for at, by in zip(rows_at[:, here], rows_by[:, here], strict=True))
            part = sum(part[:, :, at] * by for at, by in zip(columns_at, columns_by, strict=True))
            picture[:, here] = self._synthesise(part[: self.siren.channels]) + part[self.siren.channels :]
        return picture

    def whole(self) -> np.ndarray:
        """All of the picture at its own size, (height, width, 3) uint8."""
        if not self.siren.channels:
            return render(self.siren, self.theta, self.pyramid.height, self.pyramid.width)
        return render_field(self.siren, self.theta, self.pyramid, self.q, self.step, self.rate)

    def coarse(self, finest: int) -> Renderer:
        """The same without the grids below level ``finest``."""
        return replace(self, q={key: q for key, q in self.q.items() if key[1] >= finest}, finest=finest)

    def _known(self, box: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """F, o and r at the points of a box of the finest level."""
        height, width = self.pyramid.size(self.finest)
        top, left, bottom, right = box
        wide = (max(0, top - 1), max(0, left - 1), min(height, bottom + 1), min(width, right + 1))
        field = window(self.pyramid, self.q, self.weights, self.step, wide, self.finest)
        rgb, kernel = self._synthesise(field), self.weights["residual"]
        if self.finest:  # of a coarse level's points, a pixel's neighbours all but share the colour
            kernel = np.where(np.arange(27) % 9 == 4, kernel.reshape(3, 3, 9).sum(2).repeat(9, 1), 0)
        added = residual_filter(rgb, kernel.astype(np.float32)) - rgb
        inner = slice(None), slice(top - wide[0], bottom - wide[0]), slice(left - wide[1], right - wide[1])
        return field[inner], rgb[inner], added[inner]

    def _synthesise(self, field: np.ndarray) -> np.ndarray:
        """The field (channels, h, w) at some points to o (3, h, w)."""
        channels, height, width = field.shape
        out = np.empty((3, height, width), np.float32)
        rows = max(1, _TILE // width)
        for top in range(0, height, rows):
            part = np.ascontiguousarray(field[:, top : top + rows])
            rgb = forward(self.siren, self.weights, part.reshape(channels, -1))
            out[:, top : top + rows] = rgb.reshape(3, -1, width)
        return out

    def _synthesise_places(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Rows and columns of places to (3, rows, columns), for a network that reads coordinates."""
        height, width = self.pyramid.height, self.pyramid.width
        x = ((2 * x + 1 - width) / max(height, width)).astype(np.float32)
        y = ((2 * y + 1 - height) / max(height, width)).astype(np.float32)
        return self._synthesise(np.stack(np.broadcast_arrays(x[None], y[:, None])))


def _taps(places: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and float32 weights (2 · radius, n) of the samples 0 .. size-1 around places; the ends are repeated."""
    base = np.floor(places).astype(np.int64)
    offsets = np.arange(1 - _RADIUS, _RADIUS + 1)[:, None]
    distance = places - base - offsets
    weights = np.sinc(distance) * np.sinc(distance / _RADIUS)
    return np.clip(base + offsets, 0, size - 1), (weights / weights.sum(0)).astype(np.float32)
