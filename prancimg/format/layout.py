"""What a header implies, in plain Python: the tensors of the network, the grids of the field, the format's constants.

Whoever only wants to know what a file holds gets by without NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prancimg.network.arrays import Array

MAX_SIDE = 1 << 20
"""Cap on width and height."""
MAX_LEVELS = 7
COMPONENTS = 3
CHANNELS = 4
_SMALLEST = 4
"""A coarser level is added while the shorter side of the coarsest one is longer than this."""
STEP_CODES = 256
SCALES = 100
"""Scale index t of a group of coefficients means 2**((t - 16) / 4); the low bits of those beyond 27 are sent raw."""

KINDS = ("luma", "chroma")
"""The two networks of the context model, see :mod:`prancimg.network.context`."""
CAUSAL = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (-2, 0), (0, -2), (-2, -1), (-2, 1), (-1, -2), (-2, 2))
"""Offsets (dy, dx) of the causal neighbours; dx + 2 dy < 0 for all."""
FAR = ((-2, -2), (-3, 0), (0, -3), (-3, -1), (-3, 1), (-1, -3), (-3, 2), (-2, 3), (-3, -2), (-3, 3))
"""Those that a wide context has as well."""
TRAPEZOID = ((0, -4, -1), (-1, -4, 1), (-2, -4, 3), (-3, -4, 4), (-4, -4, 4))
"""The causal surroundings whose magnitudes are summed: dy, and the first and last dx."""
MIDDLE = ((0, 0),)
PARENT = (*MIDDLE, (0, 2), (0, -2), (2, 0), (-2, 0))
"""Likewise of the taps in the next coarser grid, raised to the size of this one, and in the grid of luma."""
LUMA = (*MIDDLE, (0, 1), (0, -1), (1, 0), (-1, 0))
_CORNERS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


class Plane(Enum):
    """Where a feature of a context is read: in a plane of the grid's size, made of one grid."""

    OWN = "the grid itself, zero outside"
    OWN_SUM = "magnitude of the sum over the causal surroundings"
    NEAREST = "the parent, samples repeated"
    PARENT = "the parent, raised along straight lines"
    PARENT_SUM = "magnitude of the sum over 5 x 5 coefficients of the parent, raised likewise"
    GRANDPARENT = "the grid two levels up, raised likewise twice"
    OTHER = "magnitude of another component at the parent's level: the first chroma for luma, the other one for chroma"
    OTHER_2 = "the same of the second chroma, for luma"
    LUMA = "luma of the same level"
    FIRST = "the first chroma of the same level, for the second"


Features = tuple[tuple[Plane, tuple[tuple[int, int], ...]], ...]
"""Planes, and the offsets (dy, dx) at which they are read, in the order of the first layer's columns."""
_NEAR: Features = ((Plane.OWN, CAUSAL), (Plane.NEAREST, MIDDLE), (Plane.PARENT, PARENT))
_WIDE: Features = (
    (Plane.OWN, CAUSAL + FAR),
    (Plane.NEAREST, MIDDLE),
    (Plane.PARENT, PARENT + tuple((2 * dy, 2 * dx) for dy, dx in _CORNERS)),
    (Plane.GRANDPARENT, (*MIDDLE, (0, 3), (0, -3), (3, 0), (-3, 0))),
    (Plane.OWN_SUM, MIDDLE),
    (Plane.PARENT_SUM, MIDDLE),
    (Plane.OTHER, MIDDLE),
)
NEAR: dict[str, Features] = {"luma": _NEAR, "chroma": (*_NEAR, (Plane.LUMA, LUMA), (Plane.FIRST, MIDDLE))}
WIDE: dict[str, Features] = {
    "luma": (*_WIDE, (Plane.OTHER_2, MIDDLE)),
    "chroma": (*_WIDE, (Plane.LUMA, LUMA + _CORNERS), (Plane.FIRST, LUMA)),
}


def inputs(features: Features) -> int:
    """Their number."""
    return sum(len(offsets) for _, offsets in features)


def features_of(kind: str, number: int) -> Features:
    """The features of the context network of a kind that reads so many."""
    return next(design[kind] for design in (NEAR, WIDE) if inputs(design[kind]) == number)


@dataclass(frozen=True)
class Design:
    """What a prior decides about its network beyond what a header says."""

    wide: bool = False
    """Whether the context reads far."""
    units: int = 24
    """Units of a layer of the context networks, a multiple of 4."""
    learned: tuple[tuple[str, int], ...] = ()
    """The parts of the network, or single tensors, that have directions learned with the prior, and how many."""

    @property
    def features(self) -> dict[str, Features]:
        """What the context networks read."""
        return WIDE if self.wide else NEAR

    def learned_by(self, tensor: str) -> str:
        """The name of the tensor of learned coefficients that move a tensor, if there are any."""
        return f"{LEARNED}.{tensor if any(tensor == name for name, _ in self.learned) else part_of(tensor)}"

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors of both networks of the context model."""
        n, out = self.units, dict[str, tuple[int, ...]]()
        for kind, components in (("luma", 1), ("chroma", 2)):
            out |= {
                f"{kind}.a": (n, inputs(self.features[kind])),
                f"{kind}.bias": (components, MAX_LEVELS, n),
                f"{kind}.slope": (MAX_LEVELS, n),
                f"{kind}.b": (n, n),
                f"{kind}.b0": (n,),
                f"{kind}.c": (2, n),
                f"{kind}.c0": (2,),
            }
        return out


LEARNED = "learned"
PAINT = "paint"
"""The part of the network that is not the context model's; the other two are its ``KINDS``."""
FIRST = Design()
DESIGNS = {
    3: Design(wide=True, units=64, learned=(("luma", 32), ("chroma", 16), (PAINT, 8))),
    5: Design(learned=tuple((f"w{layer}", 16) for layer in range(1, 8))),
}
"""By the number of the prior; the others have the first one."""
NEUTRAL_RATE, MAX_RATE = 128, 255
"""Rate indices: that of λ = 0.001, sixteen more for every doubling; and the greatest."""


