"""A decoder written from docs/format.md alone: plain Python integers and floats, slow, nothing of the library.

Lossless pictures are WebP and PNG inside, which Pillow reads.

It exists to show that the specification is enough, and to disagree with the library where either is wrong.
"""

import functools
import hashlib
import io
import itertools
import math
import zlib
from pathlib import Path

from PIL import Image

PRIORS = Path(__file__).parents[1] / "prancimg" / "network" / "data"

MASK32, MASK64 = (1 << 32) - 1, (1 << 64) - 1


class Bad(Exception):
    """The file is not one that a decoder accepts."""


# Container


def varint(data, at):
    value = 0
    for i in range(10):
        if at >= len(data):
            raise Bad("cut short")
        byte = data[at]
        at += 1
        value |= (byte & 127) << (7 * i)
        if byte < 128:
            if value > MASK64:
                raise Bad("too large")
            return value, at
    raise Bad("too long")


def segments_of(data):
    if data[:9] != b"\x8bPRC\r\n\x1a\n\x01":
        raise Bad("signature or version")
    at, segments = 9, {}
    while at < len(data):
        start, kind = at, data[at]
        length, at = varint(data, at + 1)
        payload = data[at : at + length]
        at += length
        crc = data[at : at + 4]
        if len(payload) < length or len(crc) < 4 or zlib.crc32(data[start:at]) != int.from_bytes(crc, "little"):
            raise Bad("damaged")
        at += 4
        known = kind in (1, 2, 3) or 16 <= kind <= 22
        if kind in segments or (not known and kind < 128):
            raise Bad(f"segment {kind}")
        segments[kind] = payload
    if 3 in segments and any(kind < 128 for kind in segments if kind != 3):
        raise Bad("two pictures")
    if 3 not in segments and (1 not in segments or 2 not in segments):
        raise Bad("incomplete")
    field = [kind for kind in segments if 16 <= kind <= 22]
    if field != sorted(field, reverse=True):
        raise Bad("out of order")
    return segments


# Lossless pictures


def png_size(data):
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[8:16] != b"\0\0\0\rIHDR" or len(data) < 33:
        raise Bad("not PNG")
    bits, kind, *methods = data[24:29]
    if bits not in {0: (1, 8), 2: (8,), 3: (1, 2, 4, 8)}.get(kind, ()) or methods != [0, 0, 0]:
        raise Bad("PNG of another kind")
    at = 8
    while at < len(data):
        if at + 12 > len(data) or data[at + 4 : at + 8] not in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
            raise Bad("PNG with other chunks")
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    if at != len(data):
        raise Bad("PNG cut short")
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def webp_size(data):
    bits = int.from_bytes(data[1:5], "little")
    if len(data) < 5 or data[0] != 0x2F or bits >> 28:
        raise Bad("not a lossless WebP bitstream without alpha")
    return (bits & 16383) + 1, (bits >> 14 & 16383) + 1


