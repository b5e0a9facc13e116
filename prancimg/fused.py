"""The heavy parts of a fit of the field, forward and backward in one cache-sized pass each. Needs torch.

A rate term that kept every activation would move gigabytes a step; here a stripe of rows goes forward, through its cost
and backward while it is in cache, and nothing of size (hidden, pixels) is stored. The first derivatives only.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from prancimg import kernel
from prancimg.coder import TABLES
from prancimg.context import CAUSAL

STRIPE = 12288
"""Positions that go through a network at a time."""
SMALL = 8192
"""Grids of at most so many positions share a pass."""
NEAREST, BILINEAR = (0.0, 0.0, 1.0, 0.0), (0.0, 0.25, 0.75, 0.0)
"""Taps of :func:`upsample` that repeat samples, or lay straight lines through them."""
_LOW, _HIGH = -16 / 4, (TABLES - 1 - 16) / 4
_LN2 = math.log(2)

Tap = tuple[int, int, int]
"""Index of a plane (-1: zeros) and the offset (dy, dx) at which it is read."""


def keep_memory() -> None:
    """Make glibc keep freed memory: it maps and clears every large tensor anew otherwise, half the time of a step."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD


def compiled(x: Tensor) -> bool:
    """Whether what is computed of x is compiled by :mod:`prancimg.kernel`; plain torch takes everything."""
    return x.device.type == "cpu" and x.dtype == torch.float32


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [t.detach().contiguous().numpy() for t in tensors]


def _filled(*tensors: Tensor) -> list[np.ndarray]:
    """All sides filled up with zeros to multiples of 4."""
    return [np.pad(array, [(0, -side % 4) for side in array.shape]) for array in _arrays(*tensors)]


def _summed(g: np.ndarray, like: Tensor) -> Tensor:
    """The sum of gradients by block, cut to a tensor's shape."""
    total = torch.from_numpy(g.sum(0))
    return total[tuple(slice(side) for side in like.shape)]


