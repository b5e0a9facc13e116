"""Seed to directions to weights to functions: the basis, the prior, the SIREN, its feature field and the context model.

NumPy, and torch where a tensor is handed in, but never imported: decoding does without. Imports only ``format``.
"""
