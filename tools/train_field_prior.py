"""Train the shared start θ0 of the ``field`` preset on photographs, and write it as a prior file.

    python -m tools.train_field_prior FOLDER_OF_PHOTOS OUT.bin --rounds 300 [--workers 2] [--start PRIOR.bin]

Every worker keeps a pool of fits of small crops at random λ, each at its own stage of the schedule that the
encoder follows; a step moves one of them and, along the same gradient of the logarithm of its loss, the networks that
all share; every other step is one of the networks alone on a finished fit. After a round the workers' networks are
averaged (local SGD, Stich 2019). Deterministic for a given number of workers and rounds.

Crops are turned, mirrored, scaled and coloured at random, and the SIREN is held near a linear map of colours: left
alone it learns the colours of the photographs at hand and cannot paint others.

prancimg/network/data/siren-2.bin: see docs/field.md.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prancimg.fit.adam import GridAdam
from prancimg.fit.loss import RateDistortion, initial_grids, noisy_soft_round
from prancimg.fit.ops.rounding import squash
from prancimg.fit.setup import Schedule, Setup, relative_rate
from prancimg.fit.soap import Soap
from prancimg.fit.threads import keep_memory
from prancimg.format.layout import CHANNELS, COMPONENTS, KINDS, MAX_LEVELS, Pyramid, Siren
from prancimg.network.field import grid_step
from prancimg.network.prior import pack_prior, unpack_prior
from prancimg.network.siren import to_floats

SIREN = Siren(16, 1, CHANNELS)
LUMA_CHROMA = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
CROP, POOL, LIFE, ARCHIVE, STEPS = 224, 16, 80, 64, 250
"""Side of a crop, fits of a worker, steps of a fit, finished fits that a worker keeps, steps of a round."""
ROUNDED_FROM = 0.86
"""The share of a fit from which its grids are rounded, and teach the networks what ends in a file."""
LMBDAS = 1e-4, 1.6e-2
PAINT_RATE, CONTEXT_RATE = 1e-3, 8e-3
BEND = 0.5
"""Phase at a change of a channel by one in the units that carry luma and chroma: small, so nearly linear."""
ANCHOR = 10.0
"""Weight of the mean squared distance from the linear map, beside the logarithm of a loss."""


def initial(seed: int = 0) -> dict[str, Tensor]:
    """Three units carry luma and chroma, where a sine is nearly linear; the others are random and not yet read."""
    generator = torch.Generator().manual_seed(seed)
    w = {name: torch.zeros(shape) for name, shape in SIREN.shapes.items()}
    for level in range(MAX_LEVELS):
        for c in range(COMPONENTS):
            w["gain"][level, c, c] = 0.7**level
        w["gain"][level, 0, 3] = 0.7**level if level else 0.0
    w["taps"][:] = torch.tensor([-0.035, 0.262, 0.879, -0.105])
    w["w0"].normal_(generator=generator).mul_(2)
    w["b0"].uniform_(-math.pi, math.pi, generator=generator)
    w["w0"][:3], w["b0"][:3] = BEND * torch.eye(3, CHANNELS), 0
    w["w1"][:, :3], w["b1"][:] = torch.linalg.inv(torch.tensor(LUMA_CHROMA)) / BEND, 0.5
    for kind in KINDS:
        for name in ("a", "b"):
            tensor = w[f"{kind}.{name}"]
            tensor.normal_(generator=generator).div_(math.sqrt(tensor.shape[-1]))
        w[f"{kind}.c0"][1] = -0.5
    return w


def variant(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random crop (CROP, CROP, 3) uint8 of a photo: scaled, turned, mirrored, with other contrast and colours."""
    scale = float(np.exp(rng.uniform(-0.4, 0.4))) if rng.random() < 0.5 else 1.0
    side = min(round(CROP * scale), *photo.shape[:2])
    y, x = (rng.integers(length - side + 1) for length in photo.shape[:2])
    crop = Image.fromarray(photo[y : y + side, x : x + side]).resize((CROP, CROP), Image.Resampling.BICUBIC)
    pixels = np.rot90(np.asarray(crop), rng.integers(4))
    pixels = pixels[:, ::-1] if rng.random() < 0.5 else pixels
    if rng.random() < 0.6:
        grey = pixels @ np.array(LUMA_CHROMA[0])[:, None]
        coloured = grey + rng.uniform(0.3, 1.5) * (pixels - grey)
        coloured = (coloured - 128) * rng.uniform(0.6, 1.3) + 128 + rng.uniform(-30, 30)
        coloured = coloured * rng.uniform(0.85, 1.15, 3)
        pixels = np.clip(np.rint(coloured), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def bent(w: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Mean squared distance of the SIREN from the linear map of luma and chroma, at random colours and rates."""
    rgb = torch.rand(3, 1024, generator=generator)
    field = torch.zeros(CHANNELS, 1024)
    field[:3] = torch.tensor(LUMA_CHROMA) @ (rgb - 0.5)
    field[3] = 0.1 * torch.randn(1024, generator=generator)
    phases = w["b0"] + w["slope"] * float(torch.empty(()).uniform_(-1, 1, generator=generator))
    return (w["w1"] @ torch.sin(w["w0"] @ field + phases[:, None]) + w["b1"][:, None] - rgb).square().mean()


class Fit:
    """One crop at one λ, somewhere on its way."""

    def __init__(self, photos: list[np.ndarray], rng: np.random.Generator, weights: dict[str, Tensor]) -> None:
        crops = [variant(photos[rng.integers(len(photos))], rng) for _ in range(2)]
        pixels = max(crops, key=lambda each: float(np.abs(np.diff(each.astype(float), axis=0)).mean()))
        self.lmbda = float(np.exp(rng.uniform(*np.log(LMBDAS), 2).mean()))
        luma_from = int(self.lmbda > 2e-3 and rng.random() < 0.3)
        chroma_from = int(rng.integers(1, 3)) + luma_from
        header = Setup().header(pixels, self.lmbda)
        self.step, self.r = grid_step(header.step), relative_rate(header.rate)
        planes = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1).contiguous() / 255
        self.objective = RateDistortion(planes, Pyramid(CROP, CROP, luma_from, chroma_from))
        with torch.no_grad():
            self.y = initial_grids(self.objective, weights, header)
        self.y.requires_grad_()
        self.schedule = Schedule(LIFE, self.step)
        self.adam, self.age = GridAdam(self.y, self.objective.pyramid, self.schedule), 0

    def loss(self, weights: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        """Distortion + λ · rate at this stage."""
        part = self.age / LIFE / ROUNDED_FROM
        q = noisy_soft_round(self.y, *self.schedule.rounding(part), generator) if part < 1 else self.y.detach().round()
        bits = self.objective.bits(q, squash(q), weights, self.r)
        return self.objective.distortion(q, weights, self.step, self.r) + self.lmbda / CROP**2 * bits

    def move(self) -> None:
        """One step of Adam on the grids, after the backward pass."""
        done = self.age / LIFE
        self.age += 1
        if self.y.grad is None:
            return
        self.adam.update(self.schedule.relative_learning_rate(done))


def work(pipe: Connection, photos: list[np.ndarray], seed: int) -> None:
    """A worker: gets weights and a learning rate, answers with the weights a round later and its mean log loss."""
    torch.set_num_threads(1)
    keep_memory()
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    soap, at = Soap(len(SIREN.shapes), beta2=0.98, every=10), 0
    pool: list[Fit] = []
    archive: list[Fit] = []
    while True:
        message = pipe.recv()
        if message is None:
            return
        weights, cool = {name: torch.from_numpy(w).clone() for name, w in message[0].items()}, message[1]
        losses = []
        for number in range(STEPS):
            plain = {name: w.detach() for name, w in weights.items()}
            again = bool(archive) and number % 2 == 1
            if again:
                fit = archive[rng.integers(len(archive))]
            elif len(pool) < POOL:
                pool.append(Fit(photos, rng, plain))
                fit, at = pool[-1], len(pool) - 1
                fit.age = LIFE * at // (2 * POOL)  # not all in step
            else:
                fit = pool[at]
            for w in weights.values():
                w.requires_grad_()
            loss = fit.loss(weights, generator)
            # every crop and λ counts alike
            (loss / loss.detach() + ANCHOR * bent(weights, generator)).backward()
            share = 0.1 + 0.9 * min(1.0, fit.age / LIFE / ROUNDED_FROM) ** 2  # what matters is what ends in a file
            with torch.no_grad():
                gradients = [torch.zeros_like(w) if w.grad is None else w.grad * share for w in weights.values()]
                flat = [g.view(-1, g.shape[-1]) if g.dim() > 1 else g for g in gradients]
                for (name, w), direction in zip(weights.items(), soap.directions(flat), strict=True):
                    direction = direction / direction.square().mean().sqrt().clamp(min=1.0)
                    w -= cool * (CONTEXT_RATE if "." in name else PAINT_RATE) * direction.view_as(w)
                    w.grad = None
            if again:
                continue
            fit.move()
            if fit.age == LIFE:
                losses.append(math.log(loss.item()) - 0.7 * math.log(fit.lmbda))
                archive = [*archive, fit][-ARCHIVE:]
                pool[at] = Fit(photos, rng, {name: w.detach() for name, w in weights.items()})
            at = (at + 1) % POOL if len(pool) == POOL else at
        pipe.send(({name: w.detach().numpy() for name, w in weights.items()}, losses))


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--start", type=Path, help="continue from a prior file")
    parser.add_argument("--without", nargs="*", default=[], help="photos to leave out, by the start of their names")
    args = parser.parse_args()
    files = [path for path in sorted(args.photos.glob("*.png")) if not path.name.startswith(tuple(args.without))]
    photos = [np.asarray(Image.open(path).convert("RGB")) for path in files]
    weights = {name: w.numpy() for name, w in initial().items()}
    if args.start:
        weights = to_floats(SIREN, unpack_prior(args.start.read_bytes())[1])
    spawn, began = get_context("spawn"), time.monotonic()
    pipes = []
    for seed in range(args.workers):
        pipe, theirs = spawn.Pipe()
        spawn.Process(target=work, args=(theirs, photos, seed), daemon=True).start()
        pipes.append(pipe)
    for number in range(args.rounds):
        cool = min(1.0, (number + 1) / 3) * (0.5 * (1 + math.cos(math.pi * number / args.rounds)) + 0.01)
        for pipe in pipes:
            pipe.send((weights, cool))
        answers = [pipe.recv() for pipe in pipes]
        weights = {name: np.mean([answer[0][name] for answer in answers], 0) for name in weights}
        losses = [loss for answer in answers for loss in answer[1]]
        shown = f"{np.mean(losses):.4f}" if losses else "-"
        print(f"round {number + 1}: {len(losses)} fits, log loss {shown}, {time.monotonic() - began:.0f} s", flush=True)
        data = pack_prior(SIREN, weights)
        args.out.write_bytes(data)
    for pipe in pipes:
        pipe.send(None)
    print(f"{args.out}: {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
