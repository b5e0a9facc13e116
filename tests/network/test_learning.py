"""The context model learns while it codes: exactly as specified, at the bounds too, and so that it saves bits."""

import tracemalloc

import numpy as np
import plain_decoder
import pytest

from prancimg.format.layout import KINDS, Design, Pyramid
from prancimg.format.range_coder import MEANS, frequencies
from prancimg.network.context import Network, cost, decode_field, encode_field, networks
from prancimg.network.context_features import own_first
from prancimg.network.learning import GRADIENT_MAX, PARAMETER_MAX, STEPS, Learner, slopes

DESIGNS = {"near": Design(units=8), "wide": Design(wide=True, units=12)}
designs = pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS)
SLOPE_MAX = 5908
paces = pytest.mark.parametrize("pace", [1, 3])


def weights(design: Design, seed: int, spread: float) -> dict[str, np.ndarray]:
    """In units of 2**-20."""
    rng = np.random.default_rng(seed)
    return {
        name: np.rint(rng.normal(0, spread, np.prod(shape))).astype(np.int64) for name, shape in design.shapes.items()
    }


def stripes(pyramid: Pyramid) -> dict[tuple[int, int], np.ndarray]:
    """What a context model can learn: columns that alternate, and now and then do not."""
    rng = np.random.default_rng(1)
    return {
        g.key: (9 * (-1) ** np.arange(g.width) + (rng.random((g.height, g.width)) < 0.02)).astype(np.int32)
        for g in pyramid.grids
    }


@designs
@paces
@pytest.mark.parametrize("extreme", [400 << 8, 2**40])
def test_the_decoder_learns_what_the_encoder_learns(design, pace, extreme):
    pyramid, rng = Pyramid(37, 50), np.random.default_rng(2)
    nets, everything = networks(weights(design, 0, extreme), 20, 100, pace), range(pyramid.levels)
    wild = {g.key: np.rint(rng.laplace(0, 30, (g.height, g.width))).astype(np.int32) for g in pyramid.grids}
    for q in (stripes(pyramid), wild):
        data = encode_field(pyramid, q, nets, everything)
        found = decode_field(pyramid, data, nets, everything, {})
        assert all(np.array_equal(found[key], q[key]) for key in q)
        assert abs(8 * len(data) - cost(pyramid, q, nets)) <= 64 + 0.002 * 8 * len(data)


def test_learning_saves_bits_where_there_is_something_to_learn():
    theta, pyramid = weights(DESIGNS["wide"], 0, 300 << 8), Pyramid(64, 64)
    slow, fast = (cost(pyramid, stripes(pyramid), networks(theta, 20, 100, pace)) for pace in (0, 3))
    assert fast < 0.9 * slow


def test_too_few_active_positions_teach_nothing():
    """A grid whose values are zero but for one has few contexts that hold anything."""
    theta, pyramid = weights(DESIGNS["wide"], 0, 400 << 8), Pyramid(64, 64, chroma_from=6)
    q = {g.key: np.zeros((g.height, g.width), np.int32) for g in pyramid.grids}
    q[0, 0][30, 30] = 5
    still, moving = (networks(theta, 20, 100, pace) for pace in (0, 3))
    assert encode_field(pyramid, q, still, range(7)) == encode_field(pyramid, q, moving, range(7))


def test_slopes_are_those_of_the_cost():
    """By finite differences, where these are meant: near the mean of tables that are not too narrow."""
    log = -np.log2(frequencies() / 2.0**24)
    by_mean, by_scale = slopes().reshape(2, 40, MEANS, 128) / 256
    symbols = np.arange(60, 69)
    for i in range(16, 39):
        across = 4 * (log[i, 5, symbols] - log[i, 3, symbols])
        assert np.abs(by_mean[i, 4, symbols] - across).max() < 0.02
        along = 2 * (log[i + 1, 4, symbols] - log[i - 1, 4, symbols])
        assert np.abs(by_scale[i, 4, symbols] - along).max() < 0.02 + 0.02 * np.abs(along).max()
    assert np.abs(slopes()).max() == SLOPE_MAX and (np.rint(slopes()) == slopes()).all()


