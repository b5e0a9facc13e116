"""Train a wide context model, and directions in which networks adapt, on finished fits; write them as a prior file.

    python -m tools.train_context_prior grids WORK PICTURES... [--rounds 3]
    python -m tools.train_context_prior contexts WORK luma --units 64 --directions 16 --steps 6000
    python -m tools.train_context_prior contexts WORK chroma --units 64 --directions 8 --steps 4000
    python -m tools.train_context_prior pack WORK OUT.bin

Coordinate descent instead of one joint run. ``grids`` fits crops of the pictures (PNG files) with the present prior, as
the encoder would, and keeps the integer grids. ``contexts`` trains a context network on kept grids, as plain supervised
learning: the mean network, m directions, and m coefficients for every picture, all at once, so that the directions
become those in which networks of pictures differ. ``pack`` adds what paints, from the present prior, with the leading
directions of what the fits had adapted. Every command goes on where it was stopped; progress is in WORK/*.pt, at least
every ten minutes. Every eighth picture of a folder is kept for choosing and its figures are printed.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prancimg.decoding.decoder import Model
from prancimg.fit.fit_field import fit_field
from prancimg.fit.ops.rate import laplace
from prancimg.fit.setup import TUNES, relative_rate
from prancimg.format.header import Header
from prancimg.format.layout import DESIGNS, LEARNED, PAINT, WIDE, Design, Pyramid, Siren, inputs, part_of
from prancimg.network.context_features import features
from prancimg.network.field import Coefficients
from prancimg.network.prior import load_prior, pack_prior
from prancimg.network.siren import FRACTION, to_floats

LMBDAS = 3e-4, 1e-3, 3e-3
CROP = 320, 448
STEPS = 90
"""Steps of a fit whose grids are kept."""
KEPT_APART = 8
ROWS = 40_000
"""Positions of a picture that are trained on: of the fine levels a random part, of the coarse ones all."""
PICTURES_A_STEP, ROWS_A_STEP = 6, 1536
FLATNESS = 0.6
"""How far a picture of many bits counts for less than its bits: 0, not at all, to 1, all pictures count alike."""
DIRECTION_RATE, COEFFICIENT_RATE, DECAY = 0.3, 10.0, 1e-3
"""Learning rates of directions and coefficients, relative to the networks'; weight decay of coefficients."""
COEFFICIENT_STEP = 0.25
"""What coefficients are rounded to in the figures that are printed."""


# Grids


def make_grids(work: Path, pictures: list[Path], rounds: int) -> None:
    """Fit crops of the pictures at prices spread over the range, and keep their grids in WORK/grids."""
    out = work / "grids"
    out.mkdir(parents=True, exist_ok=True)
    by_folder: dict[tuple[Path, str], int] = {}
    jobs = []
    for path in sorted(pictures):
        kind = path.parent, path.stem.partition("-")[0]
        number = by_folder[kind] = by_folder.get(kind, -1) + 1
        jobs.append((path, number % KEPT_APART == KEPT_APART - 1, number))
    jobs.sort(key=lambda job: hashlib.md5(job[0].name.encode()).digest())  # any beginning is a fair mixture
    for turn in range(rounds):
        for order, (path, apart, number) in enumerate(jobs):
            lmbdas = LMBDAS if apart and turn == 0 else () if apart else (LMBDAS[(number + turn) % len(LMBDAS)],)
            rng = np.random.default_rng([turn, order])
            crop = _crop(np.asarray(Image.open(path).convert("RGB")), rng, middle=turn == 0)
            for lmbda in lmbdas:
                name = f"{'test' if apart else 'train'}-{turn}-{path.parent.name}-{path.stem}-{lmbda:g}.npz"
                if not (out / name).exists():
                    price = lmbda if apart else lmbda * float(np.exp(rng.uniform(-0.5, 0.5)))
                    _keep_fit(out / name, crop, price)


