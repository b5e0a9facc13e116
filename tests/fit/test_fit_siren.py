"""The fit: its model of the rate, its optimiser, and that its files decode to what it measured."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from prancimg.decoding.decoder import decode_array
from prancimg.errors import PrancImgError
from prancimg.fit.ops.rate import laplace_bits
from prancimg.fit.siren_encoder import LEAN, LEAN_PRIOR, PRIOR, SHALLOW_PRIOR, Plan, SirenSearch, fit_to_size
from prancimg.fit.soap import Soap
from prancimg.format.layout import Kind, Siren
from prancimg.network.prior import load_prior

CPU = torch.device("cpu")


@pytest.mark.parametrize("spread", [0.2, 1.0, 7.0])
def test_bits_are_those_of_an_integrated_laplace_density(spread):
    q = torch.tensor([-9.3, -1.0, -0.6, -0.5, -0.2, 0.0, 0.49, 0.51, 3.0], dtype=torch.float64)
    x = torch.linspace(-0.5, 0.5, 20001, dtype=torch.float64)
    density = torch.exp(-(q[:, None] + x).abs() / spread) / (2 * spread)
    expected = -torch.log2(torch.trapezoid(density, x) + 1e-9)
    torch.testing.assert_close(laplace_bits(q, torch.tensor(spread).double()), expected, rtol=1e-4, atol=1e-4)


def test_soap_steps_turn_with_their_problem():
    """Why it suits a random basis: in rotated coordinates it takes the rotated steps, which Adam does not."""
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))[0]
    plain, turned = Soap(1, every=1), Soap(1, every=1)
    for _ in range(15):
        gradient = torch.randn(6, 6, generator=generator, dtype=torch.float64)
        step = plain.directions([gradient])[0]
        rotated = turned.directions([left @ gradient @ right])[0]
    torch.testing.assert_close(left @ step @ right, rotated, rtol=1e-6, atol=1e-6)


def test_soap_on_vectors_is_adam():
    parameter = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    adam, soap = torch.optim.Adam([parameter], 1.0, (0.9, 0.98), 1e-12), Soap(1)
    for i in range(5):
        gradient = torch.arange(5, dtype=torch.float64) - 1.7 * i + 0.3
        before = parameter.detach().clone()
        parameter.grad = gradient
        adam.step()
        torch.testing.assert_close(before - parameter.detach(), soap.directions([gradient])[0], rtol=1e-9, atol=0)


@pytest.mark.parametrize("kind", Kind)
def test_the_decoder_paints_exactly_what_the_encoder_measured(photo, kind):
    plan = replace(Plan.direct(Siren(20, 3)), kind=kind, counts=(40, 20, 200, 20, 200, 20, 60, 3))
    made = fit_to_size(photo, plan, 7, 700, 40, CPU)
    error = np.square(decode_array(made.data).astype(float) - photo).mean()
    assert error == made.error and made.psnr == pytest.approx(10 * math.log10(255**2 / error))
    assert 0.97 * 700 <= len(made.data) <= 700


def test_longer_fits_are_better(photo):
    plan = Plan.direct(Siren(20, 3))
    short, long = (fit_to_size(photo, plan, 0, 1200, steps, CPU).psnr for steps in (40, 300))
    assert long > short + 1


@pytest.mark.parametrize("prior", [PRIOR, LEAN_PRIOR, SHALLOW_PRIOR])
@pytest.mark.parametrize("size", [100, 400, 2_000, 10_000, 40_000])
def test_plans_grow_with_the_budget(size, prior):
    smaller, larger = Plan.of(8.0 * size, prior), Plan.of(16.0 * size, prior)
    assert sum(smaller.counts) < sum(larger.counts)
    assert 2 < 8 * size / sum(smaller.counts) < 12


def test_few_bits_start_at_a_prior_of_their_own():
    assert Plan.of(LEAN).prior == LEAN_PRIOR and Plan.of(LEAN + 1).prior == PRIOR


@pytest.mark.parametrize("bits", [LEAN, 2 * LEAN])
@pytest.mark.parametrize(("effort", "layers"), [(1, 5), (3, 5), (4, 8), (9, 8)])
def test_short_fits_start_at_the_shallow_prior(photo, effort, layers, bits):
    plan = Plan.of(bits, SirenSearch(photo, effort, 0, CPU, None).prior)
    assert plan.siren.layers == load_prior(plan.prior).siren.layers == layers
    assert (plan.prior == SHALLOW_PRIOR) == (layers == 5)


def test_a_fit_that_runs_away_is_reported(photo, monkeypatch):
    monkeypatch.setattr("prancimg.fit.fit_siren.laplace_bits", lambda q, spread: q * float("nan"))
    with pytest.raises(PrancImgError, match="diverged"):
        fit_to_size(photo, Plan.direct(Siren(8, 2)), 0, 400, 20, CPU)
