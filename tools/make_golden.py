"""Make golden files: one for every feature of the format, small enough to be decoded by hand (nearly).

python -m tools.make_golden              # all that are missing
python -m tools.make_golden NAME...

Writes tests/golden/NAME.prc, NAME.json (hashes of its integers) and, where the picture is tame enough to agree between
machines, NAME.png (what it decodes to here). A golden file is never made again: a later decoder must read the one that
is there. Only a feature that has not been released yet may change; delete its files first.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

import prancimg
from prancimg.fit.field_encoder import _file as field_file
from prancimg.fit.setup import Setup
from prancimg.fit.siren_encoder import Plan, _file, fit_to_size, widest
from prancimg.format import bitstream
from prancimg.format.bitstream import Segment
from prancimg.format.extras import Alpha, Extras, Metadata, Samples
from prancimg.format.header import (
    ALL_WEIGHTS,
    CONTEXTS,
    DIRECTIONS,
    FROZEN,
    PRANC,
    SEEDED,
    STEPS,
    SYNTHESIS,
    Adapted,
    Coded,
    Header,
)
from prancimg.format.layout import SCALES, Kind
from prancimg.format.lossless import Coding, Lossless
from prancimg.format.range_coder import MAGNITUDE, best_scale
from prancimg.images.lossless import _codings, _stacked
from prancimg.network.basis import IDENTITY_UP_TO
from prancimg.network.prior import load_prior
from tests.golden.integers import digests

FOLDER = Path(__file__).parents[1] / "tests" / "golden"


def photo(width: int, height: int) -> np.ndarray:
    """A photo that comes with scikit-image, made small: (height, width, 3) uint8."""
    from skimage import data

    return np.asarray(Image.fromarray(data.coffee()).resize((width, height), Image.Resampling.LANCZOS))


def fitted(plan: Plan, size: int, width: int = 48, height: int = 32) -> bytes:
    """A global network, fitted."""
    import torch

    return fit_to_size(photo(width, height), plan, 2026, size, 60, torch.device("cpu")).data


def with_prior(kind: Kind, part: int, number: int = 1) -> Plan:
    """A prior's network, and directions of one kind for its large tensors, an n-th of their size."""
    siren = load_prior(number)[0]
    return Plan(siren, number, kind, tuple(n if n <= IDENTITY_UP_TO else n // part for n in siren.sizes))


def extremes() -> bytes:
    """Every scale index and step code, escapes, low bits, coefficients of all sizes up to the largest."""
    random = np.random.default_rng(0)
    header = Header(9, 5, prior=0, hidden=12, layers=16, seed=2**64 - 1, kind=Kind.HADAMARD, tensors=())
    alpha, coded = [], []
    for t, size in enumerate(header.siren.sizes):
        scale, k = (3 * t) % SCALES, size if t % 3 else size - size // 3
        values = np.rint(random.laplace(0, 2 ** ((scale - 16) / 4), k) * (1 + 40 * (random.random(k) < 0.05)))
        values[:2] = -MAGNITUDE, MAGNITUDE - 1
        alpha.append(np.clip(values, -MAGNITUDE, MAGNITUDE - 1).astype(np.int64))
        coded.append(Coded(k, (7 * t) % STEPS, scale))
    return _file(replace(header, tensors=tuple(coded)), alpha)


def field(
    width: int,
    height: int,
    levels: tuple[int, int] = (0, 1),
    adapted: Adapted = FROZEN,
    kind: Kind = Kind.SIGN,
    spread: float = 1.0,
    seed: int = 7,
    prior: int = 2,
    pace: int = 0,
) -> bytes:
    """A field of random integers, wider the coarser, the networks moved a little; nothing is fitted."""
    random = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.uint8)
    header = replace(Setup(prior=prior).header(picture, 2e-3, levels, adapted, seed), kind=kind, pace=pace)
    q = {
        grid.key: np.rint(random.laplace(0, spread * (0.2 + grid.level), (grid.height, grid.width))).astype(np.int32)
        for grid in header.pyramid.grids
    }
    alpha = [np.rint(random.laplace(0, 1.5, coded.k)).astype(np.int64) for coded in header.tensors]
    coded = tuple(
        replace(each, scale=best_scale(a)) if each.k else each for each, a in zip(header.tensors, alpha, strict=True)
    )
    return field_file(replace(header, tensors=coded), alpha, q)


def with_more(data: bytes) -> bytes:
    """The same file with segments that a decoder skips, before, between and after the others."""
    segments = [*bitstream.read(data).items()]
    return bitstream.write([(255, b""), segments[0], (200, bytes(300)), *segments[1:], (160, b"skip me")])


def ramp() -> np.ndarray:
    """A plane (22, 37) uint8."""
    return (np.add.outer(np.arange(22), np.arange(37)) * 4).astype(np.uint8)


def png(plane: np.ndarray) -> bytes:
    """A plane as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(plane).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def with_extras(extras: Extras) -> bytes:
    """A field with transparency, metadata, or samples of another kind."""
    return bitstream.write([*bitstream.read((FOLDER / "field-frozen.prc").read_bytes()).items(), *extras.segments()])


def exact(samples: np.ndarray, coding: Coding, extras: Extras | None = None) -> bytes:
    """A lossless picture in a coding that may not be the smallest."""
    extras = extras or Extras(Samples(samples.ndim == 2, 8 * samples.dtype.itemsize))
    return bitstream.write([*extras.segments(), (Segment.LOSSLESS, coded(samples, coding).pack())])


def coded(samples: np.ndarray, coding: Coding) -> Lossless:
    """Samples (H, W) or (H, W, 3) in a coding."""
    data = dict(_codings(_stacked(samples), slow=True))[coding]
    return Lossless(samples.shape[1], samples.shape[0], 8 * samples.dtype.itemsize, coding, data)


def colors() -> np.ndarray:
    """Five colours in blocks, (22, 37, 3) uint8."""
    table = np.random.default_rng(5).integers(0, 256, (5, 3), np.uint8)
    return table[ramp() // 40 % 5]


def deep() -> np.ndarray:
    """Colours of 16 bits, (22, 37, 3) uint16."""
    return np.stack([ramp() * np.uint16(257) + np.uint16(shift) for shift in (0, 1, 9)], -1)


RECIPES: dict[str, Callable[[], bytes]] = {
    "siren": lambda: prancimg.encode(photo(120, 80), size=1500, model="siren", seed=2026),
    "siren-seeded": lambda: fitted(Plan.direct(widest(150, 2)), 300),
    "siren-sign": lambda: fitted(with_prior(Kind.SIGN, 80), 800),
    "siren-popcount": lambda: fitted(with_prior(Kind.POPCOUNT, 200), 700),
    "siren-identity": lambda: fitted(with_prior(Kind.IDENTITY, 16), 900),
    "siren-deep": lambda: fitted(with_prior(Kind.HADAMARD, 64, 4), 1000),
    "siren-learned": lambda: fitted(with_prior(Kind.HADAMARD, 64, 5), 1000),
    "siren-pixel": lambda: fitted(Plan.direct(widest(24, 1)), 90, 1, 1),
    "siren-extremes": extremes,
    "siren-more": lambda: with_more((FOLDER / "siren-seeded.prc").read_bytes()),
    "field": lambda: prancimg.encode(photo(60, 40), size=900, effort=2, seed=2026),
    "field-frozen": lambda: field(37, 22),
    "field-sign": lambda: field(24, 16, (0, 0), PRANC),
    "field-popcount": lambda: field(24, 16, (0, 1), PRANC, Kind.POPCOUNT),
    "field-hadamard": lambda: field(24, 16, (0, 2), PRANC, Kind.HADAMARD),
    "field-identity": lambda: field(24, 16, (0, 1), ALL_WEIGHTS, Kind.IDENTITY),
    "field-pixel": lambda: field(1, 1),
    "field-row": lambda: field(40, 1, (0, 0)),
    "field-tall": lambda: field(5, 70, (0, 1)),
    "field-coarse": lambda: field(50, 70, (2, 6)),
    "field-escapes": lambda: field(21, 30, (1, 0), spread=60),
    "field-seven-levels": lambda: field(33 * 4, 33 * 4, (3, 4)),
    "field-clear": lambda: with_extras(Extras(alpha=Alpha(flat=40_000))),
    "field-shape": lambda: with_extras(Extras(alpha=Alpha(png=png(ramp() * (ramp() > 99))))),
    "field-veil": lambda: with_extras(Extras(alpha=Alpha(prc=field(37, 22, (1, 6), seed=8)))),
    "field-grey": lambda: with_extras(Extras(Samples(grey=True, depth=16))),
    "field-deep": lambda: with_extras(Extras(Samples(depth=16), Alpha(flat=65_000))),
    "field-words": lambda: with_extras(
        Extras(metadata=Metadata(b"a profile", b"MM\0*\0\0\0\x08\0\0\0\0\0\0", b"<x/>"))
    ),
    "field-plan": lambda: field(24, 16, (0, 1), PRANC, seed=9),
    "field-plan-whole": lambda: field(24, 16, (0, 1), ALL_WEIGHTS, seed=10),
    "field-silhouette": lambda: with_extras(Extras(alpha=Alpha(lossless=coded(ramp() * (ramp() > 99), Coding.WEBP)))),
    "lossless": lambda: exact(photo(37, 22), Coding.WEBP),
    "lossless-raw": lambda: exact(photo(3, 5), Coding.RAW),
    "lossless-png": lambda: exact(photo(37, 22), Coding.PNG),
    "lossless-palette": lambda: exact(colors(), Coding.PNG),
    "lossless-bits": lambda: exact(ramp() // 64 % 2 * np.uint8(255), Coding.PNG),
    "lossless-grey": lambda: exact(ramp(), Coding.WEBP),
    "lossless-deep": lambda: exact(deep(), Coding.WEBP),
    "lossless-deep-raw": lambda: exact(deep()[:4, :5, 1], Coding.RAW),
    "lossless-deep-png": lambda: exact(deep()[:, :, 2], Coding.PNG),
    "lossless-all": lambda: exact(
        deep(),
        Coding.WEBP,
        Extras(
            Samples(depth=16), Alpha(lossless=coded(deep()[:, :, 1], Coding.PNG)), Metadata(b"a profile", xmp=b"<x/>")
        ),
    ),
    "lossless-more": lambda: with_more((FOLDER / "lossless-raw.prc").read_bytes()),
    "field-wide": lambda: prancimg.encode(photo(60, 40), size=900, effort=1, seed=2027),
    "field-wide-frozen": lambda: field(37, 22, (0, 1), FROZEN, seed=11, prior=3),
    "field-wide-directions": lambda: field(24, 16, (0, 2), DIRECTIONS, seed=12, prior=3),
    "field-wide-seeded": lambda: field(24, 16, (0, 0), SEEDED, seed=14, prior=3),
    "field-wide-synthesis": lambda: field(5, 33, (1, 1), SYNTHESIS, seed=13, prior=3),
    "field-wide-hadamard": lambda: field(16, 24, (0, 1), CONTEXTS, Kind.HADAMARD, seed=15, prior=3),
    "field-wide-levels": lambda: field(33 * 4, 33 * 4, (3, 4), CONTEXTS, seed=16, prior=3),
    "field-learning": lambda: field(37, 22, (0, 1), PRANC, seed=17, spread=3, pace=2),
    "field-learning-slowly": lambda: field(40, 30, (0, 2), FROZEN, Kind.HADAMARD, spread=90, seed=18, pace=1),
    "field-learning-wide": lambda: field(24, 24, (0, 1), DIRECTIONS, seed=19, prior=3, pace=3),
    "field-more": lambda: with_more((FOLDER / "field-frozen.prc").read_bytes()),
}
"""What makes each file, in an order in which it can be made."""
WILD = {"siren-extremes", "field-escapes"}
"""Files whose pictures are noise, in which a last bit of a sine may matter."""


def main() -> None:
    """Make the files asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(RECIPES))
    names = parser.parse_args().names
    for name in names or [name for name in RECIPES if not (FOLDER / f"{name}.prc").exists()]:
        if name not in RECIPES:
            sys.exit(f"there is no recipe for {name}")
        path = FOLDER / f"{name}.prc"
        if path.exists():
            sys.exit(f"{path.name} exists, and golden files are kept forever")
        data = RECIPES[name]()
        path.write_bytes(data)
        if name not in WILD:
            prancimg.decode(data).save(path.with_suffix(".png"), optimize=True)
        path.with_suffix(".json").write_text(json.dumps(digests(data), indent=1) + "\n")
        print(f"{path.name}: {len(data)} bytes")


if __name__ == "__main__":
    main()
