"""A network as a small exact file: how its weights follow from integers, and those integers as bytes.

The architecture is the caller's: the file holds no code and no names, only a fingerprint of the shapes it belongs to.
Everything up to the last rounding is integers, so the weights are bit-identical on every device. Written once for NumPy
and torch; docs/format.md specifies it. :mod:`prancimg.pranc` trains such networks.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from prancimg.errors import PrancImgError
from prancimg.format.bitstream import Family, read, salvage, write
from prancimg.format.header import step_size
from prancimg.format.layout import SCALES, Kind
from prancimg.format.numbers import Numbers, varint
from prancimg.format.range_coder import (
    NO_LOW_BITS,
    AdaptiveModel,
    Decoder,
    Encoder,
    Truncated,
    TruncatedDecoder,
    best_scale,
)
from prancimg.network import basis as pb
from prancimg.network.arrays import Array, arange, cast, convert, namespace
from prancimg.network.philox import philox4x32

FRACTION = 40
"""Weights are integers in units of 2**-40, θ0 in units of 2**-24, the step in units of 2**-16."""
START_FRACTION = 24
STEP_FRACTION = 16
STEPS = 136
MAX_PARAMETERS = 1 << 28
MIN_ROWS = 64
"""The smallest chunks there can be."""
MAX_ENTRIES = 1 << 34
"""Default cap on the entries of B that all weights together take: about a quarter of an hour on one core."""
SLICE = 1 << 16
"""Entries of a tensor that are made at a time."""
INITIAL = 0x1000
"""Last Philox counter word of the initial weights; block kinds use the small numbers."""
_EXACT = 1 << 53


class Structure(IntEnum):
    """Which parameters share a block of the basis. The numbers are part of the file format."""

    DENSE = 0
    """One block over everything, as in the PRANC paper."""
    TENSOR = 1
    """A block for each tensor; tensors of at most 256 entries whole."""
    CHUNKS = 2
    """Blocks of some rows within each tensor; tensors of at most 256 entries whole."""


class Start(IntEnum):
    """What θ0 is."""

    ZERO = 0
    """Zeros: for networks that are stored directly."""
    SEED = 1
    """He-uniform for tensors of two or more dimensions, ones for one-dimensional tensors ``weight``, zeros else."""


class ModelSegment(IntEnum):
    """What a segment of a model file holds."""

    HEADER = 1
    APART = 2
    COEFFICIENTS = 3


MODEL = Family(".prn", b"\x8bPRN\r\n\x1a\n", ModelSegment, ((ModelSegment.HEADER, ModelSegment.APART),))


@dataclass(frozen=True)
class Recipe:
    """Everything but the coefficients that the spanned weights follow from, given their shapes."""

    seed: int
    kind: Kind
    structure: Structure
    rows: int = 0
    """Of a chunk; 0 for the other structures."""
    start: Start = Start.SEED


@dataclass(frozen=True)
class Piece:
    """Some consecutive entries of a tensor that one block spans."""

    block: int
    first: int
    """Row of the block."""
    rows: int
    scale: int
    """s for coefficients in units of 1: an integer in units of 2**-40."""


class Layout:
    """Named tensors laid end to end, the blocks that span them and what they start from."""

    def __init__(self, shapes: Mapping[str, Sequence[int]], recipe: Recipe) -> None:
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.recipe = recipe
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        if not sizes or min(sizes) == 0 or sum(sizes) > MAX_PARAMETERS:
            raise PrancImgError(f"a network needs 1 to {MAX_PARAMETERS} parameters, and no tensor without any")
        if recipe.structure == Structure.CHUNKS:
            self.basis = pb.chunk_basis(sizes, recipe.kind, recipe.seed, recipe.rows)
        else:
            make = pb.dense_basis if recipe.structure == Structure.DENSE else pb.block_basis
            self.basis = make(sizes, recipe.kind, recipe.seed)
        self.pieces: dict[str, list[Piece]] = {}
        at, start, index = 0, 0, 0
        for (name, shape), size in zip(self.shapes.items(), sizes, strict=True):
            pieces = []
            while at < start + size:
                block = self.basis.blocks[index]
                rows = min(block.start + block.rows, start + size) - at
                pieces.append(Piece(index, at - block.start, rows, _scale(shape, block)))
                at += rows
                index += at == block.start + block.rows
            self.pieces[name] = pieces
            start += size

    @property
    def size(self) -> int:
        """D, the number of parameters."""
        return self.basis.size

    def start(self, name: str, low: int, high: int, like: Array) -> Array:
        """θ0 of entries ``low .. high-1`` of a tensor: int64 in units of 2**-24, of the kind and device of ``like``."""
        shape = self.shapes[name]
        if self.recipe.start == Start.ZERO or len(shape) < 2:
            one = self.recipe.start == Start.SEED and name.rpartition(".")[2] == "weight"
            return arange(low, high, like) * 0 + (int(one) << START_FRACTION)
        bound = math.isqrt((6 << 2 * START_FRACTION) // max(1, math.prod(shape[1:])))
        index = list(self.shapes).index(name)
        groups = arange(low // 4, -(-high // 4), like)
        words = namespace(like).stack(philox4x32((groups, index, 0, INITIAL), self.recipe.seed), 1).reshape(-1)
        return (words[low % 4 : low % 4 + high - low] * (2 * bound) >> 32) - bound

    def groups(self, k: int) -> np.ndarray:
        """The tensor (its number; 0 for all where they share a block) that each of ``k`` coefficients belongs to."""
        tensor = np.zeros(len(self.basis.blocks), np.int64)
        if self.recipe.structure != Structure.DENSE:
            for number, pieces in enumerate(self.pieces.values()):
                tensor[[piece.block for piece in pieces]] = number
        out = np.zeros(k, np.int64)
        for owner, where in zip(tensor, pb.positions(self.basis, k), strict=True):
            out[where] = owner
        return out


def _scale(shape: Sequence[int], block: pb.Block) -> int:
    """The standard deviation of a tensor's θ0 (0.1 for one dimension) over the norm of a column, rounded down."""
    below = max(1, math.prod(shape[1:])) if len(shape) >= 2 else 200
    return math.isqrt((2 << 2 * FRACTION) // (below * pb.squared_norm(block)))


SORTS = {"float": np.float32, "exact": np.float64, "int": np.int64, "bool": np.bool_}
"""How a tensor apart is stored, and the dtype that it has in :attr:`Network.apart`: floats rounded to 16 bits, floats
as they are, integers, truths."""


@dataclass(frozen=True)
class Apart:
    """A tensor that is stored beside the coefficients: its shape and its sort, one of :data:`SORTS`."""

    shape: tuple[int, ...]
    sort: str


@dataclass(frozen=True)
class Network:
    """All the integers of a network, ready to be made into weights or into a file."""

    layout: Layout
    step: int
    """Step code: a coefficient q stands for the real number q (8 + c mod 8) 2^floor(c / 8) / 2**16."""
    coefficients: np.ndarray
    """(k,) int64, coarse before fine."""
    apart: dict[str, np.ndarray]
    """Of the dtypes of :data:`SORTS`; float32 is rounded to 16 bits by :func:`rounded`."""

    def prefix(self, k: int) -> Network:
        """The network that keeps the first ``k`` coefficients."""
        if k not in range(1, len(self.coefficients) + 1):
            raise PrancImgError(f"k = {k} is not between 1 and the model's {len(self.coefficients)} coefficients")
        return replace(self, coefficients=self.coefficients[:k])

    def check(self, max_entries: int = MAX_ENTRIES) -> None:
        """Refuse what takes too long to make, or what would not be exact."""
        blocks, entries, reach = self.layout.basis.blocks, 0, []
        for block, where in zip(blocks, pb.positions(self.layout.basis, len(self.coefficients)), strict=True):
            sizes = np.abs(self.coefficients[where])
            if block.kind in (Kind.SIGN, Kind.POPCOUNT):
                entries += block.rows * len(where)
            most = sizes.max(initial=0) if block.kind == Kind.IDENTITY else sizes.sum()
            reach.append(int(most) * (16 if block.kind == Kind.POPCOUNT else 1))
        if entries > max_entries:
            raise PrancImgError(f"the basis has {entries} entries, more than {max_entries}")
        for pieces in self.layout.pieces.values():
            if any(self._scaled(piece) * reach[piece.block] + (4 << FRACTION) >= _EXACT for piece in pieces):
                raise PrancImgError("the weights are too large for the format")

    def _scaled(self, piece: Piece) -> int:
        return piece.scale * step_size(self.step) >> STEP_FRACTION

    def weights(self, names: Collection[str], coefficients: Array) -> dict[str, Array]:
        """Some tensors, float32, bit-identical everywhere; no more of B than a chunk exists at a time.

        Args:
            names: of tensors, in the order of the layout.
            coefficients: :attr:`coefficients` as float64 (k,), NumPy or torch, on any device.
        """
        basis, out, products = self.layout.basis, {}, {}
        where = pb.positions(basis, len(self.coefficients))
        for name in names:
            parts, at = [], 0
            for piece in self.layout.pieces[name]:
                block = basis.blocks[piece.block]
                if piece.block not in products:
                    own = coefficients[convert(where[piece.block], coefficients)]
                    products[piece.block] = pb.expand_block(basis.seed, piece.block, block, own)
                for first in range(0, piece.rows, SLICE):
                    last = min(first + SLICE, piece.rows)
                    units = products[piece.block][piece.first + first : piece.first + last] * self._scaled(piece)
                    start = self.layout.start(name, at + first, at + last, coefficients) << FRACTION - START_FRACTION
                    parts.append(_single((units + cast(start, coefficients)) * 2.0**-FRACTION))
                at += piece.rows
                if piece.first + piece.rows == block.rows:
                    del products[piece.block]
            out[name] = namespace(coefficients).concatenate(parts).reshape(self.layout.shapes[name])
        return out

    def pack(self) -> bytes:
        """The whole file."""
        self.check(1 << 63)  # only who reads it has to wait
        recipe, k = self.layout.recipe, len(self.coefficients)
        shares = {0, 255 * int((self.coefficients == 0).sum()) // k}
        zeros, scales, payload = min((self._coded(zeros) for zeros in shares), key=lambda coded: len(coded[2]))
        numbers = [self.fingerprint(), recipe.seed, recipe.kind, recipe.structure]
        numbers += [recipe.rows] if recipe.structure == Structure.CHUNKS else []
        numbers += [recipe.start, k, self.step, zeros, *scales]
        header = b"".join(map(varint, numbers))
        segments = [(ModelSegment.HEADER, header), (ModelSegment.APART, self.pack_apart())]
        return write([*segments, (ModelSegment.COEFFICIENTS, payload)], MODEL)

    def pack_apart(self) -> bytes:
        """The tensors apart, one after the other."""
        return b"".join(map(_pack_apart, self.apart.values()))

    def _coded(self, zeros: int) -> tuple[int, list[int], bytes]:
        """The coefficients as bytes, given the share of certain zeros; also that share and the scale indices."""
        q, groups, learning = self.coefficients, self.layout.groups(len(self.coefficients)), {}
        for group in np.unique(groups):
            own = q[groups == group]
            scale = min(best_scale(own[own != 0]), NO_LOW_BITS) if zeros else best_scale(own)  # zeros have no low bits
            learning[group] = AdaptiveModel(scale, zeros)
        encoder = Encoder()
        for low, high in runs(len(q)):
            for group in np.unique(groups[low:high]):
                encoder.put_adaptive(q[low:high][groups[low:high] == group], learning[group])
        return zeros, [one.scale for one in learning.values()], encoder.finish()

    def fingerprint(self) -> int:
        """What binds a file to an architecture."""
        sorts = {np.dtype(dtype): sort for sort, dtype in SORTS.items()}
        apart = {name: Apart(array.shape, sorts[array.dtype]) for name, array in self.apart.items()}
        return fingerprint(self.layout.shapes, apart)

    @staticmethod
    def unpack(
        data: bytes,
        shapes: Mapping[str, Sequence[int]],
        apart: Mapping[str, Apart],
        *,
        allow_partial: bool = False,
        max_entries: int = MAX_ENTRIES,
    ) -> Network:
        """Read a file that belongs to these tensors.

        ``allow_partial`` takes what there is of a file that is cut short among its coefficients. Raises
        :class:`PrancImgError` for anything else that is not a whole file of this network.
        """
        segments, damage = salvage(data, MODEL) if allow_partial else (read(data, MODEL), None)
        layout, k, step, zeros, scales = _unpack_header(segments[ModelSegment.HEADER], shapes, apart)
        begun = damage.begun if damage and damage.kind == ModelSegment.COEFFICIENTS else None
        payload = segments.get(ModelSegment.COEFFICIENTS, begun)
        if payload is None:
            raise damage.error if damage else PrancImgError("the file has no coefficients")
        decoder = Decoder(payload) if begun is None else TruncatedDecoder(payload)
        groups = layout.groups(k)
        learning = {group: AdaptiveModel(scale, zeros) for group, scale in zip(np.unique(groups), scales, strict=True)}
        coefficients, whole = np.zeros(k, np.int64), 0
        try:
            for low, high in runs(k):
                for group in np.unique(groups[low:high]):
                    places = low + np.flatnonzero(groups[low:high] == group)
                    coefficients[places] = decoder.take_adaptive(len(places), learning[group])
                whole = high
        except Truncated:
            if not whole:
                raise
        network = Network(layout, step, coefficients[:whole], _unpack_apart(segments[ModelSegment.APART], apart))
        network.check(max_entries)
        return network


def _single(x: Array) -> Array:
    """float64 to float32, to nearest."""
    return x.astype(np.float32) if isinstance(x, np.ndarray) else x.float()


def runs(k: int) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of the coefficients: a file can be cut between any two, and distributions learn there."""
    low = 0
    while low < k:
        high = min(k, low + max(64, low // 4))
        yield low, high
        low = high


def fingerprint(shapes: Mapping[str, Sequence[int]], apart: Mapping[str, Apart]) -> int:
    """CRC-32 of the names, shapes and sorts of all tensors."""
    words: list[tuple[str | int, ...]] = [(name, *shape) for name, shape in shapes.items()]
    words += [(name, a.sort, *a.shape) for name, a in apart.items()]
    return zlib.crc32("".join(" ".join(map(str, line)) + "\n" for line in words).encode())


def rounded(x: np.ndarray) -> np.ndarray:
    """float32 as the file keeps it: the nearest number whose lower 16 bits are 0 (bfloat16), ties to even."""
    bits = x.astype("<f4").view("<u4").astype(np.int64)
    kept = bits + 0x7FFF + (bits >> 16 & 1) & 0xFFFF0000
    kept = np.where(np.isnan(x), 0x7FC00000, kept)
    return kept.astype("<u4").view("<f4").astype(np.float32)


def _pack_apart(array: np.ndarray) -> bytes:
    if array.dtype == np.float32:
        return (array.view("<u4") >> 16).astype("<u2").tobytes()
    if array.dtype == np.int64:
        return array.astype("<i8").tobytes()
    if array.dtype == np.bool_:
        return np.packbits(array.reshape(-1), bitorder="little").astype("<u1").tobytes()
    with np.errstate(over="ignore"):  # what becomes infinite is not the same
        single = array.astype(np.float32)
        if not np.array_equal(single, array, equal_nan=True):
            return b"\x08" + array.astype("<f8").tobytes()
    if not np.array_equal(rounded(single), single, equal_nan=True):
        return b"\x04" + single.astype("<f4").tobytes()
    return b"\x02" + _pack_apart(rounded(single))


def _unpack_apart(data: bytes, apart: Mapping[str, Apart]) -> dict[str, np.ndarray]:
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        at += size
        if at > len(data):
            raise PrancImgError("the parameters apart are not those of this network")
        return data[at - size : at]

    def read_one(count: int, sort: str) -> np.ndarray:
        if sort == "int":
            return np.frombuffer(take(8 * count), "<i8")
        if sort == "bool":
            bits = np.unpackbits(np.frombuffer(take(-(-count // 8)), "<u1"), bitorder="little")
            if bits[count:].any():
                raise PrancImgError("the parameters apart end in bits that mean nothing")
            return bits[:count]
        width = take(1)[0] if sort == "exact" else 2
        if width not in (2, 4, 8):
            raise PrancImgError(f"the parameters apart have floats of {width} bytes")
        if width > 2:
            return np.frombuffer(take(width * count), f"<f{width}")
        return (np.frombuffer(take(2 * count), "<u2").astype("<u4") << 16).view("<f4")

    found: dict[str, np.ndarray] = {}
    for name, a in apart.items():
        found[name] = read_one(math.prod(a.shape), a.sort).astype(SORTS[a.sort]).reshape(a.shape)
    if at != len(data):
        raise PrancImgError("the parameters apart are not those of this network")
    return found


def _unpack_header(
    data: bytes, shapes: Mapping[str, Sequence[int]], apart: Mapping[str, Apart]
) -> tuple[Layout, int, int, int, list[int]]:
    """Layout, k, step code, share of zeros, scale indices."""
    number = Numbers(data)
    if number("fingerprint", 0, (1 << 32) - 1) != fingerprint(shapes, apart):
        raise PrancImgError("the file belongs to a network of other tensors, or of others that are kept apart")
    seed = number("seed", 0, (1 << 64) - 1)
    kind, structure = Kind(number("kind", 0, len(Kind) - 1)), Structure(number("structure", 0, 2))
    rows = number("rows of a chunk", MIN_ROWS, MAX_PARAMETERS) if structure == Structure.CHUNKS else 0
    start = Start(number("start", 0, 1))
    layout = Layout(shapes, Recipe(seed, kind, structure, rows, start))
    k, step = number("number of coefficients", 1, layout.size), number("step", 0, STEPS - 1)
    zeros = number("share of zeros", 0, 255)
    scales = [number("scale", 0, SCALES - 1) for _ in np.unique(layout.groups(k))]
    number.end()
    return layout, k, step, zeros, scales
