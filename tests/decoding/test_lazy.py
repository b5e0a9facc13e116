"""A file as a function: any part, any size, any level; what it shows is what decoding shows."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import prancimg
from prancimg import PrancImgError
from prancimg.decoding import decoder, view
from prancimg.images.picture import load_picture
from prancimg.network import context

WIDTH, HEIGHT = 61, 45


@pytest.fixture(scope="module", params=["field", "siren"])
def file(request, photo) -> bytes:
    picture = photo[:HEIGHT, :WIDTH]
    return prancimg.encode(picture, effort=1, seed=0, model=request.param, size=900)


@pytest.fixture(scope="module")
def field(photo) -> bytes:
    return prancimg.encode(photo[:HEIGHT, :WIDTH], effort=1, seed=0, quality=60)


def test_nothing_is_decoded_before_it_is_looked_at(file, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise AssertionError

    path = tmp_path / "a.prc"
    path.write_bytes(file)
    monkeypatch.setattr(context, "decode_field", fail)
    monkeypatch.setattr(decoder, "read_coefficients", fail)
    picture = prancimg.open(path)
    assert (picture.size, picture.mode, picture.depth, picture.info) == ((WIDTH, HEIGHT), "RGB", 8, {})
    with pytest.raises(AssertionError):
        picture.render()


def test_all_of_it_is_the_decoded_picture(file):
    assert np.array_equal(prancimg.open(file).array(), prancimg.decode(file))


@pytest.fixture(scope="module")
def shown(field) -> tuple[prancimg.LazyImage, np.ndarray]:
    """The lazy image and all of its samples."""
    return prancimg.open(field), np.asarray(prancimg.decode(field)).astype(int)


@given(st.data())
def test_a_region_is_that_part_of_the_picture(shown, data):
    x, y = data.draw(st.integers(0, WIDTH - 1)), data.draw(st.integers(0, HEIGHT - 1))
    width, height = data.draw(st.integers(1, WIDTH - x)), data.draw(st.integers(1, HEIGHT - y))
    picture, whole = shown
    part = picture.array(region=(x, y, width, height)).astype(int)
    assert np.abs(part - whole[y : y + height, x : x + width]).max() <= 1


def test_a_region_costs_what_it_covers(field, monkeypatch):
    """Counted in points that go through the network."""
    painted = []
    original = view.forward

    def count(siren, weights, inputs):
        painted.append(inputs.shape[1])
        return original(siren, weights, inputs)

    monkeypatch.setattr(view, "forward", count)
    picture = prancimg.open(field)
    picture.array(region=(20, 10, 10, 8))
    assert sum(painted) <= 12 * 10
    painted.clear()
    picture.array(region=(20, 10, 10, 8), size=(40, 32))
    assert sum(painted) <= 40 * 32 + 18 * 16


def test_an_enlargement_goes_through_the_pixels(file):
    """At three times the size every third point, from the second on, is a pixel's centre."""
    picture = prancimg.open(file)
    large = picture.array(size=(3 * WIDTH, 3 * HEIGHT))
    assert np.abs(large[1::3, 1::3].astype(int) - picture.array()).max() <= 1
    part = picture.array(size=(30, 24), region=(5, 6, 10, 8))
    assert np.abs(part.astype(int) - large[18:42, 15:45]).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (WIDTH, 5), (7, HEIGHT), (152, 112), (100, 10)])
def test_any_size(file, size):
    picture = prancimg.open(file)
    assert picture.render(size).size == size
    mean = picture.array(size).mean((0, 1))
    assert np.abs(mean - picture.array().mean((0, 1))).max() < 4


def test_smaller_sizes_are_averages(file):
    picture = prancimg.open(file)
    region = (0, 0, 60, 44)
    boxes = picture.array(region=region).reshape(11, 4, 15, 4, 3).mean((1, 3))
    assert np.abs(picture.array((15, 11), region) - boxes).mean() < 5


