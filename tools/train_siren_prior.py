"""Train the shared start θ0 of the ``siren`` preset on photographs, and write it as a prior file.

    python -m tools.train_siren_prior OUT.bin PHOTOS... --steps 30000 [--layers 8 | --start PRIOR.bin] [--seed 1]

An auto-decoder over short-lived codes: a small pool of offsets of all weights is fitted together with θ0. Every code
belongs to one random crop and one of three rates, lives for some steps, and is replaced. A code's loss is its squared
error relative to itself plus a price for its bits, with Gaussian noise of the quantiser's variance on the offsets
(the same in any orthonormal basis, so the prior suits any of them). θ0 follows the gradient of the whole pool.

Goes on where it was stopped, from OUT.pt, with fresh codes. prancimg/network/data/siren-1.bin: see docs/siren.md.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prancimg.fit.soap import Soap
from prancimg.format.layout import Siren
from prancimg.network.prior import pack_prior, unpack_prior
from prancimg.network.siren import FRACTION, coordinates, theta0_of_seed

HIDDEN = 64
POOL, PIXELS, LIFE, SIDE = 6, 1024, 500, 256
BITS = torch.tensor([19_000.0, 39_000.0, 58_000.0])
"""What grown codes of the three rates are held to."""
ASPECTS = (3 / 2, 3 / 2, 2 / 3, 4 / 3, 1, 16 / 9)
BITS_PER_VARIANCE = 2 * math.pi * math.e
"""Entropy of a Gaussian over a step: log2(1 + 2πe · variance / step²) / 2."""


class PoolSoap:
    """SOAP for a stack of tensors (pool, ...), each with a state of its own that can be reset."""

    def __init__(self, like: Tensor, beta1: float = 0.9, beta2: float = 0.98, every: int = 10) -> None:
        self.beta1, self.beta2, self.every, self.time = beta1, beta2, every, 0
        self.mean, self.square = torch.zeros_like(like), torch.zeros_like(like)
        self.ages = torch.zeros(len(like))
        self.sides = like.dim() == 3
        if self.sides:
            self.moments = [torch.zeros(len(like), n, n) for n in like.shape[1:]]
            self.bases = [torch.eye(n).repeat(len(like), 1, 1) for n in like.shape[1:]]

    def reset(self, i: int) -> None:
        """Forget member ``i``."""
        self.mean[i] = self.square[i] = self.ages[i] = 0
        if self.sides:
            for moment, basis in zip(self.moments, self.bases, strict=True):
                moment[i], basis[i] = 0, torch.eye(len(basis[i]))

    def direction(self, gradient: Tensor) -> Tensor:
        """A step of about unit size per entry."""
        self.ages += 1
        self.time += 1
        fix1, fix2 = (1 - beta ** self.ages.view(-1, *[1] * (gradient.dim() - 1)) for beta in (self.beta1, self.beta2))
        self.mean.lerp_(gradient, 1 - self.beta1)
        turned, mean = gradient, self.mean
        if self.sides:
            swapped = gradient.transpose(1, 2)
            for moment, product in zip(self.moments, (gradient @ swapped, swapped @ gradient), strict=True):
                moment.lerp_(product, 1 - self.beta2)
            if self.time % self.every == 0:
                for i, moment in enumerate(self.moments):
                    tiny = 1e-12 * moment.diagonal(dim1=1, dim2=2).mean(1).view(-1, 1, 1)
                    self.bases[i] = torch.linalg.qr(moment @ self.bases[i] + tiny * self.bases[i])[0]
            left, right = self.bases
            turned, mean = left.transpose(1, 2) @ gradient @ right, left.transpose(1, 2) @ mean @ right
        self.square.lerp_(turned.square(), 1 - self.beta2)
        step = (mean / fix1) / ((self.square / fix2).sqrt() + 1e-10)
        return self.bases[0] @ step @ self.bases[1].transpose(1, 2) if self.sides else step


class Crops:
    """Random crops of photographs: position, size, aspect, mirror image and quarter turn, at most 256 pixels long."""

    def __init__(self, photos: list[Path], seed: int) -> None:
        self.photos = [Image.open(path).convert("RGB") for path in sorted(photos)]
        self.draw = np.random.default_rng(seed)

    def next(self) -> tuple[Tensor, Tensor]:
        """Coordinates (2, n) and samples (3, n) in [0, 1]."""
        photo = self.photos[self.draw.integers(len(self.photos))]
        if self.draw.random() < 0.3:
            photo = photo.transpose(Image.Transpose.ROTATE_90)
        width, height = photo.size
        aspect = ASPECTS[self.draw.integers(len(ASPECTS))]
        share = self.draw.uniform(0.6, 1.0)
        w, h = (width, width / aspect) if width / aspect <= height else (height * aspect, height)
        w, h = w * share, h * share
        left, top = self.draw.uniform(0, width - w), self.draw.uniform(0, height - h)
        scale = SIDE / max(w, h)
        box = (left, top, left + w, top + h)
        crop = photo.resize((round(w * scale), round(h * scale)), Image.Resampling.BOX, box=box)
        if self.draw.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        samples = torch.from_numpy(np.asarray(crop, np.float32) / 255).reshape(-1, 3).t()
        return torch.from_numpy(coordinates(crop.height, crop.width)), samples.contiguous()


def forward(siren: Siren, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """The network for a pool of weights (pool, out, in) and inputs (pool, 2, n)."""
    h = inputs
    for i in range(siren.layers + 1):
        h = torch.baddbmm(weights[f"b{i}"][:, :, None], weights[f"w{i}"], h)
        h = torch.sin(h) if i < siren.layers else h
    return h


def train(
    photos: list[Path], steps: int, seed: int, siren: Siren, start: dict[str, np.ndarray], place: Path
) -> dict[str, Tensor]:
    """θ0 after ``steps`` steps; ``start`` holds flat integer tensors. Progress is kept at ``place``."""
    first, names = 0, list(siren.shapes)
    theta0 = {n: torch.from_numpy(start[n] / 2.0**FRACTION).float().view(siren.shapes[n]) for n in names}
    if place.exists():
        kept = torch.load(place)
        first, theta0 = kept["steps"], kept["theta0"]
    torch.manual_seed(seed + first)
    crops = Crops(photos, seed + first)
    unit = dict(zip(names, [4.0, 2.0, *[1.0] * (len(names) - 4), 0.5, 0.5], strict=True))
    sizes = torch.tensor([float(theta0[n].numel()) for n in names])
    offsets = {n: torch.zeros(POOL, *siren.shapes[n]) for n in names}
    own = {n: PoolSoap(offsets[n]) for n in names}
    shared, table_soap = Soap(len(names), beta2=0.99), Soap(1, beta2=0.99)
    log_step = (math.log(0.1) - torch.tensor([0.0, 0.5, 1.0]))[:, None].repeat(1, len(names))
    price = 0.5 / BITS
    rate_of = torch.arange(POOL) % len(BITS)
    age = torch.arange(POOL) * (LIFE // POOL)  # staggered
    error_mean = torch.full((POOL,), 0.05)
    data = [crops.next() for _ in range(POOL)]
    for step in range(first, steps):
        done = step / steps
        for i in range(POOL):
            if age[i] >= LIFE:
                age[i], error_mean[i], data[i] = 0, 0.05, crops.next()
                for n in names:
                    offsets[n][i] = 0
                    own[n].reset(i)
        picks = [torch.randint(samples.shape[1], (PIXELS,)) for _, samples in data]
        inputs = torch.stack([where[:, pick] for (where, _), pick in zip(data, picks, strict=True)])
        target = torch.stack([samples[:, pick] for (_, samples), pick in zip(data, picks, strict=True)])
        leaves = {n: offsets[n].clone().requires_grad_() for n in names}
        table = log_step.clone().requires_grad_()
        width = table[rate_of].exp()
        weights = {}
        for t, n in enumerate(names):
            noise = torch.randn_like(leaves[n]) * (width[:, t] / math.sqrt(12)).view(-1, *[1] * theta0[n].dim())
            weights[n] = theta0[n] + unit[n] * (leaves[n] + noise)
        variance = torch.stack([leaves[n].square().flatten(1).mean(1) for n in names], 1)
        bits = (sizes / 2 * torch.log2(1 + BITS_PER_VARIANCE * variance / width.square())).sum(1)
        error = (forward(siren, weights, inputs) - target).square().mean((1, 2))
        error_mean.lerp_(error.detach(), 0.1)
        distortion = (error / error_mean.clamp(min=1e-6)).sum()
        shares = torch.autograd.grad(distortion, [leaves[n] for n in names], retain_graph=True)
        (distortion + (price[rate_of] * bits).sum()).backward()
        with torch.no_grad():
            grown = age / LIFE
            rate = 0.03 * (age / 20).clamp(max=1) * (0.485 * (1 + torch.cos(math.pi * grown)) + 0.03)
            rate0 = 0.003 * min(1, (step - first) / 200) * (0.49 * (1 + math.cos(math.pi * done)) + 0.02)
            weight = (0.1 + grown) / POOL  # grown codes know better what they need
            pulled = [(g * weight.view(-1, *[1] * (g.dim() - 1))).sum(0) for g in shares]
            for n, direction in zip(names, shared.directions(pulled), strict=True):
                theta0[n] -= rate0 * unit[n] * direction
                gradient = leaves[n].grad
                assert gradient is not None
                offsets[n] -= rate.view(-1, *[1] * theta0[n].dim()) * own[n].direction(gradient)
            assert table.grad is not None
            log_step -= 0.01 * table_soap.directions([table.grad.reshape(-1)])[0].view_as(log_step)
            for r in range(len(BITS)):
                old = (grown > 0.6) & (rate_of == r)
                if old.any():
                    pull = 0.01 * (bits[old].mean() / BITS[r] - 1)
                    price[r] *= torch.exp(pull.clamp(-0.004, 0.004))
        age += 1
        if (step + 1) % 1000 == 0:
            torch.save({"steps": step + 1, "theta0": theta0}, place)
        if step % 500 == 0:
            psnr = ", ".join(f"{-10 * math.log10(e):.1f}" for e in error_mean.tolist())
            print(f"step {step}: {psnr} dB; {', '.join(f'{b:.0f}' for b in bits.tolist())} bits", flush=True)
    return theta0


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("photos", type=Path, nargs="+", help="PNG files")
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--start", type=Path)
    options = parser.parse_args()
    siren = Siren(HIDDEN, options.layers)
    start = theta0_of_seed(siren, options.seed)
    if options.start:
        siren, start, _ = unpack_prior(options.start.read_bytes())
    place = options.output.with_suffix(".pt")
    theta0 = train(options.photos, options.steps, options.seed, siren, start, place)
    data = pack_prior(siren, {name: tensor.numpy() for name, tensor in theta0.items()})
    options.output.write_bytes(data)
    print(f"{options.output}: {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
