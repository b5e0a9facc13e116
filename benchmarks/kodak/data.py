"""The 24 Kodak images: from a folder, or downloaded once into the user's cache."""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import platformdirs
from tqdm import tqdm

from prancimg.errors import PrancImgError

MIRRORS = (
    "https://r0k.us/graphics/kodak/kodak/",
    "https://www.cs.albany.edu/~xypan/research/img/Kodak/",
)
"""Tried in this order for every image. Whatever they send, it has to have the right checksum."""
TIMEOUT = 30
CHECKSUMS = {
    1: "a56e27cbf5f843c048b6af1d6e090760e9c92fadba88b7dee0205918a37523bd",
    2: "4f4b74a79237e311d72cad958237b5f7088d8bce1c82305ebefe1a70e3022dfd",
    3: "e25ca1ff2f0c0cb5fdfd5f9b0a0bb21ac4c3de3c84a67f35b09a85d3306249db",
    4: "e3b946107c5d3441c022f678d0c3caf1e224d81b1604ba840a4f88e562de61aa",
    5: "10349e963c5c813d327852f82c1795fa4148d69fedffc4c589bee458e3ac3d53",
    6: "363510303b715d4cbc384e1ce227e466b613a09e1b71ae985882bf8e7fbd9b18",
    7: "b77d3f006f42414bb242222e0482e750c0fb9e5ee8d4bed2f6f11c5605fe54a4",
    8: "ba23983c76b4832ee0e8af0592664756841a16779acd69f792e268fb6d13d6e7",
    9: "6a4361c2fc194feb4edaa9f9a4a0620fb9943e460ac7fdf037fb0f6dd6607a7d",
    10: "9dfb70f5867c29ff9ed6313683f19b3d867849e40fbc0c4c54a4a89df341cf23",
    11: "7936814b58b5387fce2e4e2488b4ec830dadd95fa9520f358ddb30990b50f2b6",
    12: "d78c37c2f04f23761ed2367dd77e2db584ddd4c3950833fecf89f199a8126980",
    13: "bc34a3ce58dea09dce1704c997171602de90cb34d0c8503a988b77f473d39b08",
    14: "55a94550ff18f3246c4074fd32b77b0c74447c26b6ad274d564d999c0450ba6e",
    15: "7538cbb80cb9103606c48b806eae57d56c885c7f90b9b3be70a41160f9cbb683",
    16: "a89c7268ccd4718ba424a99fc4643c572cf692ca6eae887185ceb4e9f11d2e54",
    17: "37afcc89fbdcb76d9518e04b2fc011027e2f4cd14b3b2f83cefd721641a47c5b",
    18: "1a9258c365988961d87a0598725b609139c303ad48a5aad6c503c3b1a87849aa",
    19: "b7450b264b1b0a411390d8931b112c27905a992520fc90569dc4b920aa32bbdc",
    20: "3b46c71e3b92a563820ba32936be8330c586c41f938efd94be938386aae4328a",
    21: "ac958597c82073f6bb65129c68f72b651db5b9efd82e11547d07350214bc268b",
    22: "1cee58eb1f2d9c7ebb254d208a03c783ce6cf2c4d8c2cf45e235dd23b4ce1b29",
    23: "e3111a2fd4da24af15d6459ef9eacfe54106b38e27b4a21821b75c3f5d2d5baf",
    24: "1071c68372cc5a01435c2c225a5cf7d4bb803846ec08bb6b3d6721b156d7cb96",
}
"""SHA-256 of the PNG files of the Kodak Lossless True Color Image Suite, free for use."""


def file_name(number: int) -> str:
    """``kodim01.png`` ... ``kodim24.png``."""
    return f"kodim{number:02}.png"


def images(numbers: Sequence[int], folder: Path | None) -> list[Path]:
    """The files of the images with these numbers: in ``folder``, or else in the cache, downloaded where missing."""
    if folder is None:
        folder = platformdirs.user_cache_path("prancimg") / "kodak"
        download(numbers, folder, MIRRORS)
    paths = [folder / file_name(number) for number in numbers]
    for path in paths:
        if not path.is_file():
            raise PrancImgError(f"{path}: no such file; --data is the folder of kodim01.png to kodim24.png")
    return paths


def download(numbers: Sequence[int], folder: Path, mirrors: Sequence[str]) -> None:
    """Fetch the images that ``folder`` lacks, each from the first mirror that sends it whole and unchanged."""
    missing = [number for number in numbers if not (folder / file_name(number)).is_file()]
    if not missing:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for number in tqdm(missing, "downloading", unit="image", leave=False, disable=not sys.stderr.isatty()):
        _fetch(number, folder, mirrors)


def _fetch(number: int, folder: Path, mirrors: Sequence[str]) -> None:
    name, troubles = file_name(number), []
    for mirror in mirrors:
        try:
            with urllib.request.urlopen(mirror + name, timeout=TIMEOUT) as answer:
                data = answer.read()
        except http.client.IncompleteRead:
            troubles.append(f"{mirror}: the connection was cut")
        except urllib.error.URLError as error:
            troubles.append(f"{mirror}: {error.reason}")
        except (OSError, http.client.HTTPException) as error:
            troubles.append(f"{mirror}: {error}")
        else:
            if hashlib.sha256(data).hexdigest() == CHECKSUMS[number]:
                write(folder / name, data)
                return
            troubles.append(f"{mirror}: wrong checksum")
    raise PrancImgError(
        f"cannot download {name} ({'; '.join(troubles)}); if you have the images, name their folder with --data"
    )


def write(path: Path, data: bytes) -> None:
    """Write all of a file or nothing; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
