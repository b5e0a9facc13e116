"""What each choice of the siren preset is worth, at equal bytes and equal steps of the fit.

python -m benchmarks.siren.ablation --photos FOLDER [--images 3] [--size 1229] [--steps 400]

Uses photographs (384 x 256), not Kodak: figures like these chose the recipe. Writes ablation.json and the second table
of docs/siren.md.
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

from benchmarks.siren.__main__ import TABLE, insert, scaled
from prancimg.fit.siren_encoder import Plan, fit_to_size, widest
from prancimg.format.layout import Kind

RESULTS = Path(__file__).parent / "ablation.json"


def variants(size: int) -> dict[str, Plan]:
    """Every choice by its name."""
    plan = Plan.of(8.0 * size)
    return {
        "prior, Hadamard basis (the preset)": plan,
        "identity basis, as many coefficients": replace(plan, kind=Kind.IDENTITY),
        "0.5 x the coefficients": scaled(plan, 0.5),
        "2 x the coefficients": scaled(plan, 2),
        "all coefficients (k = D)": Plan.direct(plan.siren, plan.prior),
        "no prior": replace(plan, prior=0),
        "no prior, direct weights, 4.4 bits each": Plan.direct(widest(8 * size / 4.4, 5)),
        "±1 basis, not orthogonal": replace(plan, kind=Kind.SIGN),
    }


def main() -> None:
    """Fit every photograph in every way."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.siren.ablation")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--size", type=int, default=1229)
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(options.photos.glob("*.png"))[: options.images]
    rows = []
    for name, plan in variants(options.size).items():
        began, psnr = time.perf_counter(), []
        for path in paths:
            image = np.asarray(ImageOps.fit(Image.open(path).convert("RGB"), (384, 256)))
            psnr.append(fit_to_size(image, plan, 0, options.size, options.steps, torch.device("cpu")).psnr)
        seconds = (time.perf_counter() - began) / len(paths)
        rows.append({"choice": name, "k": sum(plan.counts), "psnr": psnr, "seconds": round(seconds, 1)})
        print(rows[-1], flush=True)
    facts = {"photos": [path.stem for path in paths], "size": options.size, "steps": options.steps, "rows": rows}
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")
    lines = ["| choice | k | mean PSNR | against the preset | time |", "| --- | --- | --- | --- | --- |"]
    first = rows[0]
    for row in rows:
        mean, gain = np.mean(row["psnr"]), np.mean(row["psnr"]) - np.mean(first["psnr"])
        pace = row["seconds"] / first["seconds"]
        lines.append(f"| {row['choice']} | {row['k']} | {mean:.2f} dB | {gain:+.2f} dB | x {pace:.1f} |")
    insert(TABLE, "ablation", "\n".join(lines))


if __name__ == "__main__":
    main()
