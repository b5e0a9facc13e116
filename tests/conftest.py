"""Settings and pictures that several test files share."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

if not Path("/dev/nvidia0").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # Triton looks at it when it is imported

settings.register_profile("project", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("project")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def kodak() -> Path:
    """The folder of the Kodak images, which lie outside the project."""
    folder = SHARED / "kodak"
    if not folder.is_dir():
        pytest.skip("the Kodak images are not here")
    return folder


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A small photo (96, 128, 3) uint8 from scikit-image."""
    from PIL import Image
    from skimage import data

    return np.asarray(Image.fromarray(data.coffee()).resize((128, 96), Image.Resampling.LANCZOS))


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Two small photos under the names of Kodak images; MS-SSIM needs 161 pixels a side."""
    from PIL import Image
    from skimage import data

    folder = tmp_path_factory.mktemp("photos")
    for number, photo in ((1, data.coffee()), (2, data.astronaut())):
        Image.fromarray(photo).resize((224, 176), Image.Resampling.LANCZOS).save(folder / f"kodim{number:02}.png")
    return folder


@pytest.fixture(scope="session")
def kodak_report(photos, tmp_path_factory) -> Path:
    """The output of one whole run."""
    from benchmarks.kodak.__main__ import main
    from prancimg.fit import siren_encoder

    out = tmp_path_factory.mktemp("report")
    chosen = ["--codecs", "siren", "jpeg", "webp", "--images", "1", "2", "--bpp", "0.25", "0.5", "--effort", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(siren_encoder.EFFORTS, 1, 60)  # steps of a fit; enough for figures that rise with the rate
        assert main([*chosen, "--data", str(photos), "--out", str(out)]) == 0
    return out
