"""Large pictures: windows cover them, continue each other exactly, and leave no seams."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prancimg import PrancImgError
from prancimg.decoding.decoder import Model, decode_array
from prancimg.fit import field_encoder, large
from prancimg.fit.field_encoder import FieldSearch, file_of
from prancimg.fit.fit_field import fit_field
from prancimg.fit.large import BACK, CORE, WindowRateDistortion, fit_large, windows
from prancimg.fit.setup import Setup, relative_rate
from prancimg.network import context
from prancimg.network.field import grid_step
from prancimg.network.siren import FRACTION, render_field, to_floats

CPU = torch.device("cpu")


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_cores_tile_the_picture_and_windows_begin_where_all_levels_do(height, width):
    covered = np.zeros((-(-height // 64), -(-width // 64)), int)
    for place in windows(height, width):
        top, left, bottom, right = place.box
        assert top % 64 == 0 and left % 64 == 0 and bottom <= height and right <= width
        assert (bottom - top) * (right - left) <= (CORE + 64 + BACK + 128) ** 2
        rows, columns = large._core(place)
        assert all(edge % 64 == 0 or edge == side for edge, side in zip(place.core, (height, width), strict=True))
        covered[rows.start // 64 : -(-rows.stop // 64), columns.start // 64 : -(-columns.stop // 64)] += 1
    assert (covered == 1).all()


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr(large, "CORE", 64)
    monkeypatch.setattr(large, "AHEAD", 64)
    monkeypatch.setattr(large, "_SHEET", 128)


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """Smooth colours and some texture, (192, 256, 3)."""
    y, x = np.mgrid[:192, :256] / 64
    texture = np.random.default_rng(0).normal(0, 8, y.shape)
    planes = [128 + 70 * np.sin(2 * x + c) * np.cos(1.5 * y - c) + texture for c in range(3)]
    return np.clip(np.stack(planes, 2), 0, 255).astype(np.uint8)


def test_a_window_sees_exactly_what_the_decided_coefficients_show(scene):
    """What lies beyond a window counts in it, all around: only the last filter's outermost ring is an approximation."""
    header = Setup().header(scene, 1e-3)
    model, rng = Model.of(header), np.random.default_rng(1)
    field = large._Field(header.pyramid)
    for key, q in field.q.items():
        q[:] = rng.integers(-3, 4, q.shape)
        field.decided[key][:] = True
    whole = render_field(model.siren, model.theta0, header.pyramid, field.q, grid_step(header.step), header.rate)
    box = (64, 128, 192, 256)
    pyramid = field.window(box)
    known = torch.cat([torch.from_numpy(field.q[g.key][field.part(g.key, box)].ravel()) for g in pyramid.grids]).float()
    pixels = torch.zeros(3, 128, 128)
    objective = WindowRateDistortion(pixels, pyramid, known, torch.zeros_like(known, dtype=torch.bool))
    weights = to_floats(model.siren, model.theta0)
    tensors = {name: torch.from_numpy(weight) for name, weight in weights.items()}
    step, r = grid_step(header.step), relative_rate(header.rate)
    shown = objective.render(known, tensors, step, r)
    assert (shown[:, 1:-1, 1:-1] * 255 - torch.from_numpy(whole[65:191, 129:255]).permute(2, 0, 1)).abs().max() > 4
    beyond = large.window(header.pyramid, field.q, weights, step, box)
    objective.beyond = torch.from_numpy(np.array(beyond)) - objective.field(known, tensors, step)
    shown = objective.render(known, tensors, step, r).clamp(0, 1).permute(1, 2, 0).numpy() * 255
    assert np.abs(shown[1:-1, 1:-1] - whole[65:191, 129:255]).max() < 1


@pytest.mark.usefixtures("small_windows")
def test_a_picture_in_windows_is_as_good_as_one_fitted_at_once(scene):
    scene, found = scene[:128, :192], {}
    for fit in (fit_field, fit_large):
        fitted = fit(scene, seed=0, iterations=10, device=CPU, lmbda=2e-3)
        data = file_of(fitted, 0.0)
        error = np.square(decode_array(data).astype(float) - scene).mean(2) / 255**2
        found[fit] = error, error.mean() + 2e-3 * 8 * len(data) / error.size
    assert found[fit_large][1] < 1.05 * found[fit_field][1]
    near = np.zeros(scene.shape[:2], bool)
    near[61:67] = near[:, 61:67] = near[:, 125:131] = True
    ratios = [error[near].mean() / error[~near].mean() for error, _ in found.values()]
    assert ratios[1] < 1.1 * ratios[0]


@pytest.mark.usefixtures("small_windows")
def test_bits_are_counted_as_they_are_committed(scene, monkeypatch):
    scene, counted, commit = scene[:128, :192], [], large._Field.commit
    monkeypatch.setattr(large._Field, "commit", lambda *given: counted.append(commit(*given)) or counted[-1])
    fitted = fit_large(scene, seed=0, iterations=8, device=CPU, bits=0.8 * scene[..., 0].size)
    header, q = fitted.rounded(0.0)
    theta = Model.of(header).parameters(fitted.alpha, header.tensors)
    exact = context.cost(header.pyramid, q, context.networks(theta, FRACTION, header.rate))
    assert sum(counted) == pytest.approx(exact, rel=0.1)


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("fit", [fit_field, fit_large])
def test_a_loss_that_is_no_number_ends_the_fit(scene, fit):
    scene = scene[:128, :192].astype(np.float32)
    scene[100, 150] = np.nan
    with pytest.raises(PrancImgError, match="diverged"):
        fit(scene, seed=0, iterations=4, device=CPU, lmbda=2e-3)


@pytest.mark.usefixtures("small_windows")
def test_only_large_pictures_go_this_way(scene, monkeypatch):
    scene, taken = scene[:128, :192], []
    monkeypatch.setattr(
        "prancimg.fit.field_encoder.fit_large", lambda *a, **k: taken.append("large") or fit_large(*a, **k)
    )
    monkeypatch.setattr(field_encoder, "LARGE", scene[..., 0].size - 1)
    data = FieldSearch(scene, 1, 0, CPU, None).at_size(1500)
    assert taken == ["large"] and 0.97 * 1500 <= len(data) <= 1500
    monkeypatch.setattr(field_encoder, "LARGE", scene[..., 0].size)
    FieldSearch(scene[:64, :64], 1, 0, CPU, None).at_lmbda(2e-3)
    assert taken == ["large"]
