"""The same integers, and samples within a level, whatever threads, chunks, kernels and byte order there are."""

import ast
import json
import os
import platform
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from golden.integers import integers
from golden.report import report, totals
from packaging.requirements import Requirement
from packaging.version import Version

from prancimg.decoding.decoder import Model, decode_array, read_coefficients
from prancimg.format.bitstream import read_header
from prancimg.format.layout import Kind
from prancimg.format.range_coder import Decoder, Encoder
from prancimg.network import basis, context, siren
from prancimg.network.basis import Block, expand_block
from tools.matrix import MACHINES, bounds, disobeyed

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "golden"
SOME = ["field", "field-sign", "field-popcount", "siren-seeded", "siren-extremes"]


def test_here():
    assert totals(report()).items() >= {"wrong integers": 0, "by more": 0}.items()


@pytest.mark.parametrize(
    "machine", ["NumPy without AVX-512", "NumPy without FMA and AVX2", "OpenBLAS for Nehalem", "two threads"]
)
def test_on_other_machines(machine):
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "tests.golden.report"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment | MACHINES[machine], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert not disobeyed(machine, found["kernels"])
    assert totals(found).items() >= {"wrong integers": 0, "by more": 0}.items()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the names of other processors are others")
def test_a_numpy_that_does_not_do_without_is_noticed():
    assert disobeyed("NumPy without AVX-512", ["AVX2", "X86_V3", "X86_V4"]) == {"X86_V4"}
    assert disobeyed("NumPy without FMA and AVX2", ["AVX", "X86_V3", "a later name"]) == {"X86_V3", "a later name"}
    assert not disobeyed("two threads", ["X86_V4"])


@pytest.mark.parametrize("name", SOME)
def test_chunks_do_not_matter(name, monkeypatch):
    data = (FOLDER / f"{name}.prc").read_bytes()
    exact, picture = integers(data), decode_array(data)
    monkeypatch.setattr(basis.expand_block, "__defaults__", (1000,))
    monkeypatch.setattr(context, "_BLOCK", 7)
    monkeypatch.setattr(siren, "_TILE", 16)
    other = integers(data)
    assert all(np.array_equal(exact[key], other[key]) for key in exact)
    if name != "siren-extremes":
        assert np.abs(picture.astype(int) - decode_array(data)).max() <= 1


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", SOME)
def test_torch_has_the_same_parameters(name, threads):
    import torch

    header, segments = read_header((FOLDER / f"{name}.prc").read_bytes())
    alpha, model = read_coefficients(header, segments), Model.of(header)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
            for t, (a, block) in enumerate(zip(alpha, model.blocks, strict=True)):
                there = torch.from_numpy(a.astype(np.float64)).to(device)
                for chunk in (64, 1 << 20):
                    found = expand_block(header.seed, t, block, there, chunk).cpu().numpy()
                    assert np.array_equal(found, expand_block(header.seed, t, block, a.astype(np.float64)))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", Kind)
def test_products_are_exact_at_their_limits(kind):
    """The largest coefficients there can be, against Python's integers."""
    block, k = Block(0, 300, kind), 40
    a = np.where(np.arange(k) % 3, (1 << 20) - 1, -(1 << 20))
    entries = basis.entries(9, 2, block, 0, k, like=np.zeros(0, np.int64)).tolist()
    expected = [sum(x * int(y) for x, y in zip(row, a, strict=True)) for row in entries]
    assert expand_block(9, 2, block, a.astype(np.float64)).astype(np.int64).tolist() == expected


def test_arrays_of_the_other_byte_order_are_the_same_coefficients():
    values = np.arange(-500, 500) * 1000
    files = []
    for order in "<>":
        encoder = Encoder()
        encoder.put(values.astype(f"{order}i8"), 60)
        files.append(encoder.finish())
    assert files[0] == files[1] and np.array_equal(Decoder(files[0]).take(len(values), 60), values)


def test_bytes_become_numbers_only_in_a_named_byte_order():
    """No frombuffer, tobytes or from_bytes in the package leaves the byte order to the machine."""
    checked, others = 0, ("exif", "tags", "data")  # Pillow's tags and views of bytes, no arrays of numbers
    for path in (ROOT / "prancimg").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            text = ast.unparse(node)
            if node.func.attr in ("from_bytes", "to_bytes"):
                assert "'little'" in text or "'big'" in text, text
            elif node.func.attr == "frombuffer" and "int8" not in text:
                assert "'<" in text or "'>" in text, text
            elif node.func.attr == "tobytes" and ast.unparse(node.func.value) not in others and "int8" not in text:
                assert ".astype('<" in text or ".astype('>" in text, text
            else:
                continue
            checked += 1
    assert checked >= 6


def test_the_oldest_versions_tried_are_those_that_the_package_asks_for():
    """The first row of docs/matrix.json is that of the oldest; the package's own words are read by another parser."""
    tried = json.loads((ROOT / "docs" / "matrix.json").read_text())[0]["versions"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {each.name: each.specifier for each in map(Requirement, project["dependencies"])}
    for name, oldest in bounds().items():
        assert f">={oldest}" in str(asked[name]) and Version(tried[name]) == Version(oldest)


_ENCODE = """
import hashlib, sys
import numpy as np
import prancimg

rows, columns = np.mgrid[:90, :131]
picture = 120 + 60 * np.sin(np.stack([rows / 9, columns / 7, (rows * columns) / 900], 2)) * (columns > 60)[..., None]
for bpp in 0.4, 3.0:  # the second adapts the networks
    sys.stdout.write(hashlib.sha256(prancimg.encode(picture.astype(np.uint8), bpp=bpp, effort=1)).hexdigest())
"""


def test_an_encoder_makes_the_same_bytes_with_any_number_of_threads():
    made = set()
    for compiled, torchs in (("1", "1"), ("2", "1"), ("2", "2")):
        environment = {"PYTHONPATH": str(ROOT), "NUMBA_NUM_THREADS": compiled, "OMP_NUM_THREADS": torchs}
        command = [sys.executable, "-c", _ENCODE]
        made.add(subprocess.run(command, env=os.environ | environment, check=True, capture_output=True).stdout)
    assert len(made) == 1
