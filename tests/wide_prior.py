"""A stand-in for a prior with a wide context: prior 2's network, enlarged by weights that change nothing."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import numpy as np

from prancimg.format.layout import DESIGNS, KINDS, NEAR, Design, Features, Siren, part_of
from prancimg.network import prior
from prancimg.network.prior import load_prior, pack_prior
from prancimg.network.siren import to_floats

NUMBER = 60_000
DESIGN = Design(wide=True, units=28, learned=(("luma", 2), ("chroma", 1), ("paint", 3)))


def columns(features: Features) -> dict[tuple[str, tuple[int, int]], int]:
    """The column of every feature."""
    return {
        place: i for i, place in enumerate((plane.name, offset) for plane, offsets in features for offset in offsets)
    }


def enlarged(design: Design) -> dict[str, np.ndarray]:
    """Prior 2's weights in the shapes of a design, in floats: what is new is 0."""
    siren, theta0, _ = load_prior(2)
    weights = dict(to_floats(siren, theta0))
    for kind in KINDS:
        there = columns(design.features[kind])
        order = [there[place] for place in columns(NEAR[kind])]
        for name, shape in design.shapes.items():
            if part_of(name) == kind:
                new, old = np.zeros(shape, np.float32), weights[name]
                if name.endswith(".a"):
                    new[np.ix_(range(len(old)), order)] = old
                else:
                    new[tuple(map(slice, old.shape))] = old
                weights[name] = new
    return weights


def packed(design: Design = DESIGN) -> bytes:
    """The file of the prior, with random directions."""
    siren, random = Siren(16, 1, 4, design), np.random.default_rng(0)
    directions = {
        name: 10.0 ** random.uniform(-4, -2) * random.normal(0, 1, (number, size))
        for part, number in design.learned
        for name, size in zip(siren.shapes, siren.sizes, strict=True)
        if part_of(name) == part
    }
    return pack_prior(siren, enlarged(design), directions)


@contextmanager
def installed(design: Design = DESIGN) -> Iterator[int]:
    """Its number, while it is one of the format's."""
    read, data = prior._read, packed(design)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(DESIGNS, {NUMBER: design}))
        stack.enter_context(mock.patch.dict(prior._DIGESTS, {NUMBER: hashlib.sha256(data).hexdigest()}))
        either = lambda number: data if number == NUMBER else read(number)  # noqa: E731
        stack.enter_context(mock.patch.object(prior, "_read", either))
        stack.callback(load_prior.cache_clear)
        yield NUMBER
