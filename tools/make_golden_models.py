"""Make the golden model files that are missing: tests/golden/NAME.prn and NAME.json, see :mod:`tools.make_golden`.

python -m tools.make_golden_models
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from prancimg.format.layout import Kind
from prancimg.pranc.compact import Apart, Layout, Network, Recipe, Start, Structure, rounded

FOLDER = Path(__file__).parents[1] / "tests" / "golden"
SHAPES = {"0.weight": (6, 3, 3, 3), "0.bias": (6,), "3.weight": (40, 54), "norm.weight": (300,), "scalar": ()}
APART = {"1.running_var": ("float", (6,)), "1.num_batches_tracked": ("int", ()), "1.empty": ("float", (0,))}
SORTS = {name: Apart(shape, sort) for name, (sort, shape) in APART.items()}
RECIPES = {
    "model-dense": Recipe(1, Kind.SIGN, Structure.DENSE),
    "model-tensor": Recipe(2**64 - 1, Kind.HADAMARD, Structure.TENSOR),
    "model-chunks": Recipe(3, Kind.POPCOUNT, Structure.CHUNKS, 300),
    "model-direct": Recipe(0, Kind.IDENTITY, Structure.TENSOR, start=Start.ZERO),
}


def network(recipe: Recipe, k: int, step: int = 80, spread: float = 6.0) -> Network:
    """Random integers, smaller the later, a few very large; nothing is trained."""
    choose = np.random.default_rng(k)
    q = np.rint(choose.laplace(0, spread / (1 + np.arange(k) / k)) * (1 + 30 * (choose.random(k) < 0.01)))
    floats = rounded(choose.normal(size=6).astype(np.float32))
    apart = {"1.running_var": floats, "1.num_batches_tracked": np.array(-7), "1.empty": np.zeros(0, np.float32)}
    return Network(Layout(SHAPES, recipe), step, q.astype(np.int64), apart)


def contents(data: bytes) -> dict[str, Any]:
    """What a file means: its integers, and the SHA-256 of its weights as little-endian float32."""
    made, digest = Network.unpack(data, SHAPES, SORTS), hashlib.sha256()
    for weight in made.weights(SHAPES, made.coefficients.astype(np.float64)).values():
        digest.update(weight.astype("<f4").tobytes())
    apart = {name: array.tolist() for name, array in made.apart.items()}
    return {"coefficients": made.coefficients.tolist(), "apart": apart, "weights": digest.hexdigest()}


def main() -> None:
    """Make what is missing."""
    for name, recipe in RECIPES.items():
        path = FOLDER / f"{name}.prn"
        if not path.exists():
            path.write_bytes(network(recipe, 400).pack())
            path.with_suffix(".json").write_text(json.dumps(contents(path.read_bytes())) + "\n")
            print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
