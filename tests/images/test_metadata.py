"""What travels with a picture, what is left out and how that is said: thumbnails, resolution, text, large metadata."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

import prancimg
from prancimg import PrancImgError
from prancimg.apps.cli import main
from prancimg.codec import remarks
from prancimg.format.extras import MAX_METADATA, Metadata
from prancimg.images import exif, profile
from prancimg.images.picture import load_picture
from prancimg.images.save import save_samples
from tests.images.pngs import chunk, png

GREY = np.full((6, 8, 3), 90, np.uint8)
RESOLUTION = (282, 283, 296)
LENGTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1}


def file(kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, kind, **options)
    return buffer.getvalue()


def directory(order: str, tags: dict[int, tuple[int, int, bytes]], start: int, following: int = 0) -> bytes:
    """A directory of tags (type, count, content) with what does not fit into them behind it."""
    table, beyond = b"", b""
    room = start + 2 + 12 * len(tags) + 4
    for tag, (kind, count, content) in sorted(tags.items()):
        if len(content) > 4:
            content, beyond = struct.pack(order + "I", room + len(beyond)), beyond + content
        table += struct.pack(order + "HHI", tag, kind, count) + content.ljust(4, b"\0")
    return struct.pack(order + "H", len(tags)) + table + struct.pack(order + "I", following) + beyond


def camera(order: str, thumbnail: bytes, behind: bytes = b"") -> bytes:
    """EXIF as cameras write it: words, a maker's note that points into the file, a thumbnail."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    ratio = struct.pack(order + "II", 72, 1)
    words = {0x010F: (2, 7, b"Camera\0"), 0x0112: (3, 1, struct.pack(order + "H", 6)), 0x0132: (2, 5, b"date\0")}
    words |= {282: (5, 1, ratio), 283: (5, 1, ratio), 296: (3, 1, struct.pack(order + "H", 2))}
    size = len(directory(order, words, 8))
    second = {259: (3, 1, struct.pack(order + "H", 6)), 513: (4, 1, bytes(4)), 514: (4, 1, bytes(4))}
    start = 8 + size + len(directory(order, second, 8 + size))
    second[513] = (4, 1, struct.pack(order + "I", start))
    second[514] = (4, 1, struct.pack(order + "I", len(thumbnail)))
    return head + directory(order, words, 8, 8 + size) + directory(order, second, 8 + size) + thumbnail + behind


def words_of(raw: bytes) -> dict[int, object]:
    tags = Image.Exif()
    tags.load(exif.PREFIX + raw)
    return dict(tags)


@pytest.mark.parametrize("order", ["<", ">"])
def test_thumbnails_are_left_out_with_a_word_and_nothing_else_moves(order):
    thumbnail = file("JPEG")
    for behind in (b"", b"a maker's note"):
        raw = camera(order, thumbnail, behind)
        left, dropped = exif.without_thumbnail(raw)
        assert dropped == len(thumbnail) and thumbnail not in left
        assert words_of(left) == words_of(raw)
        assert len(left) == len(raw) - (0 if behind else len(thumbnail)) and left.endswith(behind)
        tags = Image.Exif()
        tags.load(exif.PREFIX + left)
        assert tags.get_ifd(1) == {}  # Pillow's number for the second directory
    for kind in ("JPEG", "PNG", "WEBP"):
        picture = load_picture(file(kind, exif=exif.PREFIX + raw))
        assert picture.notes == (f"a thumbnail of {len(thumbnail)} bytes in the EXIF is left out",)
        assert words_of(picture.metadata.exif)[0x010F] == "Camera" and thumbnail not in picture.metadata.exif
    assert load_picture(file("JPEG", exif=exif.PREFIX + raw), strip=True).notes == ()


def test_exif_without_a_thumbnail_stays_to_the_byte():
    tags = Image.Exif()
    tags[0x010E], tags[282], tags[283], tags[296] = "a picture", 300.0, 300.0, 2
    raw = tags.tobytes()[6:]
    assert exif.without_thumbnail(raw) == (raw, 0)
    assert load_picture(file("PNG", exif=tags)).metadata.exif == raw


@given(st.binary(max_size=80), st.integers(0, 200), st.binary(max_size=4))
def test_no_exif_is_too_odd(raw, at, patch):
    whole = bytearray(camera("<", b"thumbnail"))
    whole[at : at + len(patch)] = patch
    for odd in (raw, b"II*\0\x08\0\0\0" + raw, bytes(whole)):
        left, dropped = exif.without_thumbnail(odd)
        assert len(left) <= len(odd) and dropped >= 0
        exif.dots_per_inch(odd)
        exif.upright(odd)
        made = exif.with_resolution(odd, 300, 200)
        assert made == odd or exif.dots_per_inch(made) == (300, 200)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_the_resolution_is_kept_and_goes_out_again(kind):
    picture = load_picture(file(kind, dpi=(300, 150)))
    assert exif.dots_per_inch(picture.metadata.exif) == (300, 150) and picture.notes == ()
    for out in ("PNG", "JPEG", "TIFF"):
        data, notes = save_samples(GREY, picture.metadata, out)
        assert notes == [] and Image.open(io.BytesIO(data)).info["dpi"] == pytest.approx((300, 150), abs=0.02)
    pytest.importorskip("imagecodecs")
    for out in ("PNG", "TIFF"):
        data, _ = save_samples(GREY.astype(np.uint16) * 257, picture.metadata, out)
        assert exif.dots_per_inch(load_picture(data).metadata.exif) == (300, 150)
    for out in ("WEBP", "AVIF"):
        data, _ = save_samples(GREY, picture.metadata, out)
        assert exif.dots_per_inch(load_picture(data).metadata.exif) == (300, 150)


