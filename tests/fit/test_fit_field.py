"""The field's fit: what coefficients cost, and trimming a fit to a size."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from prancimg.decoding.decoder import decode_array
from prancimg.fit.field_encoder import file_of
from prancimg.fit.fit_field import fit_field
from prancimg.fit.rate_control import SteeredFit
from prancimg.fit.setup import Setup, adapted_to
from prancimg.format.bitstream import ALL_WEIGHTS, FROZEN, PRANC

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def steered(photo):
    return fit_field(photo, seed=0, iterations=40, device=CPU, bits=9000)


def error(photo, fitted, shift=0.0):
    return np.square(decode_array(file_of(fitted, shift)).astype(float) - photo).mean()


def test_a_fit_lands_near_the_bits_asked_for(steered):
    assert 0.95 * 9000 < steered.bits(0) < 1.05 * 9000


def test_the_networks_are_sent_whole_where_file_and_fit_are_large_enough():
    assert adapted_to(10_000, 4_608) is FROZEN
    assert adapted_to(80_000, 14) is PRANC and adapted_to(200_000, 14) is ALL_WEIGHTS
    assert adapted_to(40_000, 360) is PRANC and adapted_to(80_000, 360) is ALL_WEIGHTS
    assert adapted_to(30_000, 4_608) is PRANC and adapted_to(40_000, 4_608) is ALL_WEIGHTS


@pytest.mark.parametrize("lmbda", [5e-4, 4e-3])
def test_the_loss_knows_about_how_many_bits_are_coded(photo, lmbda):
    header = Setup().header(photo, lmbda, adapted=ALL_WEIGHTS)
    fit = SteeredFit(photo, header, lmbda, 9000, Setup(), CPU)
    for i in range(8):
        fit.step(i / 8)
        assert abs(fit.excess() - fit.excess(exact=True)) < 0.015


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


def test_bits_of_the_finest_level_count_for_more(photo):
    def share(setup):
        fitted = fit_field(photo, seed=0, iterations=12, device=CPU, lmbda=2e-3, setup=setup)
        _, q = fitted.rounded(0)
        return np.count_nonzero(q[0, 0]) / sum(np.count_nonzero(grid) for grid in q.values())

    assert share(Setup()) < share(Setup(rate_weights=(1.0, 1.0, 1.0, 1.0)))
