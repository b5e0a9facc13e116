"""The library's front door: what goes in, what comes out, what is promised about the rate."""

import io
import itertools
import json
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

import prancimg
from prancimg import PrancImgError
from prancimg.codec import load_image
from prancimg.format import bitstream
from prancimg.images.picture import load_picture


def encode(image, **options):
    return prancimg.encode(image, **{"effort": 1, "seed": 0, **options})


def psnr(a, b) -> float:
    return 10 * np.log10(255**2 / max(np.square(np.asarray(a, float) - np.asarray(b, float)).mean(), 1e-9))


MODELS = ["field", "siren"]
both = pytest.mark.parametrize("model", MODELS)


@pytest.fixture(scope="module", params=MODELS)
def model(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def file(photo, model) -> bytes:
    return encode(photo, bpp=0.5, model=model)


def test_a_photo_comes_back_faithfully(photo, file):
    picture = prancimg.decode(file)
    assert picture.mode == "RGB" and picture.size == (128, 96)
    assert psnr(picture, photo) > psnr(photo.mean((0, 1)), photo) + 4  # machines differ by half a dB in a short fit


@both
@pytest.mark.parametrize("options", [{"bpp": 0.3}, {"bpp": 1.0}, {"size": 500}])
def test_the_rate_promised_is_kept(photo, model, options):
    data = encode(photo, model=model, **options)
    most = options.get("size") or int(options["bpp"] * photo.shape[0] * photo.shape[1] / 8)
    assert 0.97 * most <= len(data) <= most


def test_the_same_call_gives_the_same_bytes(photo, model, file):
    assert encode(photo, bpp=0.5, model=model) == file
    assert encode(photo, bpp=0.5, model=model, seed=1) != file


def test_the_field_is_the_default_and_beats_jpeg(photo):
    for bpp in (0.6, 1.2):
        data = encode(photo, bpp=bpp, effort=3)
        assert prancimg.info(data)["model"] == "field"
        ours, best = psnr(prancimg.decode(data), photo), 0.0
        for quality, subsampling in itertools.product(range(1, 95), ("4:2:0", "4:4:4")):
            buffer = io.BytesIO()
            Image.fromarray(photo).save(buffer, "JPEG", quality=quality, subsampling=subsampling, optimize=True)
            if len(buffer.getvalue()) <= bpp * photo.shape[0] * photo.shape[1] / 8:
                best = max(best, psnr(Image.open(buffer), photo))
        assert ours > best + 0.7


@both
def test_a_psnr_is_reached(photo, model):
    small = photo[::3, ::3]
    data = encode(small, psnr=18, model=model)
    assert psnr(prancimg.decode(data), small) >= 18
    assert len(data) < len(encode(small, psnr=24, model=model))


def test_tuned_for_psnr_an_error_counts_for_the_same_everywhere(photo):
    """Otherwise the calm half of a picture takes a smaller share of the error."""
    noise = np.random.default_rng(0).normal(0, 50, (*photo[:, 64:].shape[:2], 1))
    busy = np.clip(photo[:, 64:] + noise, 0, 255).astype(np.uint8)
    picture = np.concatenate([photo[:, :64] // 4 + 90, busy], 1)

    def share(tune):
        data = encode(picture, bpp=2.0, effort=2, tune=tune)
        error = np.square(np.asarray(prancimg.decode(data)) - picture.astype(float))
        return error[:, :64].sum() / error.sum()

    assert share("ssim") < 0.9 * share("psnr") and share(None) == share("ssim")


def test_who_asks_for_a_psnr_gets_the_fit_tuned_for_it(photo):
    small = photo[::3, ::3]
    assert encode(small, psnr=20, effort=1) == encode(small, psnr=20, effort=1, tune="psnr")
    assert encode(small, psnr=20, effort=1) != encode(small, psnr=20, effort=1, tune="ssim")


@both
def test_quality_grows_with_the_quality_asked_for(photo, model):
    small = photo[::3, ::3]
    low, high = encode(small, quality=0, model=model), encode(small, quality=50, model=model)
    assert len(low) < len(high) and psnr(prancimg.decode(low), small) < psnr(prancimg.decode(high), small)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 8), (5, 3)])
