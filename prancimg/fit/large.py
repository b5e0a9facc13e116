"""The fit of a picture too large to be fitted at once: networks first, then the field window by window.

A contact sheet tells the networks, the quantiser's step and λ. Then the field is fitted in overlapping windows
in reading order. The coefficients of earlier windows are constants, inside a window and beyond its edges, so that
every window continues the picture that is there already and nothing has to be blended: the file is one field, as ever.
A window commits its core and, at every level, the next row and column, because coefficients reach farther the coarser
they are. Memory is that of the fit of a window, and a few bytes a pixel for the picture and its coefficients. Needs
torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from prancimg.decoding.decoder import Model
from prancimg.errors import PrancImgError
from prancimg.fit.adam import GridAdam
from prancimg.fit.fit_field import fit_field
from prancimg.fit.loss import RateDistortion, initial_grids, noisy_soft_round, to_planes
from prancimg.fit.rate_control import StartRate, choose, random_tiles
from prancimg.fit.rate_term import RateTerm
from prancimg.fit.rdoq import Fitted, rdoq_order
from prancimg.fit.setup import LMBDAS, TUNES, Schedule, Setup, relative_rate, steps_at
from prancimg.fit.threads import AdaptiveThreads, keep_memory, one_torch_thread
from prancimg.format import range_coder
from prancimg.format.header import Header
from prancimg.format.layout import KINDS, Pyramid
from prancimg.network import context
from prancimg.network.field import Box, Coefficients, grid_step, window
from prancimg.network.siren import FRACTION, to_floats

LARGE = 1 << 22
"""Pixels up to which a picture is fitted at once."""
CORE, BACK, AHEAD = 1024, 64, 128
"""Pixels a side of a window: its core at most, what it sees of the windows before, and of those to come."""
_ALIGNMENT = 64
"""Windows begin where the samples of all levels do."""
_SHEET, _TILES = 512, 4
"""The contact sheet: tiles of so many pixels a side, so many."""
_MAX_REST = 0.498
"""What rounding takes off at most; a little less than a half, so that it stays what it was in float16."""
_SLOPE = -0.8
"""About how the logarithm of the bits follows that of λ."""


@dataclass(frozen=True)
class Window:
    """A part of the picture."""

    box: Box
    """Its pixels."""
    core: tuple[int, int]
    """Where its core ends: the first row and column that it leaves to others."""


def windows(height: int, width: int) -> Iterator[Window]:
    """Windows that cover a picture, in reading order."""
    for top, bottom in _spans(height):
        for left, right in _spans(width):
            lower = min(height, bottom + AHEAD), min(width, right + AHEAD)
            yield Window((max(0, top - BACK), max(0, left - BACK), *lower), (bottom, right))


def _spans(size: int) -> list[tuple[int, int]]:
    """About equal parts of a side, of at most about ``CORE`` pixels."""
    count = -(-size // CORE)
    ends = [_ALIGNMENT * round(size * i / count / _ALIGNMENT) for i in range(count)] + [size]
    return list(itertools.pairwise(ends))


class WindowRateDistortion(RateDistortion):
    """A window of a picture whose coefficients are known in part."""

    def __init__(self, pixels: Tensor, pyramid: Pyramid, known: Tensor, free: Tensor, masking: float = 0.0) -> None:
        """``known``: packed integers, 0 where they are ``free`` (bool)."""
        super().__init__(pixels, pyramid, masking)
        self.known, self.free, self.beyond = known, free, pixels.new_zeros(())

    def field(self, q: Tensor, weights: Mapping[str, Tensor], step: float) -> Tensor:
        """What the coefficients in the window make, and what those beyond it add."""
        return super().field(q, weights, step) + self.beyond

    def start(self, weights: Mapping[str, Tensor], step: float, r: float) -> Tensor:
        """As for a whole picture, but what is known stays."""
        y = self.known
        for damping in self.damping:
            y = y.round()
            rest = self.pixels - self.render(y, weights, step, r)
            y = torch.where(self.free, y + damping * self.laplacian_pyramid(rest, weights, step, r), self.known)
        return y


class _Field:
    """All coefficients of a picture, as far as they are decided."""

    def __init__(self, pyramid: Pyramid) -> None:
        self.pyramid = pyramid
        sizes = {grid.key: (grid.height, grid.width) for grid in pyramid.grids}
        self.q = {key: np.zeros(size, np.int32) for key, size in sizes.items()}
        self.rest = {key: np.zeros(size, np.float16) for key, size in sizes.items()}
        """What was rounded off."""
        self.ranks = {key: np.full(size, np.inf, np.float32) for key, size in sizes.items()}
        """When each is to be given up, from 0 to 1 in its window; infinite: never."""
        self.decided = {key: np.zeros(size, bool) for key, size in sizes.items()}

    def part(self, key: tuple[int, int], box: Box) -> tuple[slice, slice]:
        """Where a window lies in a grid."""
        top, left, bottom, right = (side >> key[1] if i < 2 else -(-side >> key[1]) for i, side in enumerate(box))
        return slice(top, bottom), slice(left, right)

    def commit(
        self,
        place: Window,
        found: Mapping[tuple[int, int], np.ndarray],
        ranks: Mapping[tuple[int, int], np.ndarray],
        nets: Mapping[str, context.Network],
    ) -> float:
        """Decide what a window found in its core and the next row and column of every level; the bits that takes."""
        pyramid, bits = self.window(place.box), 0.0
        done = Coefficients()
        for grid in pyramid.grids:
            key, part = grid.key, self.part(grid.key, place.box)
            whole = np.rint(found[key]).astype(np.int32)
            new = ~self.decided[key][part]
            for axis, end in enumerate(place.core):
                beyond = -(-end >> grid.level) + 1 - part[axis].start
                np.moveaxis(new, axis, 0)[beyond:] = False
            mean, table = context.distributions(grid, whole, done, nets[KINDS[grid.component > 0]])
            flat = new.reshape(-1)
            bits += range_coder.conditional_cost(whole[new], mean[flat], table[flat])
            done[key] = whole
            self.q[key][part][new], self.ranks[key][part][new] = whole[new], ranks[key][new]
            self.rest[key][part][new] = (found[key] - whole)[new].clip(-_MAX_REST, _MAX_REST)
            self.decided[key][part][new] = True
        return bits

    def window(self, box: Box) -> Pyramid:
        """The grids of a window."""
        top, left, bottom, right = box
        return replace(self.pyramid, height=bottom - top, width=right - left)


@dataclass(frozen=True)
class _Sample:
    """What a contact sheet tells of a picture."""

    fitted: Fitted
    lmbda: float
    growth: float
    """Bits of a fit's field, relative to those of its start."""
    starts: list[float]
    """Bits of the starts of all windows' cores."""
    learned: float
    """Bits relative to those of a context model that does not learn, which windows are counted by."""


