"""The context model: the decoder returns what the encoder put, under any weights; costs, segments, hostile bytes."""

import hashlib

import numpy as np
import pytest

from prancimg.errors import PrancImgError
from prancimg.format.layout import CAUSAL, KINDS, Pyramid, context_shapes
from prancimg.format.range_coder import MAGNITUDE
from prancimg.network import context
from prancimg.network.context import Network, cost, decode_field, encode_field, networks, squash


def weights(seed: int, spread: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: np.rint(rng.normal(0, spread, np.prod(shape))).astype(np.int64)
        for name, shape in context_shapes().items()
    }


def grids(pyramid: Pyramid, spread: float) -> dict[tuple[int, int], np.ndarray]:
    rng = np.random.default_rng(1)
    draw = {g.key: np.rint(rng.laplace(0, spread * (g.level + 0.3), (g.height, g.width))) for g in pyramid.grids}
    return {key: np.clip(q, 1 - MAGNITUDE, MAGNITUDE - 1).astype(np.int32) for key, q in draw.items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


SIZES = [(1, 1), (1, 9), (7, 1), (5, 64), (33, 50)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spread", [0.1, 1, 40, 4000, 10**6])
@pytest.mark.parametrize("extreme", [400 << 8, 2**40])
def test_the_decoder_returns_what_the_encoder_put(size, spread, extreme):
    pyramid = Pyramid(*size)
    q, nets = grids(pyramid, spread), networks(weights(0, extreme), 20, 100)
    everything = range(pyramid.levels)
    data = encode_field(pyramid, q, nets, everything)
    assert same(decode_field(pyramid, data, nets, everything, {}), q)
    assert abs(8 * len(data) - cost(pyramid, q, nets)) <= 64 + 0.002 * 8 * len(data)


@pytest.mark.parametrize(("luma_from", "chroma_from"), [(0, 0), (0, 6), (2, 1), (6, 0)])
def test_levels_are_segments(luma_from, chroma_from):
    pyramid = Pyramid(40, 70, luma_from, chroma_from)
    q, nets, got = grids(pyramid, 1), networks(weights(2, 400), 12, 7), {}
    for level in reversed(range(pyramid.levels)):
        levels = range(level, level + 1)
        got |= decode_field(pyramid, encode_field(pyramid, q, nets, levels), nets, levels, got)
    assert same(got, q)


def slow_first(network: Network, pyramid: Pyramid, q, component: int, level: int, y: int, x: int) -> np.ndarray:
    """First-layer sums at one position, feature by feature, in Python integers."""

    def squashed(grid, y, x, edge):
        height, width = grid.shape
        if edge:
            y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        return int(squash(grid[y, x])) if 0 <= y < height and 0 <= x < width else 0

    here, parent = q[component, level], q.get((component, level + 1))
    features = [squashed(here, y + dy, x + dx, False) for dy, dx in CAUSAL]
    if parent is None:
        features += [0] * 6
    else:
        features.append(squashed(parent, y // 2, x // 2, True))
        for dy, dx in ((0, 0), (0, 2), (0, -2), (2, 0), (-2, 0)):
            row, column = (min(max(v, 0), n - 1) for v, n in zip((y + dy, x + dx), here.shape, strict=True))
            side = [(v // 2, v // 2 + (1 if v % 2 else -1)) for v in (row, column)]
            total = sum(
                wy * wx * squashed(parent, py, px, True)
                for py, wy in zip(side[0], (3, 1), strict=True)
                for px, wx in zip(side[1], (3, 1), strict=True)
            )
            features.append(total // 16)
    if component:
        luma = q.get((0, level))
        offsets = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
        features += [0 if luma is None else squashed(luma, y + dy, x + dx, True) for dy, dx in offsets]
        features.append(squashed(q[1, level], y, x, True) if component == 2 else 0)
    grid = type("Grid", (), {"component": component, "level": level})
    return network.first_layer(grid) @ np.array([*features, 1.0])


def test_features_equal_the_definition(monkeypatch):
    """A position's distribution is that of what it reads, also where that is nothing but zeros."""
    pyramid = Pyramid(13, 18, luma_from=0, chroma_from=1)
    q, nets = grids(pyramid, 3), networks(weights(3, 400), 12, 30)
    q = {key: grid * (np.arange(grid.shape[1]) > grid.shape[1] // 3) for key, grid in q.items()}
    monkeypatch.setattr(Network, "__call__", lambda self, first: first[:2].astype(np.int16))
    done, quiet = {}, 0
    for grid in pyramid.grids:
        network = nets[KINDS[grid.component > 0]]
        found = np.stack(context.distributions(grid, q[grid.key], done, network))
        for y in range(grid.height):
            for x in range(grid.width):
                expected = slow_first(network, pyramid, q, *grid.key, y, x)
                assert found[:, y * grid.width + x].tolist() == expected[:2].astype(np.int16).tolist()
                quiet += expected.tolist() == network.first_layer(grid)[:, -1].tolist()
        done[grid.key] = squash(q[grid.key])
    assert quiet > 20


def test_squash_is_odd_monotone_and_near_asinh():
    v = np.arange(-300, 301)
    s = squash(v)
    assert (s == -s[::-1]).all() and (np.diff(s) >= 0).all() and (s[v >= 256] == 399).all()
    inside = np.abs(v) <= 256
    assert np.abs(s - 64 * np.arcsinh(v))[inside].max() < 9


@pytest.mark.parametrize("length", [0, 4, 400])
def test_any_bytes_decode_or_are_refused(length):
    rng, pyramid = np.random.default_rng(length), Pyramid(40, 70)
    nets = networks(weights(4, 400), 12, 0)
    for _ in range(10):
        try:
            q = decode_field(pyramid, rng.bytes(length), nets, range(pyramid.levels), {})
        except PrancImgError:
            continue
        assert {grid.key for grid in pyramid.grids} == q.keys()


def test_known_bytes():
    pyramid = Pyramid(30, 44)
    data = encode_field(pyramid, grids(pyramid, 2), networks(weights(5, 400), 12, 77), range(pyramid.levels))
    assert hashlib.sha256(data).hexdigest()[:16] == KNOWN_HASH


KNOWN_HASH = "32441e88c23c2061"
