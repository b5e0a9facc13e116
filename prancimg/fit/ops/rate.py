"""The rate of all grids by the context model.

A rate term that kept every activation would move gigabytes a step; compiled, a block of rows goes forward, through its
cost and backward while it is in cache, and nothing of size (hidden, pixels) is stored.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prancimg.fit.kernels import rate as kernels
from prancimg.fit.ops import backend
from prancimg.fit.ops.backend import as_arrays
from prancimg.fit.ops.contexts import CompiledContexts, context_features, taps
from prancimg.format.layout import KINDS, Grid, Pyramid, features_of
from prancimg.format.range_coder import TABLES

_LOW, _HIGH = -16 / 4, (TABLES - 1 - 16) / 4
_BOUNDS = np.array([_LOW, _HIGH], np.float32)
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
    sampling: tuple[int, int] = (1, 0),
) -> tuple[Tensor, Tensor]:
    """Bits of all grids by the context model, weighted; ``q``: all coefficients packed, ``u``: those squashed.

    And the means and scales that they come of, which have no gradient: see :func:`held_bits`.

    A bit of level l counts for ``rate_weights[l]``, or for the last of them. Where a context is not ``active``
    (:func:`prancimg.fit.ops.contexts.active_contexts`) it is taken for zeros, and so are its gradients: most contexts
    are, and then cost next to nothing. ``sampling`` (n, i): where it saves time, the gradient by the large matrices is
    that of every n-th block of rows, from the i-th on, times n.
    """
    if active is None:
        active = torch.ones_like(q, dtype=torch.bool)
    if backend.compiled(q):
        net = (tensor for kind in KINDS for tensor in nets[kind])
        return _FieldBits.apply(pyramid, tuple(rate_weights), active, sampling, q, u, *net)  # type: ignore[no-untyped-call,no-any-return]
    total, outputs = q.new_zeros(()), []
    grids, squashed, where = pyramid.split(q), pyramid.split(u), pyramid.split(active)
    for grid in pyramid.grids:
        a, bias, b, b0, c, c0 = nets[KINDS[grid.component > 0]]
        bias = bias[max(grid.component - 1, 0), grid.level][:, None]
        features = features_of(KINDS[grid.component > 0], a.shape[1])
        read = context_features(grid, features, pyramid, grids, squashed)
        read = read - read.detach() * ~where[grid.key].view(-1)
        h = torch.relu(a @ read + bias)
        h = h + torch.relu(b @ h + b0[:, None])
        mean, scale = output = c @ h + c0[:, None]
        outputs.append(output.detach().flatten())
        log = _LogProbability.apply(grids[grid.key].reshape(-1), mean, scale)  # type: ignore[no-untyped-call]
        total = total + log * _weight_per_nat(grid, rate_weights)
    return total, torch.cat(outputs)


def held_bits(
    pyramid: Pyramid, q: Tensor, outputs: Tensor, rate_weights: Sequence[float] = (1.0,)
) -> tuple[float, Tensor]:
    """Bits of all grids under distributions that are there already, and their gradient by q.

    ``outputs``: grid by grid the means of all its coefficients, then the scales.
    """
    total, gradient = 0.0, torch.empty_like(q)
    grids, by_q = pyramid.split(q.detach()), pyramid.split(gradient)
    for grid, output in zip(pyramid.grids, _by_grid(pyramid, outputs), strict=True):
        unit, own = _weight_per_nat(grid, rate_weights), grids[grid.key].view(-1)
        if backend.compiled(q):
            total += unit * kernels.held_log_probability(
                unit, _BOUNDS, *as_arrays(own, output, by_q[grid.key].view(-1))
            )
        else:
            log, slope, _ = laplace(own, *output)
            total += unit * log.sum().item()
            by_q[grid.key].view(-1).copy_(unit * slope)
    return total, gradient


def _by_grid(pyramid: Pyramid, outputs: Tensor) -> list[Tensor]:
    """Means and scales of every grid, (2, h * w), which share the memory of all."""
    ends = 2 * np.cumsum([0] + [grid.count for grid in pyramid.grids])
    return [outputs[first:last].view(2, -1) for first, last in itertools.pairwise(ends)]


def _weight_per_nat(grid: Grid, rate_weights: Sequence[float]) -> float:
    """What turns ln P of a grid's coefficients into its share of the bits."""
    return -rate_weights[min(grid.level, len(rate_weights) - 1)] / _LN2


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
        ctx: Any,
        pyramid: Pyramid,
        rate_weights: tuple[float, ...],
        active: Tensor,
        sampling: tuple[int, int],
        q: Tensor,
        u: Tensor,
        *net: Tensor,
    ) -> tuple[Tensor, Tensor]:
        back, free, arrays = any(ctx.needs_input_grad[5:]), ctx.needs_input_grad[5], as_arrays(q, u, *net)
        every, turn = sampling if any(ctx.needs_input_grad[6:]) else (0, 0)
        gradients = [np.zeros_like(array) for array in arrays[:2]]
        grids, squashed, where = (pyramid.split(array) for array in (*arrays[:2], active.numpy()))
        g_grids, g_squashed = (pyramid.split(array) for array in gradients)
        half = 2 + len(net) // 2
        networks = arrays[2:half], arrays[half:]
        read = [features_of(kind, net[0].shape[1]) for kind, net in zip(KINDS, networks, strict=True)]
        nets = [_padded_network(net) for net in networks]
        g_nets = [[np.zeros_like(array) for array in some] for some in nets]
        outputs, total = q.new_empty(2 * len(q)), 0.0
        contexts = CompiledContexts(pyramid, grids, squashed)
        for grid, output in zip(pyramid.grids, _by_grid(pyramid, outputs), strict=True):
            chroma, unit = int(grid.component > 0), _weight_per_nat(grid, rate_weights)
            planes = contexts.planes(grid, read[chroma])
            g_planes = np.zeros_like(planes) if free else planes
            at = max(grid.component - 1, 0), grid.level
            net_here, g_here = ((a, bias[at], *rest) for a, bias, *rest in (nets[chroma], g_nets[chroma]))
            places = where[grid.key], grids[grid.key], planes, net_here
            out = g_grids[grid.key], g_planes, g_here, output.numpy()
            how = back, free, every, turn, unit, _BOUNDS, taps(read[chroma])
            total += unit * kernels.grid_log_probability(*how, *places, *out)
            if free:
                contexts.back(grid, read[chroma], g_planes, g_squashed)
        contexts.finish(g_squashed)
        by_net = [array for some in g_nets for array in some]
        ctx.gradients = [torch.from_numpy(g) for g in gradients]
        ctx.gradients += [torch.from_numpy(g)[tuple(map(slice, t.shape))] for g, t in zip(by_net, net, strict=True)]
        ctx.mark_non_differentiable(outputs)
        return q.new_tensor(total), outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, None, None, *(g * gradients[0] for g in ctx.gradients))


def _padded_network(net: Sequence[np.ndarray]) -> list[np.ndarray]:
    """A context network whose layers and features are filled up with zeros to multiples of 8."""
    a, bias, b, b0, c, c0 = net
    more, units = (-side % 8 for side in reversed(a.shape))
    rows, columns = (0, units), ((0, 0), (0, units))
    return [
        np.pad(a, (rows, (0, more))),
        np.pad(bias, ((0, 0), *columns)),
        np.pad(b, (rows, rows)),
        np.pad(b0, (rows,)),
        np.pad(c, columns),
        c0.copy(),
    ]


def laplace_bits(q: Tensor, spread: Tensor) -> Tensor:
    """Bits of (noisy) values under Laplace distributions of mean absolute deviation ``spread``, over q ± 1/2.

    For the coefficients of networks; those of the field go through :func:`field_bits`.
    """
    size = q.abs()
    outside = torch.exp(-(size - 0.5).clamp(min=0) / spread) * (1 - torch.exp(-1 / spread)) * 0.5
    inside = 1 - 0.5 * (torch.exp(-(0.5 - size).clamp(min=0) / spread) + torch.exp(-(0.5 + size) / spread))
    return -torch.log2(torch.where(size < 0.5, inside, outside) + 1e-9)
