"""The tool that trains context models: every step leaves what the next one reads, and goes on where it was stopped."""

import numpy as np
import pytest
import torch
from PIL import Image

from prancimg.format.layout import Design
from prancimg.network.prior import load_prior, unpack_prior
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
    tool.train_contexts(work, kind, DESIGN.units, directions, steps, 3e-3, "")
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
