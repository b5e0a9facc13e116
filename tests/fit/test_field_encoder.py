"""What bytes buy: more of them no worse picture, and none is worse than one colour; high rates go on to 50 dB."""

import itertools

import numpy as np
import pytest
import torch
from skimage import data

import prancimg
from prancimg import PrancImgError
from prancimg.decoding.decoder import decode_array
from prancimg.fit.field_encoder import FieldSearch, _one_color
from prancimg.fit.setup import FULL_CHROMA, OPTIMISATION, TUNES, finest_levels

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)


def decibels(image: np.ndarray, file: bytes) -> float:
    return 10 * np.log10(255**2 / max(np.square(decode_array(file) - image.astype(float)).mean(), 1e-9))


def constant(image: np.ndarray) -> float:
    """PSNR of the best single colour."""
    return 10 * np.log10(255**2 / image.var((0, 1)).mean())


@pytest.fixture(scope="module")
def crop() -> np.ndarray:
    """A part of a photo as it was taken, (48, 64, 3)."""
    return data.coffee()[180:228, 240:304]


HARD = {
    "noise": RNG.integers(0, 256, (40, 48, 3), np.uint8),
    "stripes": np.tile(np.uint8([0, 255])[None, :, None], (48, 24, 3)),
    "checkerboard": np.broadcast_to((np.indices((48, 48)).sum(0) % 2 * 255).astype(np.uint8)[:, :, None], (48, 48, 3)),
    "dithering": np.broadcast_to(((RNG.random((48, 48)) < 0.3) * 255).astype(np.uint8)[:, :, None], (48, 48, 3)),
}


@pytest.mark.parametrize("name", HARD)
def test_nothing_is_farther_from_a_picture_than_its_mean_colour(name):
    image = HARD[name]
    flat = _one_color(image, CPU)
    search = FieldSearch(image, 1, 0, CPU)
    for file in (search.at_size(len(flat) + 20), search.at_size(300), search.at_lmbda(1e-3)):
        assert decibels(image, file) >= constant(image) - 0.05


def test_the_file_of_one_colour_has_that_colour_in_few_bytes(crop):
    file = _one_color(crop, CPU)
    assert len(file) < 100
    assert np.abs(decode_array(file).mean((0, 1)) - crop.mean((0, 1))).max() < 5


@pytest.mark.parametrize("tune", TUNES)
def test_a_photograph_is_the_better_the_more_bytes_it_has(crop, tune):
    """Up to about the bytes it takes without loss."""
    search = FieldSearch(crop, 1, 0, CPU, setup=TUNES[tune])
    found = [decibels(crop, search.at_size(round(bpp * crop.shape[0] * crop.shape[1] / 8))) for bpp in (1, 3, 6, 9)]
    assert all(more > fewer - 0.05 for fewer, more in itertools.pairwise(found)) and found[-1] > found[0] + 8


@pytest.mark.parametrize("wanted", [45, 50])
def test_high_quality_is_reached_in_no_more_bytes_than_without_loss(crop, wanted):
    file = prancimg.encode(crop, psnr=wanted, effort=1)
    assert len(file) <= len(prancimg.encode(crop, lossless=True))
    assert decibels(crop, file) >= wanted if prancimg.info(file)["model"] == "field" else True


def test_fits_themselves_go_beyond_45_decibels(crop):
    assert decibels(crop, prancimg.encode(crop, psnr=46, effort=3, lossless=False)) >= 46


def test_what_is_out_of_reach_names_the_effort():
    with pytest.raises(PrancImgError, match=r"99 dB are out of reach: .* at effort 1; a higher effort \(--effort\)"):
        prancimg.encode(HARD["noise"][:9, :9], psnr=99, effort=1, lossless=False)


def test_chroma_has_all_levels_where_bits_or_their_price_ask_for_them():
    lmbda, bpp = FULL_CHROMA
    assert finest_levels(bpp + 0.1) == finest_levels(2, lmbda / 2) == (0, 0)
    assert finest_levels(bpp - 0.1) == finest_levels(2, lmbda * 2) == (0, 1)
    assert len(OPTIMISATION.start_damping_full_chroma) > len(OPTIMISATION.start_damping)