def test_coarse_levels_are_decoded_alone_and_look_alike(field, monkeypatch):
    decoded = []
    original = context.decode_field

    def note(pyramid, data, nets, levels, known):
        decoded.extend(levels)
        return original(pyramid, data, nets, levels, known)

    monkeypatch.setattr(context, "decode_field", note)
    picture = prancimg.open(field)
    preview = picture.array(level=2)
    assert preview.shape == (12, 16, 3) and min(decoded) == 2
    errors = []
    whole = picture.array().astype(float)
    for level in range(picture.levels):
        shown = picture.array((WIDTH, HEIGHT), level=level)
        errors.append(np.square(shown - whole).mean())
    assert errors == sorted(errors) and errors[0] == 0 < errors[2] < np.square(whole - whole.mean((0, 1))).mean() / 2


@given(st.data())
def test_any_part_at_any_size_and_level(shown, data):
    picture, _ = shown
    x, y = data.draw(st.integers(0, WIDTH - 1)), data.draw(st.integers(0, HEIGHT - 1))
    region = (x, y, data.draw(st.integers(1, WIDTH - x)), data.draw(st.integers(1, HEIGHT - y)))
    size = (data.draw(st.integers(1, 90)), data.draw(st.integers(1, 70)))
    samples = picture.array(size, region, level=data.draw(st.integers(0, 6)))
    assert samples.shape == (*size[::-1], 3)


def test_threads_may_share_one(field):
    picture = prancimg.open(field)
    expected = [prancimg.open(field).array(level=i % 3) for i in range(9)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda i: picture.array(level=i % 3), range(9)))
    assert all(np.array_equal(a, b) for a, b in zip(results, expected, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region": (-1, 0, 5, 5)}, "not within 61 x 45"),
        ({"region": (0, 0, WIDTH + 1, 5)}, "not within"),
        ({"region": (0, 0, 0, 5)}, "not within"),
        ({"size": (0, 5)}, "out of range"),
        ({"size": (5.0, 5)}, r"the size \(5\.0, 5\) is not 2 whole numbers"),
        ({"size": 5}, "the size 5 is not 2 whole numbers"),
        ({"region": (0, 0, 5)}, r"the region \(0, 0, 5\) is not 4 whole numbers"),
        ({"region": "0055"}, "the region '0055' is not 4 whole numbers"),
        ({"level": 1.5}, "level 1.5 is not a whole number"),
        ({"size": (100, 100)}, "out of range"),
        ({"level": -1}, "level -1"),
        ({"level": 7}, "level 7"),
        ({"depth": 12}, "12 bits"),
    ],
)
def test_what_cannot_be_rendered_is_refused(field, options, message):
    with pytest.raises(PrancImgError, match=message):
        prancimg.open(field, max_pixels=WIDTH * HEIGHT).array(**options)


class Dripping(io.RawIOBase):
    """A file without a buffer, as a pipe can be: it gives less than is asked for."""

    def __init__(self, data: bytes) -> None:
        self.left = data

    def readinto(self, buffer) -> int:
        count = min(len(buffer), 100)
        part, self.left = self.left[:count], self.left[count:]
        buffer[: len(part)] = part
        return len(part)


def test_open_files_are_read_to_their_end(field, photo):
    assert prancimg.info(Dripping(field)) == prancimg.info(field)
    png = io.BytesIO()
    Image.fromarray(photo).save(png, "PNG")
    assert np.array_equal(load_picture(Dripping(png.getvalue())).colors, photo)


def test_files_of_text_are_no_pictures():
    for use in (prancimg.info, prancimg.decode, load_picture):
        with pytest.raises(PrancImgError, match="StringIO is no"):
            use(io.StringIO("text"))


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(PrancImgError, match="wrong signature"):
        prancimg.open(b"something else")
    with pytest.raises(FileNotFoundError):
        prancimg.open(tmp_path / "none.prc")
