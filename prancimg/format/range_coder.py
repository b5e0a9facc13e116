"""Integers to bytes and back: a family of integer Laplace tables and a range coder. Knows nothing of images.

The distribution of every symbol comes from integer tables derived by integer arithmetic, so no rounding of floats
can ever change how a file decodes. docs/format.md specifies all of it; the range coder is constriction's.
"""

from __future__ import annotations

import contextlib
from functools import lru_cache

import constriction
import numpy as np

from prancimg.errors import PrancImgError
from prancimg.format.layout import SCALES

PRECISION = 24
"""Frequencies of a table sum to 2**24."""
WIDTH = 128
"""Symbols of a table: 1 .. 126 mean -63 .. 62 from the rounded mean, 0 and 127 are escapes below and above."""
CENTRE = 64
MEANS = 8
"""Offset f means that the distribution's mean lies (f - 4) / 8 from its rounded mean."""
TABLES = 40
"""Table i holds the Laplace distribution of mean absolute deviation 2**((i - 16) / 4)."""
MAGNITUDE = 1 << 20
"""Coefficients lie in [-2**20, 2**20): enough for any use, small enough for every product to stay exact."""

NO_LOW_BITS = 27
"""The greatest scale index without low bits."""

_NARROW = CENTRE - 16
"""In narrow tables, a quarter as wide, the symbols up to this one share one; likewise those above as many."""
_WIDE_AFTER = 8
"""How many times to use wide tables where a narrow one was left."""
_WIDEST = 28
_ESCAPE_BITS = 11
# round(2**30 * exp(-1 / (8 * b))) for the 40 deviations b: the decay of a distribution over an eighth of a symbol.
_DECAY = (
    145315154, 199759078, 261044606, 326914198, 395007542, 463130302, 529428476, 592470630, 651257337, 705182512,
    753969162, 797596699, 836230973, 870163178, 899760092, 925425813, 947573834, 966607779, 982908970, 996829173,
    1008687096, 1018767490, 1027321989, 1034571010, 1040706261, 1045893524, 1050275481, 1053974460, 1057095000,
    1059726201, 1061943836, 1063812229, 1065385899, 1066710993, 1067826536, 1068765495, 1069555701, 1070220635,
    1070780095, 1071250770,
)  # fmt: skip


@lru_cache(maxsize=1)
def tails() -> np.ndarray:
    """Twice the probability beyond so many eighths from the mean, in 2**-30, by table: (40, 529) int64."""
    decay, reach = np.array(_DECAY, np.int64), MEANS * (CENTRE + 2)
    out = [np.full(TABLES, 1 << 30, np.int64)]
    for _ in range(reach):
        out.append(out[-1] * decay >> 30)
    return np.stack(out, 1)


def edges() -> np.ndarray:
    """The edge below every symbol and the one above the last, in eighths from the mean, by mean offset: (8, 129)."""
    return MEANS * (np.arange(WIDTH + 1) - CENTRE) - MEANS // 2 - (np.arange(MEANS)[:, None] - MEANS // 2)


@lru_cache(maxsize=1)
def frequencies() -> np.ndarray:
    """The tables: (40, 8, 128) int64, every row positive and summing to 2**24."""
    edge = edges()[:, 1:-1]
    beyond = tails()[:, np.abs(edge)]
    below = np.where(edge < 0, beyond, (2 << 30) - beyond)
    total = (1 << PRECISION) - WIDTH
    cumulative = np.pad(below * total >> 31, ((0, 0), (0, 0), (1, 1)), constant_values=((0, 0), (0, 0), (0, total)))
    counts: np.ndarray = np.diff(cumulative) + 1
    return counts


@lru_cache(maxsize=1)
def weights() -> np.ndarray:
    """The tables as constriction takes them: (320, 128) float64, row 8 i + f.

    Its ``Categorical`` turns weights w that sum to 2**24 - 128 into the frequencies w + 1, exactly.
    """
    rows: np.ndarray = frequencies().reshape(-1, WIDTH) - 1.0
    return rows