def test_very_small_pictures_have_their_colours(shape):
    picture = np.full((*shape, 3), (9, 99, 199), np.uint8)
    decoded = np.asarray(prancimg.decode(encode(picture, quality=50)), int)
    assert np.abs(decoded - picture).max() <= 12


def test_bytes_paths_and_files_are_the_same(file, tmp_path):
    path = tmp_path / "a.prc"
    path.write_bytes(file)
    assert np.array_equal(prancimg.decode(path), prancimg.decode(file))
    assert prancimg.info(str(path)) == prancimg.info(memoryview(file)) == prancimg.info(io.BytesIO(file))
    assert np.array_equal(prancimg.decode(io.BytesIO(file)), prancimg.decode(file))
    with path.open("rb") as opened:
        assert prancimg.open(opened).size == (128, 96)
    for nothing in (None, 12, io.StringIO("text"), [1]):
        with pytest.raises(PrancImgError, match=r"no \.prc file"):
            prancimg.info(nothing)


def test_info_tells_what_is_in_the_file(file):
    facts = prancimg.info(file)
    assert (facts["width"], facts["height"], facts["bytes"]) == (128, 96, len(file))
    assert facts["bpp"] == pytest.approx(8 * len(file) / (128 * 96))
    assert facts["coefficients"] <= facts["parameters"] and facts["checksums"] == len(facts["segments"])
    assert sum(facts["segments"].values()) < len(file)
    json.dumps(facts)


@both
def test_progress_rises_to_one(photo, model):
    seen = []
    encode(photo, bpp=0.3, model=model, progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == pytest.approx(1)


def as_png(image: Image.Image) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "I;16", "LA", "RGBA"])
def test_pillow_modes_become_rgb(mode):
    image = Image.new("RGB", (4, 3), (10, 200, 60)).convert("L" if mode == "I;16" else mode)
    assert load_image(image).shape == (3, 4, 3)


def test_transparency_is_flattened_onto_white():
    pixels = np.array([[[9, 8, 7, 255], [9, 8, 7, 0]]], np.uint8)
    for image in (pixels, Image.fromarray(pixels), as_png(Image.fromarray(pixels))):
        assert load_image(image).tolist() == [[[9, 8, 7], [255, 255, 255]]]


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (4, 2))
    exif = image.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    buffer.seek(0)
    assert load_image(buffer).shape == (4, 2, 3)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((0, 5, 3), np.uint8), "shape"),
        (np.zeros((5, 5, 5), np.uint8), "shape"),
        (np.zeros((1, 5, 5, 3), np.uint8), "shape"),
        (Image.new("L", (0, 5)), "no pixels: 0 x 5"),
        (Image.new("I", (5, 0)), "no pixels: 5 x 0"),
        (np.zeros((5, 5, 3)), "float64"),
        (io.BytesIO(b"not an image"), "not an image"),
        (io.BytesIO(b""), "not an image"),
    ],
)
def test_what_is_not_a_picture_is_refused(image, message):
    with pytest.raises(PrancImgError, match=message):
        load_image(image)


GREY_8 = np.arange(48, dtype=np.uint8).reshape(6, 8)
DEEP = GREY_8.astype(np.uint16) * 900


