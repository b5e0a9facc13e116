"""PSNR against bytes received: what the beginning of a file shows.

python -m benchmarks.progressive [--bpp 1] [--effort 3] [--width 256] [--points 24] --out docs/progressive

Encodes three photos of scikit-image once each, cuts the file at many lengths, decodes what is left with
``allow_partial`` and writes OUT.json and OUT.svg.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

import prancimg
from prancimg.format import bitstream


def photos(width: int) -> dict[str, np.ndarray]:
    """Three photos (height, width, 3) uint8."""
    from skimage import data

    found = {"astronaut": data.astronaut(), "coffee": data.coffee(), "chelsea": data.chelsea()}
    images = {name: Image.fromarray(pixels) for name, pixels in found.items()}
    return {
        name: np.asarray(image.resize((width, width * image.height // image.width), Image.Resampling.LANCZOS))
        for name, image in images.items()
    }


def psnr(data: bytes, photo: np.ndarray) -> float:
    """Of the picture in the beginning of a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        picture = np.asarray(prancimg.decode(data, allow_partial=True), np.float64)
    return 10 * float(np.log10(255**2 / max(np.square(picture - photo).mean(), 1e-10)))


def curve(data: bytes, photo: np.ndarray, points: int) -> dict[str, object]:
    """Bytes received and PSNR, and where the segments end."""
    ends, at = {}, 9
    for kind, payload in bitstream.read(data).items():
        at += len(bitstream.write([(kind, payload)])) - 9
        ends[bitstream.Segment(kind).name.lower()] = at
    lengths = sorted({*np.linspace(ends["weights"], len(data), points, dtype=int).tolist(), *list(ends.values())[1:]})
    return {"segments": ends, "bytes": lengths, "psnr": [round(psnr(data[:n], photo), 2) for n in lengths]}


def draw(curves: dict[str, dict[str, object]], path: Path) -> None:
    """The figure."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "prancimg", "svg.fonttype": "none", "font.size": 9}
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    for name, found in curves.items():
        axes.plot(found["bytes"], found["psnr"], marker=".", markersize=4, linewidth=1.2, label=name)
    axes.set(xlabel="bytes received", ylabel="PSNR in dB")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Encode, cut, decode, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bpp", type=float, default=1.0)
    parser.add_argument("--effort", type=int, default=3)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--points", type=int, default=24)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    curves = {}
    for name, photo in photos(options.width).items():
        data = prancimg.encode(photo, bpp=options.bpp, effort=options.effort, seed=0)
        curves[name] = curve(data, photo, options.points)
        print(name, curves[name], flush=True)
    settings = {"bpp": options.bpp, "effort": options.effort, "width": options.width}
    options.out.with_suffix(".json").write_text(json.dumps({**settings, "curves": curves}) + "\n")
    draw(curves, options.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
