"""Between the steps that ask the context model, its last answer tells the bits."""

import numpy as np
import pytest
import torch

from prancimg.decoding.decoder import Model
from prancimg.fit.loss import RateDistortion, to_planes
from prancimg.fit.networks import Networks
from prancimg.fit.ops.rate import held_bits
from prancimg.fit.ops.rounding import squash
from prancimg.fit.rate_term import RateTerm
from prancimg.fit.setup import OPTIMISATION, Setup
from prancimg.format.header import DIRECTIONS

CPU = torch.device("cpu")


@pytest.fixture
def moment(photo):
    """An objective, coefficients on their way, and networks that move along their learned directions."""
    header = Setup().header(photo, 1e-3, adapted=DIRECTIONS)
    networks = Networks(Model.of(header), header.tensors, CPU)
    objective = RateDistortion(to_planes(photo, CPU), header.pyramid)
    torch.manual_seed(0)
    y = (0.8 * torch.randn(sum(grid.count for grid in header.pyramid.grids))).requires_grad_()
    return objective, y, networks


def step(rate, number, y, networks):
    """Bits, and their gradients by everything that moves."""
    leaves = [y, *(a for name, a in networks.a.items() if name != "learned.paint")]
    bits = rate.bits(number, y, y, networks.weights(False)[0], 0.2)
    return bits.item(), torch.autograd.grad(bits, leaves)


def test_where_nothing_moved_a_step_in_between_tells_the_same(moment):
    objective, y, networks = moment
    rate = RateTerm(objective, (1.0,))
    (asked, by_asked), (told, by_told) = (step(rate, number, y, networks) for number in (0, 1))
    assert told == pytest.approx(asked, rel=1e-6)
    for one, other in zip(by_asked, by_told, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_step_in_between_has_each_coefficients_own_slope(moment):
    """After a move, own bits are those under the distributions before, and the rest is the slope before."""
    objective, y, networks = moment
    rate = RateTerm(objective, (1.0,))
    _, distributions = objective.rate(
        y, squash(y), networks.weights(False)[0], 0.2, active=objective.active(y, networks.theta0)
    )
    moved = (y.detach() + 0.3 * torch.randn_like(y)).requires_grad_()
    (own_before, own), (_, (before, *_)), (_, (told, *_)) = (
        (held_bits(objective.pyramid, at, distributions)[1] for at in (y, moved)),
        step(rate, 0, y, networks),
        step(rate, 1, moved, networks),
    )
    by_context = (before - own_before) * torch.sqrt((1 + y**2) / (1 + moved**2)).detach()
    torch.testing.assert_close(told, own + by_context, rtol=1e-3, atol=1e-4)


def test_the_model_is_asked_every_few_steps(moment, monkeypatch):
    objective, y, networks = moment
    asked, rate = [], RateTerm(objective, (1.0,))
    original = objective.rate
    monkeypatch.setattr(objective, "rate", lambda *args: (asked.append(number), original(*args))[1])
    for number in range(3 * OPTIMISATION.contexts_every):
        step(rate, number, y, networks)
    assert (
        asked == [n for n in range(number + 1) if RateTerm.due(n)] == list(np.arange(3) * OPTIMISATION.contexts_every)
    )
