"""Philox4x32-10, the counter-based generator behind every pseudo-random number of the format.

Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). A pure function of counter
and key: no state, no order, so any part of a basis can be made anywhere, alone. Neither torch's generators
(they differ between devices) nor NumPy's Philox (the 4x64 variant) give this stream.
"""

from __future__ import annotations

from prancimg.network.arrays import Array

MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox4x32(counter: tuple[Array, Array, Array, Array], seed: int) -> tuple[Array, Array, Array, Array]:
    """Four 32-bit random words for every counter.

    Args:
        counter: four int64 arrays or ints (at least one an array, NumPy or torch, any device) with values in
            [0, 2**32), broadcast against each other.
        seed: the key, in [0, 2**64); its low word is key 0.

    Returns:
        Four int64 arrays of the broadcast shape with values in [0, 2**32), bit-identical on every device.
    """
    c0, c1, c2, c3 = counter
    key0, key1 = seed & MASK, seed >> 32 & MASK
    for _ in range(_ROUNDS):
        # A signed 64-bit product wraps, but its bits are those of the unsigned one: masks make them right.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32 & MASK) ^ c1 ^ key0, p1 & MASK, (p0 >> 32 & MASK) ^ c3 ^ key1, p0 & MASK
        key0, key1 = key0 + _WEYL[0] & MASK, key1 + _WEYL[1] & MASK
    return c0, c1, c2, c3
