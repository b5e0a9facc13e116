"""PRANC for any torch module: train a few coefficients of a seeded basis, and save nothing else.

May import torch, ``network`` and ``format``; ``compact``, the file of a network, does without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prancimg.pranc.loaded import load
    from prancimg.pranc.module import Pranc, direct

__all__ = ["Pranc", "direct", "load"]
_MODULES = {"Pranc": "module", "direct": "module", "load": "loaded"}


if not TYPE_CHECKING:  # which would believe in any name

    def __getattr__(name: str) -> Any:
        """What needs torch is loaded when it is first asked for (PEP 562)."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"prancimg.pranc.{_MODULES[name]}"), name)
        return value
