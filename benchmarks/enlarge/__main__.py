"""Rendering at a larger size against enlarging the decoded picture, judged by the originals of half-size photos.

    python -m benchmarks.enlarge PHOTO... --bpp 0.5 1 2 --effort 2 --out results.json

``function``: ``prancimg.open(...).render`` at twice the size. ``lanczos``, ``bicubic``: Pillow's enlargement of the
decoded picture, before it is rounded to 8 bits. ``uncoded``: Lanczos enlargement of the half-size photo itself. All in
dB of PSNR over RGB against the original, on a part from its middle. ``coded``: the decoded half-size picture against
what was encoded.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

import prancimg
from prancimg.codec import load_image

FILTERS = {"lanczos": Image.Resampling.LANCZOS, "bicubic": Image.Resampling.BICUBIC}


def measure(photo: np.ndarray, bpp: float, effort: int) -> dict[str, float]:
    """PSNR of every way, and of the half-size picture itself."""
    height, width = (side // 2 for side in photo.shape[:2])
    half = np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.LANCZOS))
    picture = prancimg.open(prancimg.encode(half, bpp=bpp, effort=effort, seed=0))
    decoded = picture.array(depth=16).astype(np.float32) / 257
    result = {
        "coded": psnr(half, decoded),
        "function": psnr(photo, picture.array((2 * width, 2 * height), depth=16) / 257),
        "uncoded": psnr(photo, enlarged(half.astype(np.float32), FILTERS["lanczos"])),
    }
    return result | {name: psnr(photo, enlarged(decoded, kernel)) for name, kernel in FILTERS.items()}


def enlarged(samples: np.ndarray, kernel: Image.Resampling) -> np.ndarray:
    """Samples (h, w, 3) float32 at twice the size."""
    height, width = samples.shape[:2]
    planes = [Image.fromarray(np.ascontiguousarray(samples[:, :, i])) for i in range(3)]
    return np.stack([np.asarray(plane.resize((2 * width, 2 * height), kernel)) for plane in planes], 2).clip(0, 255)


def psnr(original: np.ndarray, samples: np.ndarray) -> float:
    """In dB, of 8-bit samples."""
    error = np.square(np.rint(samples) - original).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-10)))


def main() -> None:
    """Parse the command line, measure, print and write a JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--bpp", type=float, nargs="+", default=[1.0])
    parser.add_argument("--effort", type=int, default=2)
    parser.add_argument("--side", type=int, default=256, help="pixels a side of the part that is measured")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    results = []
    for path in args.photos:
        photo = load_image(path)
        top, left = (max(0, (side - args.side) // 2) for side in photo.shape[:2])
        part = photo[top : top + args.side, left : left + args.side]
        part = part[: part.shape[0] // 2 * 2, : part.shape[1] // 2 * 2]
        for bpp in args.bpp:
            row = {"photo": path.name, "bpp": bpp, **measure(part, bpp, args.effort)}
            results.append(row)
            print(
                {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}, flush=True
            )
            args.out.write_text(json.dumps(results, indent=1) + "\n")
    for bpp in args.bpp:
        rows = [row for row in results if row["bpp"] == bpp]
        means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0] if name not in ("photo", "bpp")}
        better = sum(row["function"] > row["lanczos"] for row in rows)
        print(
            f"{bpp} bpp:",
            {name: round(mean, 3) for name, mean in means.items()},
            f"function ahead on {better}/{len(rows)}",
        )


if __name__ == "__main__":
    main()