@pytest.mark.parametrize(
    ("array", "same"),
    [
        (DEEP.astype(">u2"), DEEP.astype("<u2")),
        (GREY_8[:, :, None], GREY_8),
        (GREY_8 > 20, np.where(GREY_8 > 20, 255, 0).astype(np.uint8)),
        (np.dstack([GREY_8, 255 - GREY_8]), Image.fromarray(np.dstack([GREY_8, 255 - GREY_8]), "LA")),
        (np.dstack([DEEP] * 4).astype(">u2"), np.dstack([DEEP] * 4)),
        (GREY_8[::-1, ::-1].copy()[::-1, ::-1], GREY_8),
    ],
    ids=["the other byte order", "one channel", "bool", "grey and alpha", "RGBA of the other byte order", "views"],
)
@pytest.mark.filterwarnings("ignore:'mode' parameter")
def test_arrays_that_mean_the_same_picture(array, same):
    found, expected = load_picture(array), load_picture(same)
    assert found.samples == expected.samples and np.array_equal(found.colors, expected.colors)
    assert (found.alpha is None) == (expected.alpha is None)
    assert found.alpha is None or np.array_equal(found.alpha, expected.alpha)


@pytest.mark.parametrize("ending", ["png", "tif", "gif", "jpg", "bmp", "webp"])
def test_an_image_that_was_closed_is_read_if_it_was_loaded(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(GREY_8).save(path)
    with Image.open(path) as loaded:
        loaded.load()
    assert load_picture(loaded).colors.shape == (6, 8, 3)
    with Image.open(path) as closed:
        pass
    file = path.open("rb")
    without_file = Image.open(file)
    file.close()
    for image in (closed, without_file) if ending != "webp" else (closed,):  # which Pillow reads at once
        with pytest.raises(PrancImgError, match="closed before it was read"):
            load_picture(image)


def test_files_are_found_by_any_name_and_closed_ones_are_our_error(tmp_path, file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.prc").write_bytes(file)
    (tmp_path / "a.png").write_bytes(as_png(Image.fromarray(GREY_8)).getvalue())
    entries = {entry.name: entry for entry in os.scandir(b".")}  # paths of bytes
    assert prancimg.info(entries[b"a.prc"]) == prancimg.info("a.prc")
    assert np.array_equal(load_picture(entries[b"a.png"]).colors[:, :, 0], GREY_8)
    closed = (tmp_path / "a.prc").open("rb")
    closed.close()
    with (tmp_path / "new").open("wb") as to_write:
        for read in (prancimg.info, prancimg.open, prancimg.decode, load_picture):
            for opened in (closed, to_write):
                with pytest.raises(PrancImgError, match="the open file cannot be read"):
                    read(opened)
            with pytest.raises(PrancImgError, match="cannot be the name of a file"):
                read("a\0b")
            with pytest.raises(FileNotFoundError):
                read("")


def test_encode_leaves_its_argument_as_it_was(tmp_path):
    """The tags of a TIFF file above all: those that say how it is stored are not carried on."""
    image = Image.fromarray(GREY_8)
    exif = image.getexif()
    exif[0x010F] = "Camera"
    image.save(tmp_path / "a.tif", exif=exif)
    image.save(tmp_path / "a.png", exif=exif)
    for name in ("a.tif", "a.png"):
        with Image.open(tmp_path / name) as opened:
            opened.load()
            tags, info = dict(opened.getexif()), dict(opened.info)
            carried = load_picture(opened).metadata.exif
            assert load_picture(opened).metadata.exif == carried and carried
            assert dict(opened.getexif()) == tags != {} and dict(opened.info) == info
        found = Image.Exif()
        found.load(b"Exif\0\0" + carried)
        assert found[0x010F] == "Camera" and 256 not in found
    array = np.dstack([GREY_8] * 4)
    before = array.copy()
    load_picture(array)
    assert np.array_equal(array, before)


def test_exif_as_pillow_has_it(photo):
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    small = photo[:8, :8]
    assert (
        encode(small, exif=exif) == encode(small, exif=exif.tobytes()) == encode(small, exif=memoryview(exif.tobytes()))
    )
    assert encode(small, exif=Image.Exif()) == encode(small)


def test_a_broken_image_is_refused(photo):
    broken = as_png(Image.fromarray(photo)).getvalue()[:2000]
    with pytest.raises(PrancImgError, match="broken"):
        load_image(io.BytesIO(broken))


@pytest.mark.parametrize(
    "error", [ValueError, IndexError, EOFError, struct.error, zlib.error, SyntaxError, MemoryError]
)
def test_whatever_pillow_says_of_a_broken_image_is_our_error(monkeypatch, error):
    def fail(*_):
        raise error("no picture")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(PrancImgError, match=r"broken|memory"):
        load_image(io.BytesIO())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bpp": 0.1, "size": 100}, "only one of bpp and size"),
        ({"bpp": 0}, "bpp 0"),
        ({"bpp": float("inf")}, "bpp inf"),
        ({"size": float("inf")}, "size inf"),
        ({"bpp": float("nan")}, "bpp nan"),
        ({"quality": 101}, "quality 101"),
        ({"psnr": -3}, "psnr -3"),
        ({"effort": 0}, "effort 0"),
        ({"effort": 10}, "effort 10"),
        ({"model": "jpeg"}, "jpeg"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 1.5}, "seed 1.5 is not a whole number"),
        ({"seed": "1"}, "seed '1' is not a whole number"),
        ({"bpp": "1"}, "bpp '1' is not a number"),
        ({"size": [1]}, r"size \[1\] is not a number"),
        ({"quality": {}}, "quality {} is not a number"),
        ({"psnr": 3j}, "psnr 3j is not a number"),
        ({"icc_profile": "text"}, "the ICC to carry is str, not bytes"),
        ({"exif": 1}, "the EXIF to carry is int, not bytes"),
        ({"xmp": Image.Exif()}, "the XMP to carry is Exif, not bytes"),
        ({"device": "tpu"}, "tpu"),
        ({"tune": "vmaf"}, "vmaf"),
        ({"size": 20}, "lowest possible is"),
        ({"psnr": 99}, "out of reach"),
    ],
)
@both
def test_impossible_wishes_are_refused(model, options, message):
    with pytest.raises(PrancImgError, match=message):
        noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
        encode(noise, **{"model": model, "lossless": False, **options})


