"""The networks of a fit: floats that follow the decoder's integers, in every tier of adaptation."""

import numpy as np
import pytest
import torch
import wide_prior

from prancimg.decoding.decoder import Model, decode_array
from prancimg.fit.field_encoder import file_of
from prancimg.fit.fit_field import fit_field
from prancimg.fit.networks import Networks
from prancimg.fit.setup import Setup
from prancimg.format.header import ALL_WEIGHTS, CONTEXTS, DIRECTIONS, FROZEN
from prancimg.network.siren import FRACTION, to_floats

CPU = torch.device("cpu")
TIERS = {"frozen": FROZEN, "directions": DIRECTIONS, "seeded": CONTEXTS, "all": {**DIRECTIONS, **ALL_WEIGHTS}}
tiers = pytest.mark.parametrize("adapted", TIERS.values(), ids=TIERS)


@tiers
def test_weights_are_those_of_the_decoder(adapted):
    with wide_prior.installed() as number:
        header = Setup(prior=number).header(np.zeros((8, 9, 3), np.uint8), 1e-3, adapted=adapted, seed=3)
        model = Model.of(header)
    networks, random = Networks(model, header.tensors, CPU), np.random.default_rng(0)
    for name, a in networks.a.items():
        a.data = torch.from_numpy(networks.step[name] * random.integers(-9, 9, len(a))).float()
    weights, bits = networks.weights(rounded=True)
    alpha, coded = networks.integers()
    exact = to_floats(model.siren, model.parameters(alpha, coded))
    assert bits.item() > 0 or not adapted
    for name, tensor in exact.items():
        np.testing.assert_allclose(weights[name].detach(), tensor, rtol=1e-5, atol=8 / 2**FRACTION)


@tiers
def test_a_fit_adapts_what_it_may(photo, adapted):
    with wide_prior.installed() as number:
        setup = Setup(prior=number, adapted=adapted, rate_weights=(1.0,) * 4, masking=0.0)
        fitted = fit_field(photo, seed=0, iterations=24, device=CPU, lmbda=5e-4, setup=setup)
        data = file_of(fitted, 0.0)
        error = np.square(decode_array(data).astype(float) - photo).mean()
        sent = {name for name, how in zip(fitted.header.siren.shapes, fitted.header.tensors, strict=True) if how.k}
        assert sent <= adapted.keys() and bool(sent) == bool(adapted)
        assert fitted.bits(0) < 8 * len(data) < 1.02 * fitted.bits(0) + 8 * 120
    assert error < 90


def test_what_paints_settles_on_integers_and_the_rest_goes_on():
    header = Setup().header(np.zeros((8, 9, 3), np.uint8), 1e-3, adapted=CONTEXTS, seed=3)
    networks = Networks(Model.of(header), header.tensors, CPU)
    for a in networks.a.values():
        a.data.normal_(generator=torch.Generator().manual_seed(0))
    networks.settle_synthesis()
    before = {name: a.detach().clone() for name, a in networks.a.items()}
    for a in networks.a.values():
        a.grad = torch.ones_like(a)
    networks.update(1e-2, 0.1)
    stayed = {name for name, a in networks.a.items() if torch.equal(a, before[name])}
    assert stayed == {"w0", "b0", "w1", "b1", "scale", "taps", "residual", "learned.paint"}
    for name in stayed:
        q = before[name] / networks.step[name]
        torch.testing.assert_close(q, q.round())
