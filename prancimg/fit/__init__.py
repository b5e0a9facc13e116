"""Picture to integers: networks and grids are fitted by gradients, and the file lands on the rate asked for.

The only folder beside ``pranc`` that needs torch, and the only one that needs Numba. Never imported by what decodes.
"""
