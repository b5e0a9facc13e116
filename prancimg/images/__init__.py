"""Pictures of all kinds, in and out, and how far two of them are apart.

Imports only ``format``; never torch, but for MS-SSIM in ``metrics``.
"""
