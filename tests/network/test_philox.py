"""Philox4x32-10 against its published known answers, in NumPy and torch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prancimg.network.philox import philox4x32

# The known-answer vectors distributed with Random123, the reference implementation.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def in_python(counter: list[int], key: list[int]) -> list[int]:
    """The algorithm as its paper states it, in Python's unbounded integers."""
    for _ in range(10):
        p0, p1 = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [p1 >> 32 ^ counter[1] ^ key[0], p1 % 2**32, p0 >> 32 ^ counter[3] ^ key[1], p0 % 2**32]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return counter


@pytest.mark.parametrize("make", [np.array, torch.tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(make, counter, key, answer):
    low, high = words(key)
    result = philox4x32(tuple(make([word]) for word in words(counter)), low | high << 32)
    assert [int(word[0]) for word in result] == words(answer)


u32 = st.integers(0, 2**32 - 1)


@given(st.lists(st.tuples(u32, u32, u32, u32), min_size=1, max_size=20), u32, u32)
def test_numpy_torch_and_plain_python_agree(counters, low, high):
    expected = [in_python(list(counter), [low, high]) for counter in counters]
    columns = np.array(counters, np.int64).T
    for make in (np.array, torch.tensor):
        result = philox4x32(tuple(make(column) for column in columns.tolist()), low | high << 32)
        assert np.array([np.asarray(word) for word in result]).T.tolist() == expected