class _Upsample(torch.autograd.Function):
    """One axis of :func:`upsample`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, axis: int, size: int) -> Tensor:
        n, taps = x.shape[axis], weights.tolist()
        wide = torch.cat([x.narrow(axis, 0, 1)] * 2 + [x] + [x.narrow(axis, n - 1, 1)] * 2, axis)
        even, odd = wide.narrow(axis, 0, n) * taps[0], wide.narrow(axis, 4, n) * taps[0]
        for k in range(1, 4):
            even.add_(wide.narrow(axis, k, n), alpha=taps[k])
            odd.add_(wide.narrow(axis, 4 - k, n), alpha=taps[k])
        ctx.axis, ctx.n, ctx.taps = axis, n, taps
        ctx.save_for_backward(wide if ctx.needs_input_grad[1] else wide[:0])
        shape = list(x.shape)
        shape[axis] = 2 * n
        return torch.stack([even, odd], axis + 1).reshape(shape).narrow(axis, 0, size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        axis, n, (g,) = ctx.axis, ctx.n, gradients
        shape = list(g.shape)
        if shape[axis] < 2 * n:
            missing = list(shape)
            missing[axis] = 2 * n - shape[axis]
            g = torch.cat([g, g.new_zeros(missing)], axis)
        shape[axis : axis + 1] = [n, 2]
        even, odd = (g.reshape(shape).select(axis + 1, i).contiguous() for i in range(2))
        shape = list(even.shape)
        shape[axis] = n + 4
        g_taps = None
        if ctx.needs_input_grad[1]:
            (read,) = ctx.saved_tensors
            parts = [read.narrow(axis, k, n) for k in range(5)]
            g_taps = torch.stack([(parts[k] * even).sum() + (parts[4 - k] * odd).sum() for k in range(4)])
        wide = g.new_zeros(shape)
        for k, tap in enumerate(ctx.taps):
            wide.narrow(axis, k, n).add_(even, alpha=tap)
            wide.narrow(axis, 4 - k, n).add_(odd, alpha=tap)
        out = wide.narrow(axis, 2, n)
        out.narrow(axis, 0, 1).add_(wide.narrow(axis, 0, 1)).add_(wide.narrow(axis, 1, 1))
        out.narrow(axis, n - 1, 1).add_(wide.narrow(axis, n + 2, 1)).add_(wide.narrow(axis, n + 3, 1))
        return out, g_taps, None, None


class _Lift(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        return torch.from_numpy(kernel.lift(*_arrays(*tensors)))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        _, taps, _, gain = ctx.saved_tensors
        g_field, g_taps, g_q, g_gain = kernel.lift_back(*_arrays(*ctx.saved_tensors, *gradients))
        return torch.from_numpy(g_field), _summed(g_taps, taps), torch.from_numpy(g_q), _summed(g_gain, gain)


def upsample(x: Tensor, taps: Tensor, height: int, width: int) -> Tensor:
    """:func:`prancimg.field.upsample`."""
    if compiled(x):
        return lift(x, taps, (), x.new_zeros(0, len(x)), height, width)
    wide: Tensor = _Upsample.apply(x, taps, 2, width)  # type: ignore[no-untyped-call]
    return _Upsample.apply(wide, taps, 1, height)  # type: ignore[no-untyped-call,no-any-return]


def lift(field: Tensor, taps: Tensor, q: Sequence[Tensor], gain: Tensor, height: int, width: int) -> Tensor:
    """:func:`prancimg.field.lift`."""
    if compiled(field):
        stacked = torch.stack(list(q)) if q else field.new_zeros(0, height, width)
        return _Lift.apply(field, taps, stacked, gain)  # type: ignore[no-untyped-call,no-any-return]
    field = upsample(field, taps, height, width)
    for grid, direction in zip(q, gain, strict=True):
        field = field + direction[:, None, None] * grid
    return field


class _SoftRound(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, noise: Tensor, temperature: float) -> Tensor:
        if compiled(y) and y.dim() == 1:
            out, ctx.slope = map(torch.from_numpy, kernel.soft_round(temperature, *_arrays(y, noise)))
            return out
        scale = 1 / (2 * math.tanh(0.5 / temperature))
        middle = torch.floor(y).add_(0.5)
        bent = torch.tanh_((y - middle).mul_(1 / temperature))
        noisy = middle.add_(bent, alpha=scale).add_(noise)
        slope = bent.square_().neg_().add_(1)
        middle = torch.floor(noisy).add_(0.5)
        bent = torch.tanh_(noisy.sub_(middle).mul_(1 / temperature))
        out = middle.add_(bent, alpha=scale)
        ctx.slope = slope.mul_(bent.square_().neg_().add_(1)).mul_((scale / temperature) ** 2)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0] * ctx.slope, None, None


def soft_round(y: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """r(r(y) + noise), where r is a staircase of hyperbolic tangents: the identity for a high temperature."""
    return _SoftRound.apply(y, noise, temperature)  # type: ignore[no-untyped-call,no-any-return]


class _Squash(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor) -> Tensor:
        if compiled(q) and q.dim() == 1:
            out, ctx.slope = map(torch.from_numpy, kernel.squash(*_arrays(q)))
            return out
        root = (q * q).add_(1).sqrt_()
        ctx.slope = root.reciprocal()
        return torch.copysign(q.abs().add_(root).log_(), q)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        out: Tensor = gradients[0] * ctx.slope
        return out


def squash(q: Tensor) -> Tensor:
    """asinh, the smooth form of :func:`prancimg.context.squash` over 64."""
    return _Squash.apply(q)  # type: ignore[no-untyped-call,no-any-return]


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


class _Cost:
    """The context network on features (inputs, n): ln P summed, and the gradients of that sum by everything."""

    def __init__(self, a: Tensor, b: Tensor, b0: Tensor, c: Tensor, c0: Tensor) -> None:
        self.a, self.b, self.b0, self.c, self.c0 = a, b, b0[:, None], c, c0[:, None]
        self.g_a, self.g_b, self.g_b0, self.g_c, self.g_c0 = (torch.zeros_like(x) for x in (a, b, self.b0, c, self.c0))

    def __call__(self, x: Tensor, q: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ln P of q (n,), and its gradients by q and by the first layer's sums (hidden, n).

        The bias is (hidden, 1) or (hidden, n).
        """
        h1 = torch.addmm(bias, self.a, x).clamp_min_(0)
        r = torch.addmm(self.b0, self.b, h1).clamp_min_(0)
        h2 = h1 + r
        out = torch.addmm(self.c0, self.c, h2)
        log, by_q, by_scale = laplace(q, out[0], out[1])
        g_out = torch.stack([-by_q, by_scale])
        self.g_c.addmm_(g_out, h2.t())
        self.g_c0 += g_out.sum(1, keepdim=True)
        g_h = self.c.t() @ g_out
        g_r = torch.ops.aten.threshold_backward(g_h, r, 0)
        self.g_b.addmm_(g_r, h1.t())
        self.g_b0 += g_r.sum(1, keepdim=True)
        g_h = torch.ops.aten.threshold_backward(g_h.addmm_(self.b.t(), g_r), h1, 0)
        self.g_a.addmm_(g_h, x.t())
        return log.sum(), by_q, g_h

    def gradients(self) -> tuple[Tensor, ...]:
        """Of the weights after the first layer's bias, in order."""
        return self.g_b, self.g_b0[:, 0], self.g_c, self.g_c0[:, 0]


