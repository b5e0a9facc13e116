"""What a fit makes of a context model that learns: the pace that saves most bits, and a file of the size asked for."""

import numpy as np
import pytest
import torch

from prancimg.decoding.decoder import decode_array
from prancimg.fit.field_encoder import file_of
from prancimg.fit.fit_field import fit_field
from prancimg.fit.setup import TUNES, paces_at
from prancimg.format.bitstream import read_header

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def fitted(photo):
    return fit_field(photo, seed=0, iterations=20, device=CPU, lmbda=5e-4, setup=TUNES["psnr"])


def test_the_pace_is_the_one_of_the_fewest_bits(fitted):
    bits = {pace: fitted.at_pace(pace).bits(0) for pace in range(4)}
    assert bits[fitted.learning((1, 2, 3)).header.pace] == min(bits.values()) < bits[0]
    assert fitted.learning((1, 3)).header.pace != 2 and fitted.learning(()) is fitted


def test_the_picture_is_the_same_in_a_smaller_file(fitted):
    still, learning = (file_of(each, 0.0) for each in (fitted, fitted.learning((1, 2, 3))))
    assert len(learning) < len(still) and read_header(learning)[0].pace
    assert np.array_equal(decode_array(learning), decode_array(still))


def test_short_fits_have_no_time_for_it():
    assert [len(paces_at(steps, TUNES["psnr"])) for steps in (28, 80, 240)] == [0, 1, 2]


def test_a_size_is_met_with_learning(photo):
    made = fit_field(photo, seed=0, iterations=100, device=CPU, bits=30_000, setup=TUNES["psnr"])
    assert made.header.pace and 0.95 * 30_000 < made.bits(0) < 1.05 * 30_000
