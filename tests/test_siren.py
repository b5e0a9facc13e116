"""The network: its seeded start, its renderer against a pixel-by-pixel oracle, NumPy against torch."""

import hashlib
import math

import numpy as np
import pytest
import torch

from prancimg.siren import FRACTION, Siren, coordinates, render, to_samples


def paint(siren: Siren, theta: np.ndarray, height: int, width: int) -> np.ndarray:
    """The picture by loops over pixels, layers and units in float64."""
    tensors = [t / 2**FRACTION for t in siren.split(theta)]
    out = np.zeros((height, width, 3))
    for i in range(height):
        for j in range(width):
            h = [(2 * j + 1 - width) / max(height, width), (2 * i + 1 - height) / max(height, width)]
            for layer in range(siren.layers + 1):
                w, b = tensors[2 * layer : 2 * layer + 2]
                z = [sum(w[o][n] * h[n] for n in range(len(h))) + b[o] for o in range(len(b))]
                h = [math.sin(v) for v in z] if layer < siren.layers else z
            out[i, j] = [min(255, max(0, (v + 1) * 127.5)) for v in h]
    return out


def test_rendering_equals_the_definition_pixel_by_pixel():
    siren = Siren(5, 3)
    theta = siren.seeded(3) * np.repeat([1, 1, 1, 1, 1, 1, 30, 1], siren.sizes)
    exact = paint(siren, theta, 9, 13)
    assert exact.std() > 20
    assert np.abs(render(siren, theta, 9, 13) - exact).max() <= 0.51


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40_000), (300, 1), (123, 211)])
def test_tiles_leave_no_trace(height, width):
    siren = Siren(4, 2)
    theta = siren.seeded(1)
    tensors = [t.astype(np.float32) for t in siren.split(theta / 2.0**FRACTION)]
    at_once = to_samples(siren(tensors, coordinates(height, width))).T.reshape(height, width, 3)
    assert np.abs(render(siren, theta, height, width).astype(int) - at_once).max() <= 1


def test_torch_and_numpy_agree_to_one_level():
    siren = Siren(32, 4)
    theta = siren.seeded(5) * np.repeat([1, 1, 1, 1, 1, 1, 1, 1, 30, 1], siren.sizes)
    tensors = siren.split(torch.from_numpy(theta / 2.0**FRACTION).float())
    rgb = siren(tensors, torch.from_numpy(coordinates(100, 150))).numpy()
    difference = np.abs(to_samples(rgb).T.reshape(100, 150, 3).astype(int) - render(siren, theta, 100, 150))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_the_seeded_start_is_part_of_the_format():
    theta = Siren(16, 3).seeded(12345)
    assert theta[:4].tolist() == KNOWN_START
    assert hashlib.sha256(theta.astype("<i8").tobytes()).hexdigest()[:16] == KNOWN_HASH


KNOWN_START: list[int] = []
KNOWN_HASH = ""


def test_the_seeded_start_has_the_bounds_of_a_siren():
    siren = Siren(64, 3)
    w0, b0, w1, _, _, _, w3, b3 = (t / 2**FRACTION for t in siren.split(siren.seeded(0)))
    for tensor, bound in ((w0, 15), (b0, math.pi), (w1, math.sqrt(6 / 64)), (w3, math.sqrt(6 / 64) / 30)):
        assert 0.9 * bound < np.abs(tensor).max() <= bound
        assert abs(tensor.mean()) < bound / 5
    assert (b3 == 0).all()


def test_activations_keep_the_spread_of_sines_at_any_depth():
    siren = Siren(64, 6)
    tensors = [t.astype(np.float32) for t in siren.split(siren.seeded(0) / 2.0**FRACTION)]
    h = coordinates(64, 64)
    for weight, bias in zip(tensors[:-2:2], tensors[1:-2:2], strict=True):
        h = np.sin(weight @ h + bias[:, None])
        assert 0.5 < h.std() < 0.9


def test_parameters_are_counted():
    siren = Siren(20, 3)
    assert siren.shapes == [(20, 2), (20,), (20, 20), (20,), (20, 20), (20,), (3, 20), (3,)]
    assert sum(siren.sizes) == len(siren.seeded(0)) == 963
