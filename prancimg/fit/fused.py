"""The heavy parts of a fit of the field, forward and backward in one cache-sized pass each. Needs torch.

A rate term that kept every activation would move gigabytes a step; here a stripe of rows goes forward, through its cost
and backward while it is in cache, and nothing of size (hidden, pixels) is stored. The first derivatives only.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from prancimg.fit import kernel
from prancimg.format.layout import CAUSAL, KINDS, LUMA, PARENT, Grid, Pyramid
from prancimg.format.range_coder import TABLES
from prancimg.network.field import lift as plain_lift

STRIPE = 12288
"""Positions that go through a network at a time."""
TRIED = 24
"""Steps after which it is tried again how many threads are faster."""
NEAREST, BILINEAR = (0.0, 0.0, 1.0, 0.0), (0.0, 0.25, 0.75, 0.0)
"""Taps of :func:`upsample` that repeat samples, or lay straight lines through them."""
MIDDLE = ((0, 0),)
_PLANES = (CAUSAL, MIDDLE, PARENT), (CAUSAL, MIDDLE, PARENT, LUMA, MIDDLE)
"""What contexts of luma and chroma read of the grid, its parent raised in two ways, luma and the first chroma."""
_LOW, _HIGH = -16 / 4, (TABLES - 1 - 16) / 4
_LN2 = math.log(2)


def keep_memory() -> None:
    """Make glibc keep freed memory: it maps and clears every large tensor anew otherwise, half the time of a step."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """One thread of torch's beside those of the compiled kernels.

    Two teams of threads would spin against each other, and torch's sums depend on their number, as bytes must not.
    """
    kernel.squash(np.zeros(1, np.float32))  # starts Numba's threads, whose number becomes torch's where both use OpenMP
    compiled = numba.get_num_threads()
    with _lock:  # threads that start later inherit the number given back: the first one's, not the 1 of a fit beside
        _before.append(_before[-1] if _before else torch.get_num_threads())
    torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            torch.set_num_threads(_before.pop())
        numba.set_num_threads(compiled)


_lock, _before = threading.Lock(), list[int]()
"""Torch's number of threads to give back, once for everyone in :func:`one_torch_thread`: all the same."""


class Team:
    """All threads for the compiled kernels, or one: what is faster at the moment.

    Where other programs want the cores, threads that wait for each other take several times as long as one.
    """

    def __init__(self) -> None:
        self._all = numba.get_num_threads()
        self._seconds: dict[int, float] = {}

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """A step of many alike; every now and then one with all threads and one with one are timed."""
        trial = {1: self._all, 2: 1}.get(number % TRIED)
        if trial is None or self._all == 1:
            yield
            return
        numba.set_num_threads(trial)
        began = time.perf_counter()
        yield
        self._seconds[trial] = time.perf_counter() - began
        numba.set_num_threads(min(self._seconds, key=self._seconds.__getitem__))


def compiled(x: Tensor) -> bool:
    """Whether what is computed of x is compiled by :mod:`prancimg.fit.kernel`; plain torch takes everything."""
    return x.device.type == "cpu" and x.dtype == torch.float32


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [t.detach().contiguous().numpy() for t in tensors]


def _filled(*tensors: Tensor) -> list[np.ndarray]:
    """All sides filled up with zeros to multiples of 4."""
    filled = []
    for array in _arrays(*tensors):
        filled.append(np.zeros([side + -side % 4 for side in array.shape], array.dtype))
        filled[-1][tuple(map(slice, array.shape))] = array
    return filled


def _summed(g: np.ndarray, like: Tensor) -> Tensor:
    """The sum of gradients by block, cut to a tensor's shape."""
    total = torch.from_numpy(g.sum(0))
    return total[tuple(slice(side) for side in like.shape)]


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
    """:func:`prancimg.network.field.upsample`."""
    return lift(x, taps, (), x.new_zeros(0, len(x)), height, width)


def lift(field: Tensor, taps: Tensor, q: Sequence[Tensor], gain: Tensor, height: int, width: int) -> Tensor:
    """:func:`prancimg.network.field.lift`."""
    if compiled(field):
        stacked = torch.stack(list(q)) if q else field.new_zeros(0, height, width)
        return _Lift.apply(field, taps, stacked, gain)  # type: ignore[no-untyped-call,no-any-return]
    plain: Tensor = plain_lift(field, taps, q, gain, height, width)
    return plain


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
    """asinh, the smooth form of :func:`prancimg.network.context.squash` over 64."""
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


