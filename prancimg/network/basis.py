"""The frozen pseudo-random directions B(seed): their blocks, their entries and their products.

B is block diagonal: every block spans some consecutive parameters (its rows) with pseudo-random integer columns.
An entry is a pure function of (seed, block, row, column), so more columns never change the earlier ones, and
nothing is ever stored. Everything here is integers; with integer coefficients in float64 every product is exact
(below 2**53), whatever the library, the device or the chunk size. Written once for NumPy and torch.

PRANC: Nooralinejad et al., "PRANC: Pseudo RAndom Networks for Compacting deep models" (ICCV 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TypeVar

import numpy as np

from prancimg.format.layout import Kind
from prancimg.network.arrays import Array, arange, cast, convert, namespace, zeros
from prancimg.network.philox import philox4x32

IDENTITY_UP_TO = 256
"""Tensors of at most so many entries get an identity block."""
CHUNK = 1 << 20
"""Entries of B generated at a time."""
_CACHED_UP_TO = 1 << 16
"""Rows of a block from which on nothing about it is cached."""


@dataclass(frozen=True)
class Block:
    """Parameters ``start .. start+rows-1``, spanned by up to ``rows`` columns of one kind."""

    start: int
    rows: int
    kind: Kind


@dataclass(frozen=True)
class Basis:
    """A seed and its blocks, which tile the parameter vector in order."""

    seed: int
    blocks: tuple[Block, ...]

    @property
    def size(self) -> int:
        """D, the number of parameters (and the largest useful k)."""
        return sum(block.rows for block in self.blocks)


Product = Callable[[int, int, Block, Array], Array]
Drawn = TypeVar("Drawn")


def block_basis(sizes: Sequence[int], kind: Kind, seed: int) -> Basis:
    """A block for each tensor; small tensors keep every entry."""
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    kinds = [Kind.IDENTITY if size <= IDENTITY_UP_TO else kind for size in sizes]
    return Basis(seed, tuple(map(Block, starts, sizes, kinds)))


def dense_basis(sizes: Sequence[int], kind: Kind, seed: int) -> Basis:
    """One block over all parameters, as in the PRANC paper."""
    return Basis(seed, (Block(0, sum(sizes), kind),))


def chunk_basis(sizes: Sequence[int], kind: Kind, seed: int, rows: int) -> Basis:
    """Blocks of at most ``rows`` rows within each tensor, as equal as can be; small tensors keep every entry."""
    blocks, start = [], 0
    for size in sizes:
        parts = 1 if size <= IDENTITY_UP_TO else -(-size // rows)
        edges = [size * i // parts for i in range(parts + 1)]
        for low, high in pairwise(edges):
            blocks.append(Block(start + low, high - low, Kind.IDENTITY if size <= IDENTITY_UP_TO else kind))
        start += size
    return Basis(seed, tuple(blocks))


def column_norm(block: Block) -> float:
    """Root of the expected squared norm of a column."""
    return math.sqrt(squared_norm(block))


def squared_norm(block: Block) -> int:
    """The expected squared norm of a column."""
    return {Kind.IDENTITY: 1, Kind.POPCOUNT: 8 * block.rows}.get(block.kind, block.rows)


@lru_cache(maxsize=8)
def positions(basis: Basis, k: int) -> tuple[np.ndarray, ...]:
    """For every block, the places of its coefficients in a coefficient vector of length ``k``.

    Column c of a block with n rows has rank (c+1)/n, columns of identity blocks beside random ones have rank 0;
    coefficients are sorted by rank, then block. The order does not depend on k, so a shorter vector is a prefix of a
    longer one.
    """
    if not 0 <= k <= basis.size:
        raise ValueError(f"k = {k} is not between 0 and D = {basis.size}")
    mixed = any(block.kind != Kind.IDENTITY for block in basis.blocks)
    whole = [mixed and block.kind == Kind.IDENTITY for block in basis.blocks]
    size = sum(block.rows for block, all_of_it in zip(basis.blocks, whole, strict=True) if not all_of_it)
    # Up to rank q the blocks have size * q columns, or less by one each at most: enough of each to find k in all.
    ranks = [
        np.zeros(block.rows)
        if all_of_it
        else np.arange(1, min(block.rows, block.rows * (k + len(whole)) // size + 1) + 1) / block.rows
        for block, all_of_it in zip(basis.blocks, whole, strict=True)
    ]
    owner = np.repeat(np.arange(len(ranks)), [len(rank) for rank in ranks])
    order = np.argsort(np.concatenate(ranks), kind="stable")[:k]  # stable: ties go to the earlier block
    return tuple(np.flatnonzero(owner[order] == i) for i in range(len(ranks)))


def expand(basis: Basis, alpha: Array, product: Product | None = None) -> Array:
    """B @ alpha: coefficients (k,) to parameter offsets (D,), in alpha's dtype; ``product`` is :func:`expand_block`."""
    product = product or expand_block
    parts = [
        product(basis.seed, i, block, alpha[convert(where, alpha)])
        for i, (block, where) in enumerate(zip(basis.blocks, positions(basis, len(alpha)), strict=True))
    ]
    return namespace(alpha).concatenate(parts)


