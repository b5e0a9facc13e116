"""The beginning of a file is a softer picture; what is damaged is left out, and what is left out is said."""

import itertools
import warnings

import numpy as np
import pytest

import prancimg
from prancimg import PrancImgError
from prancimg.apps.cli import main
from prancimg.decoding import decoder
from prancimg.format import bitstream
from prancimg.format.bitstream import Segment
from prancimg.format.header import Header
from prancimg.format.layout import Pyramid
from prancimg.format.range_coder import Decoder, Encoder
from prancimg.network import context
from tools.make_golden import FOLDER, field

FILE = field(40, 30, (0, 1))
SEGMENTS = bitstream.read(FILE)
SIZES = [len(bitstream.write([segment])) - 9 for segment in SEGMENTS.items()]
ENDS = dict(zip(SEGMENTS, (9 + end for end in itertools.accumulate(SIZES)), strict=True))


def salvaged(data: bytes) -> tuple[np.ndarray, str]:
    """The picture of damaged bytes, and the warning."""
    with pytest.warns(UserWarning) as caught:
        picture = np.asarray(prancimg.decode(data, allow_partial=True)).astype(int)
    assert len(caught) == 1
    return picture, str(caught[0].message)


def grids(data: bytes) -> dict:
    """The field of the beginning of a file."""
    segments, damage = bitstream.salvage(data)
    header = Header.unpack(segments[Segment.HEADER])
    theta = decoder.Model.of(header).theta0
    return decoder.read_field_prefix(header, segments, theta, damage)[0]


def test_the_order_is_coarse_to_fine():
    assert list(SEGMENTS) == [1, 2, 18, 17, 16]


def test_every_byte_received_adds_and_nothing_is_wrong():
    """Whatever a prefix gives is what the whole file has there; the more bytes, the more of it."""
    whole, before = grids(FILE), 0
    total = sum(grid.size for grid in whole.values())
    for cut in [*range(ENDS[2], len(FILE), len(FILE) // 9), len(FILE)]:
        beginning = grids(FILE[:cut])
        assert all(np.isin(beginning[key] - whole[key], [0]).all() or (beginning[key] == 0).any() for key in whole)
        wrong = [key for key in whole if ((beginning[key] != whole[key]) & (beginning[key] != 0)).any()]
        assert not wrong
        right = sum(int((beginning[key] == whole[key]).sum()) for key in whole)
        assert right >= before
        before = right
    assert before == total


def test_the_picture_sharpens_with_the_bytes():
    sharp = np.asarray(prancimg.decode(FILE)).astype(int)
    errors = [np.square(salvaged(FILE[: ENDS[kind]])[0] - sharp).mean() for kind in (2, 18, 17)]
    assert errors == sorted(errors, reverse=True) and errors[-1] > 0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (FILE[:-5], r"1 bytes or more.*part of level 0"),
        (FILE[:-4], r"4 bytes or more.*part of level 0"),
        (FILE[: ENDS[17]], r"cut short; its field lacks level 0 \(\d+ % of its coefficients\)"),
        (FILE[: ENDS[17] + 1], "within a number.*level 0"),
        (FILE[: ENDS[18] + 30], r"part of level 1 and level 0"),
        (FILE[: ENDS[2]], r"levels 0 to 3 \(100 %"),
    ],
)
def test_what_is_missing_is_said(data, said):
    data = data if data != FILE[:-5] else FILE[:-1]
    assert salvaged(data)[0].shape == (30, 40, 3)
    with pytest.warns(UserWarning, match=said):
        prancimg.decode(data, allow_partial=True)
    with pytest.raises(PrancImgError, match=r"missing|cut short"):
        prancimg.decode(data)


@pytest.mark.parametrize("kind", [2, 18, 17])
def test_a_file_cut_between_segments_is_not_whole_to_anybody(kind):
    for read in (prancimg.decode, prancimg.info, prancimg.open, decoder.decode_array):
        with pytest.raises(PrancImgError, match=r"cut short: its field lacks level.* % of its coefficients"):
            read(FILE[: ENDS[kind]])


