"""The specification is enough: a decoder written from it alone agrees with the library to the last integer."""

import json
import random
from pathlib import Path

import numpy as np
import plain_decoder
import pytest
import wide_prior
from golden.integers import digests, integers
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import prancimg
from prancimg import PrancImgError
from prancimg.format.header import FROZEN, PRANC
from prancimg.format.layout import Kind
from tools.fuzz import mutate
from tools.make_golden import field

FILES = {path.stem: path for path in sorted((Path(__file__).parent / "golden").glob("*.prc"))}
LOSSLESS = ["lossless", "lossless-raw", "lossless-png", "lossless-palette", "lossless-bits", "lossless-deep"]
PAINTED = ["siren-seeded", "siren-pixel", "field-row", "field-tall", "field-pixel", *LOSSLESS]
SMALL = ["siren-seeded", "siren-pixel", "field-pixel", "field-row", "lossless-raw", "lossless-palette", "lossless"]


@pytest.mark.parametrize("name", FILES)
def test_golden_files_have_the_same_integers(name):
    found = plain_decoder.decode(FILES[name].read_bytes(), picture=False)
    assert plain_decoder.digests(found) == json.loads(FILES[name].with_suffix(".json").read_text())


@pytest.mark.parametrize("name", PAINTED)
def test_golden_files_have_the_same_picture(name):
    picture = np.array(plain_decoder.decode(FILES[name].read_bytes())["picture"])
    with Image.open(FILES[name].with_suffix(".png")) as image:
        assert np.abs(picture - np.asarray(image.convert("RGB")).astype(int)).max() <= 1


def scrambler(choose: random.Random):
    def scramble(part: bytes) -> bytes:
        changed = bytearray(part or b"x")
        for _ in range(choose.randint(1, 3)):
            changed[choose.randrange(len(changed))] = choose.randrange(256)
        return bytes(changed)

    return scramble


@pytest.mark.parametrize(("adapted", "kind"), [(PRANC, Kind.SIGN), (FROZEN, Kind.SIGN), (PRANC, Kind.HADAMARD)])
def test_a_wide_context_and_learned_directions(monkeypatch, adapted, kind):
    with wide_prior.installed() as number:
        monkeypatch.setattr(plain_decoder, "read_prior", lambda _: wide_prior.packed())
        monkeypatch.setitem(plain_decoder.DESIGNS, number, (wide_prior.DESIGN.units, dict(wide_prior.DESIGN.learned)))
        learned = {f"learned.{part}": (96, None) for part, _ in wide_prior.DESIGN.learned}
        data = field(30, 21, (0, 1), {**adapted, **learned}, kind, prior=number)
        found = plain_decoder.decode(data)
        assert plain_decoder.digests(found) == digests(data)
        assert np.abs(np.array(found["picture"]) - prancimg.decode(data)).max() <= 1


@given(st.sampled_from(SMALL), st.integers(0, 2**32))
def test_changed_files_have_the_same_integers_too(name, seed):
    choose = random.Random(seed)
    data = mutate(FILES[name].read_bytes(), choose, scrambler(choose))
    try:
        expected = integers(data, max_pixels=400)
    except PrancImgError:
        return
    found = plain_decoder.decode(data, picture=False)
    assert {name: [v for values in parts for v in values] for name, parts in found.items()} == {
        name: values.tolist() for name, values in expected.items()
    }


@pytest.mark.parametrize("name", ["siren-seeded", "field-row", "lossless-raw"])
def test_what_one_refuses_the_other_refuses(name):
    whole = FILES[name].read_bytes()
    for at in range(0, len(whole), 7):
        for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 32]) + whole[at + 1 :]):
            with pytest.raises(PrancImgError):
                digests(data)
            with pytest.raises(plain_decoder.Bad):
                plain_decoder.decode(data, picture=False)
