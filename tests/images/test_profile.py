"""Profiles made by us, read by LittleCMS, and that none goes out whose space is not that of the pixels."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

import prancimg
from prancimg import PrancImgError
from prancimg.format.extras import Metadata
from prancimg.images import profile
from prancimg.images.picture import load_picture
from prancimg.images.profile import ADOBE_RGB, SRGB
from prancimg.images.save import save_samples

imagecodecs = pytest.importorskip("imagecodecs")
TIFF_LA16 = ("TIFF", 16, 2)
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF")


def grey_profile(gamma: float = 1.8) -> bytes:
    return profile.fitting(profile.rgb_profile(SRGB, gamma), True)[0]


def converted(icc: bytes, pixels: np.ndarray, mode: str = "RGB") -> np.ndarray:
    """In sRGB, as LittleCMS has it."""
    image = Image.fromarray(pixels, mode) if mode != "L" else Image.fromarray(pixels)
    read = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    made = ImageCms.profileToProfile(image, read, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return np.asarray(made, float)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    return np.stack(np.meshgrid(levels, levels, levels), -1).reshape(16, -1, 3)


def file(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_adobe_rgb_has_the_numbers_of_its_specification():
    """Adobe RGB (1998) Color Image Encoding, version 2005-05, 4.3.6.1: primaries and white seen from D50."""
    made = ImageCms.ImageCmsProfile(io.BytesIO(profile.rgb_profile(ADOBE_RGB, 563 / 256))).profile
    found = [made.red_colorant[0], made.green_colorant[0], made.blue_colorant[0]]
    wanted = [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)]
    assert np.abs(np.array(found) - wanted).max() < 2e-4
    assert made.xcolor_space.strip() == "RGB" and made.version == pytest.approx(4.2)


@pytest.mark.parametrize("gamma", [None, 1.8, 2.2])
def test_made_profiles_mean_what_those_of_another_maker_mean(pixels, gamma):
    options = {"gamma": gamma}
    if gamma is None:
        levels = np.arange(4096) / 4095
        curve = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
        options = {"transferfunction": np.rint(65535 * curve).astype(np.uint16)}
    other = imagecodecs.cms_profile("rgb", whitepoint=ADOBE_RGB[:2], primaries=ADOBE_RGB[2:], **options)
    made = profile.rgb_profile(ADOBE_RGB, gamma)
    assert np.abs(converted(made, pixels) - converted(bytes(other), pixels)).max() <= 1


def test_a_profile_of_srgb_itself_changes_nothing():
    assert profile.is_srgb(profile.rgb_profile(SRGB)) and not profile.is_srgb(profile.rgb_profile(SRGB, 1.8))
    assert profile.space_of(b"") == profile.space_of(b"no profile") == profile.space_of(bytes(200)) == ""


def test_a_curve_goes_from_grey_to_colour_and_back(pixels):
    rgb = profile.rgb_profile(ADOBE_RGB, 1.8)
    grey, notes = profile.fitting(rgb, True)
    assert profile.space_of(grey) == "GRAY" and "made one for GRAY" in notes[0]
    ramp = np.arange(256, dtype=np.uint8)[None]
    seen = converted(grey, ramp, "L")
    assert np.abs(seen - converted(rgb, ramp[:, :, None].repeat(3, 2))).max() <= 1
    again, _ = profile.fitting(grey, False)
    assert profile.space_of(again) == "RGB"
    assert np.abs(seen - converted(again, ramp[:, :, None].repeat(3, 2))).max() <= 1


def lab_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


@pytest.mark.parametrize(
    ("icc", "grey", "note"),
    [
        (b"nonsense", False, "is broken"),
        (lab_profile(), False, "is for Lab, not RGB"),
        (lab_profile(), True, "is for Lab, not GRAY"),
        (grey_profile().replace(b"kTRC", b"xxxx"), False, "is for GRAY, not RGB"),
        (profile.rgb_profile(SRGB, 1.8).replace(b"rTRC", b"xxxx"), True, "is for RGB, not GRAY"),
        (profile.rgb_profile(SRGB, 1.8)[:140], False, "is broken"),
    ],
)
def test_what_fits_in_no_way_is_left_out_with_a_word(icc, grey, note):
    left, notes = profile.fitting(icc, grey)
    assert left == b"" and len(notes) == 1 and note in notes[0] and notes[0].endswith("left out")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("held", ["GRAY", "RGB"])
def test_no_file_has_a_profile_of_another_space_than_its_pixels(kind, depth, channels, held):
    value, most = (90, 255) if depth == 8 else (90 * 257, 65535)
    samples = np.full((4, 6, channels), value, np.uint8 if depth == 8 else np.uint16)
    samples[:, :, -1] = value if channels in (1, 3) else most
    icc = grey_profile() if held == "GRAY" else profile.rgb_profile(SRGB, 1.8)
    picture = load_picture(save_samples(samples, Metadata(icc=icc), kind)[0])
    assert profile.space_of(picture.metadata.icc) == ("GRAY" if picture.samples.grey else "RGB")
    assert picture.samples.grey == (
        channels < 3 and kind not in ("WEBP", "AVIF") and (kind, depth, channels) != TIFF_LA16
    )
    ninety, colors = np.full((1, 1), 90, np.uint8), np.rint(picture.colors[:1, :1]).astype(np.uint8)
    meant = converted(icc, ninety, "L") if held == "GRAY" else converted(icc, ninety[:, :, None].repeat(3, 2))
    found = colors[:, :, 0] if picture.samples.grey else colors
    seen = converted(picture.metadata.icc, found, "L" if picture.samples.grey else "RGB")
    assert np.abs(seen - meant).max() <= 4


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG"])
def test_grey_pictures_may_come_with_a_profile_for_colour(kind):
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
    picture = load_picture(file(image, kind, icc_profile=profile.rgb_profile(ADOBE_RGB, 2.2)))
    assert picture.samples.grey and profile.space_of(picture.metadata.icc) == "GRAY"
    assert picture.notes == ("the colour profile is for RGB: made one for GRAY of its curve",)
    srgb = load_picture(file(image, kind, icc_profile=profile.rgb_profile(SRGB)))
    assert srgb.metadata.icc == b"" and "goes without saying" in srgb.notes[0]


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "TIFF", "PNG"])
def test_colour_may_come_with_a_profile_for_grey(kind, pixels):
    picture = load_picture(file(Image.fromarray(pixels), kind, icc_profile=grey_profile()))
    assert not picture.samples.grey and profile.space_of(picture.metadata.icc) == "RGB"


def test_lab_and_cmyk_become_rgb_and_leave_their_profiles():
    lab = Image.merge("LAB", [Image.new("L", (4, 4), value) for value in (150, 128 + 40, 128 - 30)])
    wanted = np.asarray(
        ImageCms.profileToProfile(lab, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB")
    )
    for icc in (b"", lab_profile()):
        picture = load_picture(file(lab, "TIFF", icc_profile=icc))
        assert np.array_equal(picture.colors, wanted) and picture.metadata.icc == b""
        assert picture.notes == ("LAB converted to RGB",)
    inks = Image.new("CMYK", (4, 4), (10, 200, 30, 40))
    for kind in ("JPEG", "TIFF"):
        picture = load_picture(file(inks, kind, icc_profile=profile.rgb_profile(ADOBE_RGB), quality=95))
        assert picture.metadata.icc == b"" and picture.notes == ("CMYK converted to RGB",)


def test_ycbcr_keeps_the_profile_of_its_rgb(pixels):
    icc = profile.rgb_profile(ADOBE_RGB, 2.2)
    for kind, options in (("JPEG", {}), ("TIFF", {"compression": "jpeg"})):
        image = Image.fromarray(pixels).convert("YCbCr") if kind == "TIFF" else Image.fromarray(pixels)
        assert load_picture(file(image, kind, icc_profile=icc, **options)).metadata.icc == icc


def test_a_profile_given_to_encode_must_be_for_the_pixels():
    grey, colour = np.full((8, 8), 90, np.uint8), np.full((8, 8, 3), 90, np.uint8)
    with pytest.raises(PrancImgError, match="profile is for RGB, the pixels are grey"):
        prancimg.encode(grey, icc_profile=profile.rgb_profile(SRGB), effort=1)
    with pytest.raises(PrancImgError, match="profile is for GRAY, the pixels are RGB"):
        prancimg.encode(colour, icc_profile=grey_profile(), effort=1)
