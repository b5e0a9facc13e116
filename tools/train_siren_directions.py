"""Give a prior of the ``siren`` preset directions in which networks of photographs were found to move.

    python -m tools.train_siren_directions OUT.bin PHOTOS... --start 4 --lower 0.375 --number 5 [--leave-out NAMES...]

The start is that of prior 4, but half of the first layer's units have lower frequencies, which smooth pictures need.
Every photograph's middle is fitted from there with all weights free. Their mean is where prior 5 starts (a step of
Reptile: Nichol et al., 2018). Of each large tensor's offsets, made unit vectors, the leading singular vectors are its
directions; the Design in prancimg/format/layout.py names the tensors and says how many each has. Goes on where it was
stopped, from OUT.npz.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prancimg.fit.fit_siren import Samples, units
from prancimg.fit.setup import learning_rate
from prancimg.fit.soap import Soap
from prancimg.format.layout import DESIGNS, Siren
from prancimg.network.prior import load_prior, pack_prior
from prancimg.network.siren import FRACTION, forward

LONG, SHORT, LEAST = 768, 512, 200
"""Sides of the part of a photograph that is fitted, and the shorter side from which it is used."""
RATE = 0.02
BITS = 40_000.0
"""A budget of so many bits would show the detail that the fits are shown."""
REACH = 4.0
"""Length of a direction: how much farther its coefficient moves the weights than one of an orthonormal basis."""


def middle(path: Path) -> np.ndarray:
    """The middle of a photograph: (height, width, 3) uint8."""
    image = Image.open(path).convert("RGB")
    most = (LONG, SHORT) if image.width >= image.height else (SHORT, LONG)
    w, h = (min(sides) for sides in zip(image.size, most, strict=True))
    left, top = (image.width - w) // 2, (image.height - h) // 2
    return np.ascontiguousarray(np.asarray(image.crop((left, top, left + w, top + h))))


def offsets(
    siren: Siren, theta0: dict[str, Tensor], picture: np.ndarray, steps: int
) -> tuple[dict[str, Tensor], float]:
    """How far all weights move from ``theta0``, and the error at the end."""
    unit = dict(zip(siren.shapes, units(siren), strict=True))
    moved = {name: torch.zeros_like(tensor) for name, tensor in theta0.items()}
    samples, soap, error = Samples(picture, BITS, torch.device("cpu")), Soap(len(theta0)), torch.zeros(())
    for i in range(steps):
        weights = {name: (theta0[name] + unit[name] * moved[name]).requires_grad_() for name in theta0}
        inputs, target = samples.draw()
        error = (forward(siren, weights, inputs) - target).square().mean()
        gradients = torch.autograd.grad(error, list(weights.values()))
        directions = soap.directions([unit[name] * g for name, g in zip(theta0, gradients, strict=True)])
        rate = RATE * min(1.0, i / 30) * learning_rate(i / steps)
        moved = {name: m - rate * d for (name, m), d in zip(moved.items(), directions, strict=True)}
    return moved, error.item()


def leading(found: np.ndarray, number: int) -> np.ndarray:
    """The leading directions (number, size) of offsets (pictures, size)."""
    ready = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return REACH * np.linalg.svd(ready, full_matrices=False)[2][:number]


def main() -> None:
    """Fit, take the leading directions and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("photos", type=Path, nargs="+", help="PNG files and folders of them")
    parser.add_argument("--start", type=int, required=True, help="number of the prior to start from")
    parser.add_argument("--number", type=int, required=True, help="number of the prior to be")
    parser.add_argument("--lower", type=float, default=1.0, help="times the frequencies of half of the first layer")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--leave-out", nargs="+", default=[], metavar="NAME", help="names without .png, for choosing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    paths = [path for photo in options.photos for path in (sorted(photo.glob("*.png")) if photo.is_dir() else [photo])]
    paths = [path for path in paths if path.stem not in options.leave_out]
    random.Random(0).shuffle(paths)
    network, theta0, _ = load_prior(options.start)
    siren = Siren(network.hidden, network.layers)  # without the coefficients of directions that the start may have
    floats = {name: theta0[name] / 2.0**FRACTION for name in siren.shapes}
    floats["w0"][: len(floats["w0"]) // 2] *= options.lower
    start = {name: torch.from_numpy(floats[name]).float().view(shape) for name, shape in siren.shapes.items()}
    design = DESIGNS[options.number]
    store = options.output.with_suffix(".npz")
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("path", *siren.shapes)}
    if store.exists():
        with np.load(store) as kept:
            found = {name: list(kept[name]) for name in kept.files}
    for i, path in enumerate(paths):
        if str(path) in found["path"]:
            continue
        picture = middle(path)
        if min(picture.shape[:2]) < LEAST:
            continue
        moved, error = offsets(siren, start, picture, options.steps)
        found["path"].append(np.array(str(path)))
        for name in siren.shapes:
            found[name].append(moved[name].numpy().ravel())
        print(f"{i + 1} of {len(paths)}: {path.stem}, {-10 * np.log10(error):.2f} dB", flush=True)
        if i % 20 == 19:
            np.savez(store, **{name: np.stack(arrays) for name, arrays in found.items()})
    np.savez(store, **{name: np.stack(arrays) for name, arrays in found.items()})
    unit = dict(zip(siren.shapes, units(siren), strict=True))
    floats = {name: tensor + unit[name] * np.mean(found[name], 0) for name, tensor in floats.items()}
    directions = {name: leading(np.stack(found[name]), number) for name, number in design.learned}
    data = pack_prior(Siren(siren.hidden, siren.layers, 0, design), floats, directions)
    options.output.write_bytes(data)
    print(f"{options.output}: {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
