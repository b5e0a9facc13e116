"""The command that tries and measures a GPU, as far as that goes without one."""

import json
import subprocess

import pytest
import torch

from prancimg.errors import PrancImgError
from tools import gpu


def test_without_a_gpu_it_says_so_in_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path / "gpu.json")]) == 1
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "gpu.json").exists()


def test_the_tests_that_it_runs_are_here():
    assert all((gpu.ROOT / each).exists() for each in gpu.TESTS)


def test_no_effort_that_there_is_not(capsys):
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["--efforts", "10"])


@pytest.mark.parametrize("status", [0, 1])
def test_every_part_is_in_the_file(monkeypatch, tmp_path, photo, status):
    """On the CPU, with smaller products and without the tests themselves."""
    monkeypatch.setattr(gpu, "tested", lambda folder: {"status": status})
    monkeypatch.setattr(gpu, "SIDE", 64)
    small = gpu.products(torch.device("cpu"), 300, 20)
    monkeypatch.setattr(gpu, "products", lambda device, *size: small)
    assert gpu.measure(tmp_path / "new" / "gpu.json", photo[:64, :64], [1], "cpu") == status
    found = json.loads((tmp_path / "new" / "gpu.json").read_text())
    assert {*found} == {"device", "torch", "tests", "basis", "fits"}
    assert all(row["to arithmetic alone"] > 0 for row in found["basis"][0]["rows"])
    (fit,) = found["fits"]
    assert fit["bytes"] <= 0.5 * 64 * 64 / 8 and fit["psnr"] > 20


def test_the_tests_are_counted(monkeypatch, tmp_path):
    xml = '<testsuites><testsuite tests="9" failures="2" errors="0" skipped="1" time="3.5"/></testsuites>'

    def run(command, **how):
        (tmp_path / "gpu-tests.xml").write_text(xml)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(gpu.subprocess, "run", run)
    expected = {"status": 1, "tests": 9, "failures": 2, "errors": 0, "skipped": 1, "seconds": 3.5}
    assert gpu.tested(tmp_path) == expected


def test_a_fit_on_a_device_that_is_not_here_is_refused(monkeypatch, photo):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PrancImgError, match="CUDA"):
        gpu.fitted(photo, 1, "cuda")