_Pass = tuple[Tensor, Tensor, Tensor, Sequence[Tensor]]


def _plain_pass(
    q: Tensor, wide: Tensor, reads: Sequence[Tap], free: bool, a: Tensor, bias: Tensor, *rest: Tensor
) -> _Pass:
    """Σ ln P of a grid, and its gradients by q, by the padded planes (if ``free``) and by the network's tensors."""
    height, width = q.shape
    g_wide, g_q, g_bias, cost = torch.zeros_like(wide), torch.zeros_like(q), torch.zeros_like(bias), _Cost(a, *rest)
    total = q.new_zeros(())
    rows = max(1, STRIPE // width)
    for top in range(0, height, rows):
        here = min(rows, height - top)
        x = q.new_zeros(len(reads), here, width)
        for row, (i, dy, dx) in enumerate(reads):
            if i >= 0:
                x[row] = wide[i, top + 2 + dy : top + 2 + dy + here, 2 + dx : 2 + dx + width]
        log, by_q, g_h = cost(x.view(len(reads), -1), q[top : top + here].reshape(-1), bias[:, None])
        total += log
        g_q[top : top + here] = by_q.view(here, width)
        g_bias += g_h.sum(1)
        if not free:
            continue
        g_x = (a.t() @ g_h).view(-1, here, width)
        for row, (i, dy, dx) in enumerate(reads):
            if i >= 0:
                g_wide[i, top + 2 + dy : top + 2 + dy + here, 2 + dx : 2 + dx + width] += g_x[row]
    return total, g_q, g_wide, (cost.g_a, g_bias, *cost.gradients())


def _compiled_pass(
    q: Tensor, wide: Tensor, reads: Sequence[Tap], free: bool, a: Tensor, bias: Tensor, *rest: Tensor
) -> _Pass:
    """:func:`_plain_pass`, compiled."""
    taps = np.array([(i, dy + 2, dx + 2) for i, dy, dx in reads])
    bounds = np.array([_LOW, _HIGH], np.float32)
    net = a, bias, *rest
    sums, g_q, g_wide, *g_net = kernel.grid_cost(free, bounds, taps, *_arrays(q, wide), *_filled(*net))
    by_net = [_summed(g, t) for g, t in zip(g_net, net, strict=True)]
    return q.new_tensor(sums.sum()), torch.from_numpy(g_q), torch.from_numpy(g_wide), by_net


class _GridBits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        taps: tuple[Tap, ...],
        q: Tensor,
        u: Tensor,
        a: Tensor,
        bias: Tensor,
        b: Tensor,
        b0: Tensor,
        c: Tensor,
        c0: Tensor,
        *planes: Tensor,
    ) -> Tensor:
        height, width = q.shape
        wide = torch.stack(
            [pad(u, (2, 2, 2, 2)), *(pad(p[None, None], (2, 2, 2, 2), mode="replicate")[0, 0] for p in planes)]
        )
        reads = [(0, dy, dx) for dy, dx in CAUSAL] + [(i + 1 if i >= 0 else -1, dy, dx) for i, dy, dx in taps]
        run = _compiled_pass if compiled(q) else _plain_pass
        free = any(ctx.needs_input_grad[i] for i in (2, *range(9, 9 + len(planes))))
        total, g_q, g_wide, g_net = run(q, wide, reads, free, a, bias, b, b0, c, c0)
        for g in g_wide[1:]:  # what was read beyond the edge belongs to the edge
            g[2] += g[0] + g[1]
            g[height + 1] += g[height + 2] + g[height + 3]
            g[:, 2] += g[:, 0] + g[:, 1]
            g[:, width + 1] += g[:, width + 2] + g[:, width + 3]
        g_u, *g_planes = (g[2 : 2 + height, 2 : 2 + width] for g in g_wide)
        ctx.gradients = (g_q, g_u, *g_net, *g_planes)
        return total / -_LN2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scale = gradients[0] / -_LN2
        return (None, *(g * scale for g in ctx.gradients))