@one_torch_thread()
def fit_large(
    image: np.ndarray,
    *,
    seed: int,
    iterations: int,
    device: torch.device,
    lmbda: float | None = None,
    bits: float = math.inf,
    setup: Setup = TUNES["ssim"],
    progress: Callable[[float], None] | None = None,
) -> Fitted:
    """:func:`prancimg.fit.fit_field.fit_field` for a picture of any size."""
    keep_memory()
    height, width = image.shape[:2]
    places = list(windows(height, width))
    sample = _sample(image, places, seed, iterations, device, lmbda, bits, setup)
    header = replace(sample.fitted.header, height=height, width=width)
    model, field = Model.of(header), _Field(header.pyramid)
    theta = model.parameters(sample.fitted.alpha, header.tensors)
    weights, nets = to_floats(model.siren, theta), context.networks(theta, FRACTION, header.rate)
    steps = steps_at(iterations, header.luma_from)
    wanted, expected = bits - sample.fitted.network_bits, [sample.growth * start for start in sample.starts]
    spent = at_first = met = 0.0  # bits, those the first λ would have made, and those expected
    for i, place in enumerate(places):
        left, change = sum(expected[i:]) * (at_first / met if met else 1.0), 1.0
        if not math.isinf(bits):
            change = min(max(max(wanted - spent, 1.0) / left, 0.5), 2.0)
        now = sample.lmbda * change ** (1 / _SLOPE)
        generator = torch.Generator(device).manual_seed(seed + i)
        trimmed = not math.isinf(bits)
        found, ranks = _fit_window(image, place, field, header, weights, now, steps, setup, generator, trimmed)
        here = sample.learned * field.commit(place, found, ranks, nets)
        spent, at_first, met = spent + here, at_first + here / change, met + expected[i]
        if progress:
            progress((i + 1) / len(places))
    q, rest, ranks_of_all = (
        np.concatenate([grids[grid.key].ravel() for grid in header.pyramid.grids], dtype=np.float32)
        for grids in (field.q, field.rest, field.ranks)
    )
    order = ranks_of_all.argsort(kind="stable")[: np.count_nonzero(np.isfinite(ranks_of_all))]
    return Fitted(header, sample.fitted.alpha, q + rest, order, sample.fitted.finest, sample.fitted.error)