def test_the_resolution_joins_exif_that_is_there():
    raw = camera("<", b"")
    known = words_of(raw)
    source = file("JPEG", exif=exif.PREFIX + raw, dpi=(240, 240))
    picture = load_picture(source, orient=False)
    found = words_of(picture.metadata.exif)
    assert exif.dots_per_inch(picture.metadata.exif) == (240, 240)
    assert {tag: value for tag, value in found.items() if tag not in RESOLUTION} == {
        tag: value for tag, value in known.items() if tag not in RESOLUTION
    }
    assert words_of(load_picture(source).metadata.exif)[0x0112] == 1  # upright still finds its tag
    same = load_picture(file("JPEG", exif=exif.PREFIX + raw, dpi=(72, 72)), orient=False)
    assert same.metadata.exif == exif.without_thumbnail(raw)[0]


def test_what_goes_without_saying_is_not_kept():
    for source in (file("JPEG"), file("JPEG", dpi=(72, 72)), file("PNG"), file("PNG", dpi=(72, 72))):
        assert load_picture(source).metadata == Metadata()
    for body in (struct.pack(">IIB", 0, 0, 1), struct.pack(">IIB", 5, 5, 0), struct.pack(">IIB", 5, 5, 9)):
        assert load_picture(png(GREY, (b"pHYs", body))).metadata == Metadata()


def test_pixels_that_are_not_square_are_said_to_be_so():
    picture = load_picture(png(GREY, (b"pHYs", struct.pack(">IIB", 2, 1, 0))))
    tags = words_of(picture.metadata.exif)
    assert (tags[282], tags[283], tags[296]) == (2, 1, 1)
    assert exif.dots_per_inch(picture.metadata.exif) is None


def test_centimetres_are_no_inches():
    tags = Image.Exif()
    tags[282], tags[283], tags[296] = 100.0, 100.0, 3
    assert exif.dots_per_inch(tags.tobytes()[6:]) == pytest.approx((254, 254))


def test_text_is_named_where_it_is_left_out():
    text = [(b"tEXt", b"parameters\0a cat"), (b"zTXt", b"Comment\0\0" + zlib.compress(b"words"))]
    text += [(b"iTXt", b"Title\0\0\0\0\0" + "Käse".encode())]
    assert load_picture(png(GREY, *text)).notes == ("text left out: parameters, Comment, Title",)
    assert load_picture(png(GREY, *text), strip=True).notes == ()
    late = load_picture(png(GREY, late=chunk(*text[0])))
    assert late.notes == ("text left out: parameters",)
    many = [(b"tEXt", b"word %d\0" % i) for i in range(8)]
    assert load_picture(png(GREY, *many)).notes[0].endswith("word 4 and 3 more")
    assert load_picture(file("JPEG", comment=b"hello")).notes == ("text left out: comment",)
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", 6) + b"\x1c\x02x\0\1a"
    data = file("JPEG")
    segment = b"Photoshop 3.0\0" + resource
    marked = data[:2] + b"\xff\xed" + struct.pack(">H", 2 + len(segment)) + segment + data[2:]
    assert load_picture(marked).notes == ("text left out: IPTC",)
    further = b"http://ns.adobe.com/xmp/extension/\0" + bytes(40)
    marked = data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(further)) + further + data[2:]
    assert load_picture(marked).notes == ("text left out: extended XMP",)


@pytest.mark.parametrize("keyword", [b"icc_profile", b"exif", b"xmp", b"dpi", b"transparency", b"gamma", b"\xff", b""])
def test_no_name_of_a_text_is_taken_for_something_else(keyword):
    picture = load_picture(png(GREY, (b"tEXt", keyword + b"\0words")))
    assert picture.metadata == Metadata() and picture.alpha is None


def test_what_stands_behind_the_pixels_is_found():
    icc, xmp = profile.rgb_profile(profile.ADOBE_RGB), b"<x/>"
    tags = Image.Exif()
    tags[0x010E] = "a picture"
    late = chunk(b"eXIf", tags.tobytes()[6:]) + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    for depth in (8, 16):
        picture = load_picture(png(GREY, depth=depth, late=late))
        assert picture.metadata == Metadata(exif=tags.tobytes()[6:], xmp=xmp)
    assert load_picture(png(GREY, (b"iCCP", b"name\0\0" + zlib.compress(icc)))).metadata.icc == icc