def grid_bits(
    taps: tuple[Tap, ...],
    q: Tensor,
    u: Tensor,
    a: Tensor,
    bias: Tensor,
    b: Tensor,
    b0: Tensor,
    c: Tensor,
    c0: Tensor,
    *planes: Tensor,
) -> Tensor:
    """Bits of a grid q (h, w) by the context model; ``u`` is the squashed grid, ``planes`` (h, w) what ``taps`` read.

    The features are the causal neighbours in ``u``, zero outside, then one for each tap, the edge repeated outside.
    """
    return _GridBits.apply(taps, q, u, a, bias, b, b0, c, c0, *planes)  # type: ignore[no-untyped-call,no-any-return]


@lru_cache(maxsize=256)
def _places(taps: tuple[Tap, ...], height: int, width: int) -> Tensor:
    """Where every feature of every position lies in [0, the grid, the planes], (features, h * w)."""
    y, x = (t.reshape(1, -1) for t in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    rows = []
    for dy, dx in CAUSAL:
        inside = (y + dy >= 0) & (x + dx >= 0) & (x + dx < width)
        rows.append(torch.where(inside, 1 + (y + dy) * width + x + dx, 0))
    for i, dy, dx in taps:
        place = 1 + (i + 1) * height * width + (y + dy).clamp(0, height - 1) * width + (x + dx).clamp(0, width - 1)
        rows.append(place if i >= 0 else torch.zeros_like(place))
    return torch.cat(rows)


class _SmallBits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, places: Tensor, groups: Tensor, flat: Tensor, q: Tensor, a: Tensor, bias: Tensor, *rest: Tensor
    ) -> Tensor:
        cost = _Cost(a, *rest)
        total, g_q, g_h = cost(flat[places], q, bias[:, groups])
        g_flat = torch.zeros_like(flat).index_add_(0, places.view(-1), (a.t() @ g_h).view(-1))
        ctx.gradients = (g_flat, g_q, cost.g_a, torch.zeros_like(bias).index_add_(1, groups, g_h), *cost.gradients())
        return total / -_LN2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scale = gradients[0] / -_LN2
        return (None, None, *(g * scale for g in ctx.gradients))


Small = tuple[tuple[Tap, ...], Tensor, Tensor, Tensor, Sequence[Tensor]]
"""Taps, q, u, bias and planes of a grid."""


def small_bits(grids: Sequence[Small], *net: Tensor) -> Tensor:
    """Bits of many small grids of one network (a, b, b0, c, c0) at once.

    A pass over a grid costs a few hundred calls whatever its size, so small ones share theirs.
    """
    a, *rest = net
    places, sources, start = [], [a.new_zeros(1)], 0
    for taps, q, u, _, planes in grids:
        place = _places(taps, *q.shape).to(q.device)
        places.append(torch.where(place > 0, place + start, 0))
        sources += [u.reshape(-1), *(p.reshape(-1) for p in planes)]
        start += (1 + len(planes)) * q.numel()
    groups = torch.repeat_interleave(torch.arange(len(grids)), torch.tensor([grid[1].numel() for grid in grids]))
    return _SmallBits.apply(  # type: ignore[no-untyped-call,no-any-return]
        torch.cat(places, 1),
        groups.to(a.device),
        torch.cat(sources),
        torch.cat([grid[1].reshape(-1) for grid in grids]),
        a,
        torch.stack([grid[3] for grid in grids], 1),
        *rest,
    )


