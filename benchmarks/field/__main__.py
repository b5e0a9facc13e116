"""What the parts of the field preset are worth: fits of one price and one number of steps, each through a real file.

    python -m benchmarks.field PHOTO... --price 1e-3 --steps 100 --out results.json

The loss is that of the decoded file: mean squared error on samples from 0 to 1 + price · bpp. ``preset`` chooses its
coefficients by the file's size; ``frozen`` keeps the networks of the prior, ``pranc`` adapts them along pseudo-random
directions, ``whole`` is the identity basis: all weights; ``blank`` starts from an empty field; to ``even``, a bit is
a bit at every level.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from prancimg import metrics
from prancimg.codec import load_image
from prancimg.decoder import decode_array
from prancimg.field_encoder import file_of
from prancimg.fit_field import FROZEN, PRANC, WHOLE, Setup, fit_field

SETUPS = {
    "preset": Setup(),
    "frozen": Setup(adapted=FROZEN),
    "pranc": Setup(adapted=PRANC),
    "whole": Setup(adapted=WHOLE),
    "blank": Setup(analytic=False),
    "even": Setup(dues=(1.0, 1.0, 1.0, 1.0)),
}


def measure(image: np.ndarray, price: float, steps: int, setup: Setup) -> dict[str, float]:
    """PSNR in dB, MS-SSIM, bpp, loss and seconds of one fit."""
    began = time.monotonic()
    fitted = fit_field(image, seed=0, iterations=steps, device=torch.device("cpu"), price=price, setup=setup)
    data = file_of(fitted, 0.0)
    seconds = time.monotonic() - began
    quality = metrics.measure(image, decode_array(data))
    bpp = 8 * len(data) / (image.shape[0] * image.shape[1])
    loss = 10 ** (-quality["psnr"] / 10) + price * bpp
    return {**quality, "bpp": bpp, "loss": loss, "seconds": seconds}


def main() -> None:
    """Parse the command line, measure, print and write a JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--price", type=float, nargs="+", default=[1e-3])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--setups", nargs="+", choices=list(SETUPS), default=list(SETUPS))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    results = []
    for photo in args.photos:
        image = load_image(photo)
        for price in args.price:
            for name in args.setups:
                row = measure(image, price, args.steps, SETUPS[name])
                results.append({"photo": photo.name, "price": price, "steps": args.steps, "setup": name, **row})
                print(photo.name, price, name, {key: round(value, 6) for key, value in row.items()}, flush=True)
                args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
