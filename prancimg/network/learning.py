"""A context network that goes on learning while a grid is coded, on both sides alike, for no bits.

Whenever enough positions are known, both sides take the same step down the slope of what these have cost
(RMSprop: Tieleman and Hinton, 2012; a root mean square that starts with the first steps' own mean). Like all that
decides how a symbol is read, a step is exact: integers, or integers over a power of two, in float64, each below 2**53
whatever a file holds. Square roots and quotients of floats are rounded correctly everywhere, so that what is below the
point of those of integers below 2**52 can be cut off. docs/format.md specifies all of it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from prancimg.format.layout import Grid
from prancimg.format.range_coder import WIDTH, edges, frequencies, rows_and_symbols, tails

if TYPE_CHECKING:
    from prancimg.network.context import Network, Parameters

LEAST = 128
"""Positions that a step waits for, of those where the context holds anything."""
STEPS = 4096
"""Steps a grid can take, at most: a larger one waits for more positions."""
MOST = 512
"""Positions that a step looks at, at most: of more, as many, evenly spread."""
GRADIENT_MAX = 1 << 24
_MEMORY = 128
"""Steps that the mean squares of gradients remember."""
_DAMPING = 16
_RATE = 192
"""How far a step goes, in 2**-20 of a parameter, where its gradient is as large as usual; twice that for every pace."""
_OUTPUT_SLOWER = 4
"""How many times more slowly the output layer learns."""
_COARSE = 2.0**-8
"""Parameters learn in units of 2**-20; the network reads them in units of 2**-12, cut."""
PARAMETER_MAX = 32767 << 8
_WORTH = (
    (2.0**-10, 2.0**-4),
    (2.0**-13, 2.0**-5),
    (2.0 ** np.array([[-18], [-19]]), 2.0 ** np.array([[-10], [-11]])),
)
"""What a unit of 2**-12 of a weight, and of a bias, is in the network's three matrices."""
_OUTPUT_UNITS = 2.0 ** np.array([[10], [11]])
"""Slopes by what the last matrix gives, in those by mean and log2 of the scale."""
# round(2**(16 - i / 4)): one over the deviation of table i, in 2**-12.
_STEEPNESS = (
    65536, 55109, 46341, 38968, 32768, 27554, 23170, 19484, 16384, 13777, 11585, 9742, 8192, 6889, 5793, 4871,
    4096, 3444, 2896, 2435, 2048, 1722, 1448, 1218, 1024, 861, 724, 609, 512, 431, 362, 304, 256, 215, 181, 152,
    128, 108, 91, 76,
)  # fmt: skip
_LN_2 = 1420
"""2**11 ln 2, rounded."""


@lru_cache(maxsize=1)
def slopes() -> np.ndarray:
    """Of a symbol's cost by mean and by log2 of the scale, in 2**-8 bits: (2, 320, 128) float64, row 8 i + f.

    Integers between -5908 and 5908.
    """
    edge = edges()
    density = tails()[:, np.abs(edge)] * np.array(_STEEPNESS)[:, None, None]
    density[..., [0, -1]] = 0
    count = frequencies()
    by_mean = _rounded(np.diff(density), _LN_2 * count)
    by_scale = _rounded(np.diff(edge * density), count << 14)
    return np.stack([by_mean, by_scale]).reshape(2, -1, WIDTH).astype(np.float64)


