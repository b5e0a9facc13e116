"""How a finished fit gives up bits, or is filled."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from prancimg.decoding.decoder import decode_array
from prancimg.fit.field_encoder import file_of
from prancimg.fit.fit_field import fit_field

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def steered(photo):
    return fit_field(photo, seed=0, iterations=40, device=CPU, bits=9000)


def error(photo, fitted, shift=0.0):
    return np.square(decode_array(file_of(fitted, shift)).astype(float) - photo).mean()


def test_giving_up_coefficients_saves_bits_and_costs_little_error(photo, steered):
    """Less than giving up as many at random, which also saves fewer bits."""
    shuffled = replace(steered, rdoq_order=np.random.default_rng(0).permutation(steered.rdoq_order))
    exact = error(photo, steered)
    assert steered.bits(1) < steered.bits(0.5) < steered.bits(0)
    assert exact < error(photo, steered, 0.5) < error(photo, shuffled, 0.5)


def test_giving_up_moves_each_coefficient_one_step_towards_zero(steered):
    before, after = np.rint(steered.y), steered.requantised(1.0)[1]
    changed = before != after
    assert 0 < changed.sum() <= len(steered.rdoq_order)
    assert (np.abs(after[changed]) == np.abs(before[changed]) - 1).all()


def test_a_fit_that_is_too_small_is_filled_by_rounding_up_what_is_nearly_there(steered):
    before, after = np.rint(steered.y), steered.requantised(-0.5)[1]
    changed = before != after
    assert changed.any() and (np.abs(after[changed]) == np.abs(before[changed]) + 1).all()
    assert np.abs(steered.y - before)[changed].min() > 0.3 and steered.bits(-1) > steered.bits(-0.5) > steered.bits(0)


def test_beyond_that_the_quantisers_step_changes(steered):
    assert [steered.requantised(s)[0].step - steered.header.step for s in (-3, -1, 0, 1, 2, 5.5)] == [-2, 0, 0, 0, 1, 4]
    assert steered.bits(9) < steered.bits(1) and steered.bits(-9) > steered.bits(0)
