"""What the golden files decode to here, as JSON: are the integers right, and how many samples differ?

python -m tests.golden.report     # in the project's root; needs only what decoding needs
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

import prancimg
from tests.golden.integers import digests

FOLDER = Path(__file__).parent


def report() -> dict:
    """Versions, NumPy's kernels, and by file: integers right, number of samples, of those off by one level, by more."""
    files = {}
    for path in sorted(FOLDER.glob("*.prc")):
        entry = {"integers": digests(path.read_bytes()) == json.loads(path.with_suffix(".json").read_text())}
        if path.with_suffix(".png").exists():
            with Image.open(path.with_suffix(".png")) as image:
                off = np.abs(np.asarray(prancimg.decode(path)).astype(int) - np.asarray(image))
            entry |= {"samples": off.size, "by one": int((off == 1).sum()), "by more": int((off > 1).sum())}
        files[path.stem] = entry
    versions = {name: version(name) for name in ("numpy", "pillow", "constriction")}
    return {"python": sys.version.split()[0], **versions, "kernels": kernels(), "files": files}


def kernels() -> list[str]:
    """What NumPy has kernels for beyond its least processor, and this processor has."""
    try:
        from numpy._core import _multiarray_umath as umath
    except ImportError:  # before 2.0
        from numpy.core import _multiarray_umath as umath
    return [name for name in umath.__cpu_dispatch__ if umath.__cpu_features__[name]]


def totals(found: dict) -> dict[str, int]:
    """Sums over the files of a report."""
    files = found["files"].values()
    return {
        "files": len(files),
        "wrong integers": sum(not entry["integers"] for entry in files),
        **{key: sum(entry.get(key, 0) for entry in files) for key in ("samples", "by one", "by more")},
    }


if __name__ == "__main__":
    print(json.dumps(report()))
