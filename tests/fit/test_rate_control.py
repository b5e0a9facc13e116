"""λ leads to the number of bits asked for, and the loss knows how many are coded."""

import pytest
import torch

from prancimg.fit.fit_field import fit_field
from prancimg.fit.rate_control import SteeredFit
from prancimg.fit.setup import Setup
from prancimg.format.bitstream import ALL_WEIGHTS

CPU = torch.device("cpu")


def test_a_fit_lands_near_the_bits_asked_for(photo):
    steered = fit_field(photo, seed=0, iterations=40, device=CPU, bits=9000)
    assert 0.95 * 9000 < steered.bits(0) < 1.05 * 9000


@pytest.mark.parametrize("lmbda", [5e-4, 4e-3])
def test_the_loss_knows_about_how_many_bits_are_coded(photo, lmbda):
    header = Setup().header(photo, lmbda, adapted=ALL_WEIGHTS)
    fit = SteeredFit(photo, header, lmbda, 9000, Setup(), CPU)
    for i in range(8):
        fit.step(i / 8)
        assert abs(fit.excess() - fit.excess(exact=True)) < 0.015
