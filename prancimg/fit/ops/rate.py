"""The rate of all grids by the context model, and which contexts are active.

A rate term that kept every activation would move gigabytes a step; compiled, a block of rows goes forward, through its
cost and backward while it is in cache, and nothing of size (hidden, pixels) is stored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from prancimg.fit.kernels import rate as kernels
from prancimg.fit.ops import backend
from prancimg.fit.ops.backend import as_arrays
from prancimg.fit.ops.resampling import upsample
from prancimg.format.layout import CAUSAL, KINDS, LUMA, PARENT, Grid, Pyramid
from prancimg.format.range_coder import TABLES

_NEAREST, _BILINEAR = (0.0, 0.0, 1.0, 0.0), (0.0, 0.25, 0.75, 0.0)
"""Taps of :func:`upsample` that repeat samples, or lay straight lines through them."""
_CENTRE = ((0, 0),)
_OFFSETS = (CAUSAL, _CENTRE, PARENT), (CAUSAL, _CENTRE, PARENT, LUMA, _CENTRE)
"""What contexts of luma and chroma read of the grid, its parent upsampled in two ways, luma and the first chroma."""
_LOW, _HIGH = -16 / 4, (TABLES - 1 - 16) / 4
_LN2 = math.log(2)
ContextNetwork = Sequence[Tensor]
"""a (hidden, inputs), bias (components, levels, hidden), b, b0, c, c0."""


def field_bits(
    pyramid: Pyramid,
    q: Tensor,
    u: Tensor,
    nets: Mapping[str, ContextNetwork],
    rate_weights: Sequence[float] = (1.0,),
    active: Tensor | None = None,
) -> Tensor:
    """Bits of all grids by the context model, weighted; ``q``: all coefficients packed, ``u``: those squashed.

    A bit of level l counts for ``rate_weights[l]``, or for the last of them. Where a context is not ``active``
    (:func:`active_contexts`) it is taken for zeros, and so are its gradients: most contexts are, and then cost next to
    nothing.
    """
    if active is None:
        active = torch.ones_like(q, dtype=torch.bool)
    if backend.compiled(q):
        net = (tensor for kind in KINDS for tensor in nets[kind])
        return _FieldBits.apply(pyramid, tuple(rate_weights), active, q, u, *net)  # type: ignore[no-untyped-call,no-any-return]
    total = q.new_zeros(())
    grids, squashed, where = pyramid.split(q), pyramid.split(u), pyramid.split(active)
    for grid in pyramid.grids:
        a, bias, b, b0, c, c0 = nets[KINDS[grid.component > 0]]
        bias = bias[max(grid.component - 1, 0), grid.level][:, None]
        read = _context_features(grid, squashed)
        read = read - read.detach() * ~where[grid.key].view(-1)
        h = torch.relu(a @ read + bias)
        h = h + torch.relu(b @ h + b0[:, None])
        mean, scale = c @ h + c0[:, None]
        log = _LogProbability.apply(grids[grid.key].reshape(-1), mean, scale)  # type: ignore[no-untyped-call]
        total = total + log * _weight_per_nat(grid, rate_weights)
    return total


def active_contexts(pyramid: Pyramid, q: Tensor) -> Tensor:
    """Where the context of coefficients q, packed, holds anything but zeros once they are rounded: packed, bool."""
    q = q.detach().round()
    grids, found = pyramid.split(q), torch.empty_like(q, dtype=torch.bool)
    where, arrays = pyramid.split(found), pyramid.split(q.numpy()) if backend.compiled(q) else {}
    for grid in pyramid.grids:
        if arrays:
            planes = kernels.context_planes(
                arrays[grid.key], *_neighbour_arrays(grid, arrays), len(_OFFSETS[grid.component > 0])
            )
            where[grid.key][:] = torch.from_numpy(kernels.active_positions(planes, _taps(grid)))
        else:
            where[grid.key][:] = _context_features(grid, grids).ne(0).any(0).view(grid.height, grid.width)
    return found


def _weight_per_nat(grid: Grid, rate_weights: Sequence[float]) -> float:
    """What turns ln P of a grid's coefficients into its share of the bits."""
    return -rate_weights[min(grid.level, len(rate_weights) - 1)] / _LN2


def _neighbours(grid: Grid) -> tuple[tuple[int, int], ...]:
    """Keys of the grids beside itself that a grid's context is read from: its parent, luma, the first chroma."""
    nothing = -1, -1
    luma = (0, grid.level) if grid.component else nothing
    return (grid.component, grid.level + 1), luma, (1, grid.level) if grid.component == 2 else nothing


def _context_features(grid: Grid, u: Mapping[tuple[int, int], Tensor]) -> Tensor:
    """What the context network reads at every position of a grid: (inputs, h * w)."""
    own = u[grid.key]
    parent, luma, first = (u.get(key) for key in _neighbours(grid))

    def shifted(x: Tensor | None, offsets: Sequence[tuple[int, int]], mode: str = "replicate") -> list[Tensor]:
        x = torch.zeros_like(own) if x is None else x
        wide = pad(x[None, None], (2, 2, 2, 2), mode=mode)[0, 0]
        return [wide[2 + y : 2 + y + grid.height, 2 + x : 2 + x + grid.width] for y, x in offsets]

    def upsampled(taps: Sequence[float]) -> Tensor | None:
        return None if parent is None else upsample(parent[None], own.new_tensor(taps), grid.height, grid.width)[0]

    rows = (
        shifted(own, CAUSAL, "constant") + shifted(upsampled(_NEAREST), _CENTRE) + shifted(upsampled(_BILINEAR), PARENT)
    )
    rows += shifted(luma, LUMA) + shifted(first, _CENTRE) if grid.component else []
    return torch.stack(rows).view(len(rows), -1)


