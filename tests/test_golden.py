"""Files made once and kept forever decode to the same integers and, within a level, to the same picture."""

import json
from pathlib import Path

import numpy as np
import pytest
from golden.integers import digests
from PIL import Image

import prancimg

FOLDER = Path(__file__).parent / "golden"
FILES = sorted(FOLDER.glob("*.prc"))


def test_there_are_golden_files():
    assert "siren.prc" in {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_golden_file_decodes_to_the_same_integers(path):
    assert digests(path.read_bytes()) == json.loads(path.with_suffix(".json").read_text())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_golden_file_decodes_to_the_same_picture(path):
    with Image.open(path.with_suffix(".png")) as image:
        expected = np.asarray(image).astype(int)
    assert np.abs(np.asarray(prancimg.decode(path)) - expected).max() <= 1