@both
@pytest.mark.parametrize("size", [(1, 1), (30, 50)])
def test_the_lowest_rate_named_is_possible(model, size):
    image = np.zeros((*size, 3), np.uint8)
    with pytest.raises(PrancImgError, match="lowest possible is") as caught:
        encode(image, size=30, model=model, lossless=False)
    lowest = int(str(caught.value).split("lowest possible is ")[1].split()[0])
    assert len(encode(image, size=lowest, model=model, lossless=False)) <= lowest
    with pytest.raises(PrancImgError):
        encode(image, size=lowest - 1, model=model, lossless=False)


@pytest.mark.parametrize("size", [42, 51, 64, 80])
def test_an_icon_of_a_few_bytes_can_be_read_again(size, photo):
    image = np.asarray(Image.fromarray(photo).resize((64, 64), Image.Resampling.LANCZOS))
    data = encode(image, size=size, effort=1)
    assert len(data) <= size and prancimg.decode(data).size == (64, 64)


@both
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 1), (7, 5)])
def test_tiny_pictures_of_any_shape(model, shape):
    image = np.full((*shape, 3), 77, np.uint8)
    picture = np.asarray(prancimg.decode(encode(image, size=120, model=model, lossless=False)))
    assert picture.shape == image.shape and np.abs(picture.astype(int) - 77).max() < 40


def test_a_flat_picture_takes_few_bytes():
    image = np.full((64, 64, 3), 128, np.uint8)
    assert len(encode(image, bpp=4, effort=3)) < 100
    for model in ("field", "siren"):
        data = encode(image, bpp=4, model=model, effort=3, lossless=False)
        assert psnr(prancimg.decode(data), image) > 40 and len(data) <= 2048