def test_metadata_in_hexadecimal():
    tags = Image.Exif()
    tags[0x010E] = "a picture"

    def raw(name: bytes, content: bytes) -> tuple[bytes, bytes]:
        words = b"\n%s\n%8d\n%s\n" % (name, len(content), content.hex().encode())
        return b"zTXt", b"Raw profile type " + name + b"\0\0" + zlib.compress(words)

    picture = load_picture(png(GREY, raw(b"exif", tags.tobytes()), raw(b"xmp", b"<x/>")))
    assert picture.metadata == Metadata(exif=tags.tobytes()[6:], xmp=b"<x/>")
    assert load_picture(png(GREY, raw(b"iptc", b"words"))).notes == ("text left out: Raw profile type iptc",)
    broken = load_picture(png(GREY, (b"tEXt", b"Raw profile type exif\0no hexadecimal")))
    assert broken.metadata == Metadata()


@pytest.mark.parametrize("packed", [True, False])
def test_three_megabytes_of_xmp_are_no_broken_image(packed):
    info, xmp = PngImagePlugin.PngInfo(), "<x>" + "a" * 3_000_000 + "</x>"
    info.add_itxt("XML:com.adobe.xmp", xmp, zip=packed)
    source = file("PNG", pnginfo=info)
    assert load_picture(source).metadata.xmp == xmp.encode()
    assert load_picture(source, strip=True).metadata == Metadata()
    other = PngImagePlugin.PngInfo()
    other.add_text("parameters", "a" * 3_000_000, zip=packed)
    assert load_picture(file("PNG", pnginfo=other)).notes == ("text left out: parameters",)


def test_large_profiles_are_read_too():
    icc = profile.rgb_profile(profile.ADOBE_RGB)
    large = struct.pack(">I", 1_500_000) + icc[4:] + bytes(1_500_000 - len(icc))
    assert load_picture(file("PNG", icc_profile=large)).metadata.icc == large


def test_more_than_the_format_takes_is_refused_and_the_way_out_is_named():
    bomb = zlib.compress(bytes(MAX_METADATA + 100))
    for extra in ((b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb), (b"iCCP", b"name\0\0" + bomb)):
        source = png(GREY, extra)
        if extra[0] == b"iTXt":
            with pytest.raises(PrancImgError, match=r"XMP are more than 16777216: --strip \(strip=True\) leaves"):
                prancimg.encode(source, effort=1)
        assert prancimg.info(prancimg.encode(source, effort=1, strip=True))["metadata"] == {
            "icc": 0,
            "exif": 0,
            "xmp": 0,
        }


@pytest.fixture(scope="module")
def heavy(tmp_path_factory):
    """A JPEG with 4 kB of EXIF that no program can make smaller."""
    tags = Image.Exif()
    tags[0x9286] = np.random.default_rng(0).bytes(4000)
    path = tmp_path_factory.mktemp("heavy") / "heavy.jpg"
    path.write_bytes(file("JPEG", exif=tags))
    return path


def test_metadata_that_take_more_than_a_third_are_said(heavy, tmp_path, capsys):
    out = str(tmp_path / "a.prc")
    assert main(["encode", str(heavy), out, "-e", "1", "--size", "4300"]) == 0
    line = capsys.readouterr().err.splitlines()[-1]
    share = prancimg.info(out)["segments"]["exif"] / prancimg.info(out)["bytes"]
    assert line == f"{out}: EXIF takes {100 * share:.0f} % of the file; --strip leaves out metadata" and share > 0.9
    assert main(["encode", str(heavy), out, "-e", "1", "--size", "4300", "--strip"]) == 0
    assert "EXIF" not in capsys.readouterr().err
    light = prancimg.encode(GREY, effort=1, exif=b"MM\0*\0\0\0\x08\0\0\0\0\0\0", size=200, lossless=False)
    assert remarks(light) == []


def test_a_refusal_names_the_way_out(heavy):
    with pytest.raises(PrancImgError, match=r"alone take 40\d\d; --strip \(strip=True\) leaves out 40\d\d of metadata"):
        prancimg.encode(heavy, effort=1, size=1000)
    with pytest.raises(PrancImgError, match=r"--strip \(strip=True\) leaves out 40\d\d of metadata"):
        prancimg.encode(heavy, effort=1, size=4050)
    assert len(prancimg.encode(heavy, effort=1, size=1000, strip=True)) <= 1000


def test_the_summary_of_a_batch_says_it_too(heavy, tmp_path):
    assert main(["batch", str(heavy), str(tmp_path), "-e", "1", "--size", "4300", "--quiet"]) == 0
    assert "EXIF takes" in (tmp_path / "summary.csv").read_text()


def test_the_resolution_goes_through_a_file_of_ours():
    data = prancimg.encode(file("PNG", dpi=(300, 300)), effort=1, quality=20)
    assert prancimg.decode(data).info["dpi"] == (300, 300)
    assert prancimg.info(data)["metadata"]["exif"] == 66 and prancimg.info(data)["segments"]["exif"] < 60