class _Sines(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w0: Tensor, b0: Tensor, w1: Tensor, b1: Tensor) -> Tensor:
        ctx.save_for_backward(x, w0, b0, w1)
        out = x.new_empty(w1.shape[0], x.shape[1])
        for start in range(0, x.shape[1], STRIPE):
            h = torch.addmm(b0[:, None], w0, x[:, start : start + STRIPE])
            out[:, start : start + STRIPE] = torch.addmm(b1[:, None], w1, h.sin_())
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        (x, w0, b0, w1), (g,) = ctx.saved_tensors, gradients
        g_x, g_w0, g_b0, g_w1 = torch.empty_like(x), torch.zeros_like(w0), torch.zeros_like(b0), torch.zeros_like(w1)
        for start in range(0, x.shape[1], STRIPE):
            some, g_some = x[:, start : start + STRIPE], g[:, start : start + STRIPE]
            h = torch.addmm(b0[:, None], w0, some)
            g_w1.addmm_(g_some, h.sin().t())
            g_h = (w1.t() @ g_some).mul_(h.cos_())
            g_w0.addmm_(g_h, some.t())
            g_b0 += g_h.sum(1)
            g_x[:, start : start + STRIPE] = w0.t() @ g_h
        return g_x, g_w0, g_b0, g_w1, g.sum(1)


def sines(x: Tensor, w0: Tensor, b0: Tensor, w1: Tensor, b1: Tensor) -> Tensor:
    """w1 sin(w0 x + b0) + b1: a :class:`prancimg.siren.Siren` of one layer, (channels, N) to (3, N)."""
    return _Sines.apply(x, w0, b0, w1, b1)  # type: ignore[no-untyped-call,no-any-return]


class _Sharpen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rgb: Tensor, kernel: Tensor) -> Tensor:
        wide = pad(rgb[None], (1, 1, 1, 1), mode="replicate")[0]
        ctx.save_for_backward(wide, kernel)
        return rgb + conv2d(wide[None], kernel.view(3, 3, 3, 3))[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (wide, kernel), (g,) = ctx.saved_tensors, gradients
        _, height, width = g.shape
        g_wide, g_kernel = torch.zeros_like(wide), torch.zeros_like(kernel)
        rows = max(1, STRIPE // width)
        for top in range(0, height, rows):
            here = min(rows, height - top)
            some = g[:, top : top + here].reshape(3, -1)
            shifts = [wide[:, top + y : top + y + here, x : x + width] for y in range(3) for x in range(3)]
            g_kernel.addmm_(some, torch.stack(shifts, 1).view(27, -1).t())
            spread = (kernel.t() @ some).view(3, 3, 3, here, width)
            for y in range(3):
                for x in range(3):
                    g_wide[:, top + y : top + y + here, x : x + width] += spread[:, y, x]
        g_wide[:, 1] += g_wide[:, 0]
        g_wide[:, height] += g_wide[:, height + 1]
        g_wide[:, :, 1] += g_wide[:, :, 0]
        g_wide[:, :, width] += g_wide[:, :, width + 1]
        return g_wide[:, 1 : height + 1, 1 : width + 1] + g, g_kernel


def sharpen(rgb: Tensor, kernel: Tensor) -> Tensor:
    """:func:`prancimg.field.sharpen`."""
    return _Sharpen.apply(rgb, kernel)  # type: ignore[no-untyped-call,no-any-return]


class _PictureError(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pixels: Tensor, field: Tensor, *net: Tensor) -> Tensor:
        sums, g_field, *g_net = kernel.picture_error(*_arrays(field, pixels), *_filled(*net))
        ctx.gradients = torch.from_numpy(g_field), *(_summed(g, t) for g, t in zip(g_net, net, strict=True))
        ctx.scale = 2 / pixels.numel()
        return field.new_tensor(sums.sum() * ctx.scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scale = gradients[0] * ctx.scale
        return (None, *(g * scale for g in ctx.gradients))


def picture_error(
    field: Tensor, pixels: Tensor, w0: Tensor, b0: Tensor, w1: Tensor, b1: Tensor, residual: Tensor
) -> Tensor:
    """Mean squared error of what a field (channels, h, w) shows, by :func:`sines` and :func:`sharpen`."""
    if compiled(field):
        return _PictureError.apply(pixels, field, w0, b0, w1, b1, residual)  # type: ignore[no-untyped-call,no-any-return]
    rgb = sines(field.reshape(len(field), -1), w0, b0, w1, b1)
    return (sharpen(rgb.view_as(pixels), residual) - pixels).square().mean()
