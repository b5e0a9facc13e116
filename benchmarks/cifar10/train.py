"""Training, checkpoints and files of the networks that are compared."""

from __future__ import annotations

import io
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from benchmarks.cifar10.data import Dataset
from prancimg.errors import PrancImgError
from prancimg.format import files
from prancimg.format.header import step_size
from prancimg.format.range_coder import MAGNITUDE
from prancimg.pranc import Pranc, load
from prancimg.pranc.compact import STEP_FRACTION, STEPS

PAD = 4
"""Pixels by which training pictures are shifted at most."""


@dataclass(frozen=True)
class Plan:
    """How a network is trained."""

    epochs: int
    batch: int
    rate: float
    """Of Adam, at its highest; for coefficients, how far weights move, see :func:`groups`."""
    seed: int = 0
    nested: bool = False
    """Every second step trains a random prefix of the coefficients."""
    precision: str = "bfloat16"
    """Of the products in a step; parameters and their steps are float32, and so is all that is tested."""


class Pictures:
    """A data set on a device."""

    def __init__(self, data: Dataset, device: torch.device) -> None:
        self.train, self.test = (torch.from_numpy(x).to(device) for x in (data.train, data.test))
        self.train_labels, self.test_labels = (
            torch.from_numpy(x).to(device) for x in (data.train_labels, data.test_labels)
        )
        self.classes, self.side, self.digest = len(data.classes), data.train.shape[-1], data.digest()
        some = self.train[:: max(1, len(self.train) // 5000)].float()
        self._mean, self._spread = some.mean((0, 2, 3), keepdim=True), some.std((0, 2, 3), keepdim=True)

    def ready(self, pictures: Tensor) -> Tensor:
        """float32, of mean 0 and spread 1 in every channel."""
        return (pictures - self._mean) / self._spread

    def batches(self, size: int, seed: int) -> Iterable[tuple[Tensor, Tensor]]:
        """All training pictures once, in random order, shifted and mirrored at random."""
        random = torch.Generator().manual_seed(seed)
        device, count = self.train.device, len(self.train)
        order = torch.randperm(count, generator=random).to(device)
        shifts = torch.randint(2 * PAD + 1, (2, count), generator=random).to(device)
        mirrored = torch.randint(2, (count,), generator=random).to(device)
        for at in range(0, count - size + 1 if count >= size else 1, size):
            chosen = order[at : at + size]
            padded = functional.pad(self.train[chosen], (PAD,) * 4)
            views = padded.unfold(2, self.side, 1).unfold(3, self.side, 1)
            y, x = shifts[:, at : at + len(chosen)]
            pictures = views[torch.arange(len(chosen), device=device), :, y, x]
            pictures = torch.where(mirrored[at : at + len(chosen), None, None, None] > 0, pictures.flip(3), pictures)
            yield self.ready(pictures), self.train_labels[chosen]

    @torch.no_grad()
    def accuracy(self, network: nn.Module) -> float:
        """The share of test pictures that the network gets right."""
        right = 0
        for at in range(0, len(self.test), 1000):
            guess = network(self.ready(self.test[at : at + 1000])).argmax(1)
            right += int((guess == self.test_labels[at : at + 1000]).sum())
        return right / len(self.test)

    @torch.no_grad()
    def loss(self, network: nn.Module) -> float:
        """Cross-entropy over 5,000 training pictures as they are."""
        chosen = slice(None, None, max(1, len(self.train) // 5000))
        output = network(self.ready(self.train[chosen]))
        return float(functional.cross_entropy(output, self.train_labels[chosen]))


def groups(model: nn.Module, rate: float) -> list[dict[str, object]]:
    """Parameters and their rates: the fewer coefficients there are, the further each of them has to go."""
    if not isinstance(model, Pranc):
        return [{"params": list(model.parameters()), "rate": rate}]
    apart = [parameter for parameter in model.parameters() if parameter is not model.alpha]
    further = math.sqrt(model.layout.size / len(model.alpha))
    return [{"params": [model.alpha], "rate": 30 * rate * further}, {"params": apart, "rate": rate}]


def train(
    model: nn.Module,
    pictures: Pictures,
    plan: Plan,
    checkpoint: Path,
    label: str,
    after_step: Callable[[float], None] | None = None,
) -> float:
    """Train with Adam, a warm-up and a cosine, from where the checkpoint says; milliseconds a step of the last epoch.

    ``after_step`` is told how much of the training is done, 0 to 1.
    """
    optimizer = torch.optim.Adam([g for g in groups(model, plan.rate) if g["params"]], lr=0.0)
    first, milliseconds = 0, math.nan
    if checkpoint.exists():
        try:
            state = torch.load(checkpoint, map_location=pictures.train.device, weights_only=True)
            same = state["plan"] == asdict(plan)
        except Exception as error:  # whatever torch says about bytes that are none of its own
            raise PrancImgError(f"{checkpoint}: not a checkpoint; move it away to begin anew") from error
        if not same:
            raise PrancImgError(f"{checkpoint}: of a training with other settings; move it away to begin anew")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, milliseconds = state["epoch"], state["milliseconds"]
    steps = max(1, len(pictures.train) // plan.batch)
    lengths = torch.Generator().manual_seed(plan.seed)
    with tqdm(total=plan.epochs * steps, desc=label, initial=first * steps, disable=not sys.stderr.isatty()) as bar:
        for epoch in range(first, plan.epochs):
            model.train()
            began = time.perf_counter()
            lengths.manual_seed(plan.seed + epoch)
            for i, (x, labels) in enumerate(pictures.batches(plan.batch, 1000 * plan.seed + epoch)):
                done = (epoch * steps + i) / (plan.epochs * steps)
                for group in optimizer.param_groups:
                    group["lr"] = group["rate"] * min(1, 10 * done + 0.01) * (0.5 + 0.5 * math.cos(math.pi * done))
                if plan.nested and isinstance(model, Pranc):
                    model.prefix = _random_prefix(len(model.alpha), lengths) if i % 2 else None
                with torch.autocast(x.device.type, torch.bfloat16, enabled=plan.precision == "bfloat16"):
                    output = model(x.to(memory_format=torch.channels_last))
                loss = functional.cross_entropy(output.float(), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if after_step:
                    after_step((epoch * steps + i + 1) / (plan.epochs * steps))
                bar.update()
                if i % 20 == 0:
                    bar.set_postfix(loss=f"{float(loss.detach()):.3f}", refresh=False)
            milliseconds = 1000 * (time.perf_counter() - began) / steps
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}
            buffer = io.BytesIO()
            torch.save({**state, "plan": asdict(plan), "milliseconds": milliseconds}, buffer)
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            files.write(os.fspath(checkpoint), buffer.getvalue())
    if isinstance(model, Pranc):
        model.prefix = None
    model.eval()
    return milliseconds


def _random_prefix(k: int, random: torch.Generator) -> int:
    """Between an eighth of k and k, uniform in its logarithm."""
    return math.ceil(k * 8 ** -float(torch.rand((), generator=random)))


def prune(model: nn.Module, keep: int) -> Callable[[float], None]:
    """What to call after every step so that only ``keep`` weights are left after half of the training.

    The least weights of the whole network go, more and more of them (Zhu and Gupta, 2017), each measured against
    those of its own tensor that are larger (LAMP: Lee et al., ICLR 2021), so no tensor is emptied; norms stay.
    """
    tensors = [p for p in model.parameters() if p.dim() > 1]
    size = sum(p.numel() for p in tensors)

    @torch.no_grad()
    def after_step(done: float) -> None:
        left = keep + (size - keep) * (1 - min(1, 2 * done)) ** 3
        scores = [_layer_adaptive(p) for p in tensors]
        least = torch.cat([s.flatten() for s in scores]).kthvalue(max(1, size - round(left) + 1)).values
        for p, s in zip(tensors, scores, strict=True):
            p *= s >= least

    return after_step


def _layer_adaptive(tensor: Tensor) -> Tensor:
    """Of every weight, its square over the sum of the squares of those in the tensor that are no smaller."""
    squares, order = tensor.square().flatten().sort(descending=True)
    return torch.empty_like(squares).scatter_(0, order, squares / (squares.cumsum(0) + 1e-30)).view_as(tensor)


def entries_kept(size: int, budget: int) -> int:
    """How many of ``size`` weights can be kept in ``budget`` bytes: each costs its place and about five bits."""
    low, high = 1, size
    while low < high:
        middle = (low + high + 1) // 2
        bits = middle * (math.log2(size / middle) + 1.44 + 5)
        low, high = (middle, high) if bits <= 8 * budget else (low, middle - 1)
    return low


def step_by_loss(model: Pranc, fresh: Callable[[], nn.Module], pictures: Pictures, worse: float = 1.01) -> float:
    """The coarsest step of which the training loss is at most ``worse`` times that of a very fine one."""
    *coarse, finest = [2.0**-i for i in range(-1, 8)]
    most = worse * pictures.loss(decoded(model, finest, fresh)[0])
    return next((step for step in coarse if pictures.loss(decoded(model, step, fresh)[0]) <= most), finest)


def step_by_size(model: Pranc, budget: int) -> float:
    """The finest step whose file has at most ``budget`` bytes, or the coarsest there is."""
    steps = [step_size(code) / 2**STEP_FRACTION for code in range(STEPS)]
    finest = float(model.alpha.detach().abs().max()) / MAGNITUDE
    low, high = next((i for i, step in enumerate(steps) if step > 1.01 * finest), STEPS - 1), STEPS - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(model.network(steps[middle]).pack()) <= budget else (middle + 1, high)
    return steps[low]


def decoded(
    model: Pranc, step: float, fresh: Callable[[], nn.Module], k: int | None = None, keep: Path | None = None
) -> tuple[nn.Module, int]:
    """The network as it comes out of its file, and the file's size. ``keep`` is where the file shall stay."""
    with tempfile.TemporaryDirectory() as folder:
        path = keep or Path(folder) / "model.prn"
        network = model.network(step)
        files.write(os.fspath(path), (network.prefix(k) if k else network).pack())
        module = fresh().to(model.alpha.device)
        return load(path, module, exclude=_excluded(model, module)).materialise().eval(), path.stat().st_size


def _excluded(model: Pranc, module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters() if name not in model.layout.shapes]


def entropy_bytes(q: np.ndarray, groups: np.ndarray) -> float:
    """Bytes of coefficients at the entropy of their own values, counted for every tensor by itself."""
    bits = 0.0
    for group in np.unique(groups):
        counts = np.unique(q[groups == group], return_counts=True)[1]
        bits -= float((counts * np.log2(counts / counts.sum())).sum())
    return bits / 8
