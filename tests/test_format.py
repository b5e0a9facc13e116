"""The specification is enough: a decoder written from it alone agrees with the library to the last integer."""

import json
import random
from pathlib import Path

import numpy as np
import plain_decoder
import pytest
from golden.integers import digests, integers
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prancimg import PrancImgError
from tools.fuzz import mutate

FILES = {path.stem: path for path in sorted((Path(__file__).parent / "golden").glob("*.prc"))}
PAINTED = ["siren-seeded", "siren-pixel", "field-row", "field-tall", "field-pixel"]
SMALL = ["siren-seeded", "siren-pixel", "field-pixel", "field-row"]


@pytest.mark.parametrize("name", FILES)
def test_golden_files_have_the_same_integers(name):
    found = plain_decoder.decode(FILES[name].read_bytes(), picture=False)
    assert plain_decoder.digests(found) == json.loads(FILES[name].with_suffix(".json").read_text())


@pytest.mark.parametrize("name", PAINTED)
def test_golden_files_have_the_same_picture(name):
    picture = np.array(plain_decoder.decode(FILES[name].read_bytes())["picture"])
    with Image.open(FILES[name].with_suffix(".png")) as image:
        assert np.abs(picture - np.asarray(image).astype(int)).max() <= 1


def scrambler(choose: random.Random):
    def scramble(part: bytes) -> bytes:
        changed = bytearray(part or b"x")
        for _ in range(choose.randint(1, 3)):
            changed[choose.randrange(len(changed))] = choose.randrange(256)
        return bytes(changed)

    return scramble


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


@pytest.mark.parametrize("name", ["siren-seeded", "field-row"])
def test_what_one_refuses_the_other_refuses(name):
    whole = FILES[name].read_bytes()
    for at in range(0, len(whole), 7):
        for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 32]) + whole[at + 1 :]):
            with pytest.raises(PrancImgError):
                digests(data)
            with pytest.raises(plain_decoder.Bad):
                plain_decoder.decode(data, picture=False)
