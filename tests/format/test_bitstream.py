"""The container: literal bytes, round trips, and a refusal for everything else."""

import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prancimg.errors import PrancImgError
from prancimg.format import bitstream
from prancimg.format.bitstream import SIGNATURE, read, read_varint, varint, write
from prancimg.format.header import MAX_WORK, PLANS, Coded, Header, step_size
from prancimg.format.layout import Kind

TENSORS = (Coded(12, 50, 10), Coded(6, 51, 11), Coded(30, 52, 12), Coded(0), Coded(18, 54, 14), Coded(3, 55, 15))
HEADER = Header(768, 512, prior=0, hidden=6, layers=2, seed=7, kind=3, tensors=TENSORS)
FIELD = replace(
    HEADER, hidden=2, layers=1, channels=1, luma_from=1, chroma_from=2, rate=140, step=166, tensors=(Coded(0),) * 23
)


def fixed(body: bytes) -> bytes:
    """A segment with its checksum."""
    return body + zlib.crc32(body).to_bytes(4, "little")


def test_a_file_byte_by_byte():
    assert write([(1, b"head"), (2, b"")]) == (
        b"\x8bPRC\r\n\x1a\n"  # signature
        b"\x01"  # version
        + fixed(b"\x01\x04head")  # kind, length, payload, checksum
        + fixed(b"\x02\x00")
    )


def test_a_header_byte_by_byte():
    assert HEADER.pack().hex(" ") == (
        "80 06 80 04 00 06 02 00 07 03 "  # 768, 512, prior, hidden, layers, channels, seed, kind
        "0c 32 0a 06 33 0b 1e 34 0c 00 12 36 0e 03 37 0f"  # for every tensor: k; where it is not 0, step and scale
    )
    assert Header.unpack(HEADER.pack()) == HEADER


def test_a_field_header_byte_by_byte():
    assert FIELD.pack().hex(" ") == (
        "80 06 80 04 00 02 01 01 07 03 "  # 768, 512, prior, hidden, layers, channels, seed, kind
        "01 02 8c 01 a6 01 " + " ".join(["00"] * 23)  # luma_from, chroma_from, rate, step  # for every tensor: k
    )
    assert Header.unpack(FIELD.pack()) == FIELD
    assert FIELD.pyramid.levels == 7 and FIELD.pyramid.grids[-1].key == (0, 1)


PAINTED = (Coded(64, 56, 9), Coded(0), Coded(48, 48, 11), Coded(3, 40, 12), *[Coded(0)] * 19)
BRIEF = Header(768, 512, seed=7, tensors=PAINTED, luma_from=1, chroma_from=2, rate=140, step=166, **PLANS[1].scalars)


def test_a_brief_header_byte_by_byte():
    assert BRIEF.pack().hex(" ") == (
        "00 01 "  # brief, plan
        "80 06 80 04 07 01 02 8c 01 a6 01 "  # 768, 512, seed, luma_from, chroma_from, rate, step
        "0a 00 0c 0d " + " ".join(["00"] * 15)  # for every tensor of the plan: 0, or its scale and 1
    )
    assert Header.unpack(BRIEF.pack()) == BRIEF and BRIEF.plan == 1
    frozen = replace(BRIEF, tensors=(Coded(0),) * 23)
    assert frozen.pack().hex(" ") == "00 00 80 06 80 04 07 01 02 8c 01 a6 01" and Header.unpack(frozen.pack()) == frozen


@pytest.mark.parametrize("pace", [1, 2, 3])
def test_the_pace_of_learning_is_part_of_another_number(pace):
    brief, full = (replace(header, pace=pace) for header in (BRIEF, FIELD))
    assert brief.pack() == bytes([0, 1 + 32 * pace]) + BRIEF.pack()[2:] and Header.unpack(brief.pack()) == brief
    assert full.pack()[9] == 3 + 4 * pace and FIELD.pack()[9] == 3 and Header.unpack(full.pack()) == full


