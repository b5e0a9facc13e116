"""More than 8 bits a sample, file format by file format, and values of grey or colour that are transparent."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from prancimg import PrancImgError
from prancimg.format.extras import Metadata, Samples
from prancimg.images import boxes
from prancimg.images.picture import load_picture
from prancimg.images.save import save_samples
from tests.images import pngs
from tests.images.pngs import png

imagecodecs = pytest.importorskip("imagecodecs")
tifffile = pytest.importorskip("tifffile")


def ramps(channels: int, bits: int) -> np.ndarray:
    """(24, 32, channels) from black to white."""
    ramp = np.add.outer(np.arange(24), np.arange(32)) / 54
    planes = [ramp, ramp[::-1], ramp[:, ::-1], ramp[::-1, ::-1] * 0.5 + 0.2][:channels]
    return np.rint(np.stack(planes, 2) * (2**bits - 1)).astype(np.uint16 if bits > 8 else np.uint8)


def coded(kind: str, samples: np.ndarray, bits: int) -> bytes:
    if kind == "avif":
        return bytes(imagecodecs.avif_encode(np.squeeze(samples), bitspersample=bits, level=100))
    options = {"codecformat": kind, "reversible": True, "level": 0, "bitspersample": bits}
    return bytes(imagecodecs.jpeg2k_encode(np.squeeze(samples), **options))


@pytest.mark.parametrize("kind", ["avif", "jp2", "j2k"])
@pytest.mark.parametrize("bits", [9, 10, 12, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_avif_and_jpeg_2000_keep_all_bits(kind, bits, channels):
    if kind == "avif" and (bits not in (10, 12) or channels == 2):
        pytest.skip("the format, or what writes it here, has none")
    samples = ramps(4, bits)[:, :, [0, 3]] if channels == 2 else ramps(channels, bits)
    data = coded(kind, samples, bits)
    whole = samples * (255 / (2**bits - 1))
    for source in (data, Image.open(io.BytesIO(data))):
        picture = load_picture(source)
        assert picture.samples == Samples(grey=channels < 3, depth=16) and picture.notes == ()
        assert np.abs(picture.colors - whole[:, :, : 1 if channels < 3 else 3]).max() < 0.01
        assert (picture.alpha is not None) == (channels in (2, 4))
        if picture.alpha is not None:
            assert np.abs(picture.alpha / 257 - whole[:, :, -1]).max() < 0.01


@pytest.mark.parametrize("bits", [8, 10])
def test_avif_whose_picture_is_broken_is_refused(bits):
    data = coded("avif", ramps(3, bits), bits)
    at = data.index(b"mdat") + 4
    with pytest.raises(PrancImgError, match="the image is broken"):
        load_picture(data[:at] + b"\xff" * (len(data) - at))


@pytest.mark.parametrize("kind", ["avif", "jp2", "j2k"])
def test_eight_bits_are_no_more(kind):
    picture = load_picture(coded(kind, ramps(3, 8), 8))
    assert picture.samples.depth == 8 and picture.notes == ()


def test_bits_are_lost_with_a_word_where_nobody_can_keep_them(monkeypatch):
    data = coded("avif", ramps(3, 10), 10)
    loaded = Image.open(io.BytesIO(data))
    monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
    picture = load_picture(data)
    assert picture.samples.depth == 8
    assert picture.notes == ("10-bit samples reduced to 8 bits (pip install 'prancimg[deep]' to keep them)",)
    assert np.abs(picture.colors - ramps(3, 10) / 1023 * 255).max() < 1
    loaded.load()
    assert load_picture(loaded).samples.depth == 8


def test_colour_of_jpeg_2000_is_refused_where_nobody_can_read_it(monkeypatch):
    """Pillow would make white black."""
    data = coded("jp2", ramps(3, 10), 10)
    monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
    with pytest.raises(PrancImgError, match=r"JPEG 2000 of 10 bits needs imagecodecs: pip install 'prancimg\[deep\]'"):
        load_picture(data)


@pytest.mark.parametrize("bits", [10, 12])
def test_grey_of_jpeg_2000_needs_nothing_further(bits, monkeypatch):
    data = coded("jp2", ramps(1, bits), bits)
    monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
    picture = load_picture(data)
    assert picture.notes == () and np.abs(picture.colors[:, :, :1] - ramps(1, bits) / (2**bits - 1) * 255).max() < 0.01


def test_sixteen_bits_of_an_image_that_is_open_are_all_there():
    for kind in ("PNG", "TIFF", "PPM"):
        data, _ = save_samples(ramps(3, 16), Metadata(), kind)
        image = Image.open(io.BytesIO(data))
        picture = load_picture(image)
        assert picture.notes == () and np.allclose(picture.colors * 257, ramps(3, 16))
        assert np.array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(data))))  # it can still be loaded


def packed_tiff(samples: np.ndarray, bits: int) -> bytes:
    """Grey of any number of bits without gaps between them, which few libraries write."""
    height, width = samples.shape
    digits = (samples[:, :, None].astype(int) >> np.arange(bits - 1, -1, -1)) & 1
    body = np.packbits(digits.reshape(height, -1).astype(np.uint8), axis=1).tobytes()
    values = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(body)}
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    head = b"II*\0" + struct.pack("<I", 8 + len(body)) + body
    return head + struct.pack("<H", len(values)) + table + bytes(4)


def test_twelve_bits_of_pgm_and_tiff_reach_white():
    samples = ramps(1, 12)
    for source in (b"P5 32 24 4095\n" + samples.astype(">u2").tobytes(), packed_tiff(samples[:, :, 0], 12)):
        picture = load_picture(source)
        assert np.abs(picture.colors[:, :, :1] - samples / 4095 * 255).max() < 0.01 and picture.notes == ()


def test_boxes_that_make_no_sense_say_nothing():
    avif, jp2 = coded("avif", ramps(3, 10), 10), coded("jp2", ramps(3, 10), 10)
    assert boxes.avif(avif).bits == boxes.jpeg2000(jp2).bits == 10
    for data in (b"", bytes(100), b"\xff" * 100, struct.pack(">I", 1 << 31) + b"meta" + bytes(50)):
        assert boxes.avif(data) == boxes.jpeg2000(data) == boxes.Said()
    for end in range(0, 400, 7):
        boxes.avif(avif[:end])
        boxes.jpeg2000(jp2[:end])
    for i in range(min(len(avif), 600)):
        boxes.avif(avif[:i] + b"\xff" + avif[i + 1 :])
        boxes.jpeg2000(jp2[:i] + b"\xff" + jp2[i + 1 :])


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_one_value_of_grey_is_transparent(depth):
    steps = 2 ** min(depth, 4)
    samples = np.arange(steps)[None] * (2**depth // steps)
    for clear in (0, 1, steps - 1):
        source = png(samples, (b"tRNS", struct.pack(">H", samples[0, clear])), depth=depth, kind=pngs.GREY)
        for image in (source, Image.open(io.BytesIO(source))):
            picture = load_picture(image)
            assert np.array_equal(picture.alpha[0] == 0, np.arange(steps) == clear)
            shown = np.abs(picture.colors[:, :, 0] - samples / (2**depth - 1) * 255)[picture.alpha > 0]
            assert picture.samples.grey and shown.max() < 0.51


@pytest.mark.parametrize("depth", [8, 16])
def test_one_colour_is_transparent(depth, monkeypatch):
    samples = np.arange(24).reshape(2, 4, 3) * (2**depth // 24)
    source = png(samples, (b"tRNS", struct.pack(">3H", *samples[1, 2])), depth=depth)
    wanted = np.zeros((2, 4), bool)
    wanted[1, 2] = True
    assert np.array_equal(load_picture(source).alpha == 0, wanted)
    monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
    assert np.array_equal(load_picture(source).alpha == 0, wanted)
    assert load_picture(png(samples, (b"tRNS", struct.pack(">3H", 1, 2, 3)), depth=depth)).alpha is None


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_entries_of_a_palette_are_transparent(depth):
    count = 2 ** min(depth, 4)
    colors = (b"PLTE", bytes(range(3 * count)))
    for opacity in (b"\0", b"\xff\0", b"\x80\x40"):
        picture = load_picture(png(np.arange(count)[None], colors, (b"tRNS", opacity), depth=depth, kind=pngs.PALETTE))
        assert picture.alpha[0].tolist() == [*opacity, *[255] * (count - len(opacity))]


def test_bits_of_a_transparent_value_beyond_the_depth_mean_nothing():
    source = png(np.arange(4)[None], (b"tRNS", b"\xff\xf6"), depth=2, kind=pngs.GREY)
    assert load_picture(source).alpha.tolist() == [[255, 255, 0, 255]]
