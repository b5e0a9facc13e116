"""Learned directions of the siren preset: what they are, the file they go to, and going on where one was stopped."""

import sys

import numpy as np
import pytest
from PIL import Image

from prancimg.format.layout import DESIGNS, Design
from prancimg.network.prior import load_prior, unpack_prior
from prancimg.network.siren import FRACTION
from tools import train_siren_directions
from tools.train_siren_directions import REACH, leading, middle

NUMBER = 60_001


def test_directions_are_orthogonal_and_span_what_the_offsets_share():
    random = np.random.default_rng(0)
    shared = random.standard_normal((2, 50))
    found = random.standard_normal((20, 2)) * (10, 3) @ shared + 0.01 * random.standard_normal((20, 50))
    directions = leading(found, 2)
    assert np.allclose(directions @ directions.T, REACH**2 * np.eye(2), atol=1e-6)
    left = found - found @ directions.T @ directions / REACH**2
    assert np.square(left).sum() < 1e-3 * np.square(found).sum()


@pytest.mark.parametrize(
    ("size", "expected"), [((900, 600), (512, 768)), ((300, 1000), (768, 300)), ((64, 48), (48, 64))]
)
def test_the_middle_of_a_photograph(tmp_path, size, expected):
    Image.new("RGB", size).save(tmp_path / "a.png")
    assert middle(tmp_path / "a.png").shape == (*expected, 3)


def test_a_prior_with_directions_and_going_on(tmp_path, monkeypatch, capsys):
    random = np.random.default_rng(0)
    for name in ("a", "b", "left", "small"):
        side = 100 if name == "small" else 210
        Image.fromarray(random.integers(0, 256, (side, side + 30, 3), np.uint8)).save(tmp_path / f"{name}.png")
    design = Design(learned=(("w1", 2), ("w2", 1)))
    monkeypatch.setitem(DESIGNS, NUMBER, design)
    out = tmp_path / "out" / "siren.bin"
    out.parent.mkdir()
    arguments = ["", str(out), str(tmp_path), "--start", "1", "--lower", "0.5", "--number", str(NUMBER)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--steps", "3", "--leave-out", "left"])
    train_siren_directions.main()
    siren, theta0, directions = unpack_prior(out.read_bytes(), design)
    first = load_prior(1).theta0
    with np.load(out.with_suffix(".npz")) as kept:
        moved = {name: 2**FRACTION * kept[name].mean(0) for name in ("w0", "w1", "w4")}
    assert siren.design == design and {name: len(along.entries) for name, along in directions.items()} == {
        "w1": 2,
        "w2": 1,
    }
    half = siren.hidden  # of w0, flat
    assert np.abs(moved["w0"]).max() > 2**10
    assert np.abs(theta0["w0"] - 4 * moved["w0"] - first["w0"] * np.repeat([0.5, 1], half)).max() <= 2**9
    assert all(np.abs(theta0[name] - moved[name] - first[name]).max() <= 2**9 for name in ("w1", "w4"))
    assert np.linalg.norm(directions["w1"].entries[0] / 2.0 ** directions["w1"].shifts[0]) == pytest.approx(
        REACH, rel=0.05
    )
    printed, data = capsys.readouterr().out, out.read_bytes()
    assert printed.count(" dB") == 2
    train_siren_directions.main()
    assert " dB" not in capsys.readouterr().out and out.read_bytes() == data
