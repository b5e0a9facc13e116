"""Priors: their files, their hashes, and what happens when something is off."""

import hashlib
from importlib.resources import files

import numpy as np
import pytest

from prancimg.errors import PrancImgError
from prancimg.format.layout import Design, Siren
from prancimg.network import prior
from prancimg.network.prior import load_prior, pack_prior, unpack_prior
from prancimg.network.siren import FRACTION, coordinates, forward, to_floats
from tools.deepen_siren_prior import deepen


def test_the_shipped_priors_are_the_ones_of_the_format():
    for number, digest in prior._DIGESTS.items():
        data = (files("prancimg.network") / "data" / f"siren-{number}.bin").read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest
        siren, theta0, _ = load_prior(number)
        assert {name: len(tensor) for name, tensor in theta0.items()} == {
            name: int(np.prod(shape)) for name, shape in siren.shapes.items()
        }


def test_packing_keeps_sixteen_bits_of_every_tensor():
    siren, rng = Siren(5, 2), np.random.default_rng(0)
    tensors = {name: rng.normal(0, 10.0**-i, shape) for i, (name, shape) in enumerate(siren.shapes.items())}
    again, units, _ = unpack_prior(pack_prior(siren, tensors))
    assert again == siren
    for name, tensor in tensors.items():
        error = np.abs(units[name] / 2**FRACTION - tensor.ravel()).max()
        assert error <= max(np.abs(tensor).max() / 2**14, 2.0**-FRACTION)
    assert pack_prior(siren, {name: unit / 2**FRACTION for name, unit in units.items()}) == pack_prior(siren, tensors)


def test_single_tensors_may_have_directions_of_their_own():
    siren, rng = Siren(5, 3, 0, Design(learned=(("w1", 2), ("w2", 3)))), np.random.default_rng(0)
    tensors = {name: rng.normal(0, 1, shape) for name, shape in siren.shapes.items() if "." not in name}
    directions = {name: 0.01 * rng.normal(0, 1, (number, 25)) for name, number in siren.design.learned}
    data = pack_prior(siren, tensors, directions)
    again, units, found = unpack_prior(data, siren.design)
    assert again == siren and list(found) == ["w1", "w2"] and [len(units[f"learned.w{i}"]) for i in (1, 2)] == [2, 3]
    for name, along in found.items():
        assert np.allclose(
            along.entries / 2.0**along.shifts, directions[name], atol=0.01 * np.abs(directions[name]).max()
        )


def test_unknown_priors_are_refused():
    with pytest.raises(PrancImgError, match="needs prior 999"):
        load_prior(999)


def test_a_damaged_prior_is_noticed(monkeypatch):
    monkeypatch.setitem(prior._DIGESTS, 1, "0" * 64)
    load_prior.cache_clear()
    with pytest.raises(PrancImgError, match="reinstall"):
        load_prior(1)
    load_prior.cache_clear()


def test_a_deeper_prior_paints_about_what_the_shallow_one_did():
    siren, theta0, _ = load_prior(1)
    deeper, weights = deepen(siren, theta0, [2, 3, 4], seed=0)
    assert deeper == Siren(64, 8)
    inputs = coordinates(16, 24)
    expected = forward(siren, to_floats(siren, theta0), inputs)
    deep = forward(deeper, weights, inputs)
    assert 0 < np.abs(deep - expected).mean() < 0.25 * expected.std()


def test_the_deep_prior_is_the_shallow_one_deepened():
    """The recipe makes the file again, up to what a least-squares fit may differ by between machines."""
    siren, theta0, _ = load_prior(1)
    made = unpack_prior(pack_prior(*deepen(siren, theta0, [2, 3, 4], seed=0)))
    shipped = load_prior(4)
    assert made.siren == shipped.siren
    for name, tensor in shipped.theta0.items():
        assert np.abs(made.theta0[name] - tensor).max() < 2 ** (FRACTION - 7)
