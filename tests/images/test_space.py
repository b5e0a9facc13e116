"""Colour that a file says without a profile, against the formulas of the standards."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

import prancimg
from prancimg.apps.cli import main
from prancimg.images import profile
from prancimg.images.picture import load_picture
from prancimg.images.profile import ADOBE_RGB, SRGB
from prancimg.images.save import save_samples
from tests.images import pngs
from tests.images.pngs import chromaticities, gamma, png

imagecodecs = pytest.importorskip("imagecodecs")
pytest.importorskip("tifffile")

P3 = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
BT2020 = (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
CICP = b"cICP"
IMPOSSIBLE = "chromaticities that make no sense are left out"


def to_xyz(primaries) -> np.ndarray:
    """From linear RGB; all primaries here have the same white."""
    x, y = np.array(primaries).reshape(4, 2).T
    points = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    return points[:, 1:] * np.linalg.solve(points[:, 1:], points[:, 0])


def linear(encoded: np.ndarray) -> np.ndarray:
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def encoded(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def in_srgb(light: np.ndarray, primaries) -> np.ndarray:
    """Linear light (H, W, 3) as samples of 8 bits."""
    matrix = np.linalg.inv(to_xyz(SRGB)) @ to_xyz(primaries)
    return 255 * encoded(np.clip(light @ matrix.T, 0, 1))


def shown(picture) -> np.ndarray:
    """What a program that knows profiles shows, in sRGB."""
    image = Image.fromarray(np.rint(picture.colors).astype(np.uint8))
    if picture.metadata.icc:
        made = ImageCms.ImageCmsProfile(io.BytesIO(picture.metadata.icc))
        image = ImageCms.profileToProfile(image, made, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return np.asarray(image, float)


@pytest.fixture(scope="module")
def colors() -> np.ndarray:
    """Within every gamut, and not too dark for 8 bits of linear light."""
    steps = np.linspace(0.5, 0.64, 6)
    return np.stack(np.meshgrid(steps, steps, steps), -1).reshape(6, 36, 3)


def rounded(samples: np.ndarray, depth: int = 8) -> np.ndarray:
    return np.rint((2**depth - 1) * samples).astype(int)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("value", [1.0, 1 / 1.8, 1 / 2.8])
def test_a_gamma_is_converted_to_that_of_srgb(colors, depth, value):
    picture = load_picture(png(rounded(linear(colors) ** value, depth), gamma(value), depth=depth))
    assert np.abs(picture.colors - 255 * colors).max() < 1.5
    assert picture.notes == (f"a gamma of {value:.3g} converted to the curve of sRGB",)
    assert picture.metadata.icc == b"" and picture.samples.depth == depth


@pytest.mark.parametrize("value", [0.45455, 0.4545, 0.45, 0.46])
def test_what_png_files_say_that_mean_srgb_changes_nothing(colors, value):
    plain = png(rounded(colors))
    for extra in ([gamma(value)], [gamma(value), chromaticities(*SRGB)], [chromaticities(*SRGB)]):
        picture = load_picture(png(rounded(colors), *extra))
        assert np.array_equal(picture.colors, load_picture(plain).colors)
        assert picture.metadata.icc == b"" and picture.notes == ()


@pytest.mark.parametrize("primaries", [ADOBE_RGB, P3, BT2020])
@pytest.mark.parametrize("value", [0.45455, None, 1.0])
def test_wider_primaries_become_a_profile(colors, primaries, value):
    light = colors**2.2 if value == 0.45455 else linear(colors)
    samples = light if value == 1 else colors
    extra = [chromaticities(*primaries), *([gamma(value)] if value else [])]
    picture = load_picture(png(rounded(samples), *extra))
    assert profile.space_of(picture.metadata.icc) == "RGB" and len(picture.metadata.icc) < 600
    assert np.abs(shown(picture) - in_srgb(light, primaries)).max() < 3
    assert picture.notes == (() if value != 1 else ("a gamma of 1 converted to the curve of sRGB",))


@pytest.mark.parametrize(
    ("code", "primaries"), [(1, SRGB), (9, BT2020), (12, P3), (2, SRGB)], ids=["709", "2020", "P3", "unknown"]
)
@pytest.mark.parametrize("transfer", [13, 8, 1])
def test_the_numbers_of_h273(colors, code, primaries, transfer):
    samples = linear(colors) if transfer == 8 else colors
    picture = load_picture(png(rounded(samples), (CICP, bytes([code, transfer, 0, 1]))))
    assert np.abs(shown(picture) - in_srgb(linear(colors), primaries)).max() < 3
    assert bool(picture.metadata.icc) == (primaries != SRGB)


def test_numbers_that_nobody_knows_are_said():
    picture = load_picture(png(np.full((2, 2, 3), 90), (CICP, bytes([99, 77, 0, 1]))))
    assert picture.notes == (
        "the colour primaries numbered 99 are taken as sRGB's",
        "the transfer characteristics numbered 77 are taken as sRGB's",
    )
    assert np.all(picture.colors == 90) and picture.metadata.icc == b""


def test_the_range_of_television_is_widened():
    for depth, low, high in ((8, 16, 235), (16, 16 * 256, 235 * 256)):
        samples = np.array([[0, low, (low + high) // 2, high, 2**depth - 1]])[:, :, None].repeat(3, 2)
        picture = load_picture(png(samples, (CICP, bytes([1, 13, 0, 0])), depth=depth))
        assert np.abs(picture.colors[0, :, 0] - [0, 0, 127.5, 255, 255]).max() < 1
        assert picture.notes == ("the narrow range of television converted to the full one",)


def test_high_dynamic_range_is_converted_with_a_word():
    """ITU-R BT.2408: white, of 203 cd/m², is 58 % of PQ and 75 % of HLG; BT.2100: 100 cd/m² are 50.8 % of PQ."""
    for transfer, white, name in ((16, 0.5807, "PQ"), (18, 0.75, "HLG")):
        samples = rounded(np.array([[0, white, 1]])[:, :, None].repeat(3, 2), 16)
        picture = load_picture(png(samples, (CICP, bytes([9, transfer, 0, 1])), depth=16))
        assert np.abs(picture.colors[0] - np.array([0, 255, 255])[:, None]).max() < 0.5
        assert picture.notes == (f"high dynamic range ({name}) converted: what is brighter than white is cut off",)
        assert profile.space_of(picture.metadata.icc) == "RGB"
    half = load_picture(png(rounded(np.full((1, 1, 3), 0.5081), 16), (CICP, bytes([1, 16, 0, 1])), depth=16))
    assert np.abs(half.colors - 255 * encoded(np.array(100 / 203))).max() < 0.5


def test_hlg_of_colour_goes_by_the_luminance_of_all_channels():
    """ITU-R BT.2100, table 5: light shown = 1000 · luminance^0.2 · light of the scene."""
    signal = np.array([0.5, 0.3, 0.2])
    scene = signal**2 / 3
    light = 1000 / 203 * (scene @ [0.2627, 0.6780, 0.0593]) ** 0.2 * scene
    picture = load_picture(png(rounded(signal[None, None], 16), (CICP, bytes([9, 18, 0, 1])), depth=16))
    assert np.abs(picture.colors - 255 * encoded(light)).max() < 0.1


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_of_every_depth_goes_by_its_gamma_and_needs_no_profile(depth):
    samples = np.arange(2 ** min(depth, 4))[None] * (2**depth // 2 ** min(depth, 4))
    extra = gamma(1.0), chromaticities(*P3)
    picture = load_picture(png(samples, *extra, depth=depth, kind=pngs.GREY))
    assert picture.samples.grey and picture.metadata.icc == b""
    assert np.abs(picture.colors[:, :, 0] - 255 * encoded(samples / (2**depth - 1))).max() < 0.51


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palettes_go_by_their_gamma_and_primaries(colors, depth):
    table = rounded(linear(colors)).reshape(-1, 3)[: 2**depth]
    extra = gamma(1.0), chromaticities(*P3), (b"PLTE", table.astype(np.uint8).tobytes())
    picture = load_picture(png(np.arange(len(table))[None] % 2**depth, *extra, depth=depth, kind=pngs.PALETTE))
    assert np.abs(shown(picture) - in_srgb((table / 255)[None], P3)).max() < 3


def test_what_counts_where_a_file_says_more_than_one_thing(colors):
    """PNG, third edition: cICP before iCCP before sRGB before gAMA and cHRM."""
    icc, samples = profile.rgb_profile(ADOBE_RGB, 2.2), rounded(colors)
    linear_light, wide = gamma(1.0), chromaticities(*BT2020)
    by_profile = load_picture(png(samples, linear_light, wide, pngs.profile(icc)))
    assert np.array_equal(by_profile.colors, samples) and by_profile.metadata.icc == icc
    by_srgb = load_picture(png(samples, linear_light, wide, (b"sRGB", b"\0")))
    assert np.array_equal(by_srgb.colors, samples) and by_srgb.metadata.icc == b""
    by_numbers = load_picture(png(samples, linear_light, wide, pngs.profile(icc), (CICP, bytes([12, 13, 0, 1]))))
    assert np.array_equal(by_numbers.colors, samples) and by_numbers.metadata.icc == profile.rgb_profile(P3)


@pytest.mark.parametrize(
    ("extra", "note"),
    [
        (gamma(0), ""),
        (gamma(0.001), "a gamma of 0.001 makes no sense: left out"),
        (gamma(30000), "a gamma of 3e+04 makes no sense: left out"),
        (chromaticities(0, 0, 0, 0, 0, 0, 0, 0), IMPOSSIBLE),
        (chromaticities(*[0.3] * 8), IMPOSSIBLE),
        (chromaticities(0.31, 0.33, 0.64, 0.33, 0.3, 0.6, 0.63, 0.3301), IMPOSSIBLE),
        ((CICP, b"\1"), ""),
    ],
)
def test_nonsense_changes_nothing(extra, note):
    picture = load_picture(png(np.full((2, 2, 3), 90), extra))
    assert np.all(picture.colors == 90) and picture.metadata.icc == b"" and "".join(picture.notes) == note


def test_an_open_image_says_the_same_as_its_file_and_stays_as_it_was(colors):
    for extra in (gamma(1.0), chromaticities(*P3), (CICP, bytes([12, 8, 0, 1]))):
        data = png(rounded(colors), extra)
        image = Image.open(io.BytesIO(data))
        before = dict(image.info)
        fresh, whole = load_picture(image), load_picture(data)
        assert np.array_equal(fresh.colors, whole.colors) and fresh.metadata == whole.metadata
        assert fresh.notes == whole.notes and image.info == before
    loaded = Image.open(io.BytesIO(png(rounded(colors), gamma(1.0))))
    made = loaded.resize(loaded.size)
    assert np.array_equal(load_picture(loaded).colors, load_picture(made).colors)
    assert load_picture(made).notes == ("a gamma of 1 converted to the curve of sRGB",)


def test_cameras_say_adobe_rgb_in_a_corner_of_exif(colors):
    tags = Image.Exif()
    tags[0x010E] = "a picture"
    tags.get_ifd(0x8769)[0xA001] = 0xFFFF
    tags.get_ifd(0x8769)[0xA005] = {1: "R03"}
    for kind in ("JPEG", "PNG", "WEBP"):
        buffer = io.BytesIO()
        Image.fromarray(rounded(colors).astype(np.uint8)).save(buffer, kind, exif=tags)
        picture = load_picture(buffer.getvalue())
        assert picture.metadata.icc == profile.rgb_profile(ADOBE_RGB, 2.19921875)
    for number, rule, wide in ((0xFFFF, "R98", False), (1, "R03", False), (2, "R98", True)):
        tags.get_ifd(0x8769)[0xA001], tags.get_ifd(0x8769)[0xA005] = number, {1: rule}
        buffer = io.BytesIO()
        Image.fromarray(rounded(colors).astype(np.uint8)).save(buffer, "JPEG", exif=tags)
        assert bool(load_picture(buffer.getvalue()).metadata.icc) == wide


def test_tiff_files_have_tags_for_their_primaries(colors):
    buffer = io.BytesIO()
    tags = {318: (0.3127, 0.3290), 319: P3[2:]}
    Image.fromarray(rounded(colors).astype(np.uint8)).save(buffer, "TIFF", tiffinfo=tags)
    assert np.abs(shown(load_picture(buffer.getvalue())) - in_srgb(linear(colors), P3)).max() < 3


@pytest.mark.parametrize("bits", [8, 10])
def test_avif_files_have_numbers_too(colors, bits):
    samples = rounded(linear(colors), bits).astype(np.uint8 if bits == 8 else np.uint16)
    data = imagecodecs.avif_encode(samples, bitspersample=bits, level=100, primaries=9, transfer=8)
    picture = load_picture(bytes(data))
    assert picture.notes == ("a gamma of 1 converted to the curve of sRGB",)
    assert np.abs(shown(picture) - in_srgb(linear(colors), BT2020)).max() < 4


def test_a_byte_of_qoi_files_says_linear_light(colors):
    buffer = io.BytesIO()
    Image.fromarray(rounded(linear(colors)).astype(np.uint8)).save(buffer, "QOI")
    data = bytearray(buffer.getvalue())
    for byte, wanted in ((0, rounded(linear(colors))), (1, 255 * colors)):
        data[13] = byte
        assert np.abs(load_picture(bytes(data)).colors - wanted).max() < 1.5


def boxed(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


def test_jpeg_2000_files_have_profiles_and_numbers_of_their_own(colors):
    samples = rounded(colors).astype(np.uint8)
    data = bytes(imagecodecs.jpeg2k_encode(samples, codecformat="jp2", reversible=True, level=0))
    start = data.index(b"jp2h") - 4
    (size,) = struct.unpack_from(">I", data, start)
    at = data.index(b"colr") - 4
    (length,) = struct.unpack_from(">I", data, at)

    def with_color(body: bytes) -> bytes:
        head = data[start + 8 : at] + boxed(b"colr", body) + data[at + length : start + size]
        return data[:start] + boxed(b"jp2h", head) + data[start + size :]

    icc = profile.rgb_profile(P3)
    assert load_picture(with_color(b"\2\0\0" + icc)).metadata.icc == icc
    assert load_picture(data).notes == () and load_picture(data).metadata.icc == b""
    other = load_picture(with_color(b"\1\0\0" + struct.pack(">I", 21)))
    assert other.notes == ("colours of the space numbered 21 are taken as sRGB",)


def test_the_profile_travels_and_goes_out_again(colors):
    data = prancimg.encode(png(rounded(colors), (CICP, bytes([12, 13, 0, 1]))), effort=1, quality=60)
    picture = prancimg.open(data)
    assert picture.info == {"icc_profile": profile.rgb_profile(P3)}
    for kind in ("PNG", "JPEG", "WEBP", "AVIF", "TIFF"):
        file, notes = save_samples(picture.array(), picture.extras.metadata, kind)
        assert notes == [] and load_picture(file).metadata.icc == profile.rgb_profile(P3)


def test_without_its_profile_a_picture_is_another_and_a_line_says_so(colors, tmp_path, capsys):
    line = "without its colour profile the picture shows other colours"
    source = png(rounded(colors), (CICP, bytes([12, 13, 0, 1])))
    picture = load_picture(source, strip=True)
    assert picture.notes == (line,)
    assert load_picture(png(rounded(colors), gamma(0.45455)), strip=True).notes == ()
    kept, out = tmp_path / "a.prc", str(tmp_path / "a.png")
    kept.write_bytes(prancimg.encode(source, effort=1, quality=10))
    assert main(["decode", str(kept), out, "--strip"]) == 0 and capsys.readouterr().err == f"{out}: {line}\n"
    assert load_picture(out).metadata.icc == b""
