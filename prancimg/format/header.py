"""The header of a picture that is a network: all that decides how coefficients are read. docs/format.md specifies it.

Every size is checked against a cap here, before anything is allocated for it: a file is hostile until proven
otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from prancimg.errors import PrancImgError
from prancimg.format.layout import (
    KINDS,
    LEARNED,
    MAX_LEVELS,
    MAX_RATE,
    MAX_SIDE,
    PAINT,
    SCALES,
    STEP_CODES,
    Kind,
    Pyramid,
    Siren,
    part_of,
)
from prancimg.format.numbers import Numbers, varint

MAX_HIDDEN, MAX_LAYERS, MAX_CHANNELS = 512, 16, 16
MAX_ENTRIES = 1 << 28
"""Cap on the entries of B a decoder may have to generate: about 12 seconds."""
SINE_COST = 256
"""What a sine of a large number costs, in multiply-accumulates."""
MAX_WORK = 1 << 41
"""Cap on the multiply-accumulates of a whole render: two to three minutes on one core."""
MAX_CONTEXT = 1 << 42
"""Cap on those of the context model."""
MAX_WAVES = 1 << 20
"""Cap on the wavefronts of a field, which are decoded one after the other: about two minutes."""
MAX_PACE = 3
"""How fast the context model can learn, at most."""
MAX_PLANS = 32
"""Plans there can be: the pace comes on top of their numbers."""
STEPS = 136
"""Step codes c mean the integer (8 + c % 8) << c // 8."""


@dataclass(frozen=True)
class Coded:
    """How the coefficients of one tensor are coded."""

    k: int
    """Their number, at most the tensor's size; without any, the tensor stays at θ0."""
    step: int = 0
    """Step code of s."""
    scale: int = 0
    """Scale index of their distribution, see :data:`prancimg.format.layout.SCALES`."""


