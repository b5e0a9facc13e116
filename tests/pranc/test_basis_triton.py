"""The GPU's products equal the plain ones: bit for bit on integers, without a GPU in Triton's interpreter."""

import sys

import numpy as np
import pytest
import torch

from prancimg.format.layout import Kind
from prancimg.network import basis
from prancimg.network.basis import Block
from prancimg.pranc import products

triton = pytest.importorskip("triton", reason="needs Triton")
basis_triton = pytest.importorskip("prancimg.pranc.basis_triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(300, 40, 7), (1, 1, 2**64 - 1), (129, 17, 2**63 + 5)]


def both(kind: Kind, rows: int, k: int, seed: int, a: np.ndarray, g: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Both products, by Triton and plain, of the same numbers."""
    block = Block(0, rows, kind)
    ours = [torch.from_numpy(x).to(DEVICE) for x in (a, g)]
    return [
        (
            basis_triton.expand_block(seed, 4, block, ours[0]).cpu().numpy(),
            basis.expand_block(seed, 4, block, a),
        ),
        (
            basis_triton.expand_block_transposed(seed, 4, block, ours[1], k).cpu().numpy(),
            basis.expand_block_transposed(seed, 4, block, g, k),
        ),
    ]


@pytest.mark.parametrize("kind", basis_triton.KINDS)
@pytest.mark.parametrize(("rows", "k", "seed"), SHAPES)
def test_integers_are_exact(kind, rows, k, seed):
    rng = np.random.default_rng(0)
    a, g = (rng.integers(-(2**20), 2**20, n).astype(float) for n in (k, rows))
    for found, expected in both(kind, rows, k, seed, a, g):
        assert found.dtype == np.float64 and found.tolist() == expected.tolist()


@pytest.mark.parametrize("kind", basis_triton.KINDS)
def test_floats_agree_to_the_rounding_error_of_a_sum(kind):
    rng = np.random.default_rng(1)
    a, g = (rng.normal(size=n).astype(np.float32) for n in (17, 140))
    largest = {Kind.SIGN: 1, Kind.POPCOUNT: 16}[kind]
    for (found, expected), x in zip(both(kind, 140, 17, 3, a, g), (a, g), strict=True):
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() <= 2 * len(x) * np.finfo(np.float32).eps * largest * np.abs(x).sum()


def test_several_programs_share_a_sum(monkeypatch):
    monkeypatch.setattr(basis_triton, "_SPAN", 128)
    rng = np.random.default_rng(2)
    for rows, k in ((60, 130), (520, 2)):
        a, g = (rng.integers(-9, 9, n).astype(float) for n in (k, rows))
        for found, expected in both(Kind.POPCOUNT, rows, k, 5, a, g):
            assert found.tolist() == expected.tolist()


def test_no_coefficients_make_zeros():
    assert basis_triton.expand_block(0, 0, Block(0, 5, Kind.SIGN), torch.zeros(0, device=DEVICE)).tolist() == [0] * 5


class OnGpu:
    """What the choice of a product looks at, of a tensor on a GPU."""

    is_cuda, dtype = True, torch.float32


@pytest.mark.parametrize(("kind", "chosen"), [(Kind.SIGN, basis_triton), (Kind.HADAMARD, basis)])
def test_a_gpu_takes_triton_for_random_bits(kind, chosen):
    block = Block(0, 300, kind)
    assert products.implementation(block, OnGpu()) is chosen and products.implementation(block, torch.zeros(1)) is basis


def test_without_triton_a_gpu_takes_the_plain_products(monkeypatch):
    monkeypatch.delattr(sys.modules["prancimg.pranc"], "basis_triton")
    monkeypatch.setitem(sys.modules, "prancimg.pranc.basis_triton", None)
    assert products.implementation(Block(0, 300, Kind.SIGN), OnGpu()) is basis
