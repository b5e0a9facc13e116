"""What is fitted at which rate."""

import numpy as np
import torch

from prancimg.fit.fit_field import fit_field
from prancimg.fit.setup import Setup, adapted_to
from prancimg.format.bitstream import ALL_WEIGHTS, FROZEN, PRANC

CPU = torch.device("cpu")


def test_the_networks_are_sent_whole_where_file_and_fit_are_large_enough():
    assert adapted_to(10_000, 4_608) is FROZEN
    assert adapted_to(80_000, 14) is PRANC and adapted_to(200_000, 14) is ALL_WEIGHTS
    assert adapted_to(40_000, 360) is PRANC and adapted_to(80_000, 360) is ALL_WEIGHTS
    assert adapted_to(30_000, 4_608) is PRANC and adapted_to(40_000, 4_608) is ALL_WEIGHTS


def test_bits_of_the_finest_level_count_for_more(photo):
    def share(setup):
        fitted = fit_field(photo, seed=0, iterations=12, device=CPU, lmbda=2e-3, setup=setup)
        _, q = fitted.rounded(0)
        return np.count_nonzero(q[0, 0]) / sum(np.count_nonzero(grid) for grid in q.values())

    assert share(Setup()) < share(Setup(rate_weights=(1.0, 1.0, 1.0, 1.0)))
