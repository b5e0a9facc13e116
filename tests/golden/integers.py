"""Hashes of everything exact in a file: coefficients, parameters and, where there is one, the field."""

import hashlib

import numpy as np

from prancimg.decoder import Model, read_coefficients, read_field, read_header


def digests(file: bytes) -> dict[str, str]:
    """SHA-256 of little-endian int64 values, in the order of the format."""
    header, segments = read_header(file)
    alpha = read_coefficients(header, segments)
    theta = Model.of(header).parameters(alpha, header.tensors)
    parts = {"coefficients": alpha, "parameters": list(theta.values())}
    if header.channels:
        field = read_field(header, segments, theta)
        parts["field"] = [field[grid.key].ravel() for grid in header.pyramid.grids]
    return {
        name: hashlib.sha256(np.concatenate(values).astype("<i8").tobytes()).hexdigest()
        for name, values in parts.items()
    }
