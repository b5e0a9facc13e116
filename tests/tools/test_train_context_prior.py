"""The tool that trains context models: every step leaves what the next one reads, and goes on where it was stopped."""

import numpy as np
import pytest
import torch
from PIL import Image

from prancimg.format.layout import Design, Pyramid
from prancimg.network.field import window
from prancimg.network.prior import load_prior, unpack_prior
from prancimg.network.siren import to_floats
from tools import train_context_prior as tool

DESIGN = Design(True, 8, (("luma", 2), ("chroma", 1)))


@pytest.fixture(scope="module")
def work(photo, tmp_path_factory):
    """A folder with the grids of four pictures, of which one is kept apart."""
    folder = tmp_path_factory.mktemp("prior")
    for number in range(4):
        Image.fromarray(photo[8 * number :, 8 * number :]).save(folder / f"kind-{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"STEPS": 6, "CROP": (48, 64), "KEPT_APART": 4, "LMBDAS": (2e-4, 4e-4)}.items():
            patch.setattr(tool, name, value)
        tool.make_grids(folder, sorted(folder.glob("*.png")), rounds=1)
        made = {path.name: path.stat().st_mtime_ns for path in (folder / "grids").iterdir()}
        tool.make_grids(folder, sorted(folder.glob("*.png")), rounds=1)
        assert made == {path.name: path.stat().st_mtime_ns for path in (folder / "grids").iterdir()}
    return folder


def trained(work, kind, steps, directions):
    tool.train_contexts(work, kind, DESIGN.units, directions, steps, 3e-3, "", copies=2)
    return torch.load(work / f"{kind}.pt")


def test_pictures_kept_apart_are_fitted_at_every_lambda_and_others_at_one(work):
    names = sorted(path.name for path in (work / "grids").iterdir())
    assert [name.split("-")[0] for name in names] == ["test"] * 2 + ["train"] * 3


def test_positions_that_read_nothing_are_merged_and_counted(work):
    path = sorted((work / "grids").glob("train-*.npz"))[0]
    for kind, components in (("luma", {0}), ("chroma", {0, 1})):
        sample = tool.Sample.read(path, kind)
        assert set(sample.component.tolist()) == components
        quiet = ~sample.x.any(1)
        assert (sample.weights[~quiet] == 1).all() and sample.weights.sum() >= len(sample.values)
        assert sample.cumulated[-1] == 1


@pytest.mark.parametrize("turn", range(8))
def test_turned_grids_are_those_of_the_turned_field(turn):
    pyramid, rng = Pyramid(48, 64), np.random.default_rng(turn)
    siren, theta0, _ = load_prior(3)
    weights = to_floats(siren, theta0)
    q = {grid.key: rng.integers(-3, 4, (grid.height, grid.width)).astype(np.int32) for grid in pyramid.grids}

    def field(pyramid, q):
        return window(pyramid, q, weights, 0.1, (0, 0, pyramid.height, pyramid.width))

    expected = field(pyramid, q)[:, :: 1 - (turn & 2), :: 1 - 2 * (turn & 1)]
    expected = expected.transpose(0, 2, 1) if turn & 4 else expected
    found = field(*tool.turned(pyramid, q, turn))
    assert found.shape == expected.shape and np.allclose(found, expected, atol=1e-5)
    odd = Pyramid(47, 64)
    assert tool.turned(odd, q, turn)[0] is odd


def test_training_makes_pictures_cheaper_and_a_finished_one_stays(work):
    shapes = {name.partition(".")[2]: s for name, s in DESIGN.shapes.items() if name.startswith("luma")}
    sample = tool.Sample.read(sorted((work / "grids").glob("train-*.npz"))[0], "luma")
    first, later = (trained(work, "luma", steps, 2) for steps in (1, 120))
    costs = [tool.whole_bits(tool.split(state["theta"].detach(), shapes), sample) for state in (first, later)]
    assert costs[1] < 0.8 * costs[0]
    assert torch.equal(trained(work, "luma", 120, 2)["theta"], later["theta"])


def test_the_packed_prior_has_the_trained_networks_and_the_synthesis_of_the_one_before(work):
    states = {kind: trained(work, kind, 120, number) for kind, number in (("luma", 2), ("chroma", 1))}
    tool.pack(work, work / "prior.bin", paint=0, prior=2)
    siren, theta0, directions = unpack_prior((work / "prior.bin").read_bytes(), DESIGN)
    assert np.array_equal(theta0["w0"], load_prior(2).theta0["w0"])
    at = 0
    for name, shape in siren.shapes.items():
        if name.startswith("luma."):
            size = int(np.prod(shape))
            expected = states["luma"]["theta"].detach()[at : at + size].numpy()
            assert theta0[name] / 2**20 == pytest.approx(expected, abs=2e-3)
            at += size
    assert {name.partition(".")[0] for name in directions} == {"luma", "chroma"}
    with pytest.raises(SystemExit, match="only 3 of the fits"):
        tool.pack(work, work / "prior.bin", paint=4, prior=3)
    assert directions["luma.a"].entries.shape == (2, 8 * 39)
