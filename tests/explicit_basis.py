"""B written out, entry by entry: what products with a basis are compared with."""

import numpy as np

from prancimg.network.basis import Basis, entries, positions


def matrix(basis: Basis, k: int) -> np.ndarray:
    """B (D, k), entry by entry."""
    out = np.zeros((basis.size, k), np.int64)
    for i, (block, where) in enumerate(zip(basis.blocks, positions(basis, k), strict=True)):
        out[block.start : block.start + block.rows, where] = entries(
            basis.seed, i, block, 0, len(where), like=np.zeros(0, np.int64)
        )
    return out