class Kind(IntEnum):
    """How a block's columns are drawn. The numbers are part of the file format."""

    IDENTITY = 0
    """One parameter a column, in a random order: direct weights, the control."""
    SIGN = 1
    """±1, one random bit each."""
    POPCOUNT = 2
    """Near-Gaussian integers: the number of ones in 32 random bits, less 16 (variance 8)."""
    HADAMARD = 3
    """±1 and orthogonal: randomly signed rows, randomly ordered columns of a Walsh-Hadamard matrix (Ailon and
    Chazelle, 2009). A product costs n log n."""


@dataclass(frozen=True)
class Grid:
    """One integer grid."""

    component: int
    level: int
    height: int
    width: int

    @property
    def key(self) -> tuple[int, int]:
        """(component, level)."""
        return self.component, self.level

    @property
    def count(self) -> int:
        """Its number of coefficients."""
        return self.height * self.width


@dataclass(frozen=True)
class Pyramid:
    """All grids of a picture: luma from level ``luma_from``, chroma from level ``chroma_from`` up to the coarsest."""

    height: int
    width: int
    luma_from: int = 0
    chroma_from: int = 2

    @cached_property
    def levels(self) -> int:
        """Their number, 1 to 7."""
        number, side = 1, min(self.height, self.width)
        while number < MAX_LEVELS and side > _SMALLEST:
            side, number = (side + 1) // 2, number + 1
        return number

    def size(self, level: int) -> tuple[int, int]:
        """Height and width of a level: the picture's over 2**level, rounded up."""
        return -(-self.height >> level), -(-self.width >> level)

    @cached_property
    def grids(self) -> tuple[Grid, ...]:
        """In coding order: coarse to fine, luma before its chroma."""
        first = [min(start, self.levels - 1) for start in (self.luma_from, self.chroma_from, self.chroma_from)]
        return tuple(
            Grid(component, level, *self.size(level))
            for level in reversed(range(self.levels))
            for component in range(COMPONENTS)
            if level >= first[component]
        )

    def share(self, some: Sequence[Grid]) -> str:
        """Some of the grids in words."""
        part = 100 * sum(grid.count for grid in some) / sum(grid.count for grid in self.grids)
        return f"{levels_in_words(sorted({grid.level for grid in some}))} ({part:.0f} % of its coefficients)"

    def split(self, packed: Array) -> dict[tuple[int, int], Array]:
        """All coefficients one after the other (n,) to grids (h, w) by (component, level), which share its memory."""
        grids, at = {}, 0
        for grid in self.grids:
            grids[grid.key] = packed[at : at + grid.count].reshape(grid.height, grid.width)
            at += grid.count
        return grids


def levels_in_words(levels: Sequence[int]) -> str:
    """Levels of a pyramid in words."""
    return f"level {levels[0]}" if len(levels) == 1 else f"levels {levels[0]} to {levels[-1]}"


@dataclass(frozen=True)
class Siren:
    """``layers`` hidden layers of ``hidden`` sine units each, then a linear layer to three channels.

    Without ``channels`` it reads coordinates, else so many channels of a field.
    """

    hidden: int
    layers: int
    channels: int = 0
    design: Design = FIRST

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensors in the order of the parameter vector: w0, b0, w1, b1, ...; weights are (out, in), row-major.

        With a field also what it is made with, what follows the network, and the context model's tensors. Last the
        coefficients of the directions that were learned.
        """
        widths = [self.channels or 2, *[self.hidden] * self.layers, 3]
        shapes: dict[str, tuple[int, ...]] = {}
        for i in range(self.layers + 1):
            shapes |= {f"w{i}": (widths[i + 1], widths[i]), f"b{i}": (widths[i + 1],)}
        if self.channels:
            shapes |= {"gain": (MAX_LEVELS, COMPONENTS, self.channels), "scale": (MAX_LEVELS, COMPONENTS), "taps": (4,)}
            shapes |= {"slope": (self.hidden,), "residual": (3, 27)} | self.design.shapes
        return shapes | {f"{LEARNED}.{part}": (number,) for part, number in self.design.learned}

    @cached_property
    def sizes(self) -> list[int]:
        """The number of entries of every tensor."""
        return [math.prod(shape) for shape in self.shapes.values()]

    @staticmethod
    def of(prior: int, hidden: int, layers: int, channels: int) -> Siren:
        """The network of a header."""
        return Siren(hidden, layers, channels, DESIGNS.get(prior, FIRST))


def part_of(tensor: str) -> str:
    """The part of the network that a tensor belongs to: luma's or chroma's context, the synthesis, or ``LEARNED``."""
    part = tensor.partition(".")[0]
    return part if part in (*KINDS, LEARNED) else PAINT
