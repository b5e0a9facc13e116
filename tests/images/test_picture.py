"""Pictures as they come and as they go: modes, depths, transparency, orientation and metadata, through whole files."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

import prancimg
from prancimg import PrancImgError
from prancimg.format import bitstream
from prancimg.format.extras import MAX_METADATA, Alpha, Extras, Metadata, Samples
from prancimg.images import profile
from prancimg.images.metadata import only_orientation
from prancimg.images.picture import load_picture
from prancimg.images.save import format_of, save_samples

imagecodecs = pytest.importorskip("imagecodecs")
tifffile = pytest.importorskip("tifffile")

ORIENTATION = 0x0112
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
UPRIGHT = XMP.replace(b'="6"', b'="1"')


def encode(image, **options) -> bytes:
    wanted = {} if {"size", "bpp"} & options.keys() else {"quality": 40}
    return prancimg.encode(image, **{"effort": 1, "seed": 0, **wanted, **options})


def file(image: Image.Image, kind: str, **options) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    buffer.seek(0)
    return buffer


def exif(orientation: int = 6) -> bytes:
    tags = Image.Exif()
    tags[ORIENTATION], tags[0x010E] = orientation, "a picture"
    return tags.tobytes()


@pytest.fixture(scope="module")
def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(scope="module")
def icc(srgb) -> bytes:
    """Its red is the blue of sRGB."""
    return srgb.replace(b"rXYZ", b"wXYZ").replace(b"bXYZ", b"rXYZ").replace(b"wXYZ", b"bXYZ")


@pytest.fixture(scope="module")
def small(photo) -> Image.Image:
    return Image.fromarray(photo).resize((32, 24))


@pytest.mark.parametrize(
    ("mode", "grey", "alpha", "note"),
    [
        ("RGB", False, False, ""),
        ("RGBA", False, True, ""),
        ("L", True, False, ""),
        ("LA", True, True, ""),
        ("1", True, False, "black and white converted to 8-bit grey"),
        ("P", False, False, "palette converted to RGB"),
        ("PA", False, True, "palette converted to RGB"),
        ("CMYK", False, False, "CMYK converted to RGB"),
        ("YCbCr", False, False, "YCbCr converted to RGB"),
        ("I;16", True, False, ""),
    ],
)
def test_every_mode_comes_in_and_what_changes_is_said(small, mode, grey, alpha, note):
    if mode == "I;16":
        image = Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000)
    elif mode == "PA":
        image = small.convert("P").convert("PA")
        image.putalpha(90)
    else:
        image = small.convert(mode)
        if alpha:
            image.putalpha(90)
    picture = load_picture(image)
    assert picture.colors.shape == (image.height, image.width, 3)
    assert (picture.samples.grey, picture.alpha is not None) == (grey, alpha)
    assert picture.samples.depth == (16 if mode == "I;16" else 8)
    assert "; ".join(picture.notes) == note


def test_animations_and_floats():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    picture = load_picture(file(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert "only the first of 2 frames is kept" in picture.notes and picture.colors[0, 0].tolist() == [255, 0, 0]
    shown = Image.open(file(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    shown.seek(1)
    picture = load_picture(shown)
    assert "only number 2 of 2 frames is kept" in picture.notes and picture.colors[0, 0].tolist() == [0, 0, 255]
    with pytest.raises(PrancImgError, match="floating-point"):
        load_picture(Image.new("F", (2, 2)))
    with pytest.raises(PrancImgError, match="outside 0 to 65535"):
        load_picture(Image.new("I", (2, 2), 1 << 20))


@pytest.mark.parametrize("kind", ["i1", "i2", "<i2", ">i2", "i4"])
def test_signed_samples_are_taken_while_none_is_negative(kind):
    samples = np.arange(12, dtype=kind).reshape(3, 4) + np.array(100, kind)
    picture = load_picture(tiff(samples, "minisblack"))
    scale = 257 if picture.samples.depth == 16 else 1
    assert np.allclose(picture.colors[:, :, 0] * scale, samples)
    with pytest.raises(PrancImgError, match=r"negative samples|outside 0 to 65535"):
        load_picture(tiff(samples - np.array(101, kind), "minisblack"))


def test_premultiplied_alpha_is_divided_out():
    plain = np.array([[[200, 128], [90, 255], [7, 0]]], np.uint8)
    image = Image.merge("LA", [Image.fromarray(plane) for plane in plain.transpose(2, 0, 1)])
    picture = load_picture(image.convert("La"))
    assert picture.samples.grey and picture.alpha.tolist() == [[128, 255, 0]]
    assert np.abs(picture.colors[0, :2, 0].astype(int) - [200, 90]).max() <= 1


def test_exif_that_says_nothing_is_not_kept():
    blank, turned = Image.Exif(), Image.Exif()
    blank[ORIENTATION], turned[ORIENTATION] = 1, 6
    image = Image.new("RGB", (4, 2))
    for tags in (blank, turned):
        for kind in ("JPEG", "PNG"):
            assert load_picture(file(image, kind, exif=tags)).metadata.exif == b""
    assert load_picture(file(image, "PNG", exif=blank), orient=False).metadata.exif == b""
    assert load_picture(file(image, "PNG", exif=turned), orient=False).metadata.exif
    blank[0x010F] = "Camera"
    assert load_picture(file(image, "PNG", exif=blank)).metadata.exif


def test_a_profile_that_means_srgb_goes_without_saying(small, srgb, icc):
    picture = load_picture(file(small, "PNG", icc_profile=srgb))
    assert picture.metadata.icc == b"" and "sRGB" in picture.notes[0]
    assert load_picture(file(small, "PNG", icc_profile=icc)).metadata.icc == icc
    broken = load_picture(file(small, "PNG", icc_profile=b"a profile"))
    assert broken.metadata.icc == b"" and broken.notes == ("the colour profile is broken: left out",)
    assert prancimg.open(encode(file(small, "PNG"), icc_profile=srgb)).info == {"icc_profile": srgb}


def test_cmyk_goes_by_its_profile_and_loses_it(small, icc):
    assert load_picture(file(small.convert("CMYK"), "JPEG", icc_profile=icc)).metadata.icc == b""


def test_grey_comes_back_grey(small):
    data = encode(small.convert("L"))
    assert prancimg.open(data).mode == prancimg.decode(data).mode == "L"
    assert np.abs(np.asarray(prancimg.decode(data), int) - np.asarray(small.convert("L"))).mean() < 12
    assert len(data) < 1.1 * len(encode(small.convert("L").convert("RGB")))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 3)])
def test_any_size_with_alpha_from_one_pixel_up(size):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*size[::-1], 4), np.uint8)
    pixels[0, 0, 3] = 77
    assert prancimg.decode(encode(pixels)).size == size


def test_alpha_is_lossless_where_it_is_flat_and_free_where_it_is_opaque(small):
    plain = encode(small)
    opaque, flat, shape = (small.convert("RGBA") for _ in range(3))
    flat.putalpha(90)
    shape.paste((0, 255, 0, 0), (4, 4, 20, 15))
    assert encode(opaque) == plain
    data = encode(flat)
    assert len(data) <= len(plain) + 10
    assert np.all(np.asarray(prancimg.decode(data))[:, :, 3] == 90)
    data = encode(shape)
    assert np.array_equal(np.asarray(prancimg.decode(data))[:, :, 3], np.asarray(shape)[:, :, 3])
    assert len(data) < len(plain) + 100  # the green that nobody sees costs nothing


def test_smooth_alpha_is_a_field_and_counts_towards_the_rate(photo):
    rng = np.random.default_rng(0)
    distance = np.hypot(np.arange(48)[:, None] - 20, np.arange(64) - 30) + rng.random((48, 64))
    alpha = np.clip((25 - distance) * 18, 0, 255)
    pixels = np.dstack([photo[:48, :64], alpha.astype(np.uint8)])
    data = encode(pixels, size=1200)
    assert 0.97 * 1200 <= len(data) <= 1200
    alpha = Extras.read(bitstream.read(data)).alpha
    assert alpha is not None and prancimg.open(alpha.prc).size == (64, 48)
    decoded = np.asarray(prancimg.decode(data), float)
    assert decoded.shape == (48, 64, 4) and np.abs(decoded[:, :, 3] - pixels[:, :, 3]).mean() < 12
    for extreme in (0, 255):  # what is wholly clear or opaque stays so
        assert np.mean(decoded[:, :, 3][pixels[:, :, 3] == extreme] == extreme) > 0.9


def test_old_decoders_see_the_same_colours(small):
    """They skip what is beside the colours."""
    flat = small.convert("RGBA")
    flat.putalpha(90)
    segments = bitstream.read(encode(flat, exif=exif()))
    assert {int(kind) for kind in segments if kind >= 128} == {129, 131}
    bare = bitstream.write((kind, payload) for kind, payload in segments.items() if kind < 128)
    assert bare == encode(small)


def deep_pixels(channels: int) -> np.ndarray:
    ramp = np.add.outer(np.arange(24), np.arange(32)) * 700 + 9000
    return np.stack([ramp, ramp[::-1], ramp[:, ::-1], ramp // 2 + 30000][:channels], 2).astype(np.uint16)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_travel_through_image_files(kind, channels, icc):
    samples = deep_pixels(4)[:, :, [0, 3]] if channels == 2 else deep_pixels(channels)
    grey = profile.fitting(profile.rgb_profile(profile.SRGB, 1.8), True)[0]
    data, notes = save_samples(samples, Metadata(icc if channels > 2 else grey, exif(1)[6:], UPRIGHT), kind)
    coloured = kind == "TIFF" and channels == 2  # Pillow reads no grey with alpha of 16 bits
    assert ["written as RGB" in note or "made one for RGB" in note for note in notes] == [True, True] * coloured
    picture = load_picture(io.BytesIO(data), orient=False)
    assert picture.samples == Samples(grey=channels < 3 and not coloured, depth=16) and picture.notes == ()
    assert np.allclose(picture.colors * 257, samples[:, :, : 3 if channels > 2 else 1])
    assert picture.metadata.xmp == UPRIGHT
    assert coloured or picture.metadata.icc == (icc if channels > 2 else grey)
    tags = Image.Exif()
    tags.load(picture.metadata.exif)
    assert tags[0x010E].strip("\0") == "a picture"
    if channels in (2, 4):
        assert np.array_equal(picture.alpha, samples[:, :, -1])


def test_tiff_files_of_sixteen_bits_keep_what_exif_nests():
    tags = Image.Exif()
    tags[ORIENTATION] = 6
    tags.get_ifd(0x8769)[0x9003] = "2024:05:06 07:08:09"
    tags.get_ifd(0x8825)[1] = "N"
    data, _ = save_samples(deep_pixels(3), Metadata(exif=tags.tobytes()[6:]), "TIFF")
    found = Image.Exif()
    found.load(load_picture(io.BytesIO(data), orient=False).metadata.exif)
    assert found[ORIENTATION] == 6 and found.get_ifd(0x8769)[0x9003] == "2024:05:06 07:08:09"
    assert found.get_ifd(0x8825)[1] == "N"
    assert np.array_equal(tifffile.imread(io.BytesIO(data)), deep_pixels(3))


def tiff(samples: np.ndarray, photometric: str, **options) -> io.BytesIO:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, photometric=photometric, **options)
    buffer.seek(0)
    return buffer


def test_a_loaded_image_of_sixteen_bits_is_taken_as_it_is():
    image = Image.open(tiff(deep_pixels(3), "rgb"))
    image.load()
    picture = load_picture(image)
    assert picture.colors.shape == (24, 32, 3) and "reduced to 8 bits" in picture.notes[0]


def test_kinds_of_tiff_files_of_sixteen_bits():
    rgb, rgba = deep_pixels(3), deep_pixels(4)
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1))
    assert np.allclose(load_picture(tiff(planes, "rgb", planarconfig="separate")).colors * 257, rgb)
    white = load_picture(tiff(65535 - rgb[:, :, 0], "miniswhite"))
    assert np.allclose(white.colors[:, :, 0] * 257, rgb[:, :, 0]) and white.samples == Samples(grey=True, depth=16)
    extra = load_picture(tiff(rgba, "rgb", extrasamples=["unspecified"]))
    assert np.allclose(extra.colors * 257, rgb) and extra.alpha is None
    assert extra.notes == ("a channel that is neither colour nor transparency is left out",)
    times = np.concatenate([np.rint(rgb * (rgba[:, :, 3:] / 65535)).astype(np.uint16), rgba[:, :, 3:]], 2)
    divided = load_picture(tiff(times, "rgb", extrasamples=["assocalpha"]))
    assert np.abs(divided.colors * 257 - rgb).max() <= 2 and np.array_equal(divided.alpha, rgba[:, :, 3])
    inks = load_picture(tiff(65535 - rgba // 2, "separated"))
    assert inks.alpha is None and inks.notes == ("16-bit samples reduced to 8 bits", "CMYK converted to RGB")
    eight = Image.fromarray(((65535 - rgba // 2) >> 8).astype(np.uint8), "CMYK").convert("RGB")
    assert np.array_equal(inks.colors, eight)


def test_one_value_of_grey_may_be_clear():
    samples = deep_pixels(1)[:, :, 0]
    data, chunk = imagecodecs.png_encode(samples), b"tRNS" + int(samples[3, 4]).to_bytes(2, "big")
    chunk = (2).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    picture = load_picture(io.BytesIO(data[:33] + chunk + data[33:]))
    assert picture.samples == Samples(grey=True, depth=16)
    assert np.array_equal(picture.alpha == 0, samples == samples[3, 4])


@pytest.mark.parametrize("most", [65535, 1000])
def test_ppm_files_hold_sixteen_bits(most):
    samples = np.minimum(deep_pixels(3), most)
    source = b"P6\n# a word\n32 24 %d\n" % most + samples.astype(">u2").tobytes()
    picture = load_picture(io.BytesIO(source))
    assert picture.samples.depth == 16 and picture.notes == ()
    assert np.abs(picture.colors * 257 - samples * (65535 / most)).max() <= 0.51
    text = b"P3 32 24 65535 " + " ".join(map(str, samples.ravel())).encode()
    assert load_picture(io.BytesIO(text)).notes == ("16-bit samples reduced to 8 bits",)
    with pytest.raises(PrancImgError, match="broken"):
        load_picture(io.BytesIO(source[:-1]))
    for channels in (1, 3):
        data, notes = save_samples(deep_pixels(channels), Metadata(), "PPM")
        assert notes == [] and np.allclose(load_picture(io.BytesIO(data)).colors * 257, deep_pixels(channels))
    data, notes = save_samples(deep_pixels(4), Metadata(), "PPM")
    assert notes == ["PPM has no transparency: flattened onto white"]
    share = deep_pixels(4)[:, :, 3:] / 65535
    flat = share * deep_pixels(3) + (1 - share) * 65535
    assert np.abs(load_picture(io.BytesIO(data)).colors * 257 - flat).max() <= 0.51


def test_bytes_and_what_is_no_picture(small):
    data = file(small, "PNG").getvalue()
    for image in (data, bytearray(data), io.BytesIO(data)):
        assert np.array_equal(load_picture(image).colors, small)
    for nothing in (None, 7, [1, 2], io.StringIO("text")):
        with pytest.raises(PrancImgError, match="no picture"):
            load_picture(nothing)


def test_sixteen_bits_are_more_than_eight():
    samples = deep_pixels(1)[:, :, 0]
    picture = prancimg.open(encode(samples, quality=90, lossless=False))
    deep, shallow = picture.array()[:, :, 0], picture.array(depth=8)[:, :, 0]
    assert (picture.depth, picture.mode, deep.dtype, shallow.dtype) == (16, "I;16", np.uint16, np.uint8)
    assert len(np.unique(deep)) > 256 > len(np.unique(shallow))
    errors = [np.square(x / 257 - samples / 257).mean() for x in (deep, shallow * 257.0)]
    assert errors[0] < errors[1] - 0.04  # rounding to 8 bits alone adds 1/12
    assert np.array_equal(np.asarray(picture.render()), deep)
    colour = prancimg.open(encode(deep_pixels(3)))
    assert colour.array().dtype == np.uint16 and colour.render().mode == "RGB"  # Pillow has no colour of 16 bits


def test_sixteen_bits_are_reduced_with_a_word_where_nobody_can_keep_them(monkeypatch):
    data, _ = save_samples(deep_pixels(3), Metadata(), "PNG")
    monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
    picture = load_picture(io.BytesIO(data))
    assert picture.samples.depth == 8 and "prancimg[deep]" in picture.notes[0]
    _, notes = save_samples(deep_pixels(3), Metadata(), "PNG")
    assert "prancimg[deep]" in notes[0]
    _, notes = save_samples(deep_pixels(3), Metadata(), "JPEG")
    assert notes == ["16-bit samples reduced to 8 bits: JPEG is not written with more"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_pillow_does(orientation):
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    image = Image.open(file(Image.fromarray(pixels), "PNG", exif=exif(orientation)))
    upright = load_picture(image)
    assert np.array_equal(upright.colors, ImageOps.exif_transpose(image))
    tags = Image.Exif()
    tags.load(upright.metadata.exif)
    assert tags[ORIENTATION] == 1 and tags[0x010E] == "a picture"
    kept = load_picture(image, orient=False)
    assert np.array_equal(kept.colors, pixels) and kept.metadata.exif == exif(orientation)[6:]


@pytest.mark.parametrize("deep", [False, True])
def test_orientation_of_tiff_files_is_applied_once(deep):
    samples = deep_pixels(3)[:4, :6]
    samples = samples if deep else (samples >> 8).astype(np.uint8)
    data, _ = save_samples(samples, Metadata(exif=exif(6)[6:]), "TIFF")
    upright = load_picture(io.BytesIO(data))
    assert np.allclose(upright.colors * (257 if deep else 1), np.rot90(samples, -1))
    tags = Image.Exif()
    tags.load(upright.metadata.exif)
    assert tags.get(ORIENTATION, 1) == 1


def test_metadata_is_carried_replaced_and_stripped(small, icc):
    source = file(small, "JPEG", icc_profile=icc, exif=exif(), xmp=XMP).getvalue()
    upright = encode(io.BytesIO(source))
    info = prancimg.decode(upright).info
    assert info["icc_profile"] == icc and info["xmp"] == UPRIGHT
    assert prancimg.decode(upright).size == (24, 32) and prancimg.decode(upright).getexif()[ORIENTATION] == 1
    assert prancimg.info(upright)["metadata"] == {"icc": len(icc), "exif": len(exif()) - 6, "xmp": len(XMP)}
    kept = prancimg.open(encode(io.BytesIO(source), orient=False))
    assert (kept.size, kept.info["exif"], kept.info["xmp"]) == ((32, 24), exif(), XMP)
    assert prancimg.open(encode(io.BytesIO(source), strip=True)).info == {}
    stripped = prancimg.open(encode(io.BytesIO(source), strip=True, orient=False))
    assert dict(stripped.render().getexif()) == {ORIENTATION: 6}
    replaced = prancimg.open(encode(io.BytesIO(source), icc_profile=b"", exif=exif(3), xmp=b"<x/>"))
    assert replaced.info == {"exif": exif(3), "xmp": b"<x/>"}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_metadata_goes_out_again(small, icc, kind):
    data, notes = save_samples(np.asarray(small), Metadata(icc, exif(1)[6:], UPRIGHT), kind)
    assert notes == []
    metadata = load_picture(io.BytesIO(data), orient=False).metadata
    assert metadata.icc == icc and metadata.xmp == UPRIGHT
    tags = Image.Exif()
    tags.load(metadata.exif)
    assert tags[0x010E].strip("\0") == "a picture"


@pytest.mark.parametrize(
    ("kind", "lossless"),
    [("PNG", True), ("TIFF", True), ("PPM", True), ("QOI", True), ("BMP", True), ("JPEG", False), ("WEBP", False)],
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
def test_formats_out(small, icc, kind, lossless, mode):
    image = small.convert(mode)
    if mode.endswith("A"):
        image.putalpha(90)
    samples = np.atleast_3d(np.asarray(image))
    data, notes = save_samples(samples, Metadata(icc=icc), kind)
    back = Image.open(io.BytesIO(data))
    assert back.size == image.size
    flattened = mode.endswith("A") and kind in ("JPEG", "PPM", "BMP")
    assert any("flattened onto white" in note for note in notes) == flattened
    assert any("does not hold ICC" in note for note in notes) == (kind in ("PPM", "QOI", "BMP"))
    if lossless and not flattened:
        assert np.array_equal(np.asarray(back.convert(mode)), np.asarray(image))


def ifd(*tags: tuple[int, int, int, bytes]) -> bytes:
    """EXIF of some tags, whatever they are: tag, type, count and four bytes."""
    entries = b"".join(struct.pack("<HHI4s", *tag) for tag in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)


ODD = {
    "garbage": b"garbage",
    "cut short": b"MM\0*",
    "nothing there": b"MM\0*\xff\xff\xff\xff",
    "orientation in letters": ifd((ORIENTATION, 2, 4, b"6\0\0\0")),
    "orientation in bytes": ifd((ORIENTATION, 7, 4, b"6\0\0\0")),
    "two orientations": ifd((ORIENTATION, 3, 2, b"\6\0\6\0")),
    "orientation 9": ifd((ORIENTATION, 3, 1, b"\t\0\0\0")),
    "orientation far away": ifd((ORIENTATION, 3, 1 << 30, b"\xff\xff\xff\xff")),
    "a loop": ifd((0x8769, 4, 1, b"\x08\0\0\0")),
    "how another file was stored": ifd((256, 4, 1, b"\xff" * 4), (259, 3, 1, b"\7\0\0\0"), (273, 4, 1, b"\x08\0\0\0")),
    "an unknown type": ifd((0x9999, 99, 1, b"\x08\0\0\0"), (0x11A, 5, 0, bytes(4))),
}


@pytest.mark.filterwarnings("ignore:.*EXIF|Metadata Warning|Tag data:UserWarning")
@pytest.mark.parametrize("name", ODD)
def test_exif_that_makes_no_sense_spoils_no_picture(small, name):
    files = [(np.asarray(small), kind) for kind in ("PNG", "JPEG", "WEBP", "AVIF", "TIFF")]
    files += [(deep_pixels(3), kind) for kind in ("PNG", "TIFF")]
    for samples, kind in files:
        data, notes = save_samples(samples, Metadata(exif=ODD[name]), kind)
        with Image.open(io.BytesIO(data)) as back:
            back.load()
            assert {*back.size} == {*small.size} and all("EXIF is broken" in note for note in notes)
    assert len(only_orientation(Metadata(exif=ODD[name])).exif) in (0, 26)  # nothing, or one tag


def test_what_is_left_out_of_a_file_is_said(small):
    _, notes = save_samples(np.asarray(small), Metadata(exif=b"garbage"), "TIFF")
    assert len(notes) == 1 and "the EXIF is broken" in notes[0] and notes[0].endswith("left out")
    large = Metadata(bytes(1 << 24), ifd() + bytes(1 << 16), b"x" * (1 << 16))
    data, notes = save_samples(np.asarray(small), large, "JPEG")
    assert [note.split(" bytes of ")[1] for note in notes] == ["ICC: left out", "EXIF: left out", "XMP: left out"]
    assert Image.open(io.BytesIO(data)).info.keys().isdisjoint({"icc_profile", "exif", "xmp"})
    most = Metadata(b"", ifd() + bytes(65527 - len(ifd())), b"x" * 65504)
    assert save_samples(np.asarray(small), most, "JPEG")[1] == []


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "AVIF", "WEBP", "PDF"])
def test_a_picture_too_wide_for_a_format_is_our_error_and_nothing_else(kind, capfd):
    with pytest.raises(PrancImgError, match=f"cannot write {kind}"):
        save_samples(np.zeros((1, 1 << 20, 3), np.uint8), Metadata(), kind)
    assert capfd.readouterr() == ("", "")


def test_a_wide_picture_of_16_bits_is_written_or_refused():
    for kind in ("PNG", "TIFF"):
        try:
            save_samples(np.zeros((1, 1 << 20, 3), np.uint16), Metadata(), kind)
        except PrancImgError as error:
            assert f"cannot write {kind}" in str(error)


def test_names_of_formats():
    assert [format_of(name) for name in (".png", "jpeg", "JPG", "tif")] == ["PNG", "JPEG", "JPEG", "TIFF"]
    for name in ("", ".xyz", "prc"):
        with pytest.raises(PrancImgError):
            format_of(name)


def segments(**kinds: bytes) -> dict[int, bytes]:
    return {bitstream.Segment[name.upper()]: payload for name, payload in kinds.items()}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (segments(samples=b""), "within a number"),
        (segments(samples=b"\x02\x08"), "samples segment is broken"),
        (segments(samples=b"\x01\x09"), "samples segment is broken"),
        (segments(samples=b"\x01\x08\x00"), "samples segment is broken"),
        (segments(alpha=b""), "unknown kind"),
        (segments(alpha=b"\x04"), "unknown kind"),
        (segments(alpha=b"\x00\x80\x80\x04"), "alpha segment is broken"),
        (segments(icc=b"nonsense"), "icc segment is broken"),
        (segments(xmp=__import__("zlib").compress(b"x" * 99)[:-5]), "cut short"),
        (segments(exif=__import__("zlib").compress(bytes(MAX_METADATA + 1))), f"more than {MAX_METADATA}"),
    ],
)
def test_broken_extras_are_refused(found, message):
    with pytest.raises(PrancImgError, match=message):
        Extras.read(found)


def test_an_alpha_channel_of_another_size_is_refused(small):
    plain = bitstream.read(encode(small))
    other = file(Image.new("L", (5, 5)), "PNG").getvalue()
    for alpha in (Alpha(png=other), Alpha(png=b"nonsense"), Alpha(prc=encode(np.zeros((5, 5, 3), np.uint8)))):
        data = bitstream.write([*plain.items(), (int(bitstream.Segment.ALPHA), alpha.pack())])
        with pytest.raises(PrancImgError, match="alpha segment"):
            prancimg.decode(data)


def test_extras_come_back_as_they_went(icc):
    extras = Extras(Samples(True, 16), Alpha(flat=300), Metadata(icc, b"II*\0", XMP))
    assert Extras.read(dict(extras.segments())) == extras
    assert Extras().segments() == []


def test_metadata_that_does_not_fit_is_said(small, icc):
    with pytest.raises(PrancImgError, match="transparency and metadata alone take"):
        encode(small, size=100, icc_profile=icc)
    with pytest.raises(PrancImgError, match=r"lowest possible is .* metadata"):
        encode(small, size=90, exif=exif())
