"""Pictures without loss: asked for, or because nothing else is as small; and never more than some bytes beyond raw."""

import io
import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw
from skimage import data as photos

import prancimg
from prancimg import PrancImgError
from prancimg.apps import batch
from prancimg.apps.cli import main
from prancimg.format import bitstream
from prancimg.format.bitstream import Segment
from prancimg.images import lossless as codings

RNG = np.random.default_rng(0)


def samples(data: bytes) -> np.ndarray:
    return prancimg.open(data).array()


def text() -> np.ndarray:
    """Letters with soft edges in two colours, (96, 128, 3)."""
    image = Image.new("RGB", (128, 96), "white")
    for line in range(8):
        ImageDraw.Draw(image).text((4, 4 + 11 * line), "The quick brown fox jumps", fill=(20, 30, 20 * line))
    return np.asarray(image)


def pixel_art() -> np.ndarray:
    """Sixteen colours in blocks of eight pixels, (64, 64, 3)."""
    colors = RNG.integers(0, 256, (16, 3), np.uint8)
    return colors[RNG.integers(0, 16, (8, 8)).repeat(8, 0).repeat(8, 1)]


def dithered(photo: np.ndarray) -> np.ndarray:
    """Black and white, (96, 128)."""
    return np.asarray(Image.fromarray(photo).convert("1").convert("L"))