@given(st.sampled_from(range(len(PLANS))), st.lists(st.integers(0, 100), min_size=26, max_size=26))
def test_headers_that_follow_a_plan_are_brief_and_round_trip(number, scales):
    full = Header.unpack(bytes([0, number, 9, 9, 0, 0, 0, 9, 9]) + bytes([1]) * len(PLANS[number].adapted))
    tensors = [
        replace(how, scale=s - 1) if s and how.k else Coded(0) for how, s in zip(full.tensors, scales, strict=False)
    ]
    header = replace(full, tensors=tuple(tensors))
    assert len(header.pack()) <= 9 + len(PLANS[number].adapted) and Header.unpack(header.pack()) == header


@pytest.mark.parametrize(
    "change",
    [
        {"kind": Kind.HADAMARD},
        {"prior": 1},
        {"tensors": (Coded(63, 56, 9), *PAINTED[1:])},
        {"tensors": (Coded(64, 57, 9), *PAINTED[1:])},
        {"tensors": (*PAINTED[:4], Coded(1, 56, 9), *PAINTED[5:])},
    ],
)
def test_headers_beside_all_plans_say_everything(change):
    header = replace(BRIEF, **change)
    assert header.plan is None and header.pack()[0] != 0 and Header.unpack(header.pack()) == header


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0", "cut short"),
        (b"\0\x08" + BRIEF.pack()[2:], "plan 8"),
        (b"\0\x1f" + BRIEF.pack()[2:], "plan 31"),
        (b"\0\x80\x01" + BRIEF.pack()[2:], "plan 128"),
        (replace(BRIEF, width=0).pack(), "width 0"),
        (replace(BRIEF, step=256).pack(), "step 256"),
        (replace(BRIEF, tensors=(Coded(64, 56, 100), *PAINTED[1:])).pack(), "scale 101"),
        (BRIEF.pack()[:-1], "cut short"),
        (BRIEF.pack() + b"\0", "longer"),
        (replace(BRIEF, width=2**15, height=2**15).pack(), "too large for so many pixels"),
    ],
)
def test_brief_headers_beyond_the_caps_are_refused(data, message):
    with pytest.raises(PrancImgError, match=message):
        Header.unpack(data)


@given(st.integers(0, 2**64 - 1))
def test_varints_round_trip(number):
    assert read_varint(b"x" + varint(number), 1) == (number, 1 + len(varint(number)))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 10, b"\xff" * 9 + b"\x7f"])
def test_bad_varints_are_refused(data):
    with pytest.raises(PrancImgError):
        read_varint(data, 0)


def test_steps_grow_by_eighths_of_an_octave():
    assert [step_size(code) for code in range(18)] == [*range(8, 16), *range(16, 32, 2), 32, 36]


def with_first(**change: int) -> tuple[Coded, ...]:
    return (replace(TENSORS[0], **change), *TENSORS[1:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 2**20 + 1}, "height"),
        ({"hidden": 0}, "hidden"),
        ({"hidden": 513}, "hidden"),
        ({"layers": 17}, "layers"),
        ({"channels": 17}, "channels"),
        ({"kind": 16}, "kind"),
        ({"pace": 1}, "nothing to learn"),
        ({"tensors": with_first(k=13)}, "coefficients of w0 13"),
        ({"tensors": with_first(step=136)}, "step 136"),
        ({"tensors": with_first(scale=100)}, "scale 100"),
        ({"tensors": TENSORS[:-1]}, "cut short"),
        ({"tensors": (*TENSORS, Coded(0))}, "longer"),
        ({"width": 2**20, "height": 2**20}, "too large for so many pixels"),
        (
            {"kind": 1, "hidden": 500, "tensors": (*[Coded(0)] * 2, Coded(249_999), *[Coded(0)] * 3)},
            "entries",
        ),
    ],
)
def test_headers_beyond_the_caps_are_refused(change, message):
    with pytest.raises(PrancImgError, match=message):
        Header.unpack(replace(HEADER, **change).pack())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"luma_from": 7}, "luma_from 7"),
        ({"chroma_from": 7}, "chroma_from 7"),
        ({"rate": 256}, "rate 256"),
        ({"step": 256}, "step 256"),
        ({"tensors": FIELD.tensors[:-1]}, "cut short"),
        ({"tensors": (Coded(3), *FIELD.tensors[1:])}, "coefficients of w0 3"),
        ({"width": 2**16, "height": 2**16, "luma_from": 6, "chroma_from": 6}, "too large for so many pixels"),
        ({"width": 2**15, "height": 2**15, "luma_from": 0, "chroma_from": 0}, "too large for so many coefficients"),
        ({"width": 3, "height": 2**20}, "steps"),
        ({"width": 2**20, "height": 1, "chroma_from": 0}, "steps"),
    ],
)
def test_field_headers_beyond_the_caps_are_refused(change, message):
    with pytest.raises(PrancImgError, match=message):
        Header.unpack(replace(FIELD, **change).pack())


