"""prancimg: a neural image codec. A picture becomes a small network; the network becomes a few thousand integers.

import prancimg
data = prancimg.encode("photo.png", bpp=0.1)   # bytes of a .prc file
picture = prancimg.decode(data)                # a Pillow image
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from prancimg.version import __version__

if TYPE_CHECKING:
    from prancimg.apps.pillow_plugin import register_pillow_plugin
    from prancimg.codec import decode, encode
    from prancimg.decoding.lazy import LazyImage
    from prancimg.decoding.lazy import open_image as open
    from prancimg.errors import PrancImgError
    from prancimg.format.facts import info

__all__ = [
    "LazyImage",
    "PrancImgError",
    "__version__",
    "decode",
    "encode",
    "info",
    "open",
    "register_pillow_plugin",
]

_PLACES = {
    "LazyImage": ("decoding.lazy", "LazyImage"),
    "PrancImgError": ("errors", "PrancImgError"),
    "decode": ("codec", "decode"),
    "encode": ("codec", "encode"),
    "info": ("format.facts", "info"),
    "open": ("decoding.lazy", "open_image"),
    "register_pillow_plugin": ("apps.pillow_plugin", "register_pillow_plugin"),
}


if not TYPE_CHECKING:  # which would believe in any name

    def __getattr__(name: str) -> Any:
        """Everything public is loaded when it is first asked for: ``prancimg info`` waits for no library (PEP 562)."""
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, origin = _PLACES[name]
        value = globals()[name] = getattr(import_module(f"prancimg.{module}"), origin)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