def lossless(payload):
    """Depth and rows of (red, green, blue)."""
    coding, at = varint(payload, 0)
    depth, at = varint(payload, at)
    width, at = varint(payload, at)
    height, at = varint(payload, at)
    if depth not in (8, 16) or not 1 <= width <= 1 << 20 or not 1 <= height <= 1 << 20:
        raise Bad("out of range")
    data, rows = payload[at:], height * depth // 8
    if coding == 0:
        channels = len(data) // (width * rows)
        if len(data) not in (width * rows, 3 * width * rows):
            raise Bad("another number of bytes")
        samples = [data[i * channels : (i + 1) * channels] * (3 // channels) for i in range(width * rows)]
    elif coding in (1, 2):
        if (width, rows) != (png_size if coding == 1 else webp_size)(data):
            raise Bad("another size")
        if coding == 2:
            chunk = b"VP8L" + len(data).to_bytes(4, "little") + data + bytes(len(data) % 2)
            data = b"RIFF" + (4 + len(chunk)).to_bytes(4, "little") + b"WEBP" + chunk
        try:
            with Image.open(io.BytesIO(data)) as image:
                flat = image.convert("RGB").tobytes()
        except (OSError, SyntaxError, ValueError) as error:
            raise Bad(str(error)) from error
        samples = [flat[i : i + 3] for i in range(0, len(flat), 3)]
    else:
        raise Bad("unknown coding")
    lines = [[tuple(pixel) for pixel in samples[y * width : (y + 1) * width]] for y in range(rows)]
    if depth == 16:
        pairs = zip(lines[:height], lines[height:], strict=True)
        lines = [
            [tuple(256 * a + b for a, b in zip(high, low, strict=True)) for high, low in zip(*pair, strict=True)]
            for pair in pairs
        ]
    return depth, lines


# Header and network

DESIGNS = {3: (64, {"luma": 32, "chroma": 16, "paint": 8}), 5: (24, {f"w{layer}": 16 for layer in range(1, 8)})}
"""By prior: the units of its context networks, and the number of learned directions by part or tensor."""
NEAR = 24, {}


def part_of(name):
    return name.partition(".")[0] if "." in name else "paint"


def mover(name, prior):
    return f"learned.{name if name in DESIGNS.get(prior, NEAR)[1] else part_of(name)}"


def shapes_of(hidden, layers, channels, prior):
    units, learned = DESIGNS.get(prior, NEAR)
    shapes = []
    for layer in range(layers + 1):
        fan_in = (channels or 2) if layer == 0 else hidden
        fan_out = 3 if layer == layers else hidden
        shapes += [(f"w{layer}", (fan_out, fan_in)), (f"b{layer}", (fan_out,))]
    if channels:
        shapes += [("gain", (7, 3, channels)), ("scale", (7, 3)), ("taps", (4,)), ("slope", (hidden,))]
        shapes.append(("residual", (3, 27)))
        for kind, components, near, wide in (("luma", 1, 16, 39), ("chroma", 2, 22, 52)):
            shapes += [
                (f"{kind}.a", (units, wide if units > 24 else near)),
                (f"{kind}.bias", (components, 7, units)),
                (f"{kind}.slope", (7, units)),
                (f"{kind}.b", (units, units)),
                (f"{kind}.b0", (units,)),
                (f"{kind}.c", (2, units)),
                (f"{kind}.c0", (2,)),
            ]
    return shapes + [(f"learned.{part}", (number,)) for part, number in learned.items()]


def planned(plan, name, size):
    if plan > 2 and name.startswith("learned."):
        return (size, 120) if plan > 3 else (0, 0)
    steps = {"w0": 56, "b0": 48, "w1": 48, "b1": 40, "scale": 104, "taps": 56, "residual": 48}
    if plan not in (0, 3, 4) and name in steps:
        seeded = {"w0": 16, "b0": 8, "w1": 16, "residual": 24} if plan == 5 else {}
        return seeded.get(name, size), steps[name]
    name = name.partition(".")[2]
    if plan > 2:
        seeded = {"a": (8, 72), "bias": (8, 80), "slope": (8, 80), "b": (8, 72), "b0": (8, 80), "c": (8, 80)}
        return (seeded | {"c0": (size, 104)}).get(name, (0, 0)) if plan == 7 else (0, 0)
    if plan and name in ("b0", "c", "c0"):
        return size, {"b0": 104, "c": 96, "c0": 104}[name]
    if plan == 1:
        return {"a": (48, 72), "b": (48, 72), "bias": (24, 88)}.get(name, (0, 0))
    if plan == 2 and name in ("a", "b", "bias"):
        return size, 104 if name == "bias" else 96
    return 0, 0


def header_of(payload):
    brief = payload[:1] == b"\0"
    at = int(brief)

    def number(low, high):
        nonlocal at
        value, at = varint(payload, at)
        if not low <= value <= high:
            raise Bad("out of range")
        return value

    def field():
        return {"luma_from": number(0, 6), "chroma_from": number(0, 6), "rate": number(0, 255), "step": number(0, 255)}

    def size():
        return {"width": number(1, 1 << 20), "height": number(1, 1 << 20)}

    if brief:
        pace, plan = divmod(number(0, 127), 32)
        if plan > 7:
            raise Bad("no such plan")
        h = {"prior": 2 if plan < 3 else 3, "hidden": 16, "layers": 1, "channels": 4, "kind": 1}
        h |= size() | {"seed": number(0, MASK64)} | field()
    else:
        h = size()
        h |= {"prior": number(0, 1 << 16), "hidden": number(1, 512), "layers": number(1, 16)}
        h |= {"channels": number(0, 16), "seed": number(0, MASK64)}
        pace, h["kind"] = divmod(number(0, 15), 4)
        if pace and not h["channels"]:
            raise Bad("nothing to learn")
        if h["channels"]:
            h |= field()
            if not h["prior"]:
                raise Bad("a field needs a prior")
    h["pace"], h["tensors"] = pace, []
    shapes = shapes_of(h["hidden"], h["layers"], h["channels"], h["prior"])
    for name, shape in shapes:
        entries = math.prod(shape)
        if brief:
            most, step = planned(plan, name, entries)
            scale = number(0, 100) - 1 if most else -1
            k, step, scale = (most, step, scale) if scale >= 0 else (0, 0, 0)
        else:
            k = number(0, entries)
            step, scale = (number(0, 135), number(0, 99)) if k else (0, 0)
        h["tensors"].append((name, entries, k, step, scale))
    if at != len(payload):
        raise Bad("trailing bytes")
    entries = sum(k * size for _, size, k, *_ in h["tensors"] if k < size and h["kind"] in (1, 2))
    work = sum(size for name, size, *_ in h["tensors"] if part_of(name) == "paint") + 256 * h["hidden"] * h["layers"]
    grids = grids_of(h)[0] if h["channels"] else []
    waves = sum(width + 2 * height - 2 for _, _, height, width in grids)
    matrices = {
        kind: sum(math.prod(s) for n, s in shapes if n in (f"{kind}.a", f"{kind}.b", f"{kind}.c"))
        for kind in ("luma", "chroma")
    }
    context = sum(height * width * matrices["chroma" if c else "luma"] for c, _, height, width in grids)
    if entries > 1 << 28 or h["width"] * h["height"] * work > 1 << 41 or context > 1 << 42 or waves > 1 << 20:
        raise Bad("too much work")
    return h


# Random words


def philox(counter, seed):
    c0, c1, c2, c3 = counter
    k0, k1 = seed & MASK32, seed >> 32
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & MASK32, (p0 >> 32) ^ c3 ^ k1, p0 & MASK32
        k0, k1 = (k0 + 0x9E3779B9) & MASK32, (k1 + 0xBB67AE85) & MASK32
    return c0, c1, c2, c3


def words(count, b, c, d, seed):
    out = []
    for i in range(0, count, 4):
        out += philox((i // 4, b, c, d), seed)
    return out[:count]


def order(values):
    return sorted(range(len(values)), key=lambda i: values[i])  # stable


# Basis


def times_basis(kind, t, size, alpha, seed):
    """B α for tensor number t."""
    out = [0] * size
    if kind == 0:
        places = order(words(size, 0, t, 0, seed))
        for c, a in enumerate(alpha):
            out[places[c]] += a
    elif kind == 1:
        for c, a in enumerate(alpha):
            for r in range(size):
                if r % 128 == 0:
                    four = philox((r // 128, c, t, 1), seed)
                out[r] += a * (1 - 2 * (four[r // 32 % 4] >> (r % 32) & 1))
    elif kind == 2:
        for c, a in enumerate(alpha):
            for r in range(size):
                if r % 4 == 0:
                    four = philox((r // 4, c, t, 2), seed)
                out[r] += a * (four[r % 4].bit_count() - 16)
    else:
        n = 1
        while n < size:
            n *= 2
        signs = words(n, 0, t, 3, seed)
        rows, columns = order(words(n, 1, t, 3, seed)), order(words(n, 2, t, 3, seed))
        for r in range(size):
            total = sum(-a if (rows[r] & columns[c]).bit_count() % 2 else a for c, a in enumerate(alpha))
            out[r] = (1 - 2 * (signs[r] & 1)) * total
    return out


def theta0_from_seed(h):
    tensors = []
    for t, (_, size, *_) in enumerate(h["tensors"]):
        last = t >= 2 * h["layers"]
        if t % 2:
            bound = 0 if last else 3294199
        elif t == 0:
            bound = 15 << 20
        else:
            bound = math.isqrt(6 * (1 << 40) // h["hidden"])
            bound = bound // 60 if last else bound
        tensor = [(w * 2 * bound >> 32) - bound for w in words(size, t, 0, 4096, h["seed"])]
        tensors.append([v + (1 << 19) for v in tensor] if last and t % 2 else tensor)
    return tensors


def read_prior(number):
    path = PRIORS / f"siren-{number}.bin"
    if not path.exists():
        raise Bad("no such prior")
    return path.read_bytes()


def theta0_from_prior(h):
    data = read_prior(h["prior"])
    if (int.from_bytes(data[:2], "little"), data[2], data[3]) != (h["hidden"], h["layers"], h["channels"]):
        raise Bad("another network")
    own = [(name, size) for name, size, *_ in h["tensors"] if part_of(name) != "learned"]
    at, tensors = 4 + len(own), []
    for t, (_, size) in enumerate(own):
        shift = data[4 + t]
        tensors.append(
            [int.from_bytes(data[at + 2 * i : at + 2 * i + 2], "little", signed=True) << shift for i in range(size)]
        )
        at += 2 * size
    directions = {}
    for part, number in DESIGNS.get(h["prior"], NEAR)[1].items():
        tensors.append([0] * number)
        for name, size in own:
            if mover(name, h["prior"]) == f"learned.{part}":
                shifts, at = data[at : at + number], at + number
                directions[name] = []
                for shift in shifts:
                    entries = [v - 256 if v > 127 else v for v in data[at : at + size]]
                    directions[name].append((entries, shift))
                    at += size
    return tensors, directions


# Range coder

DECAY = [
    145315154, 199759078, 261044606, 326914198, 395007542, 463130302, 529428476, 592470630, 651257337, 705182512,
    753969162, 797596699, 836230973, 870163178, 899760092, 925425813, 947573834, 966607779, 982908970, 996829173,
    1008687096, 1018767490, 1027321989, 1034571010, 1040706261, 1045893524, 1050275481, 1053974460, 1057095000,
    1059726201, 1061943836, 1063812229, 1065385899, 1066710993, 1067826536, 1068765495, 1069555701, 1070220635,
    1070780095, 1071250770,
]  # fmt: skip

_tables = {}


@functools.cache
def tail(i):
    out = [1 << 30]
    for _ in range(528):
        out.append(out[-1] * DECAY[i] >> 30)
    return out


def table(i, f):
    """The 129 edges of table i at mean offset f: symbol S lies between edge S and edge S + 1."""
    if (i, f) not in _tables:
        cumulative = [0]
        for symbol in range(1, 128):
            x = 8 * (symbol - 64) - 4 - (f - 4)
            p = tail(i)[-x] if x < 0 else (1 << 31) - tail(i)[x]
            cumulative.append(p * ((1 << 24) - 128) >> 31)
        cumulative.append((1 << 24) - 128)
        _tables[i, f] = [c + symbol for symbol, c in enumerate(cumulative)]
    return _tables[i, f]


class RangeDecoder:
    def __init__(self, data):
        if len(data) % 4:
            raise Bad("not whole words")
        self.words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
        self.at, self.low, self.range, self.point = 0, 0, MASK64, 0
        self.point = self.word() << 32
        self.point |= self.word()

    def word(self):
        self.at += 1
        return self.words[self.at - 1] if self.at <= len(self.words) else 0

    def target(self):
        unit = self.range >> 24
        target = ((self.point - self.low) & MASK64) // unit
        if target >= 1 << 24:
            raise Bad("damaged")
        return unit, target

    def consume(self, unit, start, frequency):
        self.low, self.range = (self.low + unit * start) & MASK64, unit * frequency
        if self.range < 1 << 32:
            self.low, self.range = self.low << 32 & MASK64, self.range << 32
            self.point = (self.point << 32 & MASK64) | self.word()

    def symbol(self, edges):
        unit, target = self.target()
        low, high = 0, 128
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if edges[middle] <= target else (low, middle)
        self.consume(unit, edges[low], edges[low + 1] - edges[low])
        return low

    def number(self, bits):
        unit, target = self.target()
        frequency = 1 << (24 - bits)
        value = target // frequency
        self.consume(unit, value * frequency, frequency)
        return value

    def escape(self):
        high = self.number(11)
        return (high << 11 | self.number(11)) - (1 << 21)


def coefficients(decoder, k, scale):
    low_bits = max(0, (scale - 24) // 4)
    edges = table(scale - 4 * low_bits, 4)
    symbols = [decoder.symbol(edges) for _ in range(k)]
    high = [decoder.escape() if s in (0, 127) else s - 64 for s in symbols]
    low = [decoder.number(low_bits) for _ in range(k)] if low_bits else [0] * k
    values = [(v << low_bits) + u - (1 << low_bits) // 2 for v, u in zip(high, low, strict=True)]
    if any(not -(1 << 20) <= v < 1 << 20 for v in values):
        raise Bad("a coefficient is out of range")
    return values


# Field


def grids_of(h):
    """(component, level, height, width) in coding order, and the number of levels."""
    levels, side = 1, min(h["height"], h["width"])
    while levels < 7 and side > 4:
        side, levels = (side + 1) // 2, levels + 1
    grids = []
    for level in reversed(range(levels)):
        height, width = -(-h["height"] // 2**level), -(-h["width"] // 2**level)
        for component in range(3):
            if level >= min(h["chroma_from" if component else "luma_from"], levels - 1):
                grids.append((component, level, height, width))
    return grids, levels


SUMS = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
SIZES = [0, 16, 31, 56, 92, 134, 178, 222, 266, 311, 355, 399]
KNOTS = [(0, 0), (1, 56), (2, 92), (4, 134), (8, 178), (16, 222), (32, 266), (64, 311), (128, 355), (256, 399)]


def straight(v, knots):
    for (v0, s0), (v1, s1) in itertools.pairwise(knots):
        if v < v1:
            return s0 + (s1 - s0) * (v - v0) // (v1 - v0)
    return 399


def squash(v):
    return -straight(-v, KNOTS) if v < 0 else straight(v, KNOTS)


def magnitude(values):
    """Of coefficients, their sizes summed."""
    return straight(sum(min(abs(v), 256) for v in values), list(zip(SUMS, SIZES, strict=True)))


CAUSAL = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (-2, 0), (0, -2), (-2, -1), (-2, 1), (-1, -2), (-2, 2)]
FAR = [(-2, -2), (-3, 0), (0, -3), (-3, -1), (-3, 1), (-1, -3), (-3, 2), (-2, 3), (-3, -2), (-3, 3)]
TRAPEZOID = [(0, -1), (0, -2), (0, -3), (0, -4)]
for dy, first, last in ((-1, -4, 1), (-2, -4, 3), (-3, -4, 4), (-4, -4, 4)):
    TRAPEZOID += [(dy, dx) for dx in range(first, last + 1)]
PLUS = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]
CORNERS = [(1, 1), (1, -1), (-1, 1), (-1, -1)]


def cut(v, low, high):
    return min(max(v, low), high)


def edge(grid, y, x):
    return grid[cut(y, 0, len(grid) - 1)][cut(x, 0, len(grid[0]) - 1)]


def twofold(parent, y, x):
    """R at (y, x)."""
    total = 0
    for py, wy in ((y // 2, 3), (y // 2 + (1 if y % 2 else -1), 1)):
        for px, wx in ((x // 2, 3), (x // 2 + (1 if x % 2 else -1), 1)):
            total += wy * wx * edge(parent, py, px)
    return total // 16


def raised(parent, height, width):
    return [[twofold(parent, y, x) for x in range(width)] for y in range(height)]


def squashed_grid(q, key):
    return [[squash(v) for v in row] for row in q[key]] if key in q else None


def box_sizes(grid):
    """The magnitude of the 5 x 5 coefficients around every place."""
    height, width = len(grid), len(grid[0])
    return [
        [magnitude(v for row in grid[max(0, y - 2) : y + 3] for v in row[max(0, x - 2) : x + 3]) for x in range(width)]
        for y in range(height)
    ]


class Context:
    """The features of a grid's positions."""

    def __init__(self, q, component, level, height, width, wide):
        self.component, self.wide, self.size = component, wide, (height, width)
        half = (height + 1) // 2, (width + 1) // 2
        parent = q.get((component, level + 1))
        self.parent = squashed_grid(q, (component, level + 1))
        self.raised = self.up(self.parent)
        self.luma, self.first = squashed_grid(q, (0, level)), squashed_grid(q, (1, level))
        if wide:
            grandparent = squashed_grid(q, (component, level + 2))
            self.grandparent = self.up(grandparent and raised(grandparent, *half))
            self.sizes = self.up(parent and box_sizes(parent))
            others = (3 - component,) if component else (1, 2)
            self.others = [self.up(squashed_grid(q, (other, level + 1))) for other in others]

    def up(self, grid):
        return grid and raised(grid, *self.size)

    def at(self, here, known, y, x):
        """``here`` holds the grid as far as it is known, ``known`` what it is squashed to."""
        width = self.size[1]

        def before(grid, dy, dx):
            return grid[y + dy][x + dx] if y + dy >= 0 and 0 <= x + dx < width else 0

        def taps(grid, offsets, far=1):
            return [edge(grid, y + far * dy, x + far * dx) if grid else 0 for dy, dx in offsets]

        more = CORNERS if self.wide else []
        u = [before(known, dy, dx) for dy, dx in CAUSAL + (FAR if self.wide else [])]
        u.append(self.parent[y // 2][x // 2] if self.parent else 0)
        u += taps(self.raised, PLUS + more, 2)
        if self.wide:
            u += taps(self.grandparent, PLUS, 3)
            u.append(magnitude(before(here, dy, dx) for dy, dx in TRAPEZOID))
            u += taps(self.sizes, PLUS[:1])
            u += [abs(taps(other, PLUS[:1])[0]) for other in self.others]
        if self.component:
            u += taps(self.luma, PLUS + more)
            u += taps(self.first if self.component == 2 else None, PLUS if self.wide else PLUS[:1])
        return u


class ContextNetwork:
    def __init__(self, theta, kind, rate, pace):
        names = "a", "bias", "slope", "b", "b0", "c", "c0"
        self.start = {name: [cut(v, -FINE, FINE) for v in theta[f"{kind}.{name}"]] for name in names}
        self.units = len(self.start["b0"])
        self.inputs = len(self.start["a"]) // self.units
        self.rate, self.pace = rate, pace

    def begin(self, component, level):
        """A grid."""
        self.fine = {name: list(values) for name, values in self.start.items()}
        self.first_bias = (max(component - 1, 0) * 7 + level) * self.units
        self.first_slope = level * self.units
        self.steps, self.squares = 0, {}
        self.cut_weights()

    def cut_weights(self):
        self.w = {name: [v >> 8 for v in values] for name, values in self.fine.items()}

    def hidden(self, u):
        """The first layer, what the second adds, and both together."""
        n, units, w, first, more = self.inputs, self.units, self.w, [], []
        for j in range(units):
            total = sum(a * v for a, v in zip(w["a"][j * n : j * n + n], u, strict=True))
            total += 64 * w["bias"][self.first_bias + j] + w["slope"][self.first_slope + j] * (self.rate - 128)
            first.append(cut(total >> 10, 0, 32767))
        for j in range(units):
            total = sum(b * v for b, v in zip(w["b"][j * units : (j + 1) * units], first, strict=True))
            more.append(cut((total + 256 * w["b0"][j]) >> 12, 0, 32767))
        return first, more, [p + q for p, q in zip(first, more, strict=True)]

    def outputs(self, h):
        """Mean in eighths and table."""
        c, c0, units = self.w["c"], self.w["c0"], self.units
        m, i = (sum(c * v for c, v in zip(c[o : o + units], h, strict=True)) for o in (0, units))
        m = cut((m + 256 * c0[0] + (1 << 16)) >> 17, -8192, 8192)
        i = cut(((i + 256 * c0[1] + (1 << 17)) >> 18) + 16, 0, 39)
        return m, i

    def learn(self, samples):
        """A step, from features and coefficients."""
        units, w = self.units, self.w
        g = {name: [0] * len(values) for name, values in self.fine.items() if name != "slope"}
        if len(samples) > 512:
            samples = [samples[j * len(samples) // 512] for j in range(512)]
        for u, value in samples:
            first, more, h = self.hidden(u)
            m, i = self.outputs(h)
            whole = (m + 4) >> 3
            by_output = slopes(i, m - 8 * whole + 4, cut(value - whole + 64, 0, 127))
            by_h = [(w["c"][j] * by_output[0] + w["c"][units + j] * by_output[1]) >> 8 for j in range(units)]
            by_more = [d if v > 0 else 0 for d, v in zip(by_h, more, strict=True)]
            for k in range(units):
                if first[k] > 0:
                    by_first = by_h[k] + (sum(w["b"][j * units + k] * by_more[j] for j in range(units)) >> 12)
                    for f, v in enumerate(u):
                        g["a"][k * self.inputs + f] += by_first * v
                    g["bias"][self.first_bias + k] += by_first
                if by_more[k]:
                    for j in range(units):
                        g["b"][k * units + j] += by_more[k] * first[j]
                    g["b0"][k] += by_more[k]
                for o in range(2):
                    g["c"][o * units + k] += by_output[o] * h[k]
            for o in range(2):
                g["c0"][o] += by_output[o]
        self.steps += 1
        for name, shift in (("a", 8), ("bias", 2), ("b", 10), ("b0", 2), ("c", 5), ("c0", -3)):
            rate = 192 << self.pace >> (2 if name in ("c", "c0") else 0)
            squares = self.squares.setdefault(name, [0] * len(g[name]))
            for e, total in enumerate(g[name]):
                step = cut(total >> shift if shift > 0 else total << -shift, -(1 << 24), 1 << 24)
                squares[e] += (step * step - squares[e]) // min(self.steps, 128)
                moved = self.fine[name][e] - rate * step // (math.isqrt(squares[e]) + 16)
                self.fine[name][e] = cut(moved, -FINE, FINE)
        self.cut_weights()


FINE = 32767 << 8
STEEPNESS = [
    65536, 55109, 46341, 38968, 32768, 27554, 23170, 19484, 16384, 13777, 11585, 9742, 8192, 6889, 5793, 4871,
    4096, 3444, 2896, 2435, 2048, 1722, 1448, 1218, 1024, 861, 724, 609, 512, 431, 362, 304, 256, 215, 181, 152,
    128, 108, 91, 76,
]  # fmt: skip


def slopes(i, f, symbol):
    """Of a symbol's cost by the mean and by the logarithm of the scale."""
    edges = [8 * (s - 64) - 4 - (f - 4) for s in (symbol, symbol + 1)]
    density = [tail(i)[abs(x)] * STEEPNESS[i] for x in edges]
    if symbol in (0, 127):
        density[symbol > 0] = 0
    cumulative = table(i, f)
    count = cumulative[symbol + 1] - cumulative[symbol]
    both = (density[1] - density[0], 1420 * count), (edges[1] * density[1] - edges[0] * density[0], count << 14)
    return [(2 * p + q) // (2 * q) for p, q in both]


def decode_grids(decoder, grids, nets, q):
    for component, level, height, width in grids:
        here = [[0] * width for _ in range(height)]
        known = [[0] * width for _ in range(height)]  # squashed
        net = nets[component > 0]
        net.begin(component, level)
        samples = []
        context = Context(q, component, level, height, width, net.inputs > 22)
        for t in range(width + 2 * height - 2):
            wave = [(y, t - 2 * y) for y in range(height) if 0 <= t - 2 * y < width]
            escaped = []
            for y, x in wave:
                u = context.at(here, known, y, x)
                m, i = net.outputs(net.hidden(u)[2])
                if any(u):
                    samples.append((u, y, x))
                whole = (m + 4) >> 3
                symbol = decoder.symbol(table(i, m - 8 * whole + 4))
                here[y][x] = symbol - 64 + whole
                if symbol in (0, 127):
                    escaped.append((y, x))
            for y, x in escaped:
                here[y][x] = decoder.escape()
            for y, x in wave:
                known[y][x] = squash(here[y][x])
            if net.pace and len(samples) >= max(128, -(-height * width // 4096)):
                net.learn([(u, here[y][x]) for u, y, x in samples])
                samples = []
        q[component, level] = here


def up(line, taps, size):
    """A line at twice the size, cut."""
    out = []
    for j in range(size):
        i, odd = j // 2, j % 2
        total = 0.0
        for k in range(4):
            place = cut(i - 1 + k if odd else i - 2 + k, 0, len(line) - 1)
            total += taps[3 - k if odd else k] * line[place]
        out.append(total)
    return out


def transposed(rows):
    return [list(column) for column in zip(*rows, strict=True)]


def field_of(h, theta, q, levels):
    """F at level 0: for every channel, rows of floats."""
    unit, channels = 2.0**-20, h["channels"]
    gain, scale = [v * unit for v in theta["gain"]], [v * unit for v in theta["scale"]]
    taps = [v * unit for v in theta["taps"]]
    step = 0.04 * 2 ** ((h["step"] - 128) / 32)
    field = None
    for level in reversed(range(levels)):
        height, width = -(-h["height"] // 2**level), -(-h["width"] // 2**level)
        if field is None:
            field = [[[0.0] * width for _ in range(height)] for _ in range(channels)]
        else:
            wide = [[up(row, taps, width) for row in plane] for plane in field]
            field = [transposed([up(column, taps, height) for column in transposed(plane)]) for plane in wide]
        for component in range(3):
            grid = q.get((component, level))
            if grid is not None:
                for channel in range(channels):
                    g = gain[(level * 3 + component) * channels + channel] * 2 ** scale[level * 3 + component] * step
                    plane = field[channel]
                    for y in range(height):
                        for x in range(width):
                            plane[y][x] += g * grid[y][x]
    return field


def network(h, theta, inputs, phases):
    unit = 2.0**-20
    for layer in range(h["layers"] + 1):
        w = [v * unit for v in theta[f"w{layer}"]]
        b = phases if layer == 0 and phases else [v * unit for v in theta[f"b{layer}"]]
        n = len(inputs)
        sums = [sum(w[j * n + i] * v for i, v in enumerate(inputs)) + b[j] for j in range(len(b))]
        inputs = [math.sin(v) for v in sums] if layer < h["layers"] else sums
    return inputs


def picture_of(h, theta, q, levels):
    """Rows of (red, green, blue)."""
    width, height, unit = h["width"], h["height"], 2.0**-20
    if h["channels"]:
        field = field_of(h, theta, q, levels)
        tilt = (h["rate"] - 128) / 64
        phases = [(b + s * tilt) * unit for b, s in zip(theta["b0"], theta["slope"], strict=True)]
        o = [[network(h, theta, [plane[y][x] for plane in field], phases) for x in range(width)] for y in range(height)]
        r = [v * unit for v in theta["residual"]]
        out = []
        for y in range(height):
            out.append([])
            for x in range(width):
                near = [edge(o, y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
                out[-1].append(
                    [
                        o[y][x][i] + sum(r[27 * i + 9 * j + p] * near[p][j] for j in range(3) for p in range(9))
                        for i in range(3)
                    ]
                )
    else:
        side = max(width, height)
        out = [
            [network(h, theta, [(2 * j + 1 - width) / side, (2 * i + 1 - height) / side], None) for j in range(width)]
            for i in range(height)
        ]
    return [[[round(255 * cut(v, 0.0, 1.0)) for v in pixel] for pixel in row] for row in out]


# All of it


def decode(data, picture=True):
    """A file to {"coefficients", "parameters", "field": lists of lists of integers, "picture": rows of pixels}.

    Of a lossless picture it is {"samples", "picture"}.
    """
    segments = segments_of(data)
    if 3 in segments:
        depth, lines = lossless(segments[3])
        shown = [[[round(v * 255 / (256 ** (depth // 8) - 1)) for v in pixel] for pixel in line] for line in lines]
        samples = [[v for line in lines for pixel in line for v in pixel]]
        return {"samples": samples} | ({"picture": shown} if picture else {})
    h = header_of(segments[1])
    tensors, directions = theta0_from_prior(h) if h["prior"] else (theta0_from_seed(h), {})
    decoder = RangeDecoder(segments[2])
    alpha = [coefficients(decoder, k, scale) for _, _, k, _, scale in h["tensors"]]
    theta = {}
    for t, ((name, size, k, step, _), start, a) in enumerate(zip(h["tensors"], tensors, alpha, strict=True)):
        s = (8 + step % 8) << (step // 8)
        offsets = times_basis(0 if k == size else h["kind"], t, size, a, h["seed"]) if k else [0] * size
        theta[name] = [v + s * o for v, o in zip(start, offsets, strict=True)]
    for name, columns in directions.items():
        for beta, (entries, shift) in zip(theta[mover(name, h["prior"])], columns, strict=True):
            theta[name] = [v + (entry * beta >> shift) for v, entry in zip(theta[name], entries, strict=True)]
    q, grids, levels = {}, [], 0
    if h["channels"]:
        nets = [ContextNetwork(theta, kind, h["rate"], h["pace"]) for kind in ("luma", "chroma")]
        grids, levels = grids_of(h)
        above = levels
        for level in reversed(range(levels)):
            if 16 + level in segments:
                part = [grid for grid in grids if level <= grid[1] < above]
                decode_grids(RangeDecoder(segments[16 + level]), part, nets, q)
                above = level
        if len(q) < len(grids):
            raise Bad("a field segment is missing")
    result = {"coefficients": alpha, "parameters": list(theta.values())}
    if h["channels"]:
        result["field"] = [[v for row in q[component, level] for v in row] for component, level, *_ in grids]
    return result | ({"picture": picture_of(h, theta, q, levels)} if picture else {})


def digests(result):
    """SHA-256 of the integers, each as 8 little-endian bytes."""
    return {
        name: hashlib.sha256(
            b"".join((v & MASK64).to_bytes(8, "little") for values in parts for v in values)
        ).hexdigest()
        for name, parts in result.items()
        if name != "picture"
    }
