"""Everything exact in a file: coefficients, parameters and, where there is one, the field, or a lossless picture's
samples; and their hashes."""

import hashlib

import numpy as np

from prancimg.decoding.decoder import Model, read_coefficients, read_field
from prancimg.format.bitstream import read_beginning
from prancimg.format.lossless import Lossless
from prancimg.images.lossless import read_samples


def integers(file: bytes, max_pixels: int | None = None) -> dict[str, np.ndarray]:
    """int64 values, in the order of the format."""
    header, segments = read_beginning(file, max_pixels)
    if isinstance(header, Lossless):
        samples = read_samples(header)
        return {"samples": np.broadcast_to(samples, (*samples.shape[:2], 3)).ravel().astype(np.int64)}
    alpha = read_coefficients(header, segments)
    theta = Model.of(header).parameters(alpha, header.tensors)
    parts = {"coefficients": alpha, "parameters": list(theta.values())}
    if header.channels:
        field = read_field(header, segments, theta)
        parts["field"] = [field[grid.key].ravel() for grid in header.pyramid.grids]
    return {name: np.concatenate(values).astype(np.int64) for name, values in parts.items()}


def digests(file: bytes) -> dict[str, str]:
    """SHA-256 of the integers, little-endian."""
    return {name: hashlib.sha256(values.astype("<i8").tobytes()).hexdigest() for name, values in integers(file).items()}