def chart() -> np.ndarray:
    """Bars, lines and a grid, (80, 120, 3)."""
    image = Image.new("RGB", (120, 80), "white")
    draw = ImageDraw.Draw(image)
    for x in range(0, 120, 10):
        draw.line((x, 0, x, 80), fill="lightgrey")
        draw.rectangle((x + 2, 80 - (x * 37) % 70, x + 7, 80), fill=("red", "green", "blue")[x // 10 % 3])
    draw.line([(x, 40 + (x * x) % 31) for x in range(0, 120, 5)], fill="black")
    return np.asarray(image)


def stripes(period: int) -> np.ndarray:
    """Black and white columns, (64, 64)."""
    return np.tile(np.uint8([0] * (period // 2) + [255] * (period // 2)), (64, 64 // period))


KINDS = {
    "text": lambda photo: text(),
    "pixel art": lambda photo: pixel_art(),
    "dithered": dithered,
    "chart": lambda photo: chart(),
    "Nyquist stripes": lambda photo: stripes(2),
    "checkerboard": lambda photo: np.indices((48, 48)).sum(0).astype(np.uint8) % 2 * 255,
    "one colour": lambda photo: np.full((64, 64, 3), 77, np.uint8),
    "very small": lambda photo: photo[:3, :5],
}


@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_photograph_is_without_loss_at_the_default_quality(name, photo):
    image = KINDS[name](photo)
    data = prancimg.encode(image, effort=1)
    assert prancimg.info(data)["model"] == "lossless"
    assert np.array_equal(samples(data).reshape(image.shape), image)
    png = io.BytesIO()
    Image.fromarray(image).save(png, "PNG", optimize=True)
    assert len(data) <= len(png.getvalue())


def test_a_photograph_is_not(photo):
    assert prancimg.info(prancimg.encode(photo, effort=1))["model"] == "field"
    assert prancimg.info(prancimg.encode(photo, effort=1, size=900))["model"] == "field"


@pytest.mark.parametrize("options", [{"bpp": 24.0}, {"psnr": 100}, {"size": 1 << 20}, {"lossless": True}])
def test_a_photograph_is_where_nothing_else_will_do(photo, options):
    data = prancimg.encode(photo[:24, :32], effort=1, **options)
    assert prancimg.info(data)["model"] == "lossless" and np.array_equal(samples(data), photo[:24, :32])


def test_a_size_decides_to_the_byte(photo):
    image = text()
    exact = prancimg.encode(image, lossless=True)
    assert prancimg.encode(image, effort=1, size=len(exact)) == exact
    below = prancimg.encode(image, effort=1, size=len(exact) - 1)
    assert prancimg.info(below)["model"] == "field" and len(below) < len(exact)


def test_a_network_is_there_for_who_asks(photo):
    for options in ({"lossless": False}, {"model": "siren"}):
        assert prancimg.info(prancimg.encode(stripes(2), effort=1, size=300, **options))["coding"] == "network"


@pytest.mark.parametrize("wish", [{"bpp": 1.0}, {"size": 500}, {"quality": 50}, {"psnr": 30}])
def test_there_is_no_rate_or_quality_to_ask_for(photo, wish):
    with pytest.raises(PrancImgError, match=f"a lossless file has no {next(iter(wish))} to ask for"):
        prancimg.encode(photo, lossless=True, **wish)


@given(
    st.integers(1, 9).flatmap(
        lambda height: arrays(
            st.sampled_from([np.uint8, np.uint16]),
            st.tuples(st.just(height), st.integers(1, 9), st.sampled_from([1, 3, 4])),
        )
    )
)
def test_every_sample_comes_back_also_where_nobody_sees_it(image):
    image = image[:, :, 0] if image.shape[2] == 1 else image
    data = prancimg.encode(image, lossless=True)
    back = samples(data)
    assert back.dtype == image.dtype
    opaque = image.ndim == 3 and image.shape[2] == 4 and np.all(image[:, :, 3] == np.iinfo(image.dtype).max)
    assert np.array_equal(back.squeeze(2) if image.ndim == 2 else back, image[:, :, :3] if opaque else image)
    assert len(data) <= image.nbytes + (20 if image.dtype == np.uint8 and image.shape[2:] == (3,) else 40)


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 3, 3), (1, 600, 3), (200, 1, 3), (1, 20_000, 3)])
def test_noise_of_any_shape_takes_no_more_than_its_samples_and_some_bytes(shape):
    image = RNG.integers(0, 256, shape, np.uint8)
    assert len(prancimg.encode(image, size=1 << 20, effort=1)) <= image.nbytes + 25


@pytest.mark.parametrize("where", [np.s_[:1], np.s_[:, :1], np.s_[:3, :5]])
@pytest.mark.parametrize("quality", [20, 95])
def test_a_thin_or_tiny_part_of_a_photograph_is_never_larger_than_its_samples(photo, where, quality):
    assert len(prancimg.encode(photo[where], quality=quality, effort=1)) <= photo[where].nbytes + 25


def test_16_bits_that_are_8_in_disguise_take_what_8_take(photo):
    plain, deep = (prancimg.encode(image, lossless=True) for image in (photo, photo.astype(np.uint16) * 257))
    assert len(deep) == len(plain) + len(bitstream.write([(Segment.SAMPLES, b"\0\x10")])) - len(bitstream.write([]))
    assert np.array_equal(samples(deep), photo.astype(np.uint16) * 257)


def test_more_effort_finds_a_smaller_file():
    photo = photos.camera()[100:260, 180:340]
    small = [len(prancimg.encode(photo, lossless=True, effort=effort)) for effort in (1, 9)]
    assert small[1] < small[0]


def test_the_lowest_size_named_is_that_of_the_lossless_file_where_it_is_smaller():
    image = np.full((1, 1, 3), 7, np.uint8)
    lowest = len(prancimg.encode(image, lossless=True))
    with pytest.raises(PrancImgError, match=f"the lowest possible is {lowest} bytes"):
        prancimg.encode(image, size=lowest - 1, effort=1)
    assert len(prancimg.encode(image, size=lowest, effort=1)) == lowest


def test_metadata_transparency_and_orientation_travel_along(photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.dstack([photo, photo[:, :, 0]]))
    data = prancimg.encode(image, lossless=True, icc_profile=b"a profile", exif=exif.tobytes(), xmp=b"<x/>")
    picture = prancimg.decode(data)
    assert picture.mode == "RGBA" and np.array_equal(picture, image)
    assert picture.info["icc_profile"] == b"a profile" and picture.info["xmp"] == b"<x/>"
    assert picture.getexif()[0x0112] == 6


def test_a_part_of_it_is_that_part_and_a_larger_size_goes_through_the_whole(photo):
    picture = prancimg.open(prancimg.encode(photo, lossless=True))
    assert picture.levels == 1
    assert np.array_equal(picture.array(region=(20, 10, 50, 40)), photo[10:50, 20:70])
    large = picture.array(size=(3 * 128, 3 * 96)).astype(int)
    assert np.abs(large[1::3, 1::3] - photo.astype(int)).max() <= 1, "pixels are where they were"
    part = picture.array(region=(20, 10, 50, 40), size=(150, 120)).astype(int)
    assert np.abs(part - large[30:150, 60:210]).max() <= 1
    assert picture.array(level=2).shape == (24, 32, 3)
    assert np.abs(picture.array(level=2).mean((0, 1)) - photo.mean((0, 1))).max() < 2
    assert picture.array(depth=16)[0, 0].tolist() == (photo[0, 0].astype(int) * 257).tolist()


def test_a_file_that_is_cut_or_changed_is_refused_also_in_part(photo):
    data = prancimg.encode(photo[:9, :9], lossless=True, xmp=b"<x/>")
    for cut in range(len(data)):
        for partial in (False, True):
            with pytest.raises(PrancImgError):
                prancimg.decode(data[:cut], allow_partial=partial)
    with pytest.raises(PrancImgError, match="cut short: 7 bytes or more are missing"):
        prancimg.decode(data[:-7], allow_partial=True)
    for at in range(len(data)):
        with pytest.raises(PrancImgError):
            prancimg.info(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])


def test_what_follows_it_is_no_reason_not_to_show_it(photo):
    data = prancimg.encode(photo, lossless=True)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert np.array_equal(prancimg.decode(data + b"more", allow_partial=True), photo)
    assert "the last 4 bytes of the file are damaged" in str(said[0].message)
    with pytest.raises(PrancImgError):
        prancimg.decode(data + b"more")


def test_the_command_makes_it_and_tells_of_it(photo, tmp_path, capsys):
    source, out = tmp_path / "a.png", tmp_path / "a.prc"
    Image.fromarray(photo).save(source)
    assert main(["encode", str(source), str(out), "--lossless"]) == 0
    assert "bpp, lossless, " in capsys.readouterr().err
    assert main(["info", str(out)]) == 0
    said = capsys.readouterr().out
    assert "lossless    WebP" in said and "sine units" not in said
    assert main(["info", "--json", str(out)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["model"], facts["coding"], facts["coefficients"]) == ("lossless", "webp", 0)
    assert main(["decode", str(out), str(tmp_path / "back.png")]) == 0
    assert np.array_equal(Image.open(tmp_path / "back.png"), photo)
    assert main(["encode", str(source), str(out), "--lossless", "--bpp", "2"]) == 1
    assert "a lossless file has no bpp to ask for" in capsys.readouterr().err


def test_the_command_says_nothing_of_more_bits_where_nothing_could_be_better(tmp_path, capsys):
    Image.fromarray(stripes(2)).save(tmp_path / "a.png")
    assert main(["encode", str(tmp_path / "a.png"), str(tmp_path / "a.prc"), "--bpp", "2", "-e1"]) == 0
    assert "lossless" in (said := capsys.readouterr().err) and "smaller than asked for" not in said


def test_a_batch_and_pillow_carry_the_wish(photo, tmp_path):
    Image.fromarray(photo).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    row = batch.encode_bytes(data, {}, {"lossless": True}, True, False)
    assert (row.psnr, row.note, row.error) == (None, "lossless", "") and np.array_equal(samples(row.data), photo)
    prancimg.register_pillow_plugin()
    Image.fromarray(photo).save(tmp_path / "b.prc", lossless=True)
    assert (tmp_path / "b.prc").read_bytes() == row.data
    with Image.open(tmp_path / "b.prc") as image:
        assert np.array_equal(image, photo)


def test_no_fit_no_torch(tmp_path):
    code = (
        "import sys, numpy, prancimg; data = prancimg.encode(numpy.zeros((5, 5, 3), 'u1'), lossless=True);"
        "prancimg.decode(data); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_webp_it_is_png_and_a_file_of_webp_is_refused_by_name(photo, monkeypatch):
    webp = prancimg.encode(photo, lossless=True)
    monkeypatch.setattr(codings.features, "check", lambda name: False)
    png = prancimg.encode(photo, lossless=True)
    assert prancimg.info(png)["coding"] == "png" and np.array_equal(samples(png), photo)
    with pytest.raises(PrancImgError, match="lossless WebP, which this Pillow was built without"):
        prancimg.decode(webp)
