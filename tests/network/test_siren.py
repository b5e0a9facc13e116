"""The network: its seeded start, its renderer against a pixel-by-pixel oracle, NumPy against torch."""

import hashlib
import math

import numpy as np
import pytest
import torch

from prancimg.format.layout import Siren
from prancimg.network.siren import FRACTION, coordinates, forward, render, theta0_of_seed, to_samples


def paint(siren: Siren, theta: np.ndarray, height: int, width: int) -> np.ndarray:
    """The picture by loops over pixels, layers and units in float64."""
    tensors = [(theta[name] / 2**FRACTION).reshape(shape) for name, shape in siren.shapes.items()]
    out = np.zeros((height, width, 3))
    for i in range(height):
        for j in range(width):
            h = [(2 * j + 1 - width) / max(height, width), (2 * i + 1 - height) / max(height, width)]
            for layer in range(siren.layers + 1):
                w, b = tensors[2 * layer : 2 * layer + 2]
                z = [sum(w[o][n] * h[n] for n in range(len(h))) + b[o] for o in range(len(b))]
                h = [math.sin(v) for v in z] if layer < siren.layers else z
            out[i, j] = [min(255, max(0, v * 255)) for v in h]
    return out


def vivid(siren: Siren, seed: int) -> dict[str, np.ndarray]:
    """A seeded network whose readout is strong enough for a picture of many colours."""
    theta = theta0_of_seed(siren, seed)
    theta[f"w{siren.layers}"] *= 30
    return theta


def floats(siren: Siren, theta: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: (theta[name] / 2.0**FRACTION).astype(np.float32).reshape(s) for name, s in siren.shapes.items()}


def test_rendering_equals_the_definition_pixel_by_pixel():
    siren = Siren(5, 3)
    theta = vivid(siren, 3)
    exact = paint(siren, theta, 9, 13)
    assert exact.std() > 20
    assert np.abs(render(siren, theta, 9, 13) - exact).max() <= 0.51


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40_000), (300, 1), (123, 211)])
def test_tiles_leave_no_trace(height, width):
    siren = Siren(4, 2)
    theta = vivid(siren, 1)
    at_once = to_samples(forward(siren, floats(siren, theta), coordinates(height, width))).T.reshape(height, width, 3)
    assert np.abs(render(siren, theta, height, width).astype(int) - at_once).max() <= 1


def test_torch_and_numpy_agree_to_one_level():
    siren = Siren(32, 4)
    theta = vivid(siren, 5)
    weights = {name: torch.from_numpy(tensor) for name, tensor in floats(siren, theta).items()}
    rgb = forward(siren, weights, torch.from_numpy(coordinates(100, 150))).numpy()
    difference = np.abs(to_samples(rgb).T.reshape(100, 150, 3).astype(int) - render(siren, theta, 100, 150))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_the_seeded_start_is_part_of_the_format():
    theta = np.concatenate(list(theta0_of_seed(Siren(16, 3), 12345).values()))
    assert theta[:4].tolist() == KNOWN_START
    assert hashlib.sha256(theta.astype("<i8").tobytes()).hexdigest()[:16] == KNOWN_HASH


KNOWN_START = [-13538975, 13144860, -3866597, -7807655]
KNOWN_HASH = "4cd39c3adaf0a23c"


def test_the_seeded_start_has_the_bounds_of_a_siren():
    siren = Siren(64, 3)
    w0, b0, w1, _, _, _, w3, b3 = (tensor / 2**FRACTION for tensor in theta0_of_seed(siren, 0).values())
    for tensor, bound in ((w0, 15), (b0, math.pi), (w1, math.sqrt(6 / 64)), (w3, math.sqrt(6 / 64) / 60)):
        assert 0.9 * bound < np.abs(tensor).max() <= bound
        assert abs(tensor.mean()) < bound / 5
    assert (b3 == 0.5).all()


def test_activations_keep_the_spread_of_sines_at_any_depth():
    siren = Siren(64, 6)
    weights, h = floats(siren, theta0_of_seed(siren, 0)), coordinates(64, 64)
    for i in range(6):
        h = np.sin(weights[f"w{i}"] @ h + weights[f"b{i}"][:, None])
        assert 0.5 < h.std() < 0.9


def test_parameters_are_counted():
    siren = Siren(20, 3)
    assert list(siren.shapes.values()) == [(20, 2), (20,), (20, 20), (20,), (20, 20), (20,), (3, 20), (3,)]
    assert sum(len(tensor) for tensor in theta0_of_seed(siren, 0).values()) == 963
