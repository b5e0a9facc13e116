"""PRANC on classifiers: accuracy against the bytes of the file, beside controls of the same bytes.

    python -m benchmarks.cifar10 --model lenet --k 1000 5000 10000 --data cifar10.zip [--epochs 12] [--device auto]

For the whole network, and for every k, these are trained, written to a file, read back and tested:

full     all weights, quantised
pranc    k coefficients; the step is the coarsest that costs at most 1 % of training loss
small    the same architecture with fewer channels, all weights, in a file of at most as many bytes as PRANC's
pruned   the full network with its smallest weights taken away while it is trained further, likewise

All files have the same format and the same entropy coder. Trainings go on from their checkpoints in --out; what is in
the results, made from the same pictures with the same options, is not done again. Results go to
benchmarks/cifar10/results.json; --report prints their table and writes it, and a plot, to --out, and into docs/deep.md
where that has a place for them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.cifar10 import report
from benchmarks.cifar10.data import load
from benchmarks.cifar10.networks import NETWORKS, narrow
from benchmarks.cifar10.train import (
    Pictures,
    Plan,
    decoded,
    entries_kept,
    entropy_bytes,
    prune,
    step_by_loss,
    step_by_size,
    train,
)
from prancimg.errors import PrancImgError
from prancimg.format import files
from prancimg.pranc import Pranc, direct

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
METHODS = ("full", "pranc", "small", "pruned")
SHARED = ("model", "epochs", "batch", "rate", "side", "pictures", "seed", "digest", "precision")
"""What all results of a run have in common: its options, and the digest of its pictures."""
KEY = ("model", "method", "k", "basis", "structure", "rows", "nested", "budget", "prune_epochs", *SHARED[1:])
"""All that a result depends on."""
NESTED_CUTS = (0.25, 0.5, 0.75)

Record = dict[str, Any]


class Bench:
    """One model on one data set, and where its results are kept."""

    def __init__(self, options: argparse.Namespace, pictures: Pictures) -> None:
        self.options, self.pictures = options, pictures
        self.records: list[Record] = json.loads(options.results.read_text()) if options.results.exists() else []
        if any(set(KEY) - record.keys() for record in self.records):
            raise PrancImgError(f"{options.results}: results that do not say how they were made; move them away")
        self.device = pictures.train.device
        own = {"pictures": len(pictures.train), "digest": pictures.digest}
        self.shared: Record = {name: own[name] if name in own else getattr(options, name) for name in SHARED}
        self.title = f"{options.model}-{options.data.stem}-{options.epochs}"
        self.settings = hashlib.sha256(json.dumps(self.shared).encode()).hexdigest()[:12]
        self.folder: Path = options.out / f"{self.title}-{self.settings}"
        self.made = 0

    def fresh(self, width: float = 1) -> nn.Module:
        """A new network from the seed."""
        torch.manual_seed(self.options.seed)
        return NETWORKS[self.options.model](self.pictures.classes, self.pictures.side, width).to(self.device)

    def record(self, method: str, k: int, make: Callable[[], Record], budget: int = 0) -> Record:
        """A finished record, made if there is none yet, kept."""
        o, spanned = self.options, method == "pranc"
        key: Record = self.shared | {"method": method, "k": k, "data": o.data.stem, "budget": budget}
        key |= {"basis": o.basis if spanned else "", "structure": o.structure if spanned else ""}
        key |= {"rows": o.rows if spanned else 0, "nested": o.nested and spanned}
        key |= {"prune_epochs": o.prune_epochs if method == "pruned" else 0}
        for record in self.records:
            if all(record[name] == key[name] for name in KEY):
                return record
        record = key | make()
        self.made += 1
        self.records.append(record)
        self.records.sort(key=lambda r: tuple(r[name] for name in KEY))
        files.write(os.fspath(o.results), (json.dumps(self.records, indent=1) + "\n").encode())
        print(f"{report.name(record)}: {record['bytes']} bytes, {100 * record['accuracy']:.2f} %", flush=True)
        return record

    def trained(self, model: nn.Module, plan: Plan, name: str, prepare: Callable[[float], None] | None = None) -> float:
        """Train, or go on training; milliseconds a step."""
        return train(model, self.pictures, plan, self.folder / f"{name}.pt", name, prepare)

    def plan(self, rate: float = 1.0, epochs: int | None = None, nested: bool = False) -> Plan:
        """The options' plan."""
        o = self.options
        return Plan(epochs or o.epochs, o.batch, rate * o.rate, o.seed, nested, o.precision)

    def full(self) -> nn.Module:
        """The full network, trained."""
        model = self.fresh()
        self.trained(model, self.plan(), "full")
        return model

    def measure(self, model: Pranc, step: float, fresh: Callable[[], nn.Module], name: str) -> Record:
        """Size and accuracy of a model's file."""
        keep = self.folder / f"{name}.prn"
        module, size = decoded(model, step, fresh, keep=keep)
        network = model.network(step)
        entropy = entropy_bytes(network.coefficients, network.layout.groups(len(network.coefficients)))
        return {
            "numbers": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "bytes": size,
            "bytes_apart": len(network.pack_apart()),
            "bytes_entropy": round(entropy, 1),
            "step": step,
            "accuracy": self.pictures.accuracy(module),
            "accuracy_unquantised": self.pictures.accuracy(model),
            "device": str(self.device),
        }

    def run_full(self) -> Record:
        """All weights."""
        model = self.full()
        numbers = sum(p.numel() for p in model.parameters())
        whole = direct(model)
        made = self.measure(whole, step_by_loss(whole, self.fresh, self.pictures), self.fresh, "full")
        return made | {"numbers": numbers}

    def run_pranc(self, k: int) -> Record:
        """The coefficients of a basis."""
        o = self.options
        model = Pranc(
            self.fresh(), k=k, seed=o.seed, basis=o.basis, structure=o.structure, rows=o.rows, keep=o.keep << 20
        )
        name = f"pranc-{k}-{o.basis}-{o.structure}{o.rows or ''}{'-nested' if o.nested else ''}"
        milliseconds = self.trained(model, self.plan(nested=o.nested), name)
        step = step_by_loss(model, self.fresh, self.pictures)
        made = self.measure(model, step, self.fresh, name)
        cuts = {}
        for share in NESTED_CUTS if o.nested else ():
            module, size = decoded(model, step, self.fresh, k=round(share * k))
            cuts[str(round(share * k))] = {"bytes": size, "accuracy": self.pictures.accuracy(module)}
        return made | {"cuts": cuts, "milliseconds_a_step": round(milliseconds, 1), "peak_mib": round(self.peak(), 1)}

    def run_small(self, k: int, budget: int) -> Record:
        """A narrower network of as many bytes, five bits a weight."""
        o = self.options
        model, width = narrow(o.model, 8 * budget // 5, self.pictures.classes, self.pictures.side)
        model, name = self.fresh(width), f"small-{k}-{budget}"
        self.trained(model, self.plan(), name)
        numbers = sum(p.numel() for p in model.parameters())
        whole = direct(model)
        step = step_by_size(whole, budget)
        made = self.measure(whole, step, lambda: self.fresh(width), name)
        return made | {"numbers": numbers, "width": round(width, 4)}

    def run_pruned(self, k: int, budget: int) -> Record:
        """The full network with its smallest weights taken away."""
        o, model = self.options, self.full()
        spare = sum(t.numel() * 2 for t in model.state_dict().values() if t.dim() == 1)  # biases and norms
        weights = sum(p.numel() for p in model.parameters() if p.dim() > 1)
        keep = entries_kept(weights, max(100, budget - spare))
        name = f"pruned-{k}-{budget}-{o.prune_epochs}"
        self.trained(model, self.plan(0.5, o.prune_epochs), name, prune(model, keep))
        whole = direct(model)
        step = step_by_size(whole, budget)
        made = self.measure(whole, step, self.fresh, name)
        return made | {"numbers": keep}

    def peak(self) -> float:
        """Greatest memory so far, MiB: of the GPU, or of the process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    def run(self) -> None:
        """Everything that is asked for and not there yet."""
        methods = self.options.methods
        if "full" in methods:
            self.record("full", 0, self.run_full)
        for k in self.options.k if "pranc" in methods else ():
            self.record("pranc", k, lambda k=k: self.run_pranc(k))
        for k in self.options.k:
            for method, run in (("small", self.run_small), ("pruned", self.run_pruned)):
                if method in methods:
                    budget = self.record("pranc", k, lambda k=k: self.run_pranc(k))["bytes"]
                    self.record(method, k, lambda k=k, run=run, budget=budget: run(k, budget), budget)
        if not self.made:
            print(f"nothing to train: all of this is in {self.options.results}")

    def write_report(self) -> None:
        """Table and plot of the results with this run's options: printed, in --out, and in docs/ if it has a place."""
        records = [r for r in self.records if self.shared.items() <= r.items()]
        table, usual = report.table(records), ("", "hadamard tensor")
        shown = [r for r in records if not r["nested"] and f"{r['basis']} {r['structure']}".strip() in usual]
        plot = report.plot(shown, self.title) if len({r["method"] for r in shown}) > 1 else b""
        self.folder.mkdir(parents=True, exist_ok=True)
        files.write(os.fspath(self.folder / "table.md"), f"{table}\n".encode())
        if plot:
            files.write(os.fspath(self.folder / "plot.svg"), plot)
        print(f"{table}\n\nwritten to {self.folder}")
        page, mark, end = DOCS / "deep.md", f"<!-- {self.title} {self.settings} -->", f"<!-- end of {self.title} -->"
        before, begin, rest = page.read_text().partition(mark)
        _, stop, after = rest.partition(end)
        if begin and stop:
            files.write(os.fspath(page), f"{before}{begin}\n\n{table}\n\n{stop}{after}".encode())
            if plot:
                files.write(os.fspath(DOCS / f"{self.title}.svg"), plot)
            print(f"and to {page}")


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cifar10", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", choices=NETWORKS, required=True)
    parser.add_argument("--k", type=int, nargs="+", default=[], help="numbers of coefficients")
    parser.add_argument("--data", type=Path, required=True, help="zip file or folder of train/CLASS/… and test/CLASS/…")
    parser.add_argument("--side", type=int, default=32, help="pixels that pictures are resized to")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--basis", default="hadamard", choices=["sign", "popcount", "hadamard", "identity"])
    parser.add_argument("--structure", default="tensor", choices=["tensor", "dense", "chunks"])
    parser.add_argument("--rows", type=int, default=0, help="rows of a chunk")
    parser.add_argument("--nested", action="store_true", help="train random prefixes, and test cut files")
    parser.add_argument("--keep", type=int, default=0, help="MiB for keeping sign and popcount blocks in memory")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--pictures", type=int, help="train with so many of the pictures, for trials")
    parser.add_argument("--prune-epochs", type=int, default=4, help="further epochs for the pruned networks")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.004, help="highest learning rate of weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16", help="of products")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, …")
    parser.add_argument("--out", type=Path, default=Path("build/cifar10"), help="pictures, checkpoints and models")
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--report", action="store_true", help="print the table; write it and a plot")
    options = parser.parse_args(arguments)
    try:
        device = options.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        data = load(options.data, options.side, options.out)
        pictures = Pictures(data.some(options.pictures) if options.pictures else data, torch.device(device))
        bench = Bench(options, pictures)
        bench.run()
        if options.report:
            bench.write_report()
    except (ValueError, OSError, RuntimeError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