def plain(kind: str, theta: dict[str, np.ndarray], grid, pace: int) -> plain_decoder.ContextNetwork:
    network = plain_decoder.ContextNetwork({name: t.tolist() for name, t in theta.items()}, kind, 100, pace)
    network.begin(grid.component, grid.level)
    return network


EXTREMES = {
    "ordinary": (400 << 8, 60, 20),
    "wide": (1 << 22, 399, 300),
    "beyond": (1 << 40, 399, 1 << 20),
}


@designs
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", EXTREMES)
def test_a_step_is_the_one_of_the_specification(design, kind, name):
    """Against integers without bounds, from the decoder that was written from the specification."""
    spread, most, far = EXTREMES[name]
    theta, rng = weights(design, 4, spread), np.random.default_rng(5)
    grid = Pyramid(20, 30, chroma_from=0).grids[-3 if kind == "luma" else -1]
    network = Network(kind, theta, 20, 100, 2)
    learner, oracle = Learner(network, grid), plain(kind, theta, grid, 2)
    order = own_first(network.features)
    for count in (140, 600, 130):
        features = rng.integers(-most, most + 1, (count, len(order)))
        values = rng.integers(-far, far, count)
        inputs = np.concatenate([features[:, order].T, np.ones((1, count))]).astype(np.float64)
        learner(inputs, network.room(count))
        assert learner.tell(np.arange(count), values)
        oracle.learn([(u.tolist(), v) for u, v in zip(features, values.tolist(), strict=True)])
        fine = {name: np.array(t) for name, t in oracle.fine.items()}
        bias = fine["bias"][oracle.first_bias : oracle.first_bias + design.units]
        layers = (fine["a"].reshape(design.units, -1)[:, order], bias), (fine["b"], fine["b0"]), (fine["c"], fine["c0"])
        for (weight, bias), found in zip(layers, learner.parameters, strict=True):
            expected = np.column_stack([weight.reshape(len(bias), -1), bias]).ravel()
            assert np.array_equal(found[: len(expected)], expected)


@designs
def test_no_sum_can_be_too_large_for_exact_arithmetic(design):
    """All weights, all inputs and all slopes at their bounds, and of one sign: what a hostile file comes to at most.

    The sums are those of 512 units, more than any prior has.
    """
    grid = Pyramid(20, 30).grids[-1]
    theta = {name: np.full(np.prod(shape), 1 << 40) for name, shape in design.shapes.items()}
    learner = Learner(Network("luma", theta, 20, 255, 3), grid)
    inputs = len(learner.first.T) - 1
    total = 2 * 32767 * SLOPE_MAX // 2**8 + 1
    back = 512 * 32767 * total
    first = total + back // 2**12 + 1
    assert max(back, 512 * first * 399, 512 * total * 32767, 512 * SLOPE_MAX * 65534) < 2**53
    assert GRADIENT_MAX**2 < 2**52 and PARAMETER_MAX < 2**52
    for _ in range(3):
        learner(np.full((inputs + 1, 512), 399.0), learner.network.room(512))
        learner.tell(np.arange(512), np.full(512, -(1 << 20)))
        assert all((np.abs(part) <= PARAMETER_MAX).all() for part in learner.parameters)


def test_waves_without_active_positions_take_no_memory():
    grid = Pyramid(20, 30).grids[-1]
    learner, none = Learner(Network("luma", weights(DESIGNS["wide"], 0, 400), 20, 100, 1), grid), np.zeros(0, int)
    inputs = np.zeros((learner.first.shape[1], 1))
    learner(inputs, learner.network.room(1))
    tracemalloc.start()
    assert not any(learner.tell(none, none) for _ in range(2000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000


def test_a_grid_takes_a_bounded_number_of_steps():
    grid = Pyramid(1 << 13, 1 << 13).grids[-1]
    learner = Learner(Network("luma", weights(DESIGNS["near"], 0, 400), 20, 100, 1), grid)
    assert learner.missing == grid.count // STEPS
