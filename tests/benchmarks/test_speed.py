"""The speed benchmark: pieces can be run one by one, and ratios are to the reference of the same run."""

import json
import sys

import numpy as np
import pytest

from benchmarks.speed import __main__ as speed


def run(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["speed", *arguments])
    speed.main()


def test_pieces_measured_before_stay(tmp_path, monkeypatch):
    out = tmp_path / "speed.json"
    out.write_text(json.dumps({"step": {"rows": []}}))
    run(monkeypatch, "basis", "--parameters", "300", "--coefficients", "20", "--out", str(out))
    found = json.loads(out.read_text())
    assert found.keys() == {"step", "basis"}
    rows = found["basis"]["rows"]
    assert [row["ratio"] for row in rows if "(reference)" in row["what"]] == [1] and len(rows) == 4


def test_training_is_measured_with_and_without_a_stored_basis(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "training", lambda k, train=speed.training: train(k, 4))
    run(monkeypatch, "training", "--coefficients", "20", "--out", str(tmp_path / "speed.json"))
    rows = json.loads((tmp_path / "speed.json").read_text())["training"]["rows"]
    assert [row["ratio"] for row in rows if "(reference)" in row["what"]] == [1] and len(rows) == 7


def test_a_table_needs_its_reference():
    rows = [{"what": "a", "seconds": 3.0}, {"what": "b (reference)", "seconds": 2.0}]
    assert [row["ratio"] for row in speed.ratios(rows)] == [1.5, 1]
    with pytest.raises(ValueError):
        speed.ratios(rows[:1])


def test_a_process_is_measured_whole_and_its_failure_is_noticed():
    row = speed.process([sys.executable, "-c", "x = bytes(50_000_000)"], 1)
    assert row["mebibytes"] > 48 and row["seconds"] > 0 and row["wall"] > 0
    with pytest.raises(SystemExit, match="failed"):
        speed.process([sys.executable, "-c", "raise SystemExit(3)"], 1)


def test_loss_is_that_of_the_decoded_file(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    row = speed._pillow(picture, tmp_path, "jpg", 50)
    assert row["bpp"] == 8 * (tmp_path / "p.jpg").stat().st_size / 256 and 5 < row["psnr"] < 40


def test_the_ladder_is_drawn(tmp_path, monkeypatch):
    rows = [{"what": f"effort {e}", "effort": e, "seconds": 2.0**e, "loss": 1e-3 / e} for e in (1, 2)]
    rows.append({"what": "avif by Pillow (reference)", "seconds": 0.3, "loss": 1e-3})
    out, drawn = tmp_path / "speed.json", tmp_path / "effort.svg"
    out.write_text(json.dumps({"encode": {"rows": rows}}))
    run(monkeypatch, "--plot", str(drawn), "--out", str(out))
    assert drawn.read_text().startswith("<?xml")


def test_threading_layers_are_measured_alone_and_beside_others(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(speed, "process", lambda command, times: asked.append(command) or {"seconds": len(asked)})
    rows = speed.layers(np.zeros((8, 8, 3), np.uint8), tmp_path, 1)
    assert ["omp" in command[1] for command in asked] == [True, False, True, False]
    assert [row["ratio"] for row in rows] == [1 / 3, 2 / 3, 1, 4 / 3]
