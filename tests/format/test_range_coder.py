"""The coder: its tables against exact arithmetic, its words against a decoder written from the specification."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prancimg.errors import PrancImgError
from prancimg.format import range_coder
from prancimg.format.layout import SCALES
from prancimg.format.range_coder import (
    MAGNITUDE,
    PRECISION,
    AdaptiveModel,
    Decoder,
    Encoder,
    best_scale,
    cost,
    frequencies,
)


class PlainDecoder:
    """The range decoder of docs/format.md in Python's unbounded integers, a symbol at a time."""

    def __init__(self, data: bytes) -> None:
        self.words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
        self.low, self.range, self.point = 0, 2**64 - 1, 0
        for _ in range(2):
            self.point = self.point << 32 | self.word()

    def word(self) -> int:
        return self.words.pop(0) if self.words else 0

    def symbol(self, table: list[int]) -> int:
        unit = self.range >> 24
        target = (self.point - self.low) % 2**64 // unit
        symbol = below = 0
        while below + table[symbol] <= target:
            below += table[symbol]
            symbol += 1
        self.low, self.range = (self.low + unit * below) % 2**64, unit * table[symbol]
        if self.range < 2**32:
            self.low, self.range = (self.low << 32) % 2**64, self.range << 32
            self.point = (self.point << 32) % 2**64 | self.word()
        return symbol

    def bits(self, count: int) -> int:
        return self.symbol([2 ** (24 - count)] * 2**count)

    def take(self, count: int, scale: int) -> list[int]:
        shift = max(0, (scale - 24) // 4)
        table = frequencies()[scale - 4 * shift, 4].tolist()
        symbols = [self.symbol(table) for _ in range(count)]
        high = [self.bits(11) << 11 | self.bits(11) if s in (0, 127) else s - 64 + 2**21 for s in symbols]
        low = [self.bits(shift) if shift else 0 for _ in range(count)]
        return [(h - 2**21 << shift) + x - (1 << shift >> 1) for h, x in zip(high, low, strict=True)]


def spread(table: int) -> float:
    return 2.0 ** ((table - 16) / 4)


def test_decay_constants_are_exact():
    with localcontext() as context:
        context.prec = 50
        for i, decay in enumerate(range_coder._DECAY):
            deviation = Decimal(2) ** (Decimal(i - 16) / 4)
            assert decay == int((Decimal(2) ** 30 * (-1 / (8 * deviation)).exp()).to_integral_value())


def test_tables_are_complete_and_close_to_laplace():
    tables = frequencies()
    assert tables.shape == (40, 8, 128) and tables.min() >= 1 and (tables.sum(2) == 1 << 24).all()
    for i in (0, 16, 27, 39):
        for f in range(8):
            edges = np.arange(-10, 11) - 0.5 - (f - 4) / 8
            below = 0.5 + 0.5 * np.sign(edges) * -np.expm1(-np.abs(edges) / spread(i))
            assert tables[i, f, 54:74] / 2**24 == pytest.approx(np.diff(below), abs=1e-5)


def test_known_words():
    encoder = Encoder()
    encoder.put(np.array([0, 1, -1, 2, 0, 0, -3, 100, 5]), 18)
    encoder.put(np.array([-70000, 12345, 0]), 70)
    words = np.frombuffer(encoder.finish(), "<u4")
    assert [f"{word:08x}" for word in words] == KNOWN_WORDS


KNOWN_WORDS = ["8fcbe5be", "dd9807e3", "e41dffa2", "8a952613"]

values_at_a_scale = st.tuples(st.integers(0, SCALES - 1), st.lists(st.integers(-300, 300), max_size=30))


@given(st.lists(values_at_a_scale, min_size=1, max_size=4))
def test_both_decoders_return_what_was_put(groups):
    encoder = Encoder()
    for scale, values in groups:
        encoder.put(np.array(values, np.int64), scale)
    data = encoder.finish()
    decoder, plain = Decoder(data), PlainDecoder(data)
    for scale, values in groups:
        assert decoder.take(len(values), scale).tolist() == values
        assert plain.take(len(values), scale) == values


@pytest.mark.parametrize("value", [-MAGNITUDE, MAGNITUDE - 1, 64, -64, 63, -63])
@pytest.mark.parametrize("scale", [0, 27, 28, 60, SCALES - 1])
def test_extreme_values_survive_every_scale(value, scale):
    encoder = Encoder()
    encoder.put(np.array([value]), scale)
    data = encoder.finish()
    assert Decoder(data).take(1, scale).tolist() == PlainDecoder(data).take(1, scale) == [value]


@pytest.mark.parametrize("value", [-MAGNITUDE - 1, MAGNITUDE])
def test_larger_values_are_refused(value):
    with pytest.raises(PrancImgError, match="too large"):
        Encoder().put(np.array([value]), 0)


@pytest.mark.parametrize("deviation", [0.05, 0.5, 3, 40, 900])
def test_the_cost_is_what_the_file_takes_and_near_the_entropy(deviation):
    values = np.rint(np.random.default_rng(0).laplace(0, deviation, 20_000)).astype(np.int64)
    scale = best_scale(values)
    encoder = Encoder()
    encoder.put(values, scale)
    assert abs(8 * len(encoder.finish()) - cost(values, scale)) <= 64
    edges = np.arange(-40 * max(1, int(deviation)), 40 * max(1, int(deviation)) + 2) - 0.5
    cdf = 0.5 + 0.5 * np.sign(edges) * -np.expm1(-np.abs(edges) / deviation)
    p = np.diff(cdf)
    assert cost(values, scale) <= 1.02 * 20_000 * -(p[p > 0] * np.log2(p[p > 0])).sum() + 64


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), min_size=1, max_size=30), st.integers(0, 99))
def test_values_far_from_their_means_change_nothing(groups, seed):
    """Narrow tables serve those near their means; the decoder of cut streams, which has only the wide ones, agrees."""
    rng, encoder, expected = np.random.default_rng(seed), Encoder(), []
    for spread, count in groups:
        mean, table = rng.integers(-400, 400, count), rng.integers(0, range_coder.TABLES, count)
        values = (mean + 4 >> 3) + np.rint(rng.laplace(0, spread + 0.01, count)).astype(np.int64)
        encoder.put_conditional(values, mean, table)
        expected.append((values, mean, table))
    data = encoder.finish()
    for decoder in (Decoder(data), range_coder.TruncatedDecoder(data + b"\0" * 16)):
        for values, mean, table in expected:
            assert decoder.take_conditional(mean, table).tolist() == values.tolist()