def _crop(picture: np.ndarray, rng: np.random.Generator, middle: bool) -> np.ndarray:
    size = [min(side, most) for side, most in zip(picture.shape[:2], CROP, strict=True)]
    room = [side - part for side, part in zip(picture.shape[:2], size, strict=True)]
    top, left = (each // 2 if middle else int(rng.integers(each + 1)) for each in room)
    return np.ascontiguousarray(picture[top : top + size[0], left : left + size[1]])


def _keep_fit(path: Path, crop: np.ndarray, lmbda: float) -> None:
    began, cpu = time.monotonic(), torch.device("cpu")
    fitted = fit_field(crop, seed=0, iterations=STEPS, device=cpu, lmbda=lmbda, setup=TUNES["psnr"])
    header, q = fitted.rounded(0.0)
    packed = np.concatenate([q[grid.key].ravel() for grid in header.pyramid.grids]).astype(np.int16)
    alpha = np.concatenate(fitted.alpha) if fitted.alpha else np.zeros(0)
    bits = fitted.bits(0.0)
    partial = path.with_suffix(".part.npz")
    np.savez_compressed(
        partial, q=packed, crop=crop, header=np.frombuffer(header.pack(), np.uint8), alpha=alpha, bits=bits
    )
    partial.rename(path)
    print(f"{path.stem}: {bits:.0f} bits, {time.monotonic() - began:.0f} s", flush=True)


# Context networks


@dataclass
class Sample:
    """What the context network of a kind reads and predicts in a picture, quiet positions merged by value."""

    name: str
    x: Tensor
    """(n, features) int16."""
    values: Tensor
    weights: Tensor
    component: Tensor
    level: Tensor
    rate: float
    bpp: float
    cumulated: Tensor
    """Of the weights, from 0 to 1: rows are drawn by it."""

    @staticmethod
    def read(path: Path, kind: str, rows: int | None = None, turn: int = 0) -> Sample:
        """All positions of a kept fit, or about ``rows`` of them; of the fit turned in one of eight ways."""
        kept = np.load(path)
        header = Header.unpack(kept["header"].tobytes())
        pyramid, q = turned(header.pyramid, header.pyramid.split(kept["q"].astype(np.int32)), turn)
        parts = []
        for grid in pyramid.grids:
            if (grid.component > 0) == (kind == "chroma"):
                x = features(grid, q[grid.key], q, WIDE[kind]).reshape(inputs(WIDE[kind]), -1)
                values, active = q[grid.key].reshape(-1), x.any(0)
                quiet, counts = np.unique(values[~active], return_counts=True)
                rows_here = np.concatenate([x[:, active].T, np.zeros((len(quiet), len(x)), np.int16)])
                ones = np.ones(int(active.sum()))
                at = np.full((len(rows_here), 2), (max(grid.component - 1, 0), grid.level))
                parts.append((rows_here, np.concatenate([values[active], quiet]), np.concatenate([ones, counts]), at))
        x, values, weights, at = (np.concatenate(each) for each in zip(*parts, strict=True))
        if rows and len(x) > rows:
            fine = (at[:, 1] <= 1) & (weights == 1)
            share = np.where(fine, (rows - (~fine).sum()) / max(1, fine.sum()), 1.0).clip(0.05, 1)
            chosen = np.random.default_rng(0).random(len(x)) < share
            x, values, weights, at = x[chosen], values[chosen], (weights / share)[chosen], at[chosen]
        total = torch.from_numpy(weights).cumsum(0)
        return Sample(
            path.stem,
            torch.from_numpy(x),
            torch.from_numpy(values.astype(np.float32)),
            torch.from_numpy(weights.astype(np.float32)),
            *torch.from_numpy(at.T.copy()),
            relative_rate(header.rate),
            float(kept["bits"]) / (header.width * header.height),
            total / total[-1],
        )

    def draw(self, number: int, generator: torch.Generator | None = None) -> Tensor:
        """Rows at random, by weight."""
        u = torch.rand(number, dtype=torch.float64, generator=generator)
        return torch.searchsorted(self.cumulated, u).clamp(max=len(self.values) - 1)


def turned(pyramid: Pyramid, q: Coefficients, turn: int) -> tuple[Pyramid, Coefficients]:
    """The grids of the mirrored or turned picture, 0 to 7; the same if its levels do not halve evenly.

    The pyramid knows no direction, the context does: so a turned fit is another one to learn from.
    """
    if (pyramid.height | pyramid.width) % (1 << pyramid.levels - 1):
        return pyramid, q
    q = {key: grid[:: 1 - (turn & 2), :: 1 - 2 * (turn & 1)] for key, grid in q.items()}
    if turn & 4:
        pyramid = replace(pyramid, height=pyramid.width, width=pyramid.height)
        q = {key: grid.T for key, grid in q.items()}
    return pyramid, {key: np.ascontiguousarray(grid) for key, grid in q.items()}


class _LogProbability(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q: Tensor, mean: Tensor, scale: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        log, by_q, by_scale = laplace(q, mean, scale)
        ctx.slopes = -by_q, by_scale
        return log

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        return None, g * ctx.slopes[0], g * ctx.slopes[1]


def bits(net: dict[str, Tensor], sample: Sample, rows: Tensor | slice) -> Tensor:
    """Bits of some rows, by a context network as :mod:`prancimg.network.context` has it."""
    x, component, level = sample.x[rows].float() / 64, sample.component[rows], sample.level[rows]
    h = torch.relu(x @ net["a"].t() + net["bias"][component, level] + sample.rate * net["slope"][level])
    h = h + torch.relu(h @ net["b"].t() + net["b0"])
    mean, scale = net["c"] @ h.t() + net["c0"][:, None]
    return _LogProbability.apply(sample.values[rows], mean, scale) / -math.log(2)  # type: ignore[no-untyped-call,no-any-return]


def split(theta: Tensor, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A vector of parameters to tensors."""
    parts = theta.split([math.prod(shape) for shape in shapes.values()])
    return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def whole_bits(net: dict[str, Tensor], sample: Sample) -> float:
    """Bits of a whole picture."""
    with torch.no_grad():
        places = range(0, len(sample.values), 1 << 15)
        parts = (slice(at, at + (1 << 15)) for at in places)
        return sum(float((bits(net, sample, part) * sample.weights[part]).sum()) for part in parts)


def train_contexts(
    work: Path, kind: str, units: int, directions: int, steps: int, rate: float, start: str, copies: int
) -> None:
    """Train the network of a kind, its directions, and the coefficients of every picture."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shapes = {name.partition(".")[2]: s for name, s in Design(True, units).shapes.items() if name.startswith(kind)}
    folder, place, began = work / "grids", work / f"{kind}.pt", time.monotonic()
    samples = [
        Sample.read(path, kind, ROWS, 0 if copy == 0 else (number + copy) % 7 + 1)
        for copy in range(copies)
        for number, path in enumerate(sorted(folder.glob("train-*.npz")))
    ]
    tests = [Sample.read(path, kind) for path in sorted(folder.glob("test-*.npz"))]
    share = torch.tensor([float(s.weights.sum()) * (s.bpp + 0.02) ** -FLATNESS for s in samples])
    theta = torch.cat([_initial(name, shape) for name, shape in shapes.items()])
    along, beta = (
        0.02 * torch.randn(directions, len(theta)) / math.sqrt(directions),
        torch.zeros(len(samples), directions),
    )
    if start:
        begun = torch.load(start)
        theta, along = begun["theta"], begun["along"]
    parameters = [each.requires_grad_() for each in (theta, along, beta)]
    rates = (rate, rate * DIRECTION_RATE, rate * COEFFICIENT_RATE)
    adam = torch.optim.Adam([{"params": [p], "lr": 0.0} for p in parameters], betas=(0.9, 0.985))
    first = 0
    if place.exists() and (state := torch.load(place))["steps"] == steps and len(state["beta"]) == len(beta):
        first = state["done"]
        adam.load_state_dict(state["adam"])
        with torch.no_grad():
            for each, name in zip(parameters, ("theta", "along", "beta"), strict=True):
                each.copy_(state[name])
    for step in range(first, steps):
        loss = torch.zeros(())
        for i in torch.multinomial(share, PICTURES_A_STEP, replacement=True).tolist():
            net = split(theta + beta[i] @ along, shapes)
            loss = loss + bits(net, samples[i], samples[i].draw(ROWS_A_STEP)).mean() / PICTURES_A_STEP
            loss = loss + DECAY * beta[i].square().sum() / PICTURES_A_STEP
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        pace = min(1.0, (step + 1) / 50) * (0.503 + 0.5 * math.cos(math.pi * step / steps))
        for group, each in zip(adam.param_groups, rates, strict=True):
            group["lr"] = pace * each
        adam.step()
        if (step + 1) % 500 == 0 or step + 1 == steps:
            state = {"theta": theta, "along": along, "beta": beta, "adam": adam.state_dict()}
            torch.save(state | {"done": step + 1, "steps": steps, "units": units}, place)
            print(f"{kind} {step + 1}: loss {loss.item():.4f}, {time.monotonic() - began:.0f} s", flush=True)
    _report(tests, theta.detach(), along.detach(), shapes)


def _initial(name: str, shape: tuple[int, ...]) -> Tensor:
    if name in ("a", "b"):
        return torch.randn(math.prod(shape)) / math.sqrt(shape[-1])
    return torch.tensor([0.0, -0.5]) if name == "c0" else torch.zeros(math.prod(shape))


def adapt(sample: Sample, theta: Tensor, along: Tensor, shapes: dict[str, tuple[int, ...]], steps: int = 60) -> Tensor:
    """The coefficients that suit a picture, rounded."""
    beta, generator = torch.zeros(len(along), requires_grad=True), torch.Generator().manual_seed(0)
    adam = torch.optim.Adam([beta], betas=(0.8, 0.95))
    for step in range(steps):
        adam.param_groups[0]["lr"] = 0.15 * (0.52 + 0.5 * math.cos(math.pi * step / steps))
        loss = bits(split(theta + beta @ along, shapes), sample, sample.draw(4096, generator)).mean()
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    return COEFFICIENT_STEP * (beta.detach() / COEFFICIENT_STEP).round()


def _report(tests: list[Sample], theta: Tensor, along: Tensor, shapes: dict[str, tuple[int, ...]]) -> None:
    """Bits of the pictures kept apart: as the mean network has them, and with their own coefficients, not counted."""
    found = []
    for sample in tests:
        beta = adapt(sample, theta, along, shapes)
        found.append([whole_bits(split(each, shapes), sample) for each in (theta, theta + beta @ along)])
        print(f"{sample.name}: {found[-1][0]:.0f} bits, adapted {found[-1][1]:.0f}", flush=True)
    if found:
        static, adapted = np.exp(np.log(np.maximum(found, 1)).mean(0))
        print(f"geometric mean {static:.0f} bits, adapted {adapted:.0f}")


# The file


def paint_directions(work: Path, number: int, prior: int) -> dict[str, np.ndarray]:
    """The leading directions of what the kept fits adapted of what paints: (number, size) by tensor."""
    siren, theta0, _ = load_prior(prior)
    names = [name for name in siren.shapes if part_of(name) == PAINT]
    moved = []
    for path in sorted((work / "grids").glob("train-*.npz")):
        kept = np.load(path)
        header = Header.unpack(kept["header"].tobytes())
        if any(coded.k for coded in header.tensors):
            alpha = np.split(kept["alpha"].astype(np.int64), np.cumsum([coded.k for coded in header.tensors])[:-1])
            theta = Model.of(header).parameters(alpha, header.tensors)
            moved.append(np.concatenate([theta[name] - theta0[name] for name in names]) / 2.0**FRACTION)
    sizes = np.array([math.prod(siren.shapes[name]) for name in names])
    if len(moved) < number:
        raise SystemExit(f"only {len(moved)} of the fits adapted what paints; ask for fewer directions with --paint")
    deltas = np.stack(moved)
    spread = np.concatenate(
        [np.full(size, part.std() + 1e-9) for size, part in zip(sizes, _parts(deltas, sizes), strict=True)]
    )
    _, strengths, axes = np.linalg.svd(deltas / spread, full_matrices=False)
    leading = axes[:number] * spread * (strengths[:number, None] / math.sqrt(len(deltas)))
    return dict(zip(names, _parts(leading, sizes), strict=True))


def _parts(rows: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    return np.split(rows, np.cumsum(sizes)[:-1], 1)


def pack(work: Path, out: Path, paint: int, prior: int) -> None:
    """Write the prior file; what paints is that of the present prior."""
    siren, theta0, _ = load_prior(prior)
    states = {kind: torch.load(work / f"{kind}.pt") for kind in WIDE}
    learned = (*((kind, len(state["along"])) for kind, state in states.items()), *([(PAINT, paint)] if paint else []))
    design = Design(True, states["luma"]["units"], learned)
    tensors, directions = to_floats(siren, theta0), paint_directions(work, paint, prior) if paint else {}
    for kind, state in states.items():
        shapes = {name: shape for name, shape in design.shapes.items() if name.startswith(kind)}
        # Coefficients of the training pictures get a root mean square of one.
        scale = state["beta"].detach().square().mean(0).sqrt()
        tensors |= {name: part.numpy() for name, part in split(state["theta"].detach(), shapes).items()}
        along = (state["along"].detach() * scale[:, None]).numpy()
        directions |= dict(zip(shapes, _parts(along, np.array([math.prod(s) for s in shapes.values()])), strict=True))
    network = Siren(siren.hidden, siren.layers, siren.channels, design)
    data = pack_prior(network, {name: tensors[name] for name in network.shapes if part_of(name) != LEARNED}, directions)
    out.write_bytes(data)
    print(f"{out}: {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}, {design}")


def main() -> None:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("grids")
    one.add_argument("work", type=Path)
    one.add_argument("pictures", type=Path, nargs="+")
    one.add_argument("--rounds", type=int, default=3)
    two = commands.add_parser("contexts")
    two.add_argument("work", type=Path)
    two.add_argument("kind", choices=WIDE)
    two.add_argument("--units", type=int, default=64)
    two.add_argument("--directions", type=int, default=16)
    two.add_argument("--steps", type=int, default=6000)
    two.add_argument("--rate", type=float, default=3e-3)
    two.add_argument("--copies", type=int, default=2, help="of every fit, turned; up to 8")
    two.add_argument("--start", default="", help="a .pt file of networks and directions to begin with")
    three = commands.add_parser("pack")
    three.add_argument("work", type=Path)
    three.add_argument("out", type=Path)
    three.add_argument("--paint", type=int, default=8, help="directions of what paints")
    three.add_argument("--prior", type=int, default=max(DESIGNS, default=2), help="the present prior")
    args = parser.parse_args()
    if args.command == "grids":
        make_grids(args.work, args.pictures, args.rounds)
    elif args.command == "contexts":
        train_contexts(
            args.work, args.kind, args.units, args.directions, args.steps, args.rate, args.start, args.copies
        )
    else:
        pack(args.work, args.out, args.paint, args.prior)


if __name__ == "__main__":
    main()
