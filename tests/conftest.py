"""Settings and pictures that several test files share."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

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
