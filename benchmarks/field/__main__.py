"""What the parts of the field preset are worth: fits at one λ and one number of steps, each through a real file.

    python -m benchmarks.field PHOTO... --lmbda 1e-3 --steps 100 --out results.json

The loss is that of the decoded file: mean squared error on samples from 0 to 1 + λ · bpp. All but two variants are
fitted for just that (``--tune psnr``):

psnr          the preset; its coefficients of the networks follow from the file's size
frozen        the networks of the prior as they are
directions    they move along the prior's learned directions
seeded        and the synthesis moves along pseudo-random directions: PRANC
synthesis     instead, the weights of the synthesis are sent
contexts      and the context model moves along pseudo-random directions
last-layers   the last layers are sent, and nothing else
identity      the identity basis: all weights are sent
prior-2       the narrow context model of the prior before, along pseudo-random directions
no-learning   the context model stays as it is sent
no-start      starts from an empty field instead of the picture's pyramid
ssim          the usual tuning
no-masking    the usual tuning, but errors count alike everywhere

The others send all weights of the prior before, and start from changed ones, in this process alone:

no-prior      three sine units that carry luma and chroma, random ones that are not read yet, a random context model
linear        that synthesis, and it stays, so that the picture is a linear map of the field; the trained context model
fixed-sines   the same, but only the sine units stay
no-parent     starts without what the context reads from the coarser level
near-context  starts without the neighbours two rows or columns away

What is missing at the start may come back during the fit, for the bits that takes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from benchmarks.kodak.curves import markdown
from prancimg.codec import load_image
from prancimg.decoding import decoder
from prancimg.decoding.decoder import decode_array
from prancimg.fit import setup
from prancimg.fit.field_encoder import file_of
from prancimg.fit.fit_field import fit_field
from prancimg.fit.setup import TUNES, Setup
from prancimg.format.header import ALL_WEIGHTS, CONTEXTS, DIRECTIONS, FROZEN, PRANC, SEEDED, SYNTHESIS
from prancimg.format.layout import CAUSAL, KINDS, PARENT
from prancimg.images import metrics
from prancimg.network.prior import load_prior, pack_prior, unpack_prior
from prancimg.network.siren import to_floats
from tools.train_field_prior import initial

Weights = dict[str, np.ndarray]
CONTEXT = tuple(f"{kind}." for kind in KINDS)


def no_prior(trained: Weights) -> Weights:
    """Of the trained weights' shapes."""
    return {name: tensor.numpy() for name, tensor in initial().items()}


def linear(trained: Weights) -> Weights:
    """The trained context model under an untrained synthesis."""
    return {name: trained[name] if name.startswith(CONTEXT) else plain for name, plain in no_prior(trained).items()}


def without(trained: Weights, dropped: Callable[[int], bool]) -> Weights:
    """The trained weights, but for the first layer's of some features of the context."""
    weights = dict(trained)
    for kind in KINDS:
        a = trained[f"{kind}.a"].copy()
        a[:, [i for i in range(a.shape[1]) if dropped(i)]] = 0
        weights[f"{kind}.a"] = a
    return weights


def no_parent(trained: Weights) -> Weights:
    """Without the coarser level."""
    first = len(CAUSAL)
    return without(trained, lambda i: first <= i < first + 1 + len(PARENT))


def near_context(trained: Weights) -> Weights:
    """Without what is two rows or columns away on its own level."""
    far = {i for i, offset in enumerate(CAUSAL) if max(map(abs, offset)) > 1}
    return without(trained, far.__contains__)


def only(*names: str) -> Mapping[str, tuple[int, int | None]]:
    """All of some tensors of the synthesis, and of the context model."""
    return {name: how for name, how in ALL_WEIGHTS.items() if name in names or name.startswith(CONTEXT)}


@dataclass(frozen=True)
class Variant:
    """A setup, and what becomes of the prior's weights."""

    setup: Setup
    start: Callable[[Weights], Weights] | None = None