def test_segments_round_trip_and_unknown_optional_ones_are_kept():
    data = write([(1, b"head"), (2, b"weights"), (18, b"coarse"), (16, b"fine"), (200, b"extra")])
    assert read(data) == {1: b"head", 2: b"weights", 18: b"coarse", 16: b"fine", 200: b"extra"}


GOOD = write([(1, b"head"), (2, b"weights")])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "not a .prc file"),
        (SIGNATURE[:5], "ends within its signature"),
        (SIGNATURE, "ends within its signature"),
        (SIGNATURE + b"\x02", "version 2"),
        (GOOD[:-1], "cut short"),
        (GOOD[:9], "header segment is missing"),
        (write([(1, b"head")]), "weights segment is missing"),
        (write([(1, b""), (1, b""), (2, b"")]), "more than one header"),
        (write([(1, b""), (2, b""), (99, b"")]), "feature 99"),
        (GOOD + b"\x00", "the last 1 bytes of the file are damaged, or do not belong to it"),
        (GOOD + bytes(512), "the last 512 bytes of the file are damaged, or do not belong to it"),
        (GOOD.replace(b"\r\n", b"\n"), "not a .prc file"),
    ],
)
def test_other_bytes_are_refused_with_a_reason(data, message):
    with pytest.raises(PrancImgError, match=message):
        read(data)


@given(st.integers(9 * 8, len(GOOD) * 8 - 1))
def test_every_flipped_bit_is_noticed(bit):
    data = bytearray(GOOD)
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(PrancImgError):
        read(bytes(data))


@given(st.integers(0, len(GOOD) - 1))
def test_every_truncation_is_noticed(length):
    with pytest.raises(PrancImgError):
        read(GOOD[:length])


def test_checksums_are_taken_of_a_few_times_the_files_size(monkeypatch):
    """Also of files in which everything looks like a segment up to the end, or up to beyond it."""
    taken, crc32 = [], zlib.crc32
    monkeypatch.setattr(zlib, "crc32", lambda data, *value: taken.append(len(data)) or crc32(data, *value))
    size = 60_000
    to_the_end = b"".join(b"\x84" + varint(size - p - 8) for p in range(0, size - (1 << 14) - 8, 4)).ljust(size, b"x")
    for rest in (to_the_end, b"\x84" * size, (b"\x84" + varint(1 << 30)) * (size // 6)):
        data = GOOD + b"\x10" + varint(1 << 30) + rest
        taken.clear()
        with pytest.raises(PrancImgError, match="bytes or more are missing"):
            read(data)
        assert sum(taken) < 10 * len(data)


def test_a_length_that_hides_a_whole_segment_is_damage_and_not_a_cut():
    hidden = write([(17, b"more"), (16, bytes(300))])[9:]
    for rest, kind in ((hidden, 0), (hidden[:-1], 18), (b"none at all", 18)):
        damage = bitstream.salvage(GOOD + b"\x12" + varint(1 << 20) + rest)[1]
        assert damage is not None and damage.kind == kind


@given(st.binary(max_size=100))
def test_any_header_parses_or_is_refused(data):
    try:
        header = Header.unpack(data)
    except PrancImgError:
        return
    assert Header.unpack(header.pack()) == header
    assert header.width * header.height <= MAX_WORK
