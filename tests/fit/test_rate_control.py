"""λ leads to the number of bits asked for, and the loss knows how many are coded."""

import numpy as np
import pytest
import torch

from prancimg.fit import rate_control
from prancimg.fit.fit_field import fit_field
from prancimg.fit.rate_control import SteeredFit, choose, chosen_levels
from prancimg.fit.setup import Setup
from prancimg.format.header import ALL_WEIGHTS

CPU = torch.device("cpu")


def test_a_fit_lands_near_the_bits_asked_for(photo):
    steered = fit_field(photo, seed=0, iterations=40, device=CPU, bits=9000)
    assert 0.95 * 9000 < steered.bits(0) < 1.05 * 9000


@pytest.mark.parametrize("lmbda", [5e-4, 4e-3])
def test_the_loss_knows_about_how_many_bits_are_coded(photo, lmbda):
    header = Setup().header(photo, lmbda, adapted=ALL_WEIGHTS)
    fit = SteeredFit(photo, header, lmbda, 9000, Setup(), 8, CPU)
    for number in range(8):
        fit.step(number)
        assert abs(fit.excess() - fit.excess(exact=True)) < 0.025


def test_chroma_is_as_fine_as_the_picture_needs():
    """Fine saturated stripes of one brightness are in chroma alone; the same stripes in grey are not."""
    rng = np.random.default_rng(0)
    stripes = np.where(rng.random((1, 96, 1)) < 0.5, [200, 60, 60], [40, 131, 40]).repeat(64, 0)
    grey = np.broadcast_to(stripes[..., :1], stripes.shape)
    for picture, expected in ((stripes, (0, 1)), (grey, (0, 2))):
        image = np.ascontiguousarray(picture, np.uint8)
        assert chosen_levels(image, 5e-4, (0, 2), Setup(), 60, CPU) == expected
    image = np.ascontiguousarray(stripes, np.uint8)
    assert chosen_levels(image, 5e-4, (0, 2), Setup(levels=(0, 2)), 60, CPU) == (0, 2), "what is asked for stays"
    assert chosen_levels(image, 5e-4, (0, 2), Setup(), 20, CPU) == (0, 2), "a short fit has no time to find out"


def test_no_short_fit_is_made_twice(photo, monkeypatch):
    """The last one in search of λ is the first one in search of levels."""
    made, probe = [], rate_control._probe
    monkeypatch.setattr(rate_control, "_probe", lambda *args: (made.append(args[1:3]), probe(*args))[1])
    chosen = choose(photo, None, 5000, Setup(), 40, CPU)
    assert len(made) >= 2 and len({*made}) == len(made)
    assert chosen.bits == 5000 and (chosen.lmbda, chosen.levels) in made
