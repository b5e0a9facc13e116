"""Products of small matrices at the speed of the processor's multipliers: blocks that stay in vector registers.

Numba's own vectorisation leaves half of it unused, because it keeps no block of results in registers. So the innermost
loop is written in LLVM's instructions: 4 rows by 32 columns of a result are loaded, grow by one outer product at a
time, and are stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from prancimg.fit.kernels.arithmetic import compiled

ROWS = 4
"""Rows of a block."""
_FLOAT, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_FAST = ("fast",)
_allocate: Any = cgutils.alloca_once


def _block(lanes: int, vectors: int) -> Any:
    """A function that adds W x to a block of 4 rows of ``vectors`` vectors of ``lanes`` floats.

    Its arguments are numbers of bytes: addresses of the block, W and x; from row to row of the block, of W, from
    column to column of W, from row to row of x; and last the number of rows of x.
    """
    vector = ir.VectorType(_FLOAT, lanes)
    everywhere = ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes)
    offsets = [_I64(4 * lanes * v) for v in range(vectors)]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, w, x, out_row, w_row, w_column, x_row, inner = arguments

        def at(address: Any, kind: Any) -> Any:
            return builder.inttoptr(address, kind.as_pointer())

        def load(address: Any) -> Any:
            value = builder.load(at(address, vector))
            value.align = 4
            return value

        sums = [[_allocate(builder, vector) for _ in offsets] for _ in range(ROWS)]  # registers, once optimised
        places = [
            [builder.add(builder.add(out, builder.mul(out_row, _I64(i))), o) for o in offsets] for i in range(ROWS)
        ]
        for row, here in zip(sums, places, strict=True):
            for cell, place in zip(row, here, strict=True):
                builder.store(load(place), cell)
        with cgutils.for_range(builder, inner) as loop:
            x_here = builder.add(x, builder.mul(x_row, loop.index))
            w_here = builder.add(w, builder.mul(w_column, loop.index))
            values = [load(builder.add(x_here, o)) for o in offsets]
            for i, row in enumerate(sums):
                weight = builder.load(at(builder.add(w_here, builder.mul(w_row, _I64(i))), _FLOAT))
                one = builder.insert_element(ir.Constant(vector, ir.Undefined), weight, _I32(0))
                weights = builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), everywhere)
                for cell, value in zip(row, values, strict=True):
                    product = builder.fmul(weights, value, flags=_FAST)
                    builder.store(builder.fadd(product, builder.load(cell), flags=_FAST), cell)
        for row, here in zip(sums, places, strict=True):
            for cell, place in zip(row, here, strict=True):
                builder.store(builder.load(cell), at(place, vector)).align = 4
        return context.get_dummy_value()

    @intrinsic
    def add_block(
        typing: Any, out: Any, w: Any, x: Any, out_row: Any, w_row: Any, w_column: Any, x_row: Any, inner: Any
    ) -> Any:
        return types.void(*[types.intp] * 8), generate

    return add_block


_thirty_two, _sixteen, _eight = _block(16, 2), _block(16, 1), _block(8, 1)


@compiled
def _add(out: np.ndarray, w: np.ndarray, w_row: int, w_column: int, x: np.ndarray, rows: int, inner: int) -> None:
    out_row, x_row, columns = out.strides[0], x.strides[0], out.shape[1]
    for i in range(0, rows, ROWS):
        start, source = out.ctypes.data + i * out_row, w.ctypes.data + i * w_row
        j = 0
        while j + 32 <= columns:
            _thirty_two(start + 4 * j, source, x.ctypes.data + 4 * j, out_row, w_row, w_column, x_row, inner)
            j += 32
        if j + 16 <= columns:
            _sixteen(start + 4 * j, source, x.ctypes.data + 4 * j, out_row, w_row, w_column, x_row, inner)
            j += 16
        if j < columns:
            _eight(start + 4 * j, source, x.ctypes.data + 4 * j, out_row, w_row, w_column, x_row, inner)


@compiled
def add_product(out: np.ndarray, w: np.ndarray, x: np.ndarray, rows: int) -> None:
    """Add w @ x to the first ``rows`` of out, and to the next up to a multiple of 4; out has 8 n columns."""
    _add(out, w, w.strides[0], w.strides[1], x, rows, len(x))


@compiled
def add_transposed_product(out: np.ndarray, w: np.ndarray, x: np.ndarray, n: int) -> None:
    """Add w[:n].T @ x[:n] to out, which has 4 m rows and 8 n columns."""
    _add(out, w, w.strides[1], w.strides[0], x, len(out), n)
