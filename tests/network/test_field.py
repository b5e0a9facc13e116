"""The field: pyramid, upsampling, features and sharpening against loops, NumPy against torch, tiles."""

import numpy as np
import pytest
import torch

from prancimg.format.layout import NEUTRAL_RATE, Pyramid
from prancimg.network.field import feature_field, grid_step, residual_filter, upsample
from prancimg.network.prior import load_prior
from prancimg.network.siren import render_field, synthesise, to_floats, to_samples

TAPS = np.array([-0.05, 0.3, 0.85, -0.1], np.float32)


def raised(line: np.ndarray, size: int) -> np.ndarray:
    """One line of samples at twice the rate, a sample at a time."""
    out = []
    for i in range(size):
        half, odd = divmod(i, 2)
        at = [half - 1 + k if odd else half - 2 + k for k in range(4)]
        taps = TAPS[::-1] if odd else TAPS
        out.append(sum(t * line[min(max(j, 0), len(line) - 1)] for t, j in zip(taps, at, strict=True)))
    return np.array(out)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("small", "size"), [((1, 1), (1, 2)), ((3, 5), (6, 10)), ((4, 3), (7, 5)), ((1, 7), (2, 14))])
def test_upsampling_equals_the_definition(small, size):
    x = random(2, *small)
    rows = np.stack([np.stack([raised(column, size[0]) for column in plane.T], 1) for plane in x])
    exact = np.stack([np.stack([raised(row, size[1]) for row in plane]) for plane in rows])
    np.testing.assert_allclose(upsample(x, TAPS, *size), exact, atol=1e-5)
    np.testing.assert_allclose(upsample(torch.from_numpy(x), torch.from_numpy(TAPS), *size), exact, atol=1e-5)


def test_sharpening_equals_the_definition():
    rgb, kernel = random(3, 4, 5), 0.1 * random(3, 27)
    exact = rgb.copy()
    for o, y, x, i, dy, dx in np.ndindex(3, 4, 5, 3, 3, 3):
        here = rgb[i, min(max(y + dy - 1, 0), 3), min(max(x + dx - 1, 0), 4)]
        exact[o, y, x] += kernel[o, 9 * i + 3 * dy + dx] * here
    np.testing.assert_allclose(residual_filter(rgb, kernel), exact, atol=1e-5)
    np.testing.assert_allclose(residual_filter(torch.from_numpy(rgb), torch.from_numpy(kernel)), exact, atol=1e-5)


@pytest.mark.parametrize(
    ("height", "width", "levels"), [(1, 1, 1), (4, 900, 1), (5, 5, 2), (33, 18, 4), (512, 768, 7), (9000, 9000, 7)]
)
def test_levels_follow_from_the_shorter_side(height, width, levels):
    pyramid = Pyramid(height, width)
    assert pyramid.levels == levels and pyramid.size(0) == (height, width)


def test_grids_are_coarse_to_fine_and_luma_first():
    keys = [grid.key for grid in Pyramid(20, 30, luma_from=1, chroma_from=2).grids]
    assert keys == [(0, 3), (1, 3), (2, 3), (0, 2), (1, 2), (2, 2), (0, 1)]
    assert [grid.key for grid in Pyramid(2, 2, luma_from=6, chroma_from=6).grids] == [(0, 0), (1, 0), (2, 0)]
    assert [(g.height, g.width) for g in Pyramid(33, 18).grids if g.component == 0] == [
        (5, 3),
        (9, 5),
        (17, 9),
        (33, 18),
    ]


def test_steps_double_every_32_codes():
    assert grid_step(128) == 0.04 and grid_step(160) == pytest.approx(0.08) and grid_step(0) == 0.0025


def example(pyramid: Pyramid):
    """Grids, a network with every tensor in use, as integers."""
    rng = np.random.default_rng(0)
    siren, theta, _ = load_prior(2)
    theta = {name: tensor + rng.integers(-40_000, 40_000, len(tensor)) for name, tensor in theta.items()}
    q = {g.key: rng.integers(-3, 4, (g.height, g.width)).astype(np.int32) for g in pyramid.grids}
    return siren, theta, q


def test_features_are_bumps_that_add_up():
    pyramid = Pyramid(11, 14)
    siren, theta, q = example(pyramid)
    weights = to_floats(siren, theta)
    total = np.zeros((4, 11, 14))
    for (component, level), grid in q.items():
        part = grid[None].astype(np.float32)
        for finer in reversed(range(level)):
            part = upsample(part, weights["taps"], *pyramid.size(finer))
        gain = weights["gain"][level, component] * 2 ** weights["scale"][level, component]
        total += 0.3 * gain[:, None, None] * part
    floats = {key: grid.astype(np.float32) for key, grid in q.items()}
    np.testing.assert_allclose(feature_field(pyramid, floats, weights, 0.3), total, atol=2e-4)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (40, 3000), (300, 7), (61, 83)])
def test_tiles_leave_no_trace_and_torch_agrees_to_one_level(height, width):
    pyramid = Pyramid(height, width)
    siren, theta, q = example(pyramid)
    picture = render_field(siren, theta, pyramid, q, 0.05, 90)
    weights = {name: torch.from_numpy(w) for name, w in to_floats(siren, theta).items()}
    grids = {key: torch.from_numpy(grid).float() for key, grid in q.items()}
    field = feature_field(pyramid, grids, weights, 0.05)
    at_once = to_samples(synthesise(siren, weights, field, 90).numpy()).transpose(1, 2, 0)
    difference = np.abs(picture.astype(int) - at_once)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.02


def test_the_rate_shifts_the_phases():
    pyramid = Pyramid(9, 9)
    siren, theta, q = example(pyramid)
    moved = dict(theta, b0=theta["b0"] + theta["slope"])
    same = np.abs(
        render_field(siren, theta, pyramid, q, 0.05, NEUTRAL_RATE + 64).astype(int)
        - render_field(siren, moved, pyramid, q, 0.05, NEUTRAL_RATE)
    )
    assert same.max() <= 1
