"""Bytes to integers: the container, its header, the optional segments, and the range coder.

Imports nothing of the package but its errors. ``layout``, ``bitstream``, ``extras``, ``files`` and ``facts`` do
without NumPy, so that ``prancimg info`` waits for no library.
"""
