"""Files made once and kept forever decode to the same integers and, within a level, to the same picture."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from golden.integers import digests
from PIL import Image

import prancimg
from prancimg.fit.setup import PRIOR as FIELD_PRIOR
from prancimg.fit.siren_encoder import LEAN_PRIOR, PRIOR
from prancimg.format.bitstream import read_beginning
from prancimg.format.header import Header
from prancimg.format.lossless import Coding, Lossless
from tools.make_golden import RECIPES, WILD

FOLDER = Path(__file__).parent / "golden"
FILES = sorted(FOLDER.glob("*.prc"))


PICTURES = [path for path in FILES if path.with_suffix(".png").exists()]


def test_there_is_a_golden_file_of_every_feature():
    assert {path.stem for path in FILES} == set(RECIPES) and {path.stem for path in PICTURES} == set(RECIPES) - WILD
    beginnings = [read_beginning(path.read_bytes())[0] for path in FILES]
    exact = [each for each in beginnings if isinstance(each, Lossless)]
    assert {(each.coding, each.depth) for each in exact} == set(itertools.product(Coding, (8, 16)))
    headers = [each for each in beginnings if isinstance(each, Header)]
    assert {(header.channels > 0, header.kind) for header in headers} == set(itertools.product((False, True), range(4)))
    assert {header.prior for header in headers} >= {0, PRIOR, LEAN_PRIOR, FIELD_PRIOR}
    scales = {coded.scale for header in headers for coded in header.tensors if coded.k}
    assert min(scales) == 0 and max(scales) > 95, "tables, and low bits"
    fields = [header for header in headers if header.channels]
    assert {header.pyramid.levels for header in fields} >= {1, 7}
    assert {(header.plan is None, header.pace) for header in fields} >= {(False, 2), (False, 3), (True, 1)}
    assert any(header.luma_from > 0 and header.chroma_from > header.luma_from for header in fields)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_golden_file_decodes_to_the_same_integers(path):
    assert digests(path.read_bytes()) == json.loads(path.with_suffix(".json").read_text())


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_a_golden_file_decodes_to_the_same_picture(path):
    with Image.open(path.with_suffix(".png")) as image:
        expected = np.asarray(image).astype(int)
    assert np.abs(np.asarray(prancimg.decode(path)) - expected).max() <= 1