def expand_block(seed: int, index: int, block: Block, a: Array, chunk: int = CHUNK) -> Array:
    """The first len(a) columns of block number ``index``, times ``a``: (rows,) in a's dtype.

    Never holds more than ``chunk`` entries of B (or one column).
    """
    out = zeros(block.rows, a)
    if block.kind == Kind.IDENTITY:
        out[convert(_order(seed, index, block.rows)[: len(a)], a)] = a
    elif block.kind == Kind.HADAMARD:
        out = hadamard_product(tuple(convert(part, a) for part in hadamard_parts(seed, index, block.rows)), a)
    else:
        for c0, c1 in _column_chunks(block.rows, len(a), chunk):
            out += cast(entries(seed, index, block, c0, c1, like=a), a) @ a[c0:c1]
    return out


def expand_block_transposed(seed: int, index: int, block: Block, g: Array, k: int, chunk: int = CHUNK) -> Array:
    """The first ``k`` columns of block number ``index``, transposed, times ``g`` (rows,): (k,) in g's dtype."""
    if block.kind == Kind.IDENTITY:
        return g[convert(_order(seed, index, block.rows)[:k], g)]
    if block.kind == Kind.HADAMARD:
        parts = tuple(convert(part, g) for part in hadamard_parts(seed, index, block.rows))
        return hadamard_product_transposed(parts, g, k)
    out = zeros(k, g)
    for c0, c1 in _column_chunks(block.rows, k, chunk):
        out[c0:c1] = g @ cast(entries(seed, index, block, c0, c1, like=g), g)
    return out


