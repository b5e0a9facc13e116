"""The controls of the field preset run through real files, each with its own start."""

import numpy as np
import pytest

from benchmarks.field.__main__ import VARIANTS, measure, prior, table
from prancimg.decoding import decoder
from prancimg.fit import setup
from prancimg.format.layout import CAUSAL, KINDS, PARENT
from prancimg.network.prior import load_prior
from prancimg.network.siren import to_floats


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """Smooth colours, (48, 64, 3)."""
    y, x = np.mgrid[:48, :64] / 20
    planes = [128 + 80 * np.sin(2 * x + c) * np.cos(1.5 * y - c) for c in range(3)]
    return np.stack(planes, 2).astype(np.uint8)


@pytest.mark.parametrize("name", ["psnr", "no-prior", "linear", "fixed-sines", "no-parent"])
def test_a_variant_is_measured_on_its_decoded_file(scene, name):
    row = measure(scene, 1e-3, 4, VARIANTS[name])
    assert row["psnr"] > 20 and 0 < row["bpp"] < 8
    assert row["loss"] == pytest.approx(10 ** (-row["psnr"] / 10) + 1e-3 * row["bpp"])


def test_another_prior_is_one_for_encoder_and_decoder_and_only_for_a_while():
    shipped = load_prior(2)
    with prior(VARIANTS["no-parent"].start):
        siren, theta0, _ = setup.load_prior(2)
        assert decoder.load_prior(2)[1] is theta0
    assert setup.load_prior(2) is decoder.load_prior(2) is shipped
    first = len(CAUSAL)
    for kind in KINDS:
        a, kept = (to_floats(siren, theta)[f"{kind}.a"] for theta in (theta0, shipped[1]))
        dropped = np.zeros(a.shape[1], bool)
        dropped[first : first + 1 + len(PARENT)] = True
        assert not a[:, dropped].any() and np.array_equal(a[:, ~dropped], kept[:, ~dropped])


def test_the_table_is_relative_to_the_preset_tuned_for_psnr():
    rows = [("psnr", 1.0), ("psnr", 4.0), ("other", 2.0), ("other", 2.42)]
    results = [{"setup": name, "lmbda": 1e-3, "loss": loss} for name, loss in rows]
    assert table(results).splitlines()[2:] == ["| psnr | +0.0 % |", "| other | +10.0 % |"]