@given(st.binary(max_size=60), st.integers(0, SCALES - 1), st.integers(0, 200))
def test_any_bytes_decode_or_are_refused(data, scale, count):
    try:
        values = Decoder(data).take(count, scale)
    except PrancImgError:
        return
    assert len(values) == count and (count == 0 or np.abs(values).max() <= MAGNITUDE)


@given(st.integers(0, 99), st.integers(0, 255), st.lists(st.lists(st.integers(0, 127)), max_size=4))
def test_distributions_that_learn_are_positive_and_whole(scale, zeros, seen):
    learning = AdaptiveModel(scale, zeros)
    for symbols in seen:
        learning.update(np.array(symbols, np.int64))
    found = learning.frequencies()
    assert found.min() >= 1 and found.sum() == 1 << PRECISION


def test_what_is_seen_becomes_likely():
    learning = AdaptiveModel(20)
    before = learning.frequencies()
    learning.update(np.full(1000, 90))
    after = learning.frequencies()
    assert (before < after).nonzero()[0].tolist() == [90] and after[90] > 0.8 * 2**PRECISION


@given(st.integers(0, 99), st.integers(0, 255), st.lists(st.lists(st.integers(-(2**20), 2**20 - 1)), max_size=4))
def test_distributions_that_learn_round_trip(scale, zeros, parts):
    encoder, learning = Encoder(), AdaptiveModel(scale, zeros)
    for part in parts:
        encoder.put_adaptive(np.array(part, np.int64), learning)
    decoder, learning = Decoder(encoder.finish()), AdaptiveModel(scale, zeros)
    assert [decoder.take_adaptive(len(part), learning).tolist() for part in parts] == parts
