"""Integers to bytes and back: a family of integer Laplace tables and a range coder. Knows nothing of images.

The distribution of every symbol comes from integer tables derived by integer arithmetic, so no rounding of floats
can ever change how a file decodes. docs/format.md specifies all of it; the range coder is constriction's.
"""

from __future__ import annotations

from functools import lru_cache

import constriction
import numpy as np

from prancimg.errors import PrancImgError

PRECISION = 24
"""Frequencies of a table sum to 2**24."""
LIMIT = 63
"""Symbols beyond ±63 are escaped."""
SCALES = 216
"""Scale index t means a Laplace distribution with mean absolute deviation b = 2**(t/8 - 4)."""
MAGNITUDE = 1 << 20
"""Coefficients lie in [-2**20, 2**20): enough for any use, small enough for every product to stay exact."""

_ESCAPE = 2 * LIMIT + 1
_ESCAPE_BITS = 11
_TABLES = 56
# floor(2**32 * exp(-1 / (2 * b))) for t = 0 .. 55: the decay of the distribution over half a symbol.
_HALF_DECAY = (
    1440801, 2798733, 5145013, 8992185, 15004422, 23994893, 36905875, 54771407, 78665070, 109637892, 148652826,
    196522626, 253857248, 321025356, 398132550, 485016909, 581260615, 686215099, 799036310, 918726429, 1044178424,
    1174220339, 1307656790, 1443305845, 1580030169, 1716761896, 1852521207, 1986428948, 2117713904, 2245715466,
    2369882518, 2489769347, 2605029347, 2715407188, 2820730047, 2920898384, 3015876649, 3105684222, 3190386796,
    3270088366, 3344923893, 3415052718, 3480652712, 3541915165, 3599040369, 3652233859, 3701703250, 3747655612,
    3790295335, 3829822416, 3866431115, 3900308936, 3931635878, 3960583919, 3987316692, 4011989318,
)  # fmt: skip


@lru_cache(maxsize=1)
def frequencies() -> np.ndarray:
    """The tables: (56, 128) int64, each row positive and summing to 2**24; columns are symbols -63 .. 63, escape."""
    decay = np.array(_HALF_DECAY, np.int64)
    tail = np.full(_TABLES, 1 << 30, np.int64)  # P(symbol > n + 1/2) in units of 2**-31, from n = -1/2
    tails = []
    for _ in range(2 * LIMIT + 1):
        tail = tail * decay >> 32
        tails.append(tail)
    above = np.stack(tails[::2], 1) >> 7  # boundaries at 1/2, 3/2, ..., 63 + 1/2; now in units of 2**-24
    half = np.maximum(above[:, :-1] - above[:, 1:], 1)  # symbols 1 .. 63
    table = np.ones((_TABLES, _ESCAPE + 1), np.int64)
    table[:, LIMIT + 1 : _ESCAPE] = half
    table[:, :LIMIT] = half[:, ::-1]
    table[:, LIMIT] += (1 << PRECISION) - table.sum(1)
    return table


@lru_cache(maxsize=1)
def _models() -> tuple[constriction.stream.model.Categorical, ...]:
    # constriction turns weights w that sum to 2**24 - n into the frequencies w + 1, exactly.
    return tuple(constriction.stream.model.Categorical(row, perfect=False) for row in frequencies() - 1.0)


@lru_cache(maxsize=32)
def _uniform(bits: int) -> constriction.stream.model.Uniform:
    return constriction.stream.model.Uniform(1 << bits)


def _shift(scale: int) -> int:
    """Low bits sent as they are: beyond b = 8 the tables serve the rest of the value."""
    return max(0, (scale - _TABLES + 8) // 8)


def cost(values: np.ndarray, scale: int) -> float:
    """Bits that ``values`` (int64) take under scale index ``scale``, without the coder's constant end."""
    shift = _shift(scale)
    high = values + (1 << shift >> 1) >> shift
    inside = np.abs(high) <= LIMIT
    frequency = frequencies()[scale - 8 * shift][np.where(inside, high + LIMIT, _ESCAPE)]
    return float((PRECISION - np.log2(frequency)).sum() + shift * values.size + 2 * _ESCAPE_BITS * (~inside).sum())


def best_scale(values: np.ndarray) -> int:
    """The scale index that codes ``values`` in the fewest bits."""
    if not values.size:
        return 0
    guess = round(8 * (np.log2(max(float(np.abs(values).mean()), 2**-4)) + 4))
    return min(range(max(0, guess - 12), min(SCALES, guess + 13)), key=lambda scale: cost(values, scale))


class Encoder:
    """Collects integers; :meth:`finish` gives the bytes."""

    def __init__(self) -> None:
        self._range = constriction.stream.queue.RangeEncoder()

    def put(self, values: np.ndarray, scale: int) -> None:
        """Append integers in [-MAGNITUDE, MAGNITUDE) under one scale index."""
        if not values.size:
            return
        if values.min() < -MAGNITUDE or values.max() >= MAGNITUDE:
            raise PrancImgError("a coefficient is too large for the format")
        shift = _shift(scale)
        shifted = values.astype(np.int64) + (1 << shift >> 1)
        high, low = shifted >> shift, shifted & (1 << shift) - 1
        inside = np.abs(high) <= LIMIT
        symbols = np.where(inside, high + LIMIT, _ESCAPE).astype(np.int32)
        self._range.encode(symbols, _models()[scale - 8 * shift])
        if not inside.all():
            escaped = high[~inside] + (1 << 2 * _ESCAPE_BITS - 1)
            halves = np.stack((escaped >> _ESCAPE_BITS, escaped & (1 << _ESCAPE_BITS) - 1), 1)
            self._range.encode(halves.reshape(-1).astype(np.int32), _uniform(_ESCAPE_BITS))
        if shift:
            self._range.encode(low.astype(np.int32), _uniform(shift))

    def finish(self) -> bytes:
        """All bytes so far, a whole number of 32-bit words."""
        words: np.ndarray = self._range.get_compressed()
        return words.astype("<u4").tobytes()


class Decoder:
    """Reads back what an :class:`Encoder` wrote, given the same sequence of counts and scale indices."""

    def __init__(self, data: bytes) -> None:
        if len(data) % 4:
            raise PrancImgError("the coefficients are not a whole number of 32-bit words")
        self._range = constriction.stream.queue.RangeDecoder(np.frombuffer(data, "<u4").astype(np.uint32))

    def take(self, count: int, scale: int) -> np.ndarray:
        """The next ``count`` integers, int64."""
        shift = _shift(scale)
        try:
            high = self._decode(count, _models()[scale - 8 * shift]) - LIMIT
            escaped = high == _ESCAPE - LIMIT
            if escaped.any():
                halves = self._decode(2 * int(escaped.sum()), _uniform(_ESCAPE_BITS)).reshape(-1, 2)
                high[escaped] = (halves[:, 0] << _ESCAPE_BITS | halves[:, 1]) - (1 << 2 * _ESCAPE_BITS - 1)
            low = self._decode(count, _uniform(shift)) if shift else 0
        except AssertionError as error:  # constriction's word for bytes no encoder wrote
            raise PrancImgError("the coefficients are damaged") from error
        values = (high << shift) + low - (1 << shift >> 1)
        if count and (values.min() < -MAGNITUDE or values.max() >= MAGNITUDE):
            raise PrancImgError("a coefficient is out of range")
        return values

    def _decode(self, count: int, model: object) -> np.ndarray:
        return self._range.decode(model, count).astype(np.int64)  # type: ignore[no-any-return]
