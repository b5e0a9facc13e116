"""What the context model reads: planes of features, plain and compiled. Sums of magnitudes pass no gradient on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from prancimg.fit.kernels import contexts as kernels
from prancimg.fit.ops import backend
from prancimg.fit.ops.resampling import upsample
from prancimg.format.layout import COMPONENTS, KINDS, TRAPEZOID, Features, Grid, Plane, Pyramid
from prancimg.network.context_features import SQUASH_LIMIT

_NEAREST, _BILINEAR = (0.0, 0.0, 1.0, 0.0), (0.0, 0.25, 0.75, 0.0)
"""Taps of :func:`upsample` that repeat samples, or lay straight lines through them."""
_BOX = tuple((dy, -2, 2) for dy in range(-2, 3))
_MARGIN = 4
Key = tuple[int, int]


def other_component(plane: Plane, component: int) -> int:
    """The component that ``OTHER`` or ``OTHER_2`` is made of."""
    return 2 if plane == Plane.OTHER_2 else COMPONENTS - component if component else 1


def taps(features: Features) -> np.ndarray:
    """Plane, row and column of every feature, as :mod:`prancimg.fit.kernels.rate` reads them: (features, 3)."""
    edge = kernels.EDGE
    return np.array([(i, edge + dy, edge + dx) for i, (_, offsets) in enumerate(features) for dy, dx in offsets])


class CompiledContexts:
    """The planes of all grids of a pyramid, and the way back from gradients by them to those by the grids."""

    def __init__(self, pyramid: Pyramid, q: Mapping[Key, np.ndarray], u: Mapping[Key, np.ndarray]) -> None:
        """``q``: coefficients (h, w) float32 by (component, level); ``u``: those squashed."""
        self._pyramid, self._q, self._u = pyramid, q, u
        self._raised: dict[Key, tuple[np.ndarray, np.ndarray]] = {}
        self._g_raised: dict[Key, tuple[np.ndarray, np.ndarray]] = {}

    def planes(self, grid: Grid, features: Features) -> np.ndarray:
        """(planes, h + 6, w + 6); what belongs to a grid that does not exist is 0."""
        edge = 2 * kernels.EDGE
        planes = np.empty((len(features), grid.height + edge, grid.width + edge), np.float32)
        for plane, (which, _) in zip(planes, features, strict=True):
            source = self._source(which, grid)
            if source is None:
                plane[:] = 0
            else:
                kernels.put_plane(plane, source, which != Plane.OWN)
        return planes

    def _raise(self, component: int, level: int) -> tuple[np.ndarray, np.ndarray] | None:
        """A level's parent grid at the level's size, samples repeated and along straight lines."""
        key = component, level
        if key not in self._raised and (component, level + 1) in self._u:
            self._raised[key] = kernels.upsampled(self._u[component, level + 1], *self._pyramid.size(level))
        return self._raised.get(key)

    def _source(self, which: Plane, grid: Grid) -> np.ndarray | None:
        component, level = grid.key
        size, parent = (grid.height, grid.width), (component, level + 1)
        match which:
            case Plane.OWN:
                return self._u[grid.key]
            case Plane.NEAREST | Plane.PARENT:
                raised = self._raise(component, level)
                return None if raised is None else raised[which == Plane.PARENT]
            case Plane.GRANDPARENT:
                raised = self._raise(component, level + 1)
                return None if raised is None else kernels.upsampled(raised[1], *size)[1]
            case Plane.OWN_SUM:
                return kernels.magnitudes(self._q[grid.key], np.array(TRAPEZOID), np.float32(SQUASH_LIMIT))
            case Plane.PARENT_SUM:
                if parent not in self._q:
                    return None
                sums = kernels.magnitudes(self._q[parent], np.array(_BOX), np.float32(SQUASH_LIMIT))
                return kernels.upsampled(sums, *size)[1]
            case Plane.OTHER | Plane.OTHER_2:
                raised = self._raise(other_component(which, component), level)
                return None if raised is None else np.abs(raised[1])
            case Plane.LUMA:
                return self._u.get((0, level))
            case Plane.FIRST:
                return self._u.get((1, level)) if component == 2 else None

    def back(self, grid: Grid, features: Features, g_planes: np.ndarray, g_u: Mapping[Key, np.ndarray]) -> None:
        """Add gradients by a grid's planes, which are lost, to those by the grids, but for what :meth:`finish` adds."""
        component, level = grid.key
        for plane, (which, _) in zip(g_planes, features, strict=True):
            match which:
                case Plane.OWN:
                    kernels.put_plane_back(plane, g_u[grid.key], False)
                case Plane.NEAREST | Plane.PARENT if (raised := self._g_raise(component, level)) is not None:
                    kernels.put_plane_back(plane, raised[which == Plane.PARENT], True)
                case Plane.GRANDPARENT if (raised := self._g_raise(component, level + 1)) is not None:
                    nothing, straight = np.zeros((2, grid.height, grid.width), np.float32)
                    kernels.put_plane_back(plane, straight, True)
                    kernels.upsampled_back(nothing, straight, raised[1])
                case Plane.LUMA if (0, level) in g_u:
                    kernels.put_plane_back(plane, g_u[0, level], True)
                case Plane.FIRST if component == 2:
                    kernels.put_plane_back(plane, g_u[1, level], True)

    def _g_raise(self, component: int, level: int) -> tuple[np.ndarray, np.ndarray] | None:
        """The gradient by what :meth:`_raise` returns."""
        key, raised = (component, level), self._raise(component, level)
        if raised is not None and key not in self._g_raised:
            self._g_raised[key] = np.zeros_like(raised[0]), np.zeros_like(raised[1])
        return self._g_raised.get(key)

    def finish(self, g_u: Mapping[Key, np.ndarray]) -> None:
        """Add what went through the raised grids."""
        for (component, level), raised in self._g_raised.items():
            kernels.upsampled_back(*raised, g_u[component, level + 1])


