"""Seed to directions to weights to functions.

``philox`` and ``basis`` make the pseudo-random directions, ``prior`` has the weights that networks start from,
``siren`` is the synthesis network, ``field`` the feature field that it reads. ``context`` computes the distribution
of every coefficient, from ``context_features``, along ``wavefronts``. NumPy, and torch where a tensor is handed in
(``arrays``), but never imported: decoding does without. Imports only ``format``.
"""
