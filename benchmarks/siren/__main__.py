"""PRANC coefficients against directly trained SIRENs of the same bytes, and against JPEG.

    python -m benchmarks.siren --data FOLDER_OF_KODAK [--images 3 15 23] [--bpp 0.05 0.1 0.15] [--effort 7] [--jobs 2]

Every figure comes from a real file, decoded by the decoder. Finished cases are kept in results.json and not computed
again. The table is written to docs/siren.md.

pranc      prior θ0, coefficients of a pseudo-random orthogonal basis: what ``prancimg encode --model siren`` writes
identity   the same prior θ0, but direct weight offsets: the control for the basis
direct     the same fit, quantisation and coder, all weights of a SIREN from a seeded start, the best of three sizes
JPEG       Pillow, the better of 4:2:0 and 4:4:4, optimised Huffman tables, the best quality within the bytes
"""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pytorch_msssim import ms_ssim

from prancimg.basis import Kind
from prancimg.decoder import decode_array
from prancimg.encoder import EFFORTS, Plan, fit_to_size
from prancimg.siren import Siren

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
TABLE = HERE.parents[1] / "docs" / "siren.md"


def measure(original: np.ndarray, picture: np.ndarray) -> dict[str, float]:
    """PSNR (dB, RGB, 8 bits) and MS-SSIM of a decoded picture."""
    error = np.square(original.astype(np.float64) - picture).mean()
    tensors = [torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() for image in (original, picture)]
    return {"psnr": 10 * np.log10(255**2 / error), "ms_ssim": ms_ssim(*tensors, data_range=255).item()}


def jpeg(image: np.ndarray, size: int) -> bytes | None:
    """The JPEG file of the highest quality within ``size`` bytes, or None where even the lowest is larger."""
    best, least = None, np.inf
    for subsampling in ("4:2:0", "4:4:4"):
        for quality in range(1, 96):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=subsampling, optimize=True)
            if buffer.tell() <= size:
                error = np.square(np.asarray(Image.open(buffer), float) - image).mean()
                if error < least:
                    best, least = buffer.getvalue(), error
    return best


def plans(method: str, size: int) -> list[Plan]:
    """The networks a method may use for a file of ``size`` bytes; the best one counts."""
    default = Plan.of(8.0 * size)
    if method == "pranc":
        return [default]
    if method == "identity":
        return [Plan(default.siren, default.prior, Kind.IDENTITY, sum(default.siren.sizes))]
    return [
        Plan(siren, 0, Kind.IDENTITY, sum(siren.sizes))
        for siren in (direct_siren(8 * size / bits, layers) for bits, layers in ((5.0, 3), (3.5, 4), (2.5, 5)))
    ]


def direct_siren(parameters: float, layers: int) -> Siren:
    """The widest SIREN of at most so many parameters."""
    return max(
        (Siren(hidden, layers) for hidden in range(2, 200) if sum(Siren(hidden, layers).sizes) <= parameters),
        key=lambda siren: siren.hidden,
    )


def case(path: str, bpp: float, method: str, effort: int) -> dict[str, Any]:
    """One point: the best file of one method for one image at one rate."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    image = np.asarray(Image.open(path).convert("RGB"))
    size = int(bpp * image.shape[0] * image.shape[1] / 8)
    point: dict[str, Any] = {"image": Path(path).stem, "bpp_asked": bpp, "method": method, "effort": effort}
    if method == "jpeg":
        data = jpeg(image, size)
        if data is None:
            return {**point, "bytes": None}
        picture = np.asarray(Image.open(io.BytesIO(data)))
    else:
        made = [
            (plan, fit_to_size(image, plan, 0, size, EFFORTS[effort], torch.device("cpu")))
            for plan in plans(method, size)
        ]
        plan, best = min(made, key=lambda pair: pair[1].error)
        data, picture = best.data, decode_array(best.data)
        point |= {"hidden": plan.siren.hidden, "layers": plan.siren.layers, "k": plan.k}
        point["tried"] = [{"hidden": p.siren.hidden, "layers": p.siren.layers, "psnr": e.psnr} for p, e in made]
    seconds = time.perf_counter() - began
    return {**point, "bytes": len(data), **measure(image, picture), "seconds": round(seconds, 1)}
