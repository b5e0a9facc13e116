"""The heavy operations of a fit as functions of torch: compiled on CPUs, plain torch elsewhere. First derivatives only.

Each module has the plain torch of the kernels of the same name in :mod:`prancimg.fit.kernels`.
"""
