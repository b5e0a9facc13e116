"""What is fitted at which rate."""

import numpy as np
import torch

from prancimg.fit.fit_field import fit_field
from prancimg.fit.setup import Setup, adapted_to
from prancimg.format.header import SEEDED, SYNTHESIS

CPU = torch.device("cpu")


def test_the_synthesis_is_sent_whole_where_the_file_is_large_enough():
    assert adapted_to(49_000) is SEEDED and adapted_to(51_000) is SYNTHESIS


def test_bits_of_the_finest_level_count_for_more(photo):
    def share(setup):
        fitted = fit_field(photo, seed=0, iterations=12, device=CPU, lmbda=2e-3, setup=setup)
        _, q = fitted.rounded(0)
        return np.count_nonzero(q[0, 0]) / sum(np.count_nonzero(grid) for grid in q.values())

    assert share(Setup()) < share(Setup(rate_weights=(1.0, 1.0, 1.0, 1.0)))
