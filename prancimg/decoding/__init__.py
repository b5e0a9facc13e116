"""Bytes to picture: the network is put together from its file, and any part of the picture rendered at any size.

Imports ``format``, ``network`` and ``images``; never torch, never ``fit``.
"""
