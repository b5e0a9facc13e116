"""Which pseudo-random basis serves a SIREN: quality and time at equal bytes, coefficients and steps of the fit.

python -m benchmarks.siren.basis --photos FOLDER [--images 2] [--size 2458] [--steps 300]

Uses photographs, not Kodak: these figures chose the basis. Prints a Markdown table and writes basis.json.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from prancimg.basis import Kind
from prancimg.encoder import Plan, fit_to_size

RESULTS = Path(__file__).parent / "basis.json"


def main() -> None:
    """Fit every photograph with every kind of basis."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.siren.basis")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--size", type=int, default=2458)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    plan = Plan.of(8.0 * options.size)
    points = []
    print("| photograph | basis | PSNR | seconds |\n| --- | --- | --- | --- |")
    for path in sorted(options.photos.glob("*.png"))[: options.images]:
        image = np.asarray(ImageOps.fit(Image.open(path).convert("RGB"), (768, 512)))
        for kind in (Kind.HADAMARD, Kind.SIGN, Kind.POPCOUNT, Kind.IDENTITY):
            began = time.perf_counter()
            made = fit_to_size(image, replace(plan, kind=kind), 0, options.size, options.steps, torch.device("cpu"))
            seconds = time.perf_counter() - began
            points.append({"photo": path.stem, "basis": kind.name.lower(), "psnr": made.psnr, "seconds": seconds})
            print(f"| {path.stem} | {kind.name.lower()} | {made.psnr:.2f} dB | {seconds:.0f} |", flush=True)
    facts = {"size": options.size, "steps": options.steps, "k": sum(plan.counts), "points": points}
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