class _LogProbability(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        log, by_q, by_scale = laplace(q, mean, scale)
        ctx.gradients = by_q, -by_q, by_scale
        return log.sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(g * gradients[0] for g in ctx.gradients)


Network = Sequence[Tensor]
"""a (hidden, inputs), bias (components, levels, hidden), b, b0, c, c0."""


def busy(pyramid: Pyramid, q: Tensor) -> Tensor:
    """Where the context of coefficients q, packed, holds anything but zeros once they are rounded: packed, bool."""
    q = q.detach().round()
    grids, found = pyramid.split(q), torch.empty_like(q, dtype=torch.bool)
    where, arrays = pyramid.split(found), pyramid.split(q.numpy()) if compiled(q) else {}
    for grid in pyramid.grids:
        if arrays:
            planes = kernel.gather(arrays[grid.key], *_beside(grid, arrays), len(_PLANES[grid.component > 0]))
            where[grid.key][:] = torch.from_numpy(kernel.any_near(planes, _taps(grid)))
        else:
            where[grid.key][:] = _features(grid, grids).ne(0).any(0).view(grid.height, grid.width)
    return found


def field_bits(
    pyramid: Pyramid,
    q: Tensor,
    u: Tensor,
    nets: Mapping[str, Network],
    dues: Sequence[float] = (1.0,),
    busy: Tensor | None = None,
) -> Tensor:
    """Bits of all grids by the context model; q and u hold the coefficients, and squashed, one after the other.

    A bit of level l counts for dues[l], or for the last of them. Where a context is not :func:`busy` it is taken for
    zeros, and so are its gradients: most contexts are, and then cost next to nothing.
    """
    if busy is None:
        busy = torch.ones_like(q, dtype=torch.bool)
    if compiled(q):
        net = (tensor for kind in KINDS for tensor in nets[kind])
        return _FieldBits.apply(pyramid, tuple(dues), busy, q, u, *net)  # type: ignore[no-untyped-call,no-any-return]
    total = q.new_zeros(())
    grids, squashed, where = pyramid.split(q), pyramid.split(u), pyramid.split(busy)
    for grid in pyramid.grids:
        a, bias, b, b0, c, c0 = nets[KINDS[grid.component > 0]]
        bias = bias[max(grid.component - 1, 0), grid.level][:, None]
        read = _features(grid, squashed)
        read = read - read.detach() * ~where[grid.key].view(-1)
        h = torch.relu(a @ read + bias)
        h = h + torch.relu(b @ h + b0[:, None])
        mean, scale = c @ h + c0[:, None]
        log = _LogProbability.apply(grids[grid.key].reshape(-1), mean, scale)  # type: ignore[no-untyped-call]
        total = total + log * _bit(grid, dues)
    return total


def _bit(grid: Grid, dues: Sequence[float]) -> float:
    """What turns ln P of a grid's coefficients into its share of the bits."""
    return -dues[min(grid.level, len(dues) - 1)] / _LN2


def _sources(grid: Grid) -> tuple[tuple[int, int], ...]:
    """Keys of the grids beside itself that a grid's context is read from: its parent, luma, the first chroma."""
    nothing = -1, -1
    luma = (0, grid.level) if grid.component else nothing
    return (grid.component, grid.level + 1), luma, (1, grid.level) if grid.component == 2 else nothing


def _features(grid: Grid, u: Mapping[tuple[int, int], Tensor]) -> Tensor:
    """What the context network reads at every position of a grid: (inputs, h * w)."""
    own = u[grid.key]
    parent, luma, first = (u.get(key) for key in _sources(grid))

    def shifted(x: Tensor | None, offsets: Sequence[tuple[int, int]], mode: str = "replicate") -> list[Tensor]:
        x = torch.zeros_like(own) if x is None else x
        wide = pad(x[None, None], (2, 2, 2, 2), mode=mode)[0, 0]
        return [wide[2 + y : 2 + y + grid.height, 2 + x : 2 + x + grid.width] for y, x in offsets]

    def raised(taps: Sequence[float]) -> Tensor | None:
        return None if parent is None else upsample(parent[None], own.new_tensor(taps), grid.height, grid.width)[0]

    rows = shifted(own, CAUSAL, "constant") + shifted(raised(NEAREST), MIDDLE) + shifted(raised(BILINEAR), PARENT)
    rows += shifted(luma, LUMA) + shifted(first, MIDDLE) if grid.component else []
    return torch.stack(rows).view(len(rows), -1)


def _beside(grid: Grid, u: Mapping[tuple[int, int], np.ndarray]) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """What a context is read from beside its grid: the parent, luma and the first chroma; empty where there is none."""
    parent, luma, first = (u.get(key, np.empty((0, 0), np.float32)) for key in _sources(grid))
    return parent, (luma, first)


def _taps(grid: Grid) -> np.ndarray:
    """Plane, row and column of every feature, as :func:`prancimg.fit.kernel.grid_cost` reads them."""
    planes = enumerate(_PLANES[grid.component > 0])
    return np.array([(plane, 2 + dy, 2 + dx) for plane, offsets in planes for dy, dx in offsets])


class _FieldBits(torch.autograd.Function):
    """:func:`field_bits`, compiled."""

    @staticmethod
    def forward(
        ctx: Any, pyramid: Pyramid, dues: tuple[float, ...], busy: Tensor, q: Tensor, u: Tensor, *net: Tensor
    ) -> Tensor:
        back, free, arrays = any(ctx.needs_input_grad[4:]), ctx.needs_input_grad[4], _arrays(q, u, *net)
        gradients = [np.zeros_like(array) for array in arrays[:2]]
        grids, squashed, where = (pyramid.split(array) for array in (*arrays[:2], busy.numpy()))
        g_grids, g_squashed = (pyramid.split(array) for array in gradients)
        half = 2 + len(net) // 2
        nets = [_even(arrays[2:half]), _even(arrays[half:])]
        g_nets = [[np.zeros_like(array) for array in some] for some in nets]
        bounds, total = np.array([_LOW, _HIGH], np.float32), 0.0
        for grid in pyramid.grids:
            chroma, unit, taps = int(grid.component > 0), _bit(grid, dues), _taps(grid)
            planes = kernel.gather(squashed[grid.key], *_beside(grid, squashed), len(_PLANES[chroma]))
            g_planes = np.zeros_like(planes) if free else planes
            at = max(grid.component - 1, 0), grid.level
            net_here, g_here = ((a, bias[at], *rest) for a, bias, *rest in (nets[chroma], g_nets[chroma]))
            places = where[grid.key], grids[grid.key], planes, net_here, g_grids[grid.key], g_planes, g_here
            total += unit * kernel.grid_cost(back, free, unit, bounds, taps, *places)
            if free:
                kernel.gather_back(g_planes, g_squashed[grid.key], *_beside(grid, g_squashed))
        by_net = [array for some in g_nets for array in some]
        ctx.gradients = [torch.from_numpy(g) for g in gradients]
        ctx.gradients += [torch.from_numpy(g)[tuple(map(slice, t.shape))] for g, t in zip(by_net, net, strict=True)]
        return q.new_tensor(total)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, None, *(g * gradients[0] for g in ctx.gradients))