def flipped(at: int) -> bytes:
    return FILE[:at] + bytes([FILE[at] ^ 4]) + FILE[at + 1 :]


@pytest.mark.parametrize(("kind", "kept"), [(18, 2), (17, 18), (16, 17)])
def test_damage_is_contained(kind, kept):
    """A damaged segment and all behind it count as missing, wherever in the segment the damage is."""
    expected = salvaged(FILE[: ENDS[kept]])[0]
    start = ENDS[kept]
    for at in (start, start + 1, start + 9):
        picture, said = salvaged(flipped(at))
        assert np.array_equal(picture, expected), at
        assert "its field lacks level" in said


@pytest.mark.parametrize("kind", [1, 2])
def test_without_header_or_network_there_is_no_picture(kind):
    for data in (flipped(ENDS[kind] - 6), FILE[: ENDS[kind] - 1]):
        with pytest.raises(PrancImgError, match=r"damaged|cut short"):
            prancimg.decode(data, allow_partial=True)


def test_damage_behind_the_field_costs_nothing():
    data = bitstream.write([*SEGMENTS.items(), (200, b"some text")])[:-2]
    picture, said = salvaged(data)
    assert np.array_equal(picture, prancimg.decode(FILE)) and "its field" not in said


def test_whole_files_are_decoded_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert prancimg.decode(FILE, allow_partial=True) == prancimg.decode(FILE)


def test_segments_out_of_order_are_refused():
    order = [1, 2, 17, 18, 16]
    with pytest.raises(PrancImgError, match="order"):
        prancimg.decode(bitstream.write([(kind, SEGMENTS[kind]) for kind in order]))


def test_a_global_network_has_no_beginning():
    data = (FOLDER / "siren-seeded.prc").read_bytes()
    with pytest.raises(PrancImgError, match="cut short"):
        prancimg.decode(data[:-1], allow_partial=True)


@pytest.mark.parametrize("rest", [b"", b"\0\0\0\0", b"\xff" * 8, b"\x80" * 40])
@pytest.mark.parametrize(("size", "pace"), [((1, 1), 0), ((16, 12), 0), ((3, 30), 0), ((24, 30), 2)])
def test_what_a_broken_off_stream_gives_does_not_depend_on_its_end(size, pace, rest):
    """Whatever follows the cut, the whole decoder agrees with all that the broken-off one was sure of."""
    pyramid, random = Pyramid(*size), np.random.default_rng(5)
    q = {g.key: np.rint(random.laplace(0, 2 + g.level, (g.height, g.width))).astype(np.int32) for g in pyramid.grids}
    header = Header.unpack(SEGMENTS[1])
    nets = context.networks(decoder.Model.of(header).theta0, 20, 128, pace)
    levels = range(pyramid.levels)
    stream = context.encode_field(pyramid, q, nets, levels)
    for cut in range(0, len(stream), max(4, len(stream) // 24 * 4)):
        sure = context.decode_field(pyramid, stream[:cut], nets, levels, {}, whole=False)
        assert all(((sure[key] == q[key]) | (sure[key] == 0)).all() for key in q)
        try:
            other = context.decode_field(pyramid, stream[:cut] + rest, nets, levels, {})
        except PrancImgError:
            continue
        assert all(((sure[key] == other[key]) | (sure[key] == 0)).all() for key in q)


def test_whole_streams_are_not_broken_off():
    encoder = Encoder()
    encoder.put(np.arange(-9, 9), 20)
    assert Decoder(encoder.finish()).take(18, 20).tolist() == list(range(-9, 9))


def test_the_command(tmp_path, capsys):
    path = tmp_path / "cut.prc"
    path.write_bytes(FILE[:-9])
    assert main(["decode", str(path)]) == 1
    assert "bytes or more are missing" in capsys.readouterr().err and not (tmp_path / "cut.png").exists()
    assert main(["decode", str(path), "--allow-partial"]) == 0
    said = capsys.readouterr().err
    assert said.startswith(f"prancimg: {path}: the file is cut short") and said.count("\n") == 1
    assert (tmp_path / "cut.png").exists()