@lru_cache(maxsize=1)
def _narrow_weights() -> np.ndarray:
    """:func:`weights` with the symbols up to ``_NARROW`` as one, and those from the opposite of it on."""
    counts, last = frequencies().reshape(-1, WIDTH), WIDTH - _NARROW
    below, above = counts[:, : _NARROW + 1].sum(1), counts[:, last - 1 :].sum(1)
    rows: np.ndarray = np.column_stack([below, counts[:, _NARROW + 1 : last - 1], above]) - 1.0
    return rows


@lru_cache(maxsize=TABLES)
def _centred(table: int) -> constriction.stream.model.Categorical:
    return constriction.stream.model.Categorical(weights()[MEANS * table + MEANS // 2], perfect=False)


class AdaptiveModel:
    """A distribution that learns: the one at the start counts as ``PRIOR_COUNT`` symbols, and every symbol seen as one.

    Args:
        scale: the scale index of a Laplace table, which the distribution starts from,
        zeros: mixed with so many 256ths of certain zeros, 0 to 255.
    """

    PRIOR_COUNT = 128

    def __init__(self, scale: int, zeros: int = 0) -> None:
        self.scale = scale
        self._start = frequencies()[_split(scale)[0], MEANS // 2] * (256 - zeros)
        self._start[CENTRE] += zeros << PRECISION
        self._counts = np.zeros(WIDTH, np.int64)

    def update(self, symbols: np.ndarray) -> None:
        """Count symbols 0 .. 127."""
        self._counts += np.bincount(symbols, minlength=WIDTH)

    def frequencies(self) -> np.ndarray:
        """(128,) int64, positive, of sum 2**24. At most 2**32 symbols can have been seen."""
        start = self._start * self.PRIOR_COUNT >> 8
        seen = (start + (self._counts << PRECISION)) // (self.PRIOR_COUNT + int(self._counts.sum()))
        out: np.ndarray = (seen * ((1 << PRECISION) - WIDTH) >> PRECISION) + 1
        out[CENTRE] += (1 << PRECISION) - out.sum()
        return out

    @property
    def model(self) -> constriction.stream.model.Categorical:
        """The same as constriction takes it."""
        return constriction.stream.model.Categorical(self.frequencies() - 1.0, perfect=False)


_CATEGORICAL = constriction.stream.model.Categorical(perfect=False)


@lru_cache(maxsize=32)
def _uniform(bits: int) -> constriction.stream.model.Uniform:
    return constriction.stream.model.Uniform(1 << bits)


def _split(scale: int) -> tuple[int, int]:
    """Table and number of low bits of a scale index."""
    shift = max(0, (scale - NO_LOW_BITS + 3) // 4)
    return scale - 4 * shift, shift


def cost(values: np.ndarray, scale: int) -> float:
    """Bits that ``values`` (int64) take under scale index ``scale``, without the coder's constant end."""
    table, shift = _split(scale)
    symbols = np.clip((values + (1 << shift >> 1) >> shift) + CENTRE, 0, WIDTH - 1)
    return _bits(symbols, frequencies()[table, MEANS // 2][symbols]) + shift * values.size


def rows_and_symbols(values: np.ndarray, mean: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of :func:`weights` by which :meth:`Encoder.put_conditional` codes values, and their symbols."""
    whole, row = _rounded_means(mean, table)
    return row, _symbols(values, whole)


def conditional_cost(values: np.ndarray, mean: np.ndarray, table: np.ndarray) -> float:
    """Bits of :meth:`Encoder.put_conditional`."""
    row, symbols = rows_and_symbols(values, mean, table)
    return _bits(symbols, frequencies().reshape(-1, WIDTH)[row, symbols])


def escaped(values: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Which values :meth:`Encoder.put_conditional` writes apart, for their distance from the mean."""
    return _escaped(_symbols(values, mean + MEANS // 2 >> 3))


def _symbols(values: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Symbols 0 .. 127 of values relative to their rounded means, escapes at the ends."""
    symbols: np.ndarray = np.clip(values - whole + CENTRE, 0, WIDTH - 1)
    return symbols


def _bits(symbols: np.ndarray, frequency: np.ndarray) -> float:
    """Bits of symbols of these frequencies, their escapes included."""
    return float((PRECISION - np.log2(frequency)).sum() + 2 * _ESCAPE_BITS * np.count_nonzero(_escaped(symbols)))


def _escaped(symbols: np.ndarray) -> np.ndarray:
    """Where a symbol says that its value follows."""
    escaped: np.ndarray = (symbols + 1 & WIDTH - 2) == 0
    return escaped


def _rounded_means(mean: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means in eighths and tables to rounded means and rows of :func:`weights`."""
    shifted = mean + MEANS // 2
    return shifted >> 3, MEANS * table + (shifted & MEANS - 1)


def best_scale(values: np.ndarray) -> int:
    """The scale index that codes ``values`` in the fewest bits."""
    if not values.size:
        return 0
    guess = round(4 * (np.log2(max(float(np.abs(values).mean()), 2**-4)) + 4))
    return min(range(max(0, guess - 6), min(SCALES, guess + 7)), key=lambda scale: cost(values, scale))


class Encoder:
    """Collects integers; :meth:`finish` gives the bytes."""

    def __init__(self) -> None:
        self._range = constriction.stream.queue.RangeEncoder()

    def put(self, values: np.ndarray, scale: int) -> None:
        """Append integers in [-MAGNITUDE, MAGNITUDE) under one scale index."""
        if values.size:
            self._put(values, scale, _centred(_split(scale)[0]))

    def put_adaptive(self, values: np.ndarray, learning: AdaptiveModel) -> None:
        """The same under a distribution that learns from them, but only after them."""
        if values.size:
            learning.update(self._put(values, learning.scale, learning.model))

    def _put(self, values: np.ndarray, scale: int, model: constriction.stream.model.Categorical) -> np.ndarray:
        """Symbols, escapes and low bits; the symbols are returned."""
        if values.min() < -MAGNITUDE or values.max() >= MAGNITUDE:
            raise PrancImgError("a coefficient is too large for the format")
        shift = _split(scale)[1]
        shifted = values.astype(np.int64) + (1 << shift >> 1)
        high, low = shifted >> shift, shifted & (1 << shift) - 1
        symbols: np.ndarray = np.clip(high + CENTRE, 0, WIDTH - 1).astype(np.int32)
        self._range.encode(symbols, model)
        self._put_escapes(high, symbols)
        if shift:
            self._range.encode(low.astype(np.int32), _uniform(shift))
        return symbols

    def put_conditional(self, values: np.ndarray, mean: np.ndarray, table: np.ndarray) -> None:
        """Append integers (int64), each with a distribution of its own: its mean in eighths and its table."""
        if np.abs(values).max() >= MAGNITUDE:
            raise PrancImgError("a coefficient is too large for the format")
        whole, row = _rounded_means(mean, table)
        symbols = _symbols(values, whole).astype(np.int32)
        if symbols.min() > _NARROW and symbols.max() < WIDTH - 1 - _NARROW:
            self._range.encode(symbols - np.int32(_NARROW), _CATEGORICAL, _narrow_weights().take(row, 0))
        else:
            self._range.encode(symbols, _CATEGORICAL, weights().take(row, 0))
            self._put_escapes(values, symbols)

    def _put_escapes(self, values: np.ndarray, symbols: np.ndarray) -> None:
        apart = values[_escaped(symbols)] + (1 << 2 * _ESCAPE_BITS - 1)
        if apart.size:
            halves = np.stack((apart >> _ESCAPE_BITS, apart & (1 << _ESCAPE_BITS) - 1), 1)
            self._range.encode(halves.reshape(-1).astype(np.int32), _uniform(_ESCAPE_BITS))

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
        self._wide_for = 0

    def take(self, count: int, scale: int) -> np.ndarray:
        """The next ``count`` integers, int64."""
        return self._take(count, scale, _centred(_split(scale)[0]))[0]

    def take_adaptive(self, count: int, learning: AdaptiveModel) -> np.ndarray:
        """The inverse of :meth:`Encoder.put_adaptive`."""
        values, symbols = self._take(count, learning.scale, learning.model)
        learning.update(symbols)
        return values

    def _take(self, count: int, scale: int, model: object) -> tuple[np.ndarray, np.ndarray]:
        shift = _split(scale)[1]
        symbols = self._decode(model, count)
        high = symbols - CENTRE
        self._take_escapes(high, symbols)
        low = self._decode(_uniform(shift), count) if shift else 0
        values = (high << shift) + low - (1 << shift >> 1)
        if count and (values.min() < -MAGNITUDE or values.max() >= MAGNITUDE):
            raise PrancImgError("a coefficient is out of range")
        return values, symbols

    def take_conditional(self, mean: np.ndarray, table: np.ndarray) -> np.ndarray:
        """The next integers, int64, one for each distribution."""
        whole, row = _rounded_means(mean, table)
        values = self._take_narrow(whole, row)
        if values is None:
            symbols = self._decode(_CATEGORICAL, weights().take(row, 0))
            values = symbols + (whole - CENTRE)
            self._take_escapes(values, symbols)
        return values

    def _take_narrow(self, whole: np.ndarray, row: np.ndarray) -> np.ndarray | None:
        """:meth:`take_conditional` by tables of a quarter of the width, in a third of the time; None if too narrow."""
        if self._wide_for:
            self._wide_for -= 1
            return None
        before = self._range.clone()
        with contextlib.suppress(PrancImgError):  # behind a symbol farther out, anything can follow
            symbols = self._decode(_CATEGORICAL, _narrow_weights().take(row, 0))
            if (symbols + 1 & WIDTH // 4 - 2).all():  # all but the first and the last
                values: np.ndarray = symbols + (whole - (CENTRE - _NARROW))
                return values
        self._range, self._wide_for = before, _WIDE_AFTER
        return None

    def _take_escapes(self, values: np.ndarray, symbols: np.ndarray) -> None:
        apart = _escaped(symbols)
        if apart.any():
            halves = self._decode(_uniform(_ESCAPE_BITS), 2 * int(apart.sum())).reshape(-1, 2)
            values[apart] = (halves[:, 0] << _ESCAPE_BITS | halves[:, 1]) - (1 << 2 * _ESCAPE_BITS - 1)

    def _decode(self, model: object, argument: object) -> np.ndarray:
        try:
            symbols: np.ndarray = self._range.decode(model, argument)
        except AssertionError as error:  # so constriction says that no encoder wrote these bytes
            raise PrancImgError("the coefficients are damaged") from error
        return symbols.astype(np.int64)


class Truncated(PrancImgError):
    """A stream ends before what is asked for."""


class TruncatedDecoder(Decoder):
    """Reads the beginning of a stream whose end is lost, as far as it is the same whatever the end was.

    Decoding is monotone in the bytes, so it is enough to compare the least end there could be and the greatest.
    """

    def __init__(self, data: bytes) -> None:
        data = data[: len(data) // 4 * 4]
        super().__init__(data)  # missing words count as 0
        self._greatest = Decoder(data + b"\xff" * 16)

    def _take_narrow(self, whole: np.ndarray, row: np.ndarray) -> None:
        """Two decoders cannot go back."""

    def _decode(self, model: object, argument: object) -> np.ndarray:
        try:
            symbols, others = super()._decode(model, argument), self._greatest._decode(model, argument)
        except PrancImgError as error:
            raise Truncated("the coefficients are cut short") from error
        if not np.array_equal(symbols, others):
            raise Truncated("the coefficients are cut short")
        return symbols
