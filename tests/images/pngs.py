"""PNG files of any depth, kind and chunks, which no library writes."""

import struct
import zlib

import numpy as np

GREY, RGB, PALETTE = 0, 2, 3


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(samples: np.ndarray, *extra: tuple[bytes, bytes], depth: int = 8, kind: int = RGB, late: bytes = b"") -> bytes:
    """Samples (H, W) or (H, W, 3) as numbers of ``depth`` bits, and chunks before and (``late``) behind the pixels."""
    height, width = samples.shape[:2]
    rows = []
    for row in samples.reshape(height, -1).astype(int):
        bits = (row[:, None] >> np.arange(depth - 1, -1, -1)) & 1
        rows.append(b"\0" + np.packbits(bits.astype(np.uint8).ravel()).tobytes())
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    body = b"".join(chunk(*each) for each in extra) + chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return b"\x89PNG\r\n\x1a\n" + head + body + late + chunk(b"IEND", b"")


def gamma(value: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(value * 100000))


def chromaticities(*values: float) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *(round(value * 100000) for value in values))


def profile(icc: bytes) -> tuple[bytes, bytes]:
    return b"iCCP", b"a name\0\0" + zlib.compress(icc)
