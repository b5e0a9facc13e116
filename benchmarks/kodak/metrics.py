"""How much work it is to decode a file."""

from __future__ import annotations

import math
from itertools import pairwise

from prancimg.format.header import Header
from prancimg.format.layout import KINDS


def macs_per_pixel(header: Header) -> float:
    """Multiply-accumulates a pixel that decoding a .prc file takes.

    Counted are the network's matrix products and, where there is a field, its 3 x 3 filter, the context model for
    every coefficient, the coefficients' gains, and the separable enlargement of the channels from level to level.
    Left out are biases, sines, the range coder, the shifts and adds of the context model's features, and the offsets
    θ - θ0, which are made once a file, not for every pixel.
    """
    shapes = header.siren.shapes
    macs = float(sum(math.prod(shapes[f"w{i}"]) for i in range(header.layers + 1)))
    if not header.channels:
        return macs
    pyramid, pixels = header.pyramid, header.width * header.height
    once = 0
    for grid in pyramid.grids:
        kind = KINDS[grid.component > 0]
        network = sum(math.prod(shapes[f"{kind}.{name}"]) for name in "abc")
        once += grid.count * (network + header.channels)
    for fine, coarse in pairwise(map(pyramid.size, range(pyramid.levels))):
        once += header.channels * math.prod(shapes["taps"]) * (fine[0] * coarse[1] + fine[0] * fine[1])
    return macs + math.prod(shapes["residual"]) + once / pixels
