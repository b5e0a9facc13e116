"""The heavy parts of a fit's step on CPUs, compiled by Numba. :mod:`prancimg.fit.ops` has the same in plain torch.

Numba's cache looks at a kernel's own file only: after a change to ``arithmetic``, delete ``__pycache__``.
"""
