"""Picture to integers: networks and grids are fitted by gradients, and the file lands on the rate asked for.

From the top: ``encoder`` takes what is asked for to ``field_encoder`` or ``siren_encoder``, two kinds of ``search``.

- The field: ``fit_field`` chooses what is fitted, ``large`` goes window by window. ``rate_control`` finds λ and steers
  it, ``optimise`` takes the steps, ``loss`` has distortion and rate, ``networks`` and ``adam`` what moves, ``rdoq``
  what is given up at the end, ``setup`` the constants. ``ops`` are the heavy operations in torch, ``kernels`` in Numba.
- The global SIREN: ``fit_siren``, ``soap``.

The only folder besides ``pranc`` that needs torch, and the only one that needs Numba. Never imported by what decodes.
"""
