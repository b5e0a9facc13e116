"""The feature field: a pyramid of integer grids, summed into the channels that the SIREN reads at every pixel.

    F(L) = 0;    F(l) = up(F(l+1)) + Σ over components c of  gain[l, c] · 2**scale[l, c] · step · q(c, l)

and the SIREN reads F(0).
A coefficient is one smooth bump at one level and place, pushed along one direction of the channels. Component 0 is
luma, 1 and 2 are chroma; level 0 has the size of the picture, level l half of it l times. NumPy and torch alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from prancimg.format.layout import COMPONENTS, Pyramid
from prancimg.network.arrays import Array, cast, namespace


def grid_step(code: int) -> float:
    """The quantiser's step of a step code from 0 to 255: 0.04 at 128, doubling every 32."""
    return float(0.04 * 2 ** ((code - 128) / 32))


def upsample(x: Array, taps: Array, height: int, width: int) -> Array:
    """Twice the size: (c, h, w) to (c, height, width), separable, edges repeated.

    Even samples are Σ taps[k] · x[i - 2 + k], odd ones Σ taps[3 - k] · x[i - 1 + k].
    """
    xp = namespace(x)
    for axis, size in ((1, height), (2, width)):
        n = x.shape[axis]
        at = [slice(None)] * 3

        def cut(start: int, stop: int, x: Array = x, at: list[slice] = at, axis: int = axis) -> Array:
            return x[(*at[:axis], slice(start, stop))]

        padded = xp.concatenate([cut(0, 1)] * 2 + [x] + [cut(n - 1, n)] * 2, axis)
        parts = [padded[(*at[:axis], slice(k, k + n))] for k in range(5)]
        even = sum(taps[k] * parts[k] for k in range(4))
        odd = sum(taps[3 - k] * parts[k + 1] for k in range(4))
        shape = list(x.shape)
        shape[axis] = 2 * n
        x = xp.stack([even, odd], axis + 1).reshape(shape)[(*at[:axis], slice(0, size))]
    return x


def channel_gains(weights: Mapping[str, Array]) -> Array:
    """Where a coefficient of one step pushes the channels: (levels, components, channels)."""
    gain, scale = weights["gain"], weights["scale"]
    return gain * namespace(gain).exp2(scale)[:, :, None]


def upsample_add(field: Array, taps: Array, q: Sequence[Array], gain: Array, height: int, width: int) -> Array:
    """A level's field from that of the coarser one, the level's grids (height, width) and their directions."""
    field = upsample(field, taps, height, width)
    for grid, direction in zip(q, gain, strict=True):
        field = field + direction[:, None, None] * grid
    return field


def feature_field(
    pyramid: Pyramid,
    q: Mapping[tuple[int, int], Array],
    weights: Mapping[str, Array],
    step: float,
    upsample_add: Callable[[Array, Array, Sequence[Array], Array, int, int], Array] = upsample_add,
) -> Array:
    """Coefficients (h, w) by (component, level) to the field (channels, height, width)."""
    field, gain = None, channel_gains(weights) * step
    for level in reversed(range(pyramid.levels)):
        first = 0 if (0, level) in q else 1
        last = COMPONENTS if (1, level) in q else 1
        grids, along = [cast(q[c, level], gain) for c in range(first, last)], gain[level, first:last]
        if field is None:
            field = sum(direction[:, None, None] * grid for grid, direction in zip(grids, along, strict=True))
        else:
            field = upsample_add(field, weights["taps"], grids, along, *pyramid.size(level))
    return field


Box = tuple[int, int, int, int]
"""top, left, bottom, right; the last two are the first outside."""


def window(
    pyramid: Pyramid,
    q: Mapping[tuple[int, int], np.ndarray],
    weights: Mapping[str, np.ndarray],
    step: float,
    box: Box,
    finest: int = 0,
) -> np.ndarray:
    """A box of :func:`feature_field`, (channels, h, w), from what it takes of every grid: NumPy only.

    With ``finest``, the field at that level without the grids below, and a box of that level.
    """
    boxes = {finest: box}
    for level in range(finest + 1, pyramid.levels):
        (top, left, bottom, right), (height, width) = boxes[level - 1], pyramid.size(level)
        lower = max(0, top // 2 - 2), max(0, left // 2 - 2)
        boxes[level] = (*lower, min(height, (bottom - 1) // 2 + 3), min(width, (right - 1) // 2 + 3))
    gain = channel_gains(weights) * np.float32(step)
    field = np.zeros((gain.shape[2], 1, 1), np.float32)
    above: Box | None = None
    for level in reversed(range(finest, pyramid.levels)):
        top, left, bottom, right = boxes[level]
        if above is not None:
            field = upsample(field, weights["taps"], 2 * field.shape[1], 2 * field.shape[2])
            field = field[:, top - 2 * above[0] : bottom - 2 * above[0], left - 2 * above[1] : right - 2 * above[1]]
        for component in range(COMPONENTS):
            if (component, level) in q:
                grid = q[component, level][top:bottom, left:right].astype(np.float32)
                field = field + gain[level, component][:, None, None] * grid[None]
        above = boxes[level]
    return np.broadcast_to(field, (gain.shape[2], box[2] - box[0], box[3] - box[1]))


def residual_filter(rgb: Array, kernel: Array) -> Array:
    """rgb + a 3 x 3 convolution of it: (3, h, w) and (3, 27) to (3, h, w); edges repeated, input channel slowest."""
    xp = namespace(rgb)
    _, height, width = rgb.shape
    wide = xp.concatenate([rgb[:, :, :1], rgb, rgb[:, :, -1:]], 2)
    wide = xp.concatenate([wide[:, :1], wide, wide[:, -1:]], 1)
    patches = xp.stack([wide[:, y : y + height, x : x + width] for y in range(3) for x in range(3)], 1)
    return rgb + (kernel @ patches.reshape(27, height * width)).reshape(3, height, width)


Coefficients = dict[tuple[int, int], np.ndarray]
"""Integer grids (h, w) int32 by (component, level)."""