def entries(seed: int, index: int, block: Block, c0: int, c1: int, *, like: Array) -> Array:
    """Columns ``c0 .. c1-1`` of block number ``index``: (rows, c1-c0) int64, of the kind and device of ``like``.

    IDENTITY: 1 in row order[column]; the order sorts the words of counters (i//4, 0, index, kind), word i%4 for row i.
    SIGN: bit r%32 of word r//32%4 of Philox counter (r//128, column, index, kind); a set bit is -1.
    POPCOUNT: the ones in word r%4 of counter (r//4, column, index, kind), less 16.
    """
    xp = namespace(like)
    columns = arange(c0, c1, like)
    if block.kind == Kind.IDENTITY:
        return cast(
            arange(0, block.rows, like)[:, None] == convert(_order(seed, index, block.rows)[c0:c1], like), columns
        )
    if block.kind == Kind.HADAMARD:
        signs, rows, order = (convert(part, like) for part in hadamard_parts(seed, index, block.rows))
        return (1 - 2 * (_popcount(rows[:, None] & order[c0:c1]) & 1)) * signs[:, None]
    per_counter = 128 if block.kind == Kind.SIGN else 4
    groups = arange(0, -(-block.rows // per_counter), like)[:, None]
    words = xp.stack(philox4x32((groups, columns, index, int(block.kind)), seed), 1)
    if block.kind == Kind.SIGN:
        bits = words[:, :, None, :] >> arange(0, 32, like)[:, None] & 1
        return (1 - 2 * bits).reshape(len(groups) * 128, c1 - c0)[: block.rows]
    return _popcount(words).reshape(len(groups) * 4, c1 - c0)[: block.rows] - 16


def hadamard_product(parts: tuple[Array, Array, Array], a: Array) -> Array:
    """:func:`expand_block` of a Hadamard block whose :func:`hadamard_parts` are at hand, of a's kind and device."""
    signs, rows, columns = parts
    padded = zeros(len(columns), a)
    padded[columns[: len(a)]] = a
    return walsh_hadamard(padded)[rows] * cast(signs, a)


def hadamard_product_transposed(parts: tuple[Array, Array, Array], g: Array, k: int) -> Array:
    """:func:`expand_block_transposed` of such a block."""
    signs, rows, columns = parts
    padded = zeros(len(columns), g)
    padded[rows] = g * cast(signs, g)
    return walsh_hadamard(padded)[columns[:k]]


def walsh_hadamard(x: Array) -> Array:
    """The Walsh-Hadamard transform of a vector whose length is a power of two; natural order, not normalised.

    H(ab) is the Kronecker product of H(a) and H(b): two small matrix products instead of log n passes.
    """
    bits = len(x).bit_length() - 1
    left, right = (cast(convert(_hadamard(half), x), x) for half in (bits // 2, bits - bits // 2))
    return (left @ x.reshape(len(left), len(right)) @ right).reshape(len(x))


@lru_cache(maxsize=16)
def _hadamard(bits: int) -> np.ndarray:
    """The Hadamard matrix of order 2**bits: entry (i, j) is -1 where i & j has an odd number of ones."""
    i = np.arange(1 << bits, dtype=np.int64)
    signs: np.ndarray = 1 - 2 * (_popcount(i[:, None] & i) & 1)
    return signs.astype(np.int8)


def _cached(draw: Callable[..., Drawn]) -> Callable[..., Drawn]:
    """Keep what was drawn last for blocks of ordinary size; a hostile file must not leave much memory behind."""
    remembering = lru_cache(maxsize=64)(draw)

    def choose(seed: int, index: int, rows: int) -> Drawn:
        return (remembering if rows <= _CACHED_UP_TO else draw)(seed, index, rows)

    return choose


@_cached
def hadamard_parts(seed: int, index: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signs (rows,), the rows (rows,) and the order of the columns (n,) taken from a Hadamard matrix of order n.

    n is the power of two from ``rows`` up. Use 0 of the words makes signs (a set low bit is -1), uses 1 and 2 the
    orders of rows and columns.
    """
    n = 1 << (rows - 1).bit_length()
    signs, row_words, column_words = (_words(seed, index, Kind.HADAMARD, use, n) for use in range(3))
    return (1 - 2 * (signs[:rows] & 1)).astype(np.int8), _sorted(row_words)[:rows], _sorted(column_words)


@_cached
def _order(seed: int, index: int, rows: int) -> np.ndarray:
    """The row of every column of an identity block."""
    return _sorted(_words(seed, index, Kind.IDENTITY, 0, rows))


def _words(seed: int, index: int, kind: Kind, use: int, count: int) -> np.ndarray:
    """Word i is word i%4 of Philox counter (i//4, use, index, kind)."""
    groups = np.arange(-(-count // 4), dtype=np.int64)
    return np.stack(philox4x32((groups, use, index, int(kind)), seed), 1).ravel()[:count]


def _sorted(words: np.ndarray) -> np.ndarray:
    """The order that sorts words; equal ones keep theirs."""
    return np.argsort(words, kind="stable")


def _popcount(x: Array) -> Array:
    """Ones among the 32 low bits of each int64 entry."""
    x = x - (x >> 1 & 0x55555555)
    x = (x & 0x33333333) + (x >> 2 & 0x33333333)
    x = x + (x >> 4) & 0x0F0F0F0F
    return (x * 0x01010101 >> 24) & 0xFF


def _column_chunks(rows: int, columns: int, chunk: int) -> Iterator[tuple[int, int]]:
    step = max(1, chunk // max(rows, 1))
    for c0 in range(0, columns, step):
        yield c0, min(c0 + step, columns)
