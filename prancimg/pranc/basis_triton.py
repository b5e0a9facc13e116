"""Products with a basis block on a GPU: Triton kernels that draw the block's bits in registers and never store them.

The same functions as :func:`prancimg.network.basis.expand_block` and its transpose, for blocks of random
bits. Integers come out exactly as there wherever their sums are exact in the dtype: float64 below 2**53, float32 below
2**24. Other sums are taken in another order, always the same, and agree to the rounding error of a sum, at most about
2 · n · ε times the sum of n terms without their signs. Needs Triton.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from prancimg.format.layout import Kind
from prancimg.network.basis import Block

KINDS = (Kind.SIGN, Kind.POPCOUNT)
"""The kinds whose entries are bits of counters of their own; the others take n log n and are left to the plain code."""
_SPAN = 1024
"""Columns (or counters, transposed) of one program, whole tiles; the sums of several are added at the end."""
_BITS = {Kind.SIGN: 32, Kind.POPCOUNT: 1}
"""Rows that come from one word."""
_TILES = {Kind.SIGN: (4, 16), Kind.POPCOUNT: (16, 128)}
"""Counters and columns held at a time: 2048 entries of each of four words."""


@triton.jit
def _entries(words, SIGN: tl.constexpr, like):
    """Words (counters, columns) to entries (counters, columns, rows of a word)."""
    if SIGN:
        bits = words[:, :, None] >> tl.arange(0, 32).to(tl.uint32)[None, None, :] & 1
        return (1 - 2 * bits.to(tl.int32)).to(like.dtype)
    else:
        pairs = words - (words >> 1 & 0x55555555)
        fours = (pairs & 0x33333333) + (pairs >> 2 & 0x33333333)
        eights = fours + (fours >> 4) & 0x0F0F0F0F
        ones = tl.mul(eights, 0x01010101, sanitize_overflow=False) >> 24
        return (ones.to(tl.int32) - 16).to(like.dtype)[:, :, None]


@triton.jit
def _words(seed, index, counters, columns, SIGN: tl.constexpr):
    """The four words of every counter and column."""
    zero = tl.zeros((counters.shape[0], columns.shape[0]), tl.uint32)
    block, kind = zero + index.to(tl.uint32), zero + (1 if SIGN else 2)
    return tl.philox(seed, zero + counters.to(tl.uint32)[:, None], zero + columns.to(tl.uint32)[None, :], block, kind)


@triton.jit
def _rows(counters, word: tl.constexpr, BITS: tl.constexpr):
    return (counters[:, None] * 4 + word) * BITS + tl.arange(0, BITS)[None, :]


@triton.jit(do_not_specialize=["seed", "index"])
def _expand(
    out,
    a,
    seed,
    index,
    rows,
    k,
    SIGN: tl.constexpr,
    BITS: tl.constexpr,
    COUNTERS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SPAN: tl.constexpr,
):
    counters, part = tl.program_id(0) * COUNTERS + tl.arange(0, COUNTERS), tl.program_id(1)
    s0 = tl.zeros((COUNTERS, COLUMNS, BITS), out.dtype.element_ty)
    s1, s2, s3 = s0, s0, s0
    for start in range(part * SPAN, min(part * SPAN + SPAN, k), COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        x = tl.load(a + columns, mask=columns < k, other=0.0)[None, :, None]
        w0, w1, w2, w3 = _words(seed, index, counters, columns, SIGN)
        s0 += _entries(w0, SIGN, s0) * x
        s1 += _entries(w1, SIGN, s0) * x
        s2 += _entries(w2, SIGN, s0) * x
        s3 += _entries(w3, SIGN, s0) * x
    out += part.to(tl.int64) * rows
    r0, r1, r2, r3 = (
        _rows(counters, 0, BITS),
        _rows(counters, 1, BITS),
        _rows(counters, 2, BITS),
        _rows(counters, 3, BITS),
    )
    tl.store(out + r0, tl.sum(s0, 1), mask=r0 < rows)
    tl.store(out + r1, tl.sum(s1, 1), mask=r1 < rows)
    tl.store(out + r2, tl.sum(s2, 1), mask=r2 < rows)
    tl.store(out + r3, tl.sum(s3, 1), mask=r3 < rows)


@triton.jit
def _some(g, counters, word: tl.constexpr, rows, BITS: tl.constexpr):
    """What the entries of a word are multiplied with, transposed: (counters, 1, rows of a word)."""
    at = _rows(counters, word, BITS)
    return tl.load(g + at, mask=at < rows, other=0.0)[:, None, :]


@triton.jit(do_not_specialize=["seed", "index"])
def _expand_transposed(
    out,
    g,
    seed,
    index,
    rows,
    k,
    SIGN: tl.constexpr,
    BITS: tl.constexpr,
    COUNTERS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SPAN: tl.constexpr,
):
    columns, part = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS), tl.program_id(1)
    s = tl.zeros((COUNTERS, COLUMNS, BITS), out.dtype.element_ty)
    used = tl.cdiv(rows, 4 * BITS)
    for start in range(part * SPAN, min(part * SPAN + SPAN, used), COUNTERS):
        counters = start + tl.arange(0, COUNTERS)
        w0, w1, w2, w3 = _words(seed, index, counters, columns, SIGN)
        s += _entries(w0, SIGN, s) * _some(g, counters, 0, rows, BITS)
        s += _entries(w1, SIGN, s) * _some(g, counters, 1, rows, BITS)
        s += _entries(w2, SIGN, s) * _some(g, counters, 2, rows, BITS)
        s += _entries(w3, SIGN, s) * _some(g, counters, 3, rows, BITS)
    tl.store(out + part.to(tl.int64) * k + columns, tl.sum(tl.sum(s, 2), 0), mask=columns < k)


def expand_block(seed: int, index: int, block: Block, a: Tensor) -> Tensor:
    """The first len(a) columns of block number ``index``, times ``a``: (rows,) in a's dtype, float32 or float64."""
    k, counters, settings = len(a), _TILES[block.kind][0], _settings(block)
    parts = triton.cdiv(k, _SPAN)
    out = a.new_empty(parts, block.rows)
    grid = triton.cdiv(_counters(block), counters), parts
    if parts:
        _expand[grid](out, a.contiguous(), seed, index, block.rows, k, **settings)
    return out.sum(0)


def expand_block_transposed(seed: int, index: int, block: Block, g: Tensor, k: int) -> Tensor:
    """The first ``k`` columns of block number ``index``, transposed, times ``g`` (rows,): (k,) in g's dtype."""
    columns, settings = _TILES[block.kind][1], _settings(block)
    parts = triton.cdiv(_counters(block), _SPAN)
    out = g.new_empty(parts, k)
    if k:
        _expand_transposed[triton.cdiv(k, columns), parts](out, g.contiguous(), seed, index, block.rows, k, **settings)
    return out.sum(0)


def _counters(block: Block) -> int:
    """Philox counters to a column of a block."""
    return -(-block.rows // (4 * _BITS[block.kind]))


def _settings(block: Block) -> dict[str, Any]:
    counters, columns = _TILES[block.kind]
    sign, bits = block.kind == Kind.SIGN, _BITS[block.kind]
    return {"SIGN": sign, "BITS": bits, "COUNTERS": counters, "COLUMNS": columns, "SPAN": _SPAN}