def _neighbour_arrays(
    grid: Grid, u: Mapping[tuple[int, int], np.ndarray]
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """What a context is read from beside its grid: the parent, luma and the first chroma; empty where there is none."""
    parent, luma, first = (u.get(key, np.empty((0, 0), np.float32)) for key in _neighbours(grid))
    return parent, (luma, first)


def _taps(grid: Grid) -> np.ndarray:
    """Plane, row and column of every feature, as :func:`prancimg.fit.kernels.rate.grid_log_probability` reads them."""
    planes = enumerate(_OFFSETS[grid.component > 0])
    return np.array([(plane, 2 + dy, 2 + dx) for plane, offsets in planes for dy, dx in offsets])


def laplace(q: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """ln P of q ± 1/2 under Laplace distributions of deviation 2**scale; its derivatives by q and by scale.

    The scale is held between those of the first and the last table; at a bound only gradients that lead back pass.
    """
    inverse = torch.exp2(-scale.clamp(_LOW, _HIGH))
    d = q - mean
    size = d.abs()
    t = size - 0.5
    far = t > 0
    e0, e1, e = torch.exp(-t.abs() * inverse), torch.exp(-(size + 0.5) * inverse), torch.exp(-inverse)
    outer = (1 - e).clamp_min_(1e-12)
    inner = (1 - 0.5 * (e0 + e1)).clamp_min_(1e-12)
    log = torch.where(far, torch.log(0.5 * outer).sub_(t * inverse), torch.log(inner))
    by_q = torch.where(far, -inverse, (-0.5 * inverse) * (e0 - e1) / inner).mul_(torch.sign(d))
    by_scale = torch.where(far, e / outer - t, 0.5 * ((size + 0.5) * e1 - t * e0) / inner).mul_(inverse).mul_(-_LN2)
    blocked = ((scale < _LOW) & (by_scale < 0)) | ((scale > _HIGH) & (by_scale > 0))
    return log, by_q, by_scale.masked_fill_(blocked, 0.0)


class _LogProbability(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        log, by_q, by_scale = laplace(q, mean, scale)
        ctx.gradients = by_q, -by_q, by_scale
        return log.sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(g * gradients[0] for g in ctx.gradients)


class _FieldBits(torch.autograd.Function):
    """:func:`field_bits`, compiled."""

    @staticmethod
    def forward(
        ctx: Any, pyramid: Pyramid, rate_weights: tuple[float, ...], active: Tensor, q: Tensor, u: Tensor, *net: Tensor
    ) -> Tensor:
        back, free, arrays = any(ctx.needs_input_grad[4:]), ctx.needs_input_grad[4], as_arrays(q, u, *net)
        gradients = [np.zeros_like(array) for array in arrays[:2]]
        grids, squashed, where = (pyramid.split(array) for array in (*arrays[:2], active.numpy()))
        g_grids, g_squashed = (pyramid.split(array) for array in gradients)
        half = 2 + len(net) // 2
        nets = [_padded_network(arrays[2:half]), _padded_network(arrays[half:])]
        g_nets = [[np.zeros_like(array) for array in some] for some in nets]
        bounds, total = np.array([_LOW, _HIGH], np.float32), 0.0
        for grid in pyramid.grids:
            chroma, unit, taps = int(grid.component > 0), _weight_per_nat(grid, rate_weights), _taps(grid)
            planes = kernels.context_planes(
                squashed[grid.key], *_neighbour_arrays(grid, squashed), len(_OFFSETS[chroma])
            )
            g_planes = np.zeros_like(planes) if free else planes
            at = max(grid.component - 1, 0), grid.level
            net_here, g_here = ((a, bias[at], *rest) for a, bias, *rest in (nets[chroma], g_nets[chroma]))
            places = where[grid.key], grids[grid.key], planes, net_here, g_grids[grid.key], g_planes, g_here
            total += unit * kernels.grid_log_probability(back, free, unit, bounds, taps, *places)
            if free:
                kernels.context_planes_back(g_planes, g_squashed[grid.key], *_neighbour_arrays(grid, g_squashed))
        by_net = [array for some in g_nets for array in some]
        ctx.gradients = [torch.from_numpy(g) for g in gradients]
        ctx.gradients += [torch.from_numpy(g)[tuple(map(slice, t.shape))] for g, t in zip(by_net, net, strict=True)]
        return q.new_tensor(total)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, None, *(g * gradients[0] for g in ctx.gradients))


def _padded_network(net: Sequence[np.ndarray]) -> list[np.ndarray]:
    """A context network whose first matrix has columns of zeros up to a multiple of 4."""
    a, *rest = net
    return [np.concatenate([a, np.zeros((len(a), -a.shape[1] % 4), a.dtype)], 1), *rest]