def context_features(
    grid: Grid, features: Features, pyramid: Pyramid, q: Mapping[Key, Tensor], u: Mapping[Key, Tensor]
) -> Tensor:
    """What the context network reads at every position of a grid, in plain torch: (inputs, h * w)."""
    (component, level), own = grid.key, u[grid.key]

    def raised(x: Tensor | None, taps: tuple[float, ...], level: int = level) -> Tensor | None:
        return None if x is None else upsample(x[None], x.new_tensor(taps), *pyramid.size(level))[0]

    @torch.no_grad()
    def summed(x: Tensor | None, spans: tuple[tuple[int, int, int], ...]) -> Tensor | None:
        if x is None:
            return None
        offsets = [(dy, dx) for dy, first, last in spans for dx in range(first, last + 1)]
        return torch.stack(_shifted(x.abs().clamp_max(SQUASH_LIMIT), offsets, "constant")).sum(0).div(4).asinh()

    def source(which: Plane) -> Tensor | None:
        parent = component, level + 1
        match which:
            case Plane.OWN:
                return own
            case Plane.NEAREST:
                return raised(u.get(parent), _NEAREST)
            case Plane.PARENT:
                return raised(u.get(parent), _BILINEAR)
            case Plane.GRANDPARENT:
                return raised(raised(u.get((component, level + 2)), _BILINEAR, level + 1), _BILINEAR)
            case Plane.OWN_SUM:
                return summed(q[grid.key], TRAPEZOID)
            case Plane.PARENT_SUM:
                return raised(summed(q.get(parent), _BOX), _BILINEAR)
            case Plane.OTHER | Plane.OTHER_2:
                plane = raised(u.get((other_component(which, component), level + 1)), _BILINEAR)
                return None if plane is None else plane.detach().abs()
            case Plane.LUMA:
                return u.get((0, level))
            case Plane.FIRST:
                return u.get((1, level)) if component == 2 else None

    rows: list[Tensor] = []
    for which, offsets in features:
        plane = source(which)
        mode = "constant" if which == Plane.OWN else "replicate"
        rows += _shifted(torch.zeros_like(own) if plane is None else plane, offsets, mode)
    return torch.stack(rows).view(len(rows), -1)


def _shifted(x: Tensor, offsets: tuple[tuple[int, int], ...] | list[tuple[int, int]], mode: str) -> list[Tensor]:
    """A grid as seen from (dy, dx) beside every place; around it zeros, or its edge."""
    height, width = x.shape
    wide = pad(x[None, None], (_MARGIN,) * 4, mode=mode)[0, 0]
    return [wide[_MARGIN + y : _MARGIN + y + height, _MARGIN + x : _MARGIN + x + width] for y, x in offsets]


def active_contexts(pyramid: Pyramid, q: Tensor, features: Mapping[str, Features]) -> Tensor:
    """Where the context of coefficients q, packed, holds anything but zeros once they are rounded: packed, bool."""
    q = q.detach().round()
    found = torch.empty_like(q, dtype=torch.bool)
    where, grids = pyramid.split(found), pyramid.split(q)
    arrays = pyramid.split(q.numpy()) if backend.compiled(q) else {}
    compiled = CompiledContexts(pyramid, arrays, arrays)
    for grid in pyramid.grids:
        read = features[KINDS[grid.component > 0]]
        if arrays:
            here = kernels.active_positions(compiled.planes(grid, read), taps(read))
            where[grid.key][:] = torch.from_numpy(here)
        else:
            rows = context_features(grid, read, pyramid, grids, grids)
            where[grid.key][:] = rows.ne(0).any(0).view(grid.height, grid.width)
    return found
