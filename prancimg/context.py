"""The context model of the field: which distribution each coefficient has, given those already decoded.

Exact integer arithmetic, held in float64 where a BLAS product helps: every intermediate is an integer (or an integer
over a power of two) below 2**53 for any weights a file may hold, so no order of summation can matter.

A position's features are its causal neighbours, five taps of the next coarser grid raised to its size, and for chroma
five taps of the luma grid and the first chroma component, each passed through the compressive function
:func:`squash`. A small network for luma and one for chroma turns them into a mean and a scale:

    h = relu(A u + bias[component, level] + rate · slope[level]);    h += relu(B h + b);    mean, log2 scale = C h + c

which choose a table of :func:`prancimg.coder.frequencies`. Decoding runs along wavefronts t = x + 2y: the positions of
one t do not depend on each other. The encoder computes all positions at once with the same functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from prancimg.coder import MEANS, TABLES, Decoder, Encoder, near_cost
from prancimg.field import MAX_LEVELS, Coefficients, Grid, Pyramid

KINDS = ("luma", "chroma")
CAUSAL = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (-2, 0), (0, -2), (-2, -1), (-2, 1), (-1, -2), (-2, 2))
"""Offsets (dy, dx) of the causal neighbours; dx + 2 dy < 0 for all."""
PARENT = ((0, 0), (0, 2), (0, -2), (2, 0), (-2, 0))
LUMA = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
HIDDEN = 24
INPUTS = {"luma": len(CAUSAL) + 1 + len(PARENT), "chroma": len(CAUSAL) + 1 + len(PARENT) + len(LUMA) + 1}
NEUTRAL_RATE, MAX_RATE = 128, 255
SQUASH_LIMIT = 256

_CHUNK = 1 << 12
"""Positions that go through a network at a time, so that they stay in cache."""
_WEIGHT_BITS, _SQUASH_BITS, _HIDDEN_BITS = 12, 6, 8
_WEIGHT_MAX = _HIDDEN_MAX = (1 << 15) - 1
_MEAN_MAX = 1 << 13
_SCALE_ZERO = 16
# 64 asinh(v) at v = 0, 1, 2, 4, ..., 256, rounded; straight lines (rounded down) in between.
_KNOTS = ((0, 0), (1, 56), (2, 92), (4, 134), (8, 178), (16, 222), (32, 266), (64, 311), (128, 355), (256, 399))


def _squash_table() -> np.ndarray:
    xs, ys = np.array(_KNOTS).T
    v = np.arange(SQUASH_LIMIT + 1)
    i = np.minimum(np.searchsorted(xs, v, "right") - 1, len(xs) - 2)
    half = ys[i] + (ys[i + 1] - ys[i]) * (v - xs[i]) // (xs[i + 1] - xs[i])
    return np.concatenate([-half[:0:-1], half]).astype(np.float64)


SQUASH = _squash_table()
"""squash(-256) ... squash(256), in units of 2**-6."""


def squash(q: np.ndarray) -> np.ndarray:
    """Compress integers to features: odd, piecewise linear, like 64 asinh, flat beyond ±256. Integers as float64."""
    features: np.ndarray = SQUASH[np.minimum(np.maximum(q, -SQUASH_LIMIT) + SQUASH_LIMIT, 2 * SQUASH_LIMIT)]
    return features


def shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of both networks."""
    out: dict[str, tuple[int, ...]] = {}
    for kind, components in (("luma", 1), ("chroma", 2)):
        out |= {
            f"{kind}.a": (HIDDEN, INPUTS[kind]),
            f"{kind}.bias": (components, MAX_LEVELS, HIDDEN),
            f"{kind}.slope": (MAX_LEVELS, HIDDEN),
            f"{kind}.b": (HIDDEN, HIDDEN),
            f"{kind}.b0": (HIDDEN,),
            f"{kind}.c": (2, HIDDEN),
            f"{kind}.c0": (2,),
        }
    return out