PLAIN = TUNES["psnr"]
NARROW = replace(PLAIN, prior=2, adapted=ALL_WEIGHTS)
LAST_LAYERS = {
    name: how for name, how in ALL_WEIGHTS.items() if name in ("w1", "b1", "residual") or name.endswith((".c", ".c0"))
}
VARIANTS = {
    "psnr": Variant(PLAIN),
    "frozen": Variant(replace(PLAIN, adapted=FROZEN)),
    "directions": Variant(replace(PLAIN, adapted=DIRECTIONS)),
    "seeded": Variant(replace(PLAIN, adapted=SEEDED)),
    "synthesis": Variant(replace(PLAIN, adapted=SYNTHESIS)),
    "contexts": Variant(replace(PLAIN, adapted=CONTEXTS)),
    "last-layers": Variant(replace(PLAIN, adapted=LAST_LAYERS)),
    "identity": Variant(replace(PLAIN, adapted=ALL_WEIGHTS)),
    "prior-2": Variant(replace(PLAIN, prior=2, adapted=PRANC)),
    "no-learning": Variant(replace(PLAIN, learning=False)),
    "no-start": Variant(replace(PLAIN, analytic=False)),
    "ssim": Variant(TUNES["ssim"]),
    "no-masking": Variant(replace(TUNES["ssim"], masking=0.0)),
    "no-prior": Variant(NARROW, no_prior),
    "linear": Variant(replace(NARROW, adapted=only("scale", "taps")), linear),
    "fixed-sines": Variant(replace(NARROW, adapted=only("w1", "b1", "scale", "taps", "residual")), linear),
    "no-parent": Variant(NARROW, no_parent),
    "near-context": Variant(NARROW, near_context),
}


@contextlib.contextmanager
def prior(start: Callable[[Weights], Weights] | None) -> Iterator[None]:
    """Encoder and decoder of this process take another prior for the shipped one."""
    if start is None:
        yield
        return
    siren, theta0, _ = load_prior(NARROW.prior)
    changed = unpack_prior(pack_prior(siren, start(to_floats(siren, theta0))))
    with contextlib.ExitStack() as stack:
        for module in (setup, decoder):
            stack.enter_context(mock.patch.object(module, "load_prior", lambda _: changed))
        yield


def measure(image: np.ndarray, lmbda: float, steps: int, variant: Variant) -> dict[str, float]:
    """PSNR in dB, MS-SSIM, bpp, loss and seconds of one fit."""
    began = time.monotonic()
    with prior(variant.start):
        how = {"seed": 0, "iterations": steps, "device": torch.device("cpu"), "lmbda": lmbda, "setup": variant.setup}
        data = file_of(fit_field(image, **how), 0.0)
        seconds = time.monotonic() - began
        quality = metrics.measure(image, decode_array(data))
    bpp = 8 * len(data) / (image.shape[0] * image.shape[1])
    loss = 10 ** (-quality["psnr"] / 10) + lmbda * bpp
    return {**quality, "bpp": bpp, "loss": loss, "seconds": seconds}


def table(results: list[dict[str, float | str]]) -> str:
    """The loss of every variant relative to ``psnr``'s, as Markdown: geometric means of the photos by λ."""
    lmbdas, rows = sorted({float(row["lmbda"]) for row in results}), []
    for name in dict.fromkeys(str(row["setup"]) for row in results):
        cells = []
        for lmbda in lmbdas:
            logs = {
                which: np.mean(
                    [np.log(row["loss"]) for row in results if (row["setup"], row["lmbda"]) == (which, lmbda)]
                )
                for which in (name, "psnr")
            }
            cells.append(f"{100 * (np.exp(logs[name] - logs['psnr']) - 1):+.1f} %")
        rows.append([name, *cells])
    return markdown(["", *(f"λ = {lmbda:g}" for lmbda in lmbdas)], rows)


def main() -> None:
    """Parse the command line, measure, print and write a JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--lmbda", type=float, nargs="+", default=[1e-3])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--setups", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--crop", type=int, nargs=2, metavar=("W", "H"), help="only the middle of each photo")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    results: list[dict[str, float | str]] = []
    for photo in args.photos:
        image = load_image(photo)
        if args.crop:
            width, height = args.crop
            top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
            image = image[top : top + height, left : left + width].copy()
        for lmbda in args.lmbda:
            for name in args.setups:
                row = measure(image, lmbda, args.steps, VARIANTS[name])
                results.append({"photo": photo.name, "lmbda": lmbda, "steps": args.steps, "setup": name, **row})
                print(photo.name, lmbda, name, {key: round(value, 6) for key, value in row.items()}, flush=True)
                args.out.write_text(json.dumps(results, indent=1) + "\n")
    if "psnr" in args.setups:
        print(table(results), end="")


if __name__ == "__main__":
    main()
