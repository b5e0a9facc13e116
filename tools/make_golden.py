"""Make a golden file from a photo that comes with scikit-image.

python -m tools.make_golden NAME [--model siren] [--size 1500]

Writes tests/golden/NAME.prc, NAME.png (what it decodes to here) and NAME.json (hashes of its integers). A golden file
is never made again: a later decoder must read the one that is there.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

import prancimg
from prancimg.decoder import decode_array
from tests.golden.integers import digests


def main() -> None:
    """Encode, decode, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--model", default="siren")
    parser.add_argument("--size", type=int, default=1500)
    options = parser.parse_args()
    folder = Path(__file__).parents[1] / "tests" / "golden"
    if (folder / f"{options.name}.prc").exists():
        parser.error(f"{options.name}.prc exists, and golden files are kept forever")
    photo = np.asarray(Image.fromarray(data.coffee()).resize((120, 80), Image.Resampling.LANCZOS))
    file = prancimg.encode(photo, size=options.size, model=options.model, seed=2026)
    (folder / f"{options.name}.prc").write_bytes(file)
    Image.fromarray(decode_array(file)).save(folder / f"{options.name}.png", optimize=True)
    (folder / f"{options.name}.json").write_text(json.dumps(digests(file), indent=1) + "\n")


if __name__ == "__main__":
    main()