class Network:
    """One context network with integer weights, for one rate index (0 to 255)."""

    def __init__(self, kind: str, theta: Mapping[str, np.ndarray], fraction: int, rate: int) -> None:
        """``theta``: flat integer tensors in units of 2**-fraction; cut to 2**-12 and to 16 bits."""

        def tensor(name: str) -> np.ndarray:
            cut: np.ndarray = np.clip(theta[f"{kind}.{name}"] >> fraction - _WEIGHT_BITS, -_WEIGHT_MAX, _WEIGHT_MAX)
            return cut.astype(np.float64).reshape(shapes()[f"{kind}.{name}"])

        self.a, self.b, self.c = tensor("a"), tensor("b"), tensor("c")
        self.b0, c0 = tensor("b0")[:, None] * 2.0**_HIDDEN_BITS, tensor("c0")[:, None] * 2.0**_HIDDEN_BITS
        self.first = tensor("bias") * 2.0**_SQUASH_BITS + tensor("slope") * float(rate - NEUTRAL_RATE)
        unit = 2.0 ** -(_WEIGHT_BITS + _HIDDEN_BITS)
        # Outputs: the mean in eighths and the table, both rounded.
        self.unit = np.array([[MEANS * unit], [4 * unit]])
        self.zero = c0 * self.unit + np.array([[0.5], [0.5 + _SCALE_ZERO]])

    def bias(self, grid: Grid) -> np.ndarray:
        """The first layer's bias for a grid, (16, 1), in units of 2**-18."""
        bias: np.ndarray = self.first[max(grid.component - 1, 0), grid.level]
        return bias[:, None]

    def __call__(self, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First-layer sums (16, n) to means in eighths and tables, each (n,) int64."""
        h = first * 2.0 ** (_HIDDEN_BITS - _WEIGHT_BITS - _SQUASH_BITS)
        _floor_between(h, 0, _HIDDEN_MAX)
        r = self.b @ h
        r += self.b0
        r *= 2.0**-_WEIGHT_BITS
        _floor_between(r, 0, _HIDDEN_MAX)
        h += r
        out = self.c @ h
        out *= self.unit
        out += self.zero
        _floor_between(out, _OUT_LOW, _OUT_HIGH)
        mean, table = out.astype(np.int64)
        return mean, table


_OUT_LOW, _OUT_HIGH = np.array([[-_MEAN_MAX], [0]]), np.array([[_MEAN_MAX], [TABLES - 1]])


def _floor_between(x: np.ndarray, low: float | np.ndarray, high: float | np.ndarray) -> None:
    np.floor(x, out=x)
    np.maximum(x, low, out=x)  # twice as fast as clip on small arrays
    np.minimum(x, high, out=x)


def networks(theta: Mapping[str, np.ndarray], fraction: int, rate: int) -> dict[str, Network]:
    """Both networks."""
    return {kind: Network(kind, theta, fraction, rate) for kind in KINDS}


def raise_twofold(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear enlargement of integers (h, w) as float64, times 16; edges repeated, cut to (height, width)."""
    for axis in (0, 1):
        x = np.moveaxis(x, axis, 0)
        before, after = np.concatenate([x[:1], x[:-1]]), np.concatenate([x[1:], x[-1:]])
        x = np.stack([before + 3 * x, 3 * x + after], 1).reshape(-1, x.shape[1])
        x = np.moveaxis(x, 0, axis)
    return x[:height, :width]


def _shifted(x: np.ndarray, offsets: Iterable[tuple[int, int]], mode: str) -> list[np.ndarray]:
    """x[y + dy, x + dx] for every offset; outside lie zeros (``constant``) or the edge (``edge``)."""
    height, width = x.shape
    wide = np.pad(x, 2, mode=mode)  # type: ignore[call-overload]
    return [wide[2 + dy : 2 + dy + height, 2 + dx : 2 + dx + width] for dy, dx in offsets]


def _known(grid: Grid, done: Mapping[tuple[int, int], np.ndarray]) -> np.ndarray:
    """The features from grids that came before, (inputs - causal, h * w); ``done`` holds them squashed."""
    nothing = np.zeros((grid.height, grid.width))
    parent = done.get((grid.component, grid.level + 1))
    if parent is None:
        rows = [nothing] * (1 + len(PARENT))
    else:
        rows = [parent.repeat(2, 0).repeat(2, 1)[: grid.height, : grid.width]]
        rows += _shifted(np.floor(raise_twofold(parent, grid.height, grid.width) / 16), PARENT, "edge")
    if grid.component:
        luma = done.get((0, grid.level))
        rows += [nothing] * len(LUMA) if luma is None else _shifted(luma, LUMA, "edge")
        rows.append(done.get((1, grid.level), nothing) if grid.component == 2 else nothing)
    return np.stack(rows).reshape(len(rows), -1)


@dataclass(frozen=True)
class _Waves:
    """The wavefronts of a grid, and a skewed layout in which a wave's neighbours lie at constant distances.

    Position (y, x) lies in row x + 2y + 6 and column y + 2 of an array with ``pitch`` columns.
    """

    pitch: int
    size: int
    raster: np.ndarray
    """Raster index of every position, wave after wave."""
    skewed: np.ndarray
    """Its index in the skewed array."""
    bounds: list[int]
    """Wave i is bounds[i] .. bounds[i + 1] - 1."""
    taps: np.ndarray
    """Distances of the causal neighbours in the skewed array, (causal, 1)."""


@lru_cache(maxsize=64)
def _waves(height: int, width: int) -> _Waves:
    y, x = np.divmod(np.arange(height * width), width)
    t = x + 2 * y
    order = np.argsort(t, kind="stable")
    pitch = height + 2
    bounds = np.concatenate([[0], np.cumsum(np.bincount(t))]).tolist()
    taps = np.array([(dx + 2 * dy) * pitch + dy for dy, dx in CAUSAL])[:, None]
    skewed = ((t + 6) * pitch + y + 2)[order]
    return _Waves(pitch, (width + 2 * height + 6) * pitch, order, skewed, bounds, taps)


def distributions(
    grid: Grid, q: np.ndarray, done: Mapping[tuple[int, int], np.ndarray], network: Network
) -> tuple[np.ndarray, np.ndarray]:
    """The encoder's side, all positions of a grid at once: means in eighths and tables, (h * w,) in raster order."""
    near = np.stack(_shifted(squash(q), CAUSAL, "constant")).reshape(len(CAUSAL), -1)
    features = np.concatenate([near, _known(grid, done)])
    mean, table = np.empty(grid.count, np.int64), np.empty(grid.count, np.int64)
    for start in range(0, grid.count, _CHUNK):
        here = slice(start, start + _CHUNK)
        mean[here], table[here] = network(network.a @ features[:, here] + network.bias(grid))
    return mean, table


def cost(pyramid: Pyramid, q: Coefficients, nets: Mapping[str, Network]) -> float:
    """Bits of all grids, without the coder's constant end."""
    done: dict[tuple[int, int], np.ndarray] = {}
    bits = 0.0
    for grid in pyramid.grids:
        mean, table = distributions(grid, q[grid.key], done, nets[KINDS[grid.component > 0]])
        bits += near_cost(q[grid.key].reshape(-1), mean, table)
        done[grid.key] = squash(q[grid.key])
    return bits


def encode_field(pyramid: Pyramid, q: Coefficients, nets: Mapping[str, Network], levels: range) -> bytes:
    """One stream with the grids of some levels, coarse to fine; the grids of coarser levels count as known."""
    encoder = Encoder()
    done: dict[tuple[int, int], np.ndarray] = {}
    for grid in pyramid.grids:
        if grid.level in levels:
            waves = _waves(grid.height, grid.width)
            mean, table = distributions(grid, q[grid.key], done, nets[KINDS[grid.component > 0]])
            values, mean, table = (x[waves.raster] for x in (q[grid.key].reshape(-1).astype(np.int64), mean, table))
            for start, stop in pairwise(waves.bounds):
                if start < stop:
                    encoder.put_near(values[start:stop], mean[start:stop], table[start:stop])
        done[grid.key] = squash(q[grid.key])
    return encoder.finish()


def decode_field(
    pyramid: Pyramid, data: bytes, nets: Mapping[str, Network], levels: range, known: Coefficients
) -> Coefficients:
    """The grids of some levels from their stream; ``known`` holds the grids of all coarser levels."""
    decoder = Decoder(data)
    done = {key: squash(grid) for key, grid in known.items()}
    out: Coefficients = {}
    for grid in pyramid.grids:
        if grid.level not in levels:
            continue
        network, waves = nets[KINDS[grid.component > 0]], _waves(grid.height, grid.width)
        known_first = network.a[:, len(CAUSAL) :] @ _known(grid, done)[:, waves.raster]
        known_first += network.bias(grid)
        causal = np.ascontiguousarray(network.a[:, : len(CAUSAL)])
        skewed, values = np.zeros(waves.size), np.empty(grid.count, np.int32)
        for start, stop in pairwise(waves.bounds):
            if start == stop:
                continue
            place = waves.skewed[start:stop]
            first = causal @ skewed[waves.taps + place]
            first += known_first[:, start:stop]
            now = decoder.take_near(*network(first))
            values[start:stop] = now
            skewed[place] = squash(now)
        raster = np.empty(grid.count, np.int32)
        raster[waves.raster] = values
        out[grid.key] = raster.reshape(grid.height, grid.width)
        done[grid.key] = squash(out[grid.key])
    return out
