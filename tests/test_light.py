"""Importing and info load no library at all, decoding never torch; the check itself can fail."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import prancimg

LIBRARIES = {"torch", "numpy", "PIL", "constriction"}


def loaded(code: str) -> set[str]:
    code += f"\nimport sys; print(*({LIBRARIES} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.fixture(scope="module", params=["field", "siren", "lossless"])
def file(tmp_path_factory, request):
    path = tmp_path_factory.mktemp("light") / "a.prc"
    how = {"lossless": True} if request.param == "lossless" else {"model": request.param, "size": 200, "effort": 1}
    path.write_bytes(prancimg.encode(np.full((8, 8, 3), 90, np.uint8), **{"lossless": False, **how}))
    return path


def test_import_is_light():
    assert not loaded("import prancimg, prancimg.apps.cli")


def test_info_is_light(file):
    assert not loaded(f"import prancimg; prancimg.info({str(file)!r})")
    assert not loaded(f"from prancimg.apps.cli import main; assert main(['info', {str(file)!r}]) == 0")


def test_decoding_is_light(file):
    assert loaded(f"import prancimg; prancimg.decode({str(file)!r})") == LIBRARIES - {"torch"}


def test_this_check_can_fail():
    assert "torch" in loaded("import prancimg.fit.encoder")


def test_everything_public_is_found_and_nothing_else():
    assert set(prancimg.__all__) <= set(dir(prancimg))
    assert all(getattr(prancimg, name) is not None for name in prancimg.__all__)
    with pytest.raises(AttributeError, match="'enconde'"):
        prancimg.enconde  # noqa: B018


def test_what_few_need_is_loaded_when_it_is_needed():
    further = "{'rich', 'argcomplete', 'distributed', 'imagecodecs', 'tifffile', 'pytorch_msssim', 'numba'}"
    code = f"import sys, prancimg.apps.cli; assert not {further} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


PACKAGE = Path(prancimg.__file__).parent
FOLDERS = ("format", "network", "decoding")
CORE = [f"{folder}.{path.stem}" for folder in FOLDERS for path in sorted((PACKAGE / folder).glob("[a-z]*.py"))]
CORE += ["pranc.compact", "images.picture", "images.save", "images.space", "images.exif"]


@pytest.mark.parametrize("module", CORE)
def test_the_core_loads_neither_torch_nor_what_is_above_it(module):
    above = "torch prancimg.fit prancimg.apps prancimg.codec prancimg.pranc.module prancimg.images.metrics"
    code = f"import sys; import prancimg.{module}; assert not {set(above.split())} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
