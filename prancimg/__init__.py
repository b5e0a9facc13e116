"""prancimg: a neural image codec. A picture becomes a small network; the network becomes a few thousand integers.

import prancimg
data = prancimg.encode("photo.png", bpp=0.1)   # bytes of a .prc file
picture = prancimg.decode(data)                # a Pillow image
"""

from prancimg.codec import decode, encode, info
from prancimg.errors import PrancImgError
from prancimg.lazy import LazyImage
from prancimg.lazy import open_image as open
from prancimg.pillow_plugin import register_pillow_plugin
from prancimg.version import __version__

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
