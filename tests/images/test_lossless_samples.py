"""Samples to the smallest coding and back, and codings that are broken inside."""

import numpy as np
import pytest

from prancimg import PrancImgError
from prancimg.format.lossless import Coding, Lossless
from prancimg.images.lossless import _codings, _stacked, code_samples, quick_size, read_samples

RNG = np.random.default_rng(1)
Y, X = np.indices((20, 33))
SAMPLES = {
    "noise": RNG.integers(0, 256, (20, 33, 3), np.uint8),
    "a ramp": np.stack([X * 7, Y * 9, X + Y], -1).astype(np.uint8),
    "grey": (X * 7).astype(np.uint8),
    "black and white": ((X + Y) % 2 * 255).astype(np.uint8),
    "nearly black and white": ((X + Y) % 2 * 254).astype(np.uint8),
    "four colours": RNG.integers(0, 256, (4, 3), np.uint8)[(X // 9 + Y // 9) % 4],
    "16 bits": np.stack([X * 1999, Y * 3001, X * Y * 99], -1).astype(np.uint16),
    "grey of 16 bits": (X * 1999 + Y).astype(np.uint16),
    "one pixel": np.uint8([[[1, 2, 3]]]),
}


@pytest.mark.parametrize("coding", Coding)
@pytest.mark.parametrize("name", SAMPLES)
def test_every_coding_gives_the_samples_back(name, coding):
    samples = SAMPLES[name]
    planes = _stacked(samples)
    data = dict(_codings(planes, slow=True))[coding]
    height, width = samples.shape[:2]
    packed = Lossless(width, height, 8 * samples.dtype.itemsize, coding, data)
    back = read_samples(Lossless.unpack(packed.pack()))
    assert back.dtype == samples.dtype
    wide = (height, width, 3)
    assert np.array_equal(np.broadcast_to(back, wide), np.broadcast_to(samples.reshape(height, width, -1), wide))


@pytest.mark.parametrize("name", SAMPLES)
def test_the_smallest_is_taken_and_a_quick_look_misses_it_by_less_than_four_times(name):
    samples = SAMPLES[name]
    found = code_samples(samples, slow=True)
    assert len(found.data) == min(len(data) for _, data in _codings(_stacked(samples), slow=True))
    assert quick_size(samples) <= max(4 * len(found.data), 200)


@pytest.mark.parametrize("coding", [Coding.PNG, Coding.WEBP])
def test_data_that_are_broken_inside_are_refused_or_show_something(coding):
    planes = _stacked(SAMPLES["a ramp"])
    data = dict(_codings(planes, slow=True))[coding]
    refused = 0
    for at in range(33 if coding == Coding.PNG else 5, len(data), 3):
        changed = Lossless(33, 20, 8, coding, data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        try:
            assert read_samples(changed).shape[:2] == (20, 33)
        except PrancImgError as error:
            assert "the lossless picture is broken" in str(error) and "\n" not in str(error)
            refused += 1
    assert refused
    with pytest.raises(PrancImgError, match="the lossless picture is broken"):
        read_samples(Lossless(33, 20, 8, coding, data[: len(data) // 2]))
