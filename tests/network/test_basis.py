"""The basis: entries from their definition, products against the explicit matrix, exactness, nesting."""

import numpy as np
import pytest
import torch
from explicit_basis import matrix
from hypothesis import given
from hypothesis import strategies as st

from prancimg.format.layout import Kind
from prancimg.network.basis import (
    Block,
    block_basis,
    chunk_basis,
    column_norm,
    dense_basis,
    entries,
    expand,
    expand_block,
    expand_block_transposed,
    positions,
    walsh_hadamard,
)
from prancimg.network.philox import philox4x32

SIZES = [450, 5, 333, 256, 300]
LIKE = np.zeros(0, np.int64)
kinds = pytest.mark.parametrize("kind", Kind)


def word(counter: tuple[int, int, int, int], index: int, seed: int) -> int:
    return int(philox4x32(tuple(np.array([c]) for c in counter), seed)[index][0])


@pytest.mark.parametrize(("row", "column"), [(0, 0), (31, 5), (32, 1), (127, 2), (128, 2), (299, 7)])
def test_sign_entries_are_single_bits(row, column):
    value = entries(9, 3, Block(0, 300, Kind.SIGN), column, column + 1, like=LIKE)[row, 0]
    bit = word((row // 128, column, 3, 1), row // 32 % 4, 9) >> row % 32 & 1
    assert value == 1 - 2 * bit


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 5), (4, 1), (299, 7)])
def test_popcount_entries_count_bits(row, column):
    value = entries(9, 3, Block(0, 300, Kind.POPCOUNT), column, column + 1, like=LIKE)[row, 0]
    assert value == word((row // 4, column, 3, 2), row % 4, 9).bit_count() - 16


@pytest.mark.parametrize("rows", [1, 64, 256, 300])
def test_hadamard_columns_are_signs_and_orthogonal_where_rows_are_a_power_of_two(rows):
    b = entries(9, 3, Block(0, rows, Kind.HADAMARD), 0, rows, like=LIKE)
    assert set(np.unique(b)) <= {-1, 1}
    if rows & rows - 1 == 0:
        assert (b.T @ b == rows * np.eye(rows)).all()
    assert np.linalg.matrix_rank(b) == rows


def test_walsh_hadamard_is_sylvesters_matrix():
    h = np.ones((1, 1))
    for _ in range(5):
        h = np.kron(h, [[1, 1], [1, -1]])
    x = np.arange(32.0) ** 2
    assert (walsh_hadamard(x) == h @ x).all()


@kinds
def test_entries_have_the_stated_mean_and_norm(kind):
    block = Block(0, 4000, kind)
    b = entries(1, 0, block, 0, 20, like=LIKE)
    norms = np.sqrt((b.astype(float) ** 2).sum(0))
    assert norms == pytest.approx(column_norm(block), rel=0.08)
    if kind != Kind.IDENTITY:
        assert abs(b.mean()) < 5 * b.std() / np.sqrt(b.size)


@kinds
@pytest.mark.parametrize("make", [block_basis, dense_basis])
@pytest.mark.parametrize("k", [0, 1, 100, 400, sum(SIZES)])
def test_products_equal_the_explicit_matrix(kind, make, k):
    basis, rng = make(SIZES, kind, 7), np.random.default_rng(k)
    alpha = rng.integers(-1000, 1000, k).astype(float)
    assert (expand(basis, alpha) == matrix(basis, k) @ alpha).all()


@kinds
@given(st.integers(1, 300), st.data(), st.integers(0, 2**64 - 1), st.integers(1, 5000))
def test_integers_are_exact_in_any_library_and_chunk(kind, rows, data, seed, chunk):
    k = data.draw(st.integers(0, rows))
    block = Block(0, rows, kind)
    rng = np.random.default_rng(k)
    a, g = (rng.integers(-(2**20), 2**20, n).astype(float) for n in (k, rows))
    explicit = entries(seed, 4, block, 0, k, like=LIKE).astype(float)
    for convert in (np.asarray, torch.from_numpy):
        assert (np.asarray(expand_block(seed, 4, block, convert(a), chunk)) == explicit @ a).all()
        assert (np.asarray(expand_block_transposed(seed, 4, block, convert(g), k, chunk)) == explicit.T @ g).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@kinds
def test_integers_are_exact_on_a_gpu(kind):
    basis, alpha = block_basis(SIZES, kind, 7), np.random.default_rng(0).integers(-(2**20), 2**20, 500).astype(float)
    assert (expand(basis, torch.from_numpy(alpha).cuda()).cpu().numpy() == expand(basis, alpha)).all()


@kinds
@pytest.mark.parametrize("make", [block_basis, dense_basis])
def test_more_coefficients_leave_the_earlier_columns_alone(kind, make):
    basis = make(SIZES, kind, 3)
    whole = matrix(basis, basis.size)
    for k in (1, 250, 333, 900):
        assert (matrix(basis, k) == whole[:, :k]).all()


def test_blocks_tile_the_parameters_and_keep_small_tensors_whole():
    basis = block_basis([300, 256, 257], Kind.SIGN, 0)
    assert basis.blocks == (Block(0, 300, Kind.SIGN), Block(300, 256, Kind.IDENTITY), Block(556, 257, Kind.SIGN))
    assert dense_basis([300, 64], Kind.SIGN, 0).blocks == (Block(0, 364, Kind.SIGN),)


def test_whole_tensors_come_first_and_the_others_get_equal_shares():
    basis = block_basis([400, 50, 800], Kind.SIGN, 0)
    assert [len(where) for where in positions(basis, 50)] == [0, 50, 0]
    assert [len(where) for where in positions(basis, 50 + 600)] == [200, 50, 400]


def test_seeds_and_blocks_differ():
    block = Block(0, 256, Kind.SIGN)
    draws = [entries(s, i, block, c, c + 1, like=LIKE).tobytes() for s in (0, 1, 2**32) for i in (0, 1) for c in (0, 1)]
    assert len(set(draws)) == len(draws)


@pytest.mark.parametrize("k", [-1, sum(SIZES) + 1])
def test_impossible_numbers_of_coefficients_are_refused(k):
    with pytest.raises(ValueError, match="not between"):
        positions(block_basis(SIZES, Kind.SIGN, 0), k)


def test_chunks_are_equal_parts_of_tensors():
    basis = chunk_basis([1000, 256, 300], Kind.SIGN, 0, 300)
    assert [(block.start, block.rows) for block in basis.blocks] == [
        (0, 250), (250, 250), (500, 250), (750, 250), (1000, 256), (1256, 300),
    ]  # fmt: skip
    assert [block.kind for block in basis.blocks] == [Kind.SIGN] * 4 + [Kind.IDENTITY, Kind.SIGN]


@given(st.lists(st.integers(1, 900), min_size=1, max_size=6), st.data())
def test_places_follow_from_the_ranks_of_all_columns(sizes, data):
    """:func:`positions` looks at the first columns of each block only; here are all of them."""
    make = data.draw(st.sampled_from([block_basis, dense_basis, lambda *a: chunk_basis(*a, 100)]))
    basis = make(sizes, data.draw(st.sampled_from(Kind)), 0)
    k = data.draw(st.integers(0, basis.size))
    mixed = any(block.kind != Kind.IDENTITY for block in basis.blocks)
    ranked = sorted(
        (0.0 if mixed and block.kind == Kind.IDENTITY else (c + 1) / block.rows, i)
        for i, block in enumerate(basis.blocks)
        for c in range(block.rows)
    )[:k]
    expected = [[place for place, (_, i) in enumerate(ranked) if i == block] for block in range(len(basis.blocks))]
    assert [where.tolist() for where in positions(basis, k)] == expected