def _rounded(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    rounded: np.ndarray = (2 * numerator + denominator) // (2 * denominator)
    return rounded


class Learner:
    """The network of one grid: it starts as the file has it, and learns from what it is told."""

    def __init__(self, network: Network, grid: Grid) -> None:
        """Each of the network's paces, 1 to 3, is twice as fast as the one before."""
        self.network = copy.copy(network)
        matrices = network.first_layer(grid), network.second, network.last
        blocks = zip(matrices, network.parameters(grid), _WORTH, strict=True)
        learned, worth = zip(*(_placed(*each) for each in blocks), strict=True)
        self._theta, self._worth, self._matrices = map(_flat, (learned, worth, matrices))
        self._gain = 4 * self._worth
        # What does not learn: the rate's share of the biases, what rounds the outputs, the rows of ones.
        self._fixed = self._matrices - np.floor(self._theta * _COARSE) * self._worth
        self.first, self.network.second, self.network.last = _split(self._matrices, matrices)
        self.network.cut_first = self.network.cut_second = True
        self._gradient, self._mean_square = np.zeros((2, len(self._theta)))
        self._gradients = _split(self._gradient, matrices)
        self._rate = np.full(len(self._theta), float(_RATE << network.pace))
        self._rate[-network.last.size :] /= _OUTPUT_SLOWER
        self._due, self._steps = max(LEAST, -(-grid.count // STEPS)), 0
        self._seen: tuple[np.ndarray, ...] = ()
        self._known: list[tuple[np.ndarray, ...]] = []
        self._waiting = 0

    def __call__(self, inputs: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means in eighths and tables, (n,) int64 each, of features and a row of ones (features + 1, n)."""
        h, more = self.network.hidden(self.first, inputs, room)
        mean, table = self.network.outputs(h + more)
        self._seen = inputs, h, more, mean, table
        return mean, table

    @property
    def parameters(self) -> list[np.ndarray]:
        """Of each layer, in units of 2**-20: weights and bias of a unit after another, and what means nothing."""
        return [part.ravel() for part in _split(self._theta, self._gradients)]

    @property
    def missing(self) -> int:
        """How many positions the next step still waits for."""
        return self._due - self._waiting

    def tell(self, columns: np.ndarray, values: np.ndarray) -> bool:
        """The coefficients of the last call's inputs, at those columns whose contexts hold anything.

        These end with a wave, and before it there were too few for a step; returns whether there was one now.
        """
        if not len(columns):  # a quiet grid has many such waves, and nothing of them is kept
            return False
        *layers, mean, table = self._seen
        row, symbols = rows_and_symbols(values, mean[columns], table[columns])
        self._known.append((*(layer.take(columns, 1) for layer in layers), row, symbols))
        self._waiting += len(values)
        if self.missing > 0:
            return False
        known = [np.concatenate(parts, -1) for parts in zip(*self._known, strict=True)]
        if self._waiting > MOST:
            chosen = np.arange(MOST) * self._waiting // MOST
            known = [each.take(chosen, -1) for each in known]
        self._known, self._waiting = [], 0
        self._find_gradient(*known)
        self._step()
        return True

    def _find_gradient(
        self, inputs: np.ndarray, h: np.ndarray, more: np.ndarray, row: np.ndarray, symbols: np.ndarray
    ) -> None:
        """By back-propagation. What it finds for the row of ones is worth nothing and changes nothing."""
        by_output = slopes()[:, row, symbols] * _OUTPUT_UNITS
        by_total = np.floor(self.network.last.T @ by_output)
        by_more = by_total * (more > 0)
        by_first = self.network.second.T @ by_more
        by_first *= 2
        np.floor(by_first, out=by_first)
        by_first += by_total
        by_first *= h > 0
        pairs = (by_first, inputs), (by_more, h), (by_output, h + more)
        for (slope, read), out in zip(pairs, self._gradients, strict=True):
            np.matmul(slope, read.T, out=out)
        self._gradient *= self._gain
        np.floor(self._gradient, out=self._gradient)
        np.clip(self._gradient, -GRADIENT_MAX, GRADIENT_MAX, out=self._gradient)

    def _step(self) -> None:
        self._steps += 1
        g, square = self._gradient, self._mean_square
        square += np.floor((g * g - square) / min(self._steps, _MEMORY))
        self._theta -= np.floor(self._rate * g / (np.floor(np.sqrt(square)) + _DAMPING))
        np.clip(self._theta, -PARAMETER_MAX, PARAMETER_MAX, out=self._theta)
        np.multiply(np.floor(self._theta * _COARSE), self._worth, out=self._matrices)
        self._matrices += self._fixed


def _placed(matrix: np.ndarray, parameters: Parameters, worth: tuple[Any, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Weights, and biases in a last column, where a matrix has them; and what 2**-12 of them is worth there."""
    learned, each = np.zeros_like(matrix), np.zeros_like(matrix)
    for out, (weights, biases) in ((learned, parameters), (each, worth)):
        out[: len(parameters[1]), :-1], out[: len(parameters[1]), -1:] = weights, biases
    return learned, each


def _flat(blocks: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([block.ravel() for block in blocks])


def _split(flat: np.ndarray, like: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Views of a vector in the shapes of some matrices."""
    parts = np.split(flat, np.cumsum([matrix.size for matrix in like])[:-1])
    return [part.reshape(matrix.shape) for part, matrix in zip(parts, like, strict=True)]
