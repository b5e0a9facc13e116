"""Make a deeper prior of the ``siren`` preset from a trained one: more sine layers, about the same picture.

    python -m tools.deepen_siren_prior PRIOR.bin OUT.bin --before 2 3 4

Before each of the layers named, a new one turns the units by a random rotation and shifts their phases by up to one;
the layer that was there is fitted again, by least squares, to give the sums that it gave. What its training taught the
prior stays, and an adaptation has more layers to work with. docs/siren.md says what that is worth.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np

from prancimg.format.layout import Siren
from prancimg.network.prior import pack_prior, unpack_prior
from prancimg.network.siren import FRACTION, coordinates

RIDGE = 0.02
"""What the mean squared change of a weight costs against the mean squared error of a sum."""


def deepen(
    siren: Siren, theta0: dict[str, np.ndarray], before: list[int], seed: int
) -> tuple[Siren, dict[str, np.ndarray]]:
    """The network with a layer more before each of the layers ``before``, and its weights as floats."""
    random, n = np.random.default_rng(seed), siren.hidden
    floats = {name: (theta0[name] / 2.0**FRACTION).reshape(shape) for name, shape in siren.shapes.items()}
    h = coordinates(256, 384).astype(np.float64)[:, ::7]
    layers: list[tuple[np.ndarray, np.ndarray]] = []
    for i in range(siren.layers + 1):
        weights, phases = floats[f"w{i}"], floats[f"b{i}"]
        sums = weights @ h + phases[:, None]
        if i in before:
            turn, shift = np.linalg.qr(random.standard_normal((n, n)))[0], random.uniform(-1, 1, n)
            layers.append((turn, shift))
            h = np.sin(turn @ h + shift[:, None])
            weights, phases = refitted(weights @ turn.T / np.cos(shift), phases, shift, h, sums)
            sums = weights @ h + phases[:, None]
        layers.append((weights, phases))
        h = np.sin(sums)
    deeper = Siren(n, siren.layers + len(before))
    return deeper, {
        name: part for i, pair in enumerate(layers) for name, part in zip((f"w{i}", f"b{i}"), pair, strict=True)
    }


def refitted(
    weights: np.ndarray, phases: np.ndarray, shift: np.ndarray, h: np.ndarray, sums: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and phases that turn ``h`` into ``sums``, near those that would if the sines before were straight."""
    start = np.column_stack((weights, phases - weights @ np.sin(shift)))
    inputs = np.vstack((h, np.ones(h.shape[1])))
    normal = inputs @ inputs.T + RIDGE * h.shape[1] * np.eye(len(inputs))
    moved = start + np.linalg.solve(normal, inputs @ (sums - start @ inputs).T).T
    return moved[:, :-1], moved[:, -1]


def main() -> None:
    """Deepen and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--before", type=int, nargs="+", required=True, metavar="LAYER")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    siren, theta0, _ = unpack_prior(options.prior.read_bytes())
    data = pack_prior(*deepen(siren, theta0, options.before, options.seed))
    options.output.write_bytes(data)
    print(f"{options.output}: {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