def test_the_rate_is_kept_on_pictures_that_are_no_photos(photo):
    rng = np.random.default_rng(0)
    lines = np.full((60, 80, 3), 255, np.uint8)
    lines[::7] = lines[:, ::11] = 0
    for image in (lines, rng.integers(0, 256, (60, 80, 3), np.uint8)):
        data = encode(image, bpp=1, effort=3, lossless=False)  # of less effort, fewer bytes may be as near to noise
        assert 0.97 * 600 <= len(data) <= 600


def test_a_field_segment_that_is_missing_is_noticed(photo):
    segments = bitstream.read(encode(photo, bpp=2))
    assert {16, 17, 18} < segments.keys()
    for finest in (17, 18, 19):
        rest = [(kind, payload) for kind, payload in segments.items() if kind < 16 or kind >= finest]
        with pytest.raises(PrancImgError, match="its field lacks"):
            prancimg.decode(bitstream.write(rest))


GREY = np.full((24, 32), 90, np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, GREY.shape, np.uint8)
VEILED = np.dstack([GREY, GREY, GREY, NOISE])
WORDS = {"icc_profile": b"a profile", "exif": b"MM\0*\0\0\0\x08", "xmp": b"<x/>"}
FEATURES = {
    "nothing": (np.dstack([GREY] * 3), {}),
    "a pixel, and words": (np.zeros((1, 1, 3), np.uint8), WORDS),
    "16 bits of grey": (GREY.astype(np.uint16), {}),
    "alpha as a number": (np.dstack([GREY] * 4), {}),
    "alpha as a PNG file": (VEILED, {"size": 6000}),
    "alpha as a field": (VEILED, {}),
    "all": (VEILED.astype(np.uint16) * 257, WORDS),
}


@pytest.mark.parametrize("name", FEATURES)
def test_every_truncation_is_noticed(name, model):
    """Whatever a file holds, and wherever it ends."""
    image, options = FEATURES[name]
    how = {"model": model, "lossless": False} | ({} if "size" in options else {"quality": 20})
    data = encode(image, **how, **options)
    prancimg.decode(data)
    for cut in range(len(data)):
        for read in (prancimg.decode, prancimg.info):
            with pytest.raises(PrancImgError):
                read(data[:cut])


def test_what_is_beside_the_colours_comes_before_what_no_decoder_does_without(model):
    image, options = FEATURES["all"]
    kinds = [int(kind) for kind in bitstream.read(encode(image, model=model, quality=20, lossless=False, **options))]
    assert kinds[-6:-1] == [128, 129, 130, 131, 132] and kinds[-1] < 128


def test_flipped_bits_are_refused(file):
    for at in range(0, len(file), 37):
        data = bytearray(file)
        data[at] ^= 16
        with pytest.raises(PrancImgError):
            prancimg.decode(bytes(data))


def test_pictures_larger_than_the_limit_are_refused(file):
    with pytest.raises(PrancImgError, match="limit of 100"):
        prancimg.decode(file, max_pixels=100)


@pytest.mark.skipif(__import__("torch").cuda.is_available(), reason="a CUDA device is here")
def test_a_missing_gpu_is_said(photo):
    with pytest.raises(PrancImgError, match="no CUDA device"):
        encode(photo, bpp=0.3, device="cuda")


def test_a_gpu_that_a_forked_process_cannot_use_is_as_good_as_none(monkeypatch):
    torch, flat = __import__("torch"), np.full((8, 8, 3), 90, np.uint8)

    def fail():
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "init", fail)
    assert encode(flat, size=100, lossless=False) == encode(flat, size=100, lossless=False, device="cpu")
    with pytest.raises(PrancImgError, match="CUDA device cannot be used: Cannot re-initialize"):
        encode(flat, size=100, lossless=False, device="cuda")


def test_missing_files_raise_os_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        prancimg.decode(tmp_path / "none.prc")
    with pytest.raises(FileNotFoundError):
        encode(tmp_path / "none.png")