@dataclass(frozen=True)
class Header:
    """All that decides how the coefficients are read and what they mean."""

    width: int
    height: int
    prior: int
    """0: θ0 drawn from the seed; otherwise the number of a prior that ships with the format."""
    hidden: int
    layers: int
    """Hidden (sine) layers, each ``hidden`` wide."""
    seed: int
    kind: int
    """The kind of the basis blocks, :class:`prancimg.format.layout.Kind`."""
    tensors: tuple[Coded, ...]
    channels: int = 0
    """Of the field that the network reads; 0: there is none, and the fields below are 0."""
    luma_from: int = 0
    """Finest level of the field's luma; likewise of its chroma."""
    chroma_from: int = 0
    rate: int = 0
    """The rate index that the network and the context model are told."""
    step: int = 0
    """Step code of the field, see :func:`prancimg.network.field.grid_step`."""
    pace: int = 0
    """How fast the context model learns in every grid, see :mod:`prancimg.network.learning`; 0: not at all."""

    @property
    def siren(self) -> Siren:
        """The network."""
        return Siren.of(self.prior, self.hidden, self.layers, self.channels)

    @property
    def pyramid(self) -> Pyramid:
        """The grids of the field."""
        return Pyramid(self.height, self.width, self.luma_from, self.chroma_from)

    def check(self) -> None:
        """Refuse what would take too long to decode: a decoder's time and memory follow from these products."""
        tensors = zip(self.tensors, self.siren.sizes, strict=True)
        made = self.kind in (Kind.SIGN, Kind.POPCOUNT)  # the others take n log n at most
        entries = sum(coded.k * size for coded, size in tensors if made and coded.k < size)
        grids, shapes = self.pyramid.grids if self.channels else (), self.siren.shapes
        waves = sum(grid.width + 2 * grid.height - 2 for grid in grids)
        each = {kind: sum(math.prod(shapes[f"{kind}.{name}"]) for name in "abc") for kind in KINDS} if grids else {}
        painting = sum(math.prod(shape) for name, shape in shapes.items() if part_of(name) == PAINT)
        if entries > MAX_ENTRIES:
            raise PrancImgError(f"the basis has {entries} entries, more than {MAX_ENTRIES}")
        if waves > MAX_WAVES:
            raise PrancImgError(f"a field of {self.width} x {self.height} takes {waves} steps, more than {MAX_WAVES}")
        if self.width * self.height * (painting + SINE_COST * self.hidden * self.layers) > MAX_WORK:
            raise PrancImgError("the network is too large for so many pixels")
        if sum(grid.count * each[KINDS[grid.component > 0]] for grid in grids) > MAX_CONTEXT:
            raise PrancImgError("the context model is too large for so many coefficients")

    @property
    def plan(self) -> int | None:
        """The number of the first plan that describes the coefficients but for their scales, if one does."""
        for number, plan in enumerate(PLANS):
            if any(getattr(self, name) != value for name, value in plan.scalars.items()):
                continue
            planned = zip(self.tensors, plan.tensors, strict=True)
            if all(not coded.k or coded == replace(most, scale=coded.scale) for coded, most in planned):
                return number
        return None

    def pack(self) -> bytes:
        """All fields as varints; in brief where the coefficients follow a plan."""
        plan = self.plan
        if plan is not None:
            numbers = [0, plan + MAX_PLANS * self.pace, *(getattr(self, name) for name in _BRIEF)]
            planned = zip(self.tensors, PLANS[plan].tensors, strict=True)
            numbers += [coded.scale + 1 if coded.k else 0 for coded, most in planned if most.k]
        else:
            numbers = [getattr(self, name) for name in (*_SCALARS, *(_FIELD_SCALARS if self.channels else ()))]
            numbers[_KIND] += len(Kind) * self.pace
            for coded in self.tensors:
                numbers += [coded.k, coded.step, coded.scale] if coded.k else [0]
        return b"".join(map(varint, numbers))

    @staticmethod
    def unpack(data: bytes) -> Header:
        """Parse and check every field but the cap on pixels, which is the caller's."""
        brief = data[:1] == b"\0"
        number = Numbers(data[brief:])
        header = Header._planned(number) if brief else Header._unplanned(number)
        number.end()
        header.check()
        return header

    @staticmethod
    def _planned(number: Numbers) -> Header:
        pace, which = divmod(number("plan", 0, MAX_PLANS * (MAX_PACE + 1) - 1), MAX_PLANS)
        if which >= len(PLANS):
            raise PrancImgError(f"the plan {which} is out of range (0 to {len(PLANS) - 1})")
        plan = PLANS[which]
        scalars = plan.scalars | {"pace": pace} | {name: number(name, *limits) for name, limits in _BRIEF.items()}
        coded = []
        for most in plan.tensors:
            scale = number("scale", 0, SCALES) if most.k else 0
            coded.append(replace(most, scale=scale - 1) if scale else Coded(0))
        return Header(**scalars, tensors=tuple(coded))

    @staticmethod
    def _unplanned(number: Numbers) -> Header:
        scalars = {name: number(name, *limits) for name, limits in _SCALARS.items()}
        scalars["pace"], scalars["kind"] = divmod(scalars["kind"], len(Kind))
        if scalars["channels"]:
            scalars |= {name: number(name, *limits) for name, limits in _FIELD_SCALARS.items()}
        elif scalars["pace"]:
            raise PrancImgError("without a field there is nothing to learn")
        coded = []
        siren = Siren.of(*(scalars[name] for name in _NETWORK))
        for name, shape in siren.shapes.items():
            k = number(f"number of coefficients of {name}", 0, math.prod(shape))
            coded.append(Coded(k, number("step", 0, STEPS - 1), number("scale", 0, SCALES - 1)) if k else Coded(0))
        return Header(**scalars, tensors=tuple(coded))


