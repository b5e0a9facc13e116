"""What a .prc file says of itself: no integer of it is decoded, and NumPy is not needed."""

from __future__ import annotations

from typing import Any

from prancimg.format.bitstream import VERSION, Segment, read_beginning
from prancimg.format.extras import Extras
from prancimg.format.files import DataLike, read_bytes
from prancimg.format.header import Header
from prancimg.format.layout import Kind
from prancimg.format.lossless import Lossless


def info(source: DataLike) -> dict[str, Any]:
    """What a .prc file (bytes, a path, an open file) says of itself, not rendered. All checksums are verified."""
    data = read_bytes(source)
    header, segments = read_beginning(data, None)
    extras = Extras.read(segments)
    return {
        "format": "prc",
        "version": VERSION,
        "width": header.width,
        "height": header.height,
        "mode": extras.mode,
        "depth": extras.samples.depth,
        "bytes": len(data),
        "bpp": 8 * len(data) / (header.width * header.height),
        "checksums": len(segments),
        **(_network(header) if isinstance(header, Header) else _lossless(header)),
        "metadata": {what: len(getattr(extras.metadata, what)) for what in ("icc", "exif", "xmp")},
        "segments": {
            Segment(kind).name.lower() if kind in Segment.__members__.values() else str(kind): len(payload)
            for kind, payload in segments.items()
        },
    }


def _network(header: Header) -> dict[str, Any]:
    """Of a picture that is a network."""
    return {
        "model": "field" if header.channels else "siren",
        "coding": "network",
        "hidden": header.hidden,
        "layers": header.layers,
        "channels": header.channels,
        "levels": header.pyramid.levels if header.channels else 0,
        "parameters": sum(header.siren.sizes),
        "coefficients": sum(coded.k for coded in header.tensors),
        "symbols": sum(grid.count for grid in header.pyramid.grids) if header.channels else 0,
        "basis": Kind(header.kind).name.lower(),
        "seed": header.seed,
        "prior": header.prior,
        "pace": header.pace,
    }


def _lossless(picture: Lossless) -> dict[str, Any]:
    """Of a lossless picture: no network, so none of its numbers."""
    numbers = ("hidden", "layers", "channels", "levels", "parameters", "coefficients", "symbols")
    coding = {"model": "lossless", "coding": picture.coding.name.lower()}
    return {**coding, **dict.fromkeys(numbers, 0), "basis": None, "seed": None, "prior": None, "pace": 0}
