"""The Pillow plugin, in a process of its own where what Pillow knows matters, and imageio through it."""

import copy
import io
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import imageio.v3 as imageio
import numpy as np
import pytest
from PIL import Image, ImageFile

import prancimg
from prancimg import PrancImgError
from prancimg.images.profile import ADOBE_RGB, rgb_profile


@pytest.fixture(scope="module", autouse=True)
def plugin():
    prancimg.register_pillow_plugin()


@pytest.fixture(scope="module")
def small(photo) -> Image.Image:
    return Image.fromarray(photo).resize((48, 40))


@pytest.fixture(scope="module")
def path(tmp_path_factory, small):
    path = tmp_path_factory.mktemp("pillow") / "a.prc"
    small.save(path, bpp=4.0, effort=1, icc_profile=b"profile", exif=Image.Exif(), xmp=b"<x/>")
    return path


def test_registering_is_what_makes_the_difference():
    code = (
        "import prancimg; from PIL import Image; Image.init(); assert '.prc' not in Image.registered_extensions();"
        "prancimg.register_pillow_plugin(); import sys; assert 'torch' not in sys.modules;"
        "assert Image.registered_extensions()['.prc'] == 'PRC' and Image.MIME['PRC'] == 'image/x-prc'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_opening_decodes_nothing_and_loading_does(path, monkeypatch):
    with Image.open(path) as image:
        assert (image.format, image.size, image.mode) == ("PRC", (48, 40), "RGB")
        assert image.info["icc_profile"] == b"profile" and image.info["xmp"] == b"<x/>"
        assert image._im is None
        assert np.array_equal(image, prancimg.decode(path))
        assert image.copy().resize((5, 5)).size == (5, 5)


def test_saving_takes_the_options_of_encode(path, small):
    assert len(path.read_bytes()) <= 48 * 40 * 4 / 8
    buffer = io.BytesIO()
    small.convert("LA").save(buffer, "PRC", quality=30, effort=1)
    assert Image.open(buffer).mode == "L"
    with pytest.raises(PrancImgError, match="effort"):
        small.save(io.BytesIO(), "PRC", effort=11)


def test_options_of_other_formats_are_ignored(small):
    plain, other = io.BytesIO(), io.BytesIO()
    small.save(plain, "PRC", quality=30, effort=1)
    small.save(other, "PRC", quality=30, effort=1, dpi=(300, 300), optimize=True, compress_level=9)
    assert other.getvalue() == plain.getvalue()


def test_like_other_writers_it_does_not_turn_and_keeps_the_profile(small):
    image, profile = small.copy(), rgb_profile(ADOBE_RGB, 2.2)
    image.getexif()[0x0112] = 6
    image.info["icc_profile"] = profile
    buffer = io.BytesIO()
    image.save(buffer, "PRC", quality=30, effort=1)
    assert Image.open(buffer).size == small.size and Image.open(buffer).info == {"icc_profile": profile}


def test_one_picture_may_be_saved_as_all_and_more_are_refused(small, tmp_path):
    small.save(tmp_path / "a.prc", save_all=True, quality=30, effort=1)
    assert prancimg.open(tmp_path / "a.prc").size == small.size
    with pytest.raises(PrancImgError, match="one picture, not 3"):
        small.save(tmp_path / "b.prc", save_all=True, append_images=[small, small])
    assert not (tmp_path / "b.prc").exists()


def test_a_file_that_was_opened_can_be_sent_to_other_processes(path):
    lazy = prancimg.open(path)
    for _ in range(2):  # before it was decoded, and after
        for other in (pickle.loads(pickle.dumps(lazy)), copy.copy(lazy), copy.deepcopy(lazy)):
            assert other.info == lazy.info and np.array_equal(other.array(), lazy.array())
    assert len(pickle.dumps(lazy)) < 2 * len(path.read_bytes()) + 4000  # not the integers that were decoded
    with Image.open(path) as image:
        assert np.array_equal(pickle.loads(pickle.dumps(image)), lazy.array())


def test_the_limit_on_pixels_is_pillows(path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1900)
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(path).close()


def test_truncated_files_load_only_when_asked_to(path, monkeypatch):
    data = path.read_bytes()
    for share in (0.5, 0.75):
        cut = data[: int(share * len(data))]
        with pytest.raises(OSError, match="cut short"):
            Image.open(io.BytesIO(cut))
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    whole, errors = np.asarray(prancimg.decode(path), float), []
    for share in (0.5, 0.75, 1):
        image = Image.open(io.BytesIO(data[: int(share * len(data))]))
        errors.append(np.square(np.asarray(image) - whole).mean())
    assert errors[0] > errors[1] > errors[2] == 0 and errors[0] < whole.var() / 2
    with pytest.raises(OSError):
        Image.open(io.BytesIO(data[:20])).load()


def test_what_is_damaged_or_something_else_is_an_os_error(path):
    data = bytearray(path.read_bytes())
    data[-200] ^= 1
    with pytest.raises(OSError, match="wrong checksum"):
        Image.open(io.BytesIO(data))
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(io.BytesIO(b"something else"))


def test_threads(path):
    expected = np.asarray(prancimg.decode(path))

    def load(_):
        with Image.open(path) as image:
            return np.asarray(image)

    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(each, expected) for each in pool.map(load, range(8)))


def test_imageio_reads_and_writes_through_pillow(path, small, tmp_path):
    assert np.array_equal(imageio.imread(path, plugin="pillow"), prancimg.decode(path))
    imageio.imwrite(tmp_path / "b.prc", np.asarray(small), plugin="pillow", quality=30, effort=1)
    assert imageio.improps(tmp_path / "b.prc", plugin="pillow").shape == (40, 48, 3)
