"""A decoder of model files written from docs/format.md alone: plain Python integers, slow; nothing of the library."""

import math
import struct
import zlib

from plain_decoder import MASK64, Bad, RangeDecoder, table, times_basis, varint, words


def segments_of(data):
    if data[:9] != b"\x8bPRN\r\n\x1a\n\x01":
        raise Bad("signature or version")
    at, segments = 9, {}
    while at < len(data):
        start, kind = at, data[at]
        length, at = varint(data, at + 1)
        end = at + length
        if len(data) < end + 4 or zlib.crc32(data[start:end]) != int.from_bytes(data[end : end + 4], "little"):
            raise Bad("damaged")
        if kind in segments or (kind not in (1, 2, 3) and kind < 128):
            raise Bad(f"segment {kind}")
        segments[kind], at = data[at:end], end + 4
    if not {1, 2, 3} <= segments.keys():
        raise Bad("incomplete")
    return segments


def decode(data, spanned, apart):
    """``spanned`` is {name: shape}, ``apart`` {name: (sort, shape)}: the coefficients and all tensors as flat lists."""
    segments, at = segments_of(data), 0
    header = segments[1]

    def number(low, high):
        nonlocal at
        value, at = varint(header, at)
        if not low <= value <= high:
            raise Bad("out of range")
        return value

    text = "".join(" ".join(map(str, (name, *shape))) + "\n" for name, shape in spanned.items())
    text += "".join(" ".join(map(str, (name, sort, *shape))) + "\n" for name, (sort, shape) in apart.items())
    if number(0, (1 << 32) - 1) != zlib.crc32(text.encode()):
        raise Bad("another network")
    seed, kind, structure = number(0, MASK64), number(0, 3), number(0, 2)
    rows = number(64, 1 << 28) if structure == 2 else 0
    sizes = [math.prod(shape) for shape in spanned.values()]
    start, k, step = number(0, 1), number(1, sum(sizes)), number(0, 135)
    zeros = number(0, 255)

    blocks = []  # group, kind, rows
    for tensor, n in enumerate(sizes if structure else [sum(sizes)]):
        parts = -(-n // rows) if structure == 2 and n > 256 else 1
        for i in range(parts):
            count = n * (i + 1) // parts - n * i // parts
            blocks.append((tensor, 0 if structure and n <= 256 else kind, count))
    mixed = any(kind for _, kind, _ in blocks)
    order = sorted(
        (0 if mixed and not kind else (c + 1) / n, b, c) for b, (_, kind, n) in enumerate(blocks) for c in range(n)
    )[:k]
    groups = [blocks[b][0] for _, b, _ in order]
    scales = {group: number(0, 99) for group in sorted(set(groups))}
    if at != len(header):
        raise Bad("trailing bytes")

    decoder, alpha, low = RangeDecoder(segments[3]), [0] * k, 0
    counts = {group: [0] * 128 for group in scales}
    while low < k:
        high = min(k, low + max(64, low // 4))
        for group in sorted(set(groups[low:high])):
            places = [i for i in range(low, high) if groups[i] == group]
            for i, value in zip(places, run(decoder, len(places), scales[group], zeros, counts[group]), strict=True):
                alpha[i] = value
        low = high
    products, reach = [], []
    for b, (_, kind, n) in enumerate(blocks):
        own = [a for a, (_, owner, _) in zip(alpha, order, strict=True) if owner == b]
        if kind == 0:
            places = sorted(range(n), key=words(n, 0, b, 0, seed).__getitem__)
            products.append([0] * n)
            for place, a in zip(places, own, strict=False):
                products[b][place] = a
            reach.append(max(map(abs, own), default=0))
        else:
            products.append(times_basis(kind, b, n, own, seed))
            reach.append(sum(map(abs, own)) * (16 if kind == 2 else 1))

    delta, tensors, block, row = (8 + step % 8) << step // 8, {}, 0, 0
    for t, (name, shape) in enumerate(spanned.items()):
        n = sizes[t]
        f = math.prod(shape[1:]) if len(shape) > 1 else 200
        theta0 = [(1 << 24) * (start and name.split(".")[-1] == "weight")] * n
        if start == 0:
            theta0 = [0] * n
        elif len(shape) > 1:
            bound = math.isqrt((6 << 48) // f)
            theta0 = [(w * 2 * bound >> 32) - bound for w in words(n, t, 0, 4096, seed)]
        tensors[name] = []
        for zero in theta0:
            _, kind, count = blocks[block]
            s = math.isqrt((1 << 81) // (f * {0: 1, 2: 8 * count}.get(kind, count))) * delta >> 16
            if s * reach[block] + (1 << 42) >= 1 << 53:
                raise Bad("too large")
            tensors[name].append(single((zero << 16) + s * products[block][row]))
            row += 1
            if row == count:
                block, row = block + 1, 0

    at, payload = 0, segments[2]
    for name, (sort, shape) in apart.items():
        count, size = math.prod(shape), {"float": 2, "int": 8}.get(sort, 0)
        if sort == "exact":
            size, at = payload[at] if at < len(payload) else 0, at + 1
            if size not in (2, 4, 8):
                raise Bad("no such width")
        length = size * count or -(-count // 8)
        part = payload[at : at + length]
        if len(part) < length:
            raise Bad("too little apart")
        cells = [part[i : i + size] for i in range(0, length, size or length or 1)]
        if sort == "int":
            tensors[name] = [int.from_bytes(cell, "little", signed=True) for cell in cells]
        elif sort == "bool":
            bits = int.from_bytes(part, "little")
            if bits >> count:
                raise Bad("bits that mean nothing")
            tensors[name] = [bool(bits >> i & 1) for i in range(count)]
        else:
            code = "<d" if size == 8 else "<f"
            tensors[name] = [struct.unpack(code, (b"\0\0" if size == 2 else b"") + cell)[0] for cell in cells]
        at += length
    if at != len(payload):
        raise Bad("too much apart")
    return alpha, tensors


def single(units):
    """An integer in units of 2**-40 as float32."""
    return struct.unpack("<f", struct.pack("<f", units / (1 << 40)))[0]


def run(decoder, count, scale, zeros, counts):
    """Some coefficients of a group, and what they teach."""
    low_bits = max(0, (scale - 24) // 4)
    base, total = table(scale - 4 * low_bits, 4), 128 + sum(counts)
    frequencies = []
    for s in range(128):
        start = (base[s + 1] - base[s]) * (256 - zeros) + ((zeros << 24) if s == 64 else 0)
        q = ((128 * start >> 8) + (counts[s] << 24)) // total
        frequencies.append((q * ((1 << 24) - 128) >> 24) + 1)
    frequencies[64] += (1 << 24) - sum(frequencies)
    edges = [sum(frequencies[:s]) for s in range(129)]
    symbols = [decoder.symbol(edges) for _ in range(count)]
    high = [decoder.escape() if s in (0, 127) else s - 64 for s in symbols]
    low = [decoder.number(low_bits) for _ in range(count)] if low_bits else [0] * count
    for s in symbols:
        counts[s] += 1
    values = [(v << low_bits) + u - (1 << low_bits) // 2 for v, u in zip(high, low, strict=True)]
    if any(not -(1 << 20) <= v < 1 << 20 for v in values):
        raise Bad("a coefficient is out of range")
    return values