def _sample(
    image: np.ndarray,
    places: list[Window],
    seed: int,
    iterations: int,
    device: torch.device,
    lmbda: float | None,
    bits: float,
    setup: Setup,
) -> _Sample:
    """Fit a contact sheet at λ, or at one at which the whole picture would take about so many bits."""
    tiles = random_tiles(image, min(_SHEET, *image.shape[:2]), _TILES)
    sheet, searched = np.concatenate(list(tiles), 1), lmbda is None
    share, begun = sheet.size / image.size, StartRate(sheet, setup, device)
    chosen = choose(sheet, lmbda, bits * share, setup, iterations, device)
    levels, lmbda, bits = chosen.levels, chosen.lmbda, chosen.bits / share
    setup = replace(setup, levels=levels, adapted=setup.adapted_at(bits))
    for attempt in range(2):
        fitted = fit_field(sheet, seed=seed, iterations=iterations, device=device, lmbda=lmbda, setup=setup)
        own = fitted.network_bits
        growth = (fitted.bits(0) - own) / begun.bits(lmbda, levels)
        starts = [StartRate(image[_core(place)], setup, device).bits(lmbda, levels) for place in places]
        learned = (fitted.bits(0) - own) / max(fitted.at_pace(0).bits(0) - own, 1.0)
        sample, off = _Sample(fitted, lmbda, growth, starts, learned), (growth * sum(starts) + own) / bits
        if not searched or attempt or abs(math.log(off)) < 0.05:
            break
        lmbda = min(max(lmbda * off ** (-1 / _SLOPE), LMBDAS[0]), LMBDAS[1])
    return sample


def _core(place: Window) -> tuple[slice, slice]:
    """The part of a picture that no window before has in its core."""
    top, left = (start + BACK if start else 0 for start in place.box[:2])
    return slice(top, place.core[0]), slice(left, place.core[1])


@one_torch_thread()
def _fit_window(
    image: np.ndarray,
    place: Window,
    field: _Field,
    header: Header,
    network: Mapping[str, np.ndarray],
    lmbda: float,
    steps: int,
    setup: Setup,
    generator: torch.Generator,
    trimmed: bool,
) -> tuple[dict[tuple[int, int], np.ndarray], dict[tuple[int, int], np.ndarray]]:
    """The coefficients of a window, of which those that are known stay, and if it may be ``trimmed`` their ranks."""
    (top, left, bottom, right), device = place.box, generator.device
    pixels = to_planes(image[top:bottom, left:right], device)
    pyramid = field.window(place.box)

    def packed(grids: Mapping[tuple[int, int], np.ndarray]) -> Tensor:
        parts = [grids[grid.key][field.part(grid.key, place.box)].ravel() for grid in pyramid.grids]
        return torch.from_numpy(np.concatenate(parts)).to(device)

    known, free = packed(field.q).to(torch.float32), ~packed(field.decided)
    objective = WindowRateDistortion(pixels, pyramid, known, free, setup.masking)
    weights = {name: torch.from_numpy(tensor).to(device) for name, tensor in network.items()}
    step, r = grid_step(header.step), relative_rate(header.rate)
    with torch.no_grad():
        seen = window(header.pyramid, field.q, network, step, place.box)
        objective.beyond = torch.from_numpy(np.array(seen)).to(device) - objective.field(known, weights, step)
        y = torch.where(free, initial_grids(objective, weights, header), known)
    schedule, threads, lmbda_per_bit = Schedule(steps, step), AdaptiveThreads(), lmbda / pixels[0].numel()
    adam, rate = GridAdam(y.requires_grad_(), pyramid, schedule), RateTerm(objective, setup.rate_weights)
    for i in range(steps):
        with threads.step(rate.due(i)):
            q = torch.where(free, noisy_soft_round(y, *schedule.rounding(i / steps), generator), known)
            loss = objective.distortion(q, weights, step, r) + lmbda_per_bit * rate.bits(i, y, q, weights, r)
            if not math.isfinite(loss.item()):
                raise PrancImgError("the fit diverged")
            loss.backward()  # type: ignore[no-untyped-call]
            adam.update(schedule.relative_learning_rate(i / steps))
    y = y.detach().clamp(1 - range_coder.MAGNITUDE, range_coder.MAGNITUDE - 1)
    whole = y.round()
    ranks = torch.full_like(whole, math.inf)
    if trimmed:
        order = rdoq_order(objective, whole, weights, step, r, setup.rate_weights, lmbda_per_bit, 4)
        ranks[torch.from_numpy(order).to(device)] = torch.linspace(0, 1, len(order), device=device)
    found, when = ({key: part.cpu().numpy() for key, part in pyramid.split(some).items()} for some in (y, ranks))
    return found, when