def _even(net: Sequence[np.ndarray]) -> list[np.ndarray]:
    """A context network whose first matrix has columns of zeros up to a multiple of 4."""
    a, *rest = net
    return [np.concatenate([a, np.zeros((len(a), -a.shape[1] % 4), a.dtype)], 1), *rest]


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
    """w1 sin(w0 x + b0) + b1: a SIREN of one layer, (channels, N) to (3, N)."""
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
    """:func:`prancimg.network.field.sharpen`."""
    return _Sharpen.apply(rgb, kernel)  # type: ignore[no-untyped-call,no-any-return]


class _PictureError(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pixels: Tensor, dues: Tensor, field: Tensor, *net: Tensor) -> Tensor:
        sums, g_field, *g_net = kernel.picture_error(*_arrays(field, pixels, dues), *_filled(*net))
        ctx.gradients = torch.from_numpy(g_field), *(_summed(g, t) for g, t in zip(g_net, net, strict=True))
        ctx.scale = 2 / pixels.numel()
        return field.new_tensor(sums.sum() * ctx.scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scale = gradients[0] * ctx.scale
        return (None, None, *(g * scale for g in ctx.gradients))


def picture_error(
    field: Tensor, pixels: Tensor, dues: Tensor, w0: Tensor, b0: Tensor, w1: Tensor, b1: Tensor, residual: Tensor
) -> Tensor:
    """Mean squared error of what a field (channels, h, w) shows, by :func:`sines` and :func:`sharpen`.

    An error at a pixel counts for its ``dues`` (h, w).
    """
    if compiled(field):
        return _PictureError.apply(pixels, dues, field, w0, b0, w1, b1, residual)  # type: ignore[no-untyped-call,no-any-return]
    rgb = sines(field.reshape(len(field), -1), w0, b0, w1, b1)
    return ((sharpen(rgb.view_as(pixels), residual) - pixels).square() * dues).mean()