_SCALARS = {
    "width": (1, MAX_SIDE),
    "height": (1, MAX_SIDE),
    "prior": (0, 1 << 16),
    "hidden": (1, MAX_HIDDEN),
    "layers": (1, MAX_LAYERS),
    "channels": (0, MAX_CHANNELS),
    "seed": (0, (1 << 64) - 1),
    "kind": (0, len(Kind) * (MAX_PACE + 1) - 1),
}
_KIND = list(_SCALARS).index("kind")
"""The place of the number that also has the pace."""
_FIELD_SCALARS = {
    "luma_from": (0, MAX_LEVELS - 1),
    "chroma_from": (0, MAX_LEVELS - 1),
    "rate": (0, MAX_RATE),
    "step": (0, STEP_CODES - 1),
}


Adapted = Mapping[str, tuple[int, int | None]]
"""By tensor: the step code of its coefficients, and their number where that is not the tensor's size."""

_PAINT: Adapted = {
    "w0": (56, None),
    "b0": (48, None),
    "w1": (48, None),
    "b1": (40, None),
    "scale": (104, None),
    "taps": (56, None),
    "residual": (48, None),
}


def _contexts(a: tuple[int, int | None], b: tuple[int, int | None], bias: tuple[int, int | None]) -> Adapted:
    tensors = {"a": a, "b": b, "bias": bias, "b0": (104, None), "c": (96, None), "c0": (104, None)}
    return {f"{kind}.{tensor}": how for kind in KINDS for tensor, how in tensors.items()}


FROZEN: Adapted = {}
PRANC: Adapted = {**_PAINT, **_contexts((72, 48), (72, 48), (88, 24))}
ALL_WEIGHTS: Adapted = {**_PAINT, **_contexts((96, None), (96, None), (104, None))}
DIRECTIONS: Adapted = {f"{LEARNED}.{part}": (120, None) for part in (*KINDS, PAINT)}
SEEDED: Adapted = {**DIRECTIONS, **_PAINT, "w0": (56, 16), "b0": (48, 8), "w1": (48, 16), "residual": (48, 24)}
SYNTHESIS: Adapted = {**DIRECTIONS, **_PAINT}
_SOME: Adapted = {
    "a": (72, 8),
    "bias": (80, 8),
    "slope": (80, 8),
    "b": (72, 8),
    "b0": (80, 8),
    "c": (80, 8),
    "c0": (104, None),
}
CONTEXTS: Adapted = {**SYNTHESIS, **{f"{kind}.{name}": how for kind in KINDS for name, how in _SOME.items()}}


@dataclass(frozen=True)
class Plan:
    """How a brief header's coefficients are coded, all but their scales."""

    prior: int
    adapted: Adapted

    @property
    def scalars(self) -> dict[str, int]:
        """What the header does not say."""
        return {"prior": self.prior} | PLANNED

    @property
    def tensors(self) -> tuple[Coded, ...]:
        """Those of the network, the scales left open."""
        return coded_by(self.adapted, Siren.of(*(self.scalars[name] for name in _NETWORK)))


PLANS = (
    *(Plan(2, adapted) for adapted in (FROZEN, PRANC, ALL_WEIGHTS)),
    *(Plan(3, adapted) for adapted in (FROZEN, DIRECTIONS, SEEDED, SYNTHESIS, CONTEXTS)),
)
"""Plans of the field's networks, numbered from 0. Part of the format: never edited, only added to."""
PLANNED = {"hidden": 16, "layers": 1, "channels": 4, "kind": int(Kind.SIGN)}
"""What all of them have in common."""
_NETWORK = "prior", "hidden", "layers", "channels"
_BRIEF = {name: limits for name, limits in (_SCALARS | _FIELD_SCALARS).items() if name not in {"prior", *PLANNED}}


def coded_by(adapted: Adapted, siren: Siren) -> tuple[Coded, ...]:
    """How all tensors of a network are coded, the scales left open."""
    coded = []
    for name, shape in siren.shapes.items():
        step, k = adapted.get(name, (0, 0))
        coded.append(Coded(math.prod(shape) if k is None else k, step))
    return tuple(coded)


def step_size(code: int) -> int:
    """The integer step of a step code, in units of 2**-20."""
    return (8 + code % 8) << code // 8
