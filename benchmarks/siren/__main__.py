"""PRANC coefficients against directly trained SIRENs of the same bytes, and against JPEG.

    python -m benchmarks.siren --data FOLDER_OF_KODAK [--images 3 5] [--bpp 0.05 0.1] [--effort 5] [--methods direct]

Every figure comes from a real file, decoded by the decoder. Finished cases are kept in results.json and not computed
again. The table is written to docs/siren.md.

pranc      prior θ0, coefficients of a pseudo-random orthogonal basis: networks of ``prancimg encode --model siren``
identity   the same prior θ0 and numbers of coefficients, but each moves one weight: the control for the basis
direct     the same fit, quantisation and coder, all weights of a SIREN from a seeded start
JPEG       Pillow, the better of 4:2:0 and 4:4:4, optimised Huffman tables, the best quality within the bytes

The first two are each the best of three numbers of coefficients, the third of three sizes, all after whole fits.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from prancimg.decoding.decoder import decode_array
from prancimg.fit.siren_encoder import EFFORTS, Plan, fit_to_size, widest
from prancimg.format.layout import Kind
from prancimg.images.metrics import measure
from prancimg.network.basis import IDENTITY_UP_TO

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
TABLE = HERE.parents[1] / "docs" / "siren.md"


def jpeg(image: np.ndarray, size: int) -> bytes | None:
    """The JPEG file of the highest quality within ``size`` bytes, or None where even the lowest is larger."""
    best, least = None, np.inf
    for subsampling in ("4:2:0", "4:4:4"):
        for quality in range(96):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=subsampling, optimize=True)
            if buffer.tell() <= size:
                error = np.square(np.asarray(Image.open(buffer), float) - image).mean()
                if error < least:
                    best, least = buffer.getvalue(), error
    return best


SIZES = ((4.4, 8), (5.5, 8), (6.5, 7))
"""Bits for each weight, and layers, of direct networks: what served best on photographs, see docs/siren.md."""

COUNTS = (0.75, 1, 1.3)
"""Numbers of coefficients of the other two, times the usual one."""


def plans(method: str, size: int) -> list[Plan]:
    """The networks that a method may use for a file of ``size`` bytes."""
    if method == "direct":
        return [Plan.direct(widest(8 * size / bits, layers)) for bits, layers in SIZES]
    kind = Kind.HADAMARD if method == "pranc" else Kind.IDENTITY
    return [replace(scaled(Plan.of(8.0 * size), factor), kind=kind) for factor in COUNTS]


def scaled(plan: Plan, factor: float) -> Plan:
    """The plan with ``factor`` times the coefficients of the large tensors."""
    counts = [
        k if n <= IDENTITY_UP_TO else min(n, round(factor * k))
        for k, n in zip(plan.counts, plan.siren.sizes, strict=True)
    ]
    return replace(plan, counts=tuple(counts))


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
        point |= {"hidden": plan.siren.hidden, "layers": plan.siren.layers, "k": sum(plan.counts)}
        point["tried"] = [
            {"hidden": p.siren.hidden, "layers": p.siren.layers, "prior": p.prior, "k": sum(p.counts), "psnr": e.psnr}
            for p, e in made
        ]
    seconds = time.perf_counter() - began
    return {**point, "bytes": len(data), **measure(image, picture), "seconds": round(seconds, 1)}


METHODS = {"pranc": "PRANC", "identity": "identity basis", "direct": "direct", "jpeg": "JPEG"}


def table(points: list[dict[str, Any]]) -> str:
    """The results as Markdown: a row for each image and rate, PSNR and MS-SSIM for each method."""
    found = {(p["image"], p["bpp_asked"], p["method"]): p for p in points}
    rows = sorted({(p["bpp_asked"], p["image"]) for p in points})
    lines = [
        "| image | bpp | " + " | ".join(METHODS.values()) + " |",
        "| --- | --- |" + " --- |" * len(METHODS),
    ]
    for bpp, image in rows:
        cells = []
        for method in METHODS:
            point = found.get((image, bpp, method))
            if point is None or point["bytes"] is None:
                cells.append("–" if point is None else "cannot reach it")
            else:
                cells.append(f"{point['psnr']:.2f} dB, {point['ms_ssim']:.4f}")
        lines.append(f"| {image} | {bpp} | " + " | ".join(cells) + " |")
    for label, key, digits in (("mean PSNR of PRANC over", "psnr", 2), ("mean MS-SSIM of PRANC over", "ms_ssim", 4)):
        gains = []
        for method in METHODS:
            pairs = [
                (found[image, bpp, "pranc"][key], found[image, bpp, method].get(key))
                for bpp, image in rows
                if (image, bpp, "pranc") in found and (image, bpp, method) in found
            ]
            differences = [ours - theirs for ours, theirs in pairs if theirs is not None]
            gains.append(f"{np.mean(differences):+.{digits}f} ({len(differences)})" if differences else "–")
        lines.append(f"| {label} | | " + " | ".join(gains) + " |")
    ahead = []
    for method in METHODS:
        rivals = [found.get((image, bpp, method), {"bytes": None}) for bpp, image in rows]
        ours = [found.get((image, bpp, "pranc"), {}).get("psnr") for bpp, image in rows]
        pairs = [(a, b["psnr"]) for a, b in zip(ours, rivals, strict=True) if a is not None and b["bytes"] is not None]
        ahead.append(f"{sum(a > b for a, b in pairs)} of {len(pairs)}")
    lines.append("| PRANC ahead in PSNR | | " + " | ".join(["–", *ahead[1:]]) + " |")
    return "\n".join(lines)


def insert(page: Path, name: str, text: str) -> None:
    """Put text between the marks ``<!-- name -->`` and ``<!-- end of name -->`` of a page."""
    before, begin, rest = page.read_text().partition(f"<!-- {name} -->")
    _, end, after = rest.partition(f"<!-- end of {name} -->")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def main() -> None:
    """Compute what is missing, keep it, and write the table between the markers of docs/siren.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.siren")
    parser.add_argument("--data", type=Path, required=True, help="folder of the Kodak images, kodim01.png …")
    parser.add_argument("--images", type=int, nargs="+", default=[3, 5, 13, 15, 20, 23])
    parser.add_argument("--bpp", type=float, nargs="+", default=[0.05, 0.1, 0.15])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS])
    parser.add_argument("--effort", type=int, choices=range(1, 10), default=5)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    points = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    have = {(p["image"], p["bpp_asked"], p["method"], p["effort"]) for p in points}
    paths = [options.data / f"kodim{number:02}.png" for number in options.images]
    todo = [
        (str(path), bpp, method, options.effort)
        for bpp in options.bpp
        for path in paths
        for method in options.methods
        if (path.stem, bpp, method, options.effort) not in have
    ]
    with ProcessPoolExecutor(options.jobs) as pool:
        for done in as_completed([pool.submit(case, *arguments) for arguments in todo]):
            points.append(done.result())
            print(points[-1], flush=True)
            points.sort(key=lambda p: (p["effort"], p["bpp_asked"], p["image"], p["method"]))
            RESULTS.write_text(json.dumps(points, indent=1) + "\n")
    insert(TABLE, "table", table([p for p in points if p["effort"] == options.effort]))


if __name__ == "__main__":
    main()
