"""Image files of more than 8 bits a sample, which Pillow would reduce."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from prancimg.errors import PrancImgError
from prancimg.images.metadata import BITS, PLAIN_ALPHA, PREMULTIPLIED, RGB


def is_deep(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet has 16 bits a sample in its file."""
    if image.format == "TIFF":
        return 16 in getattr(image, "tag_v2", {}).get(BITS, ())
    tiles = getattr(image, "tile", ())
    if image.format == "PPM":
        return any(isinstance(tile[3], tuple) and tile[3][-1] > 255 for tile in tiles)
    return any(";16" in str(tile) for tile in tiles)


def deep_samples(data: bytes, image: Image.Image) -> tuple[np.ndarray | None, list[str]]:
    """The 16-bit samples (H, W, channels) of a file, if what reads them is here, and what is lost, in words."""
    reduced = "16-bit samples reduced to 8 bits"
    try:
        if image.format == "PNG" and data:
            import imagecodecs

            samples = np.atleast_3d(imagecodecs.png_decode(data))
            return (samples, []) if samples.dtype == np.uint16 else (None, [reduced])
        if image.format == "TIFF" and data:
            found, notes = _tiff_samples(data)
            return found, notes if found is not None else [reduced]
        tile = (getattr(image, "tile", None) or [("",)])[0]  # none, once it is loaded
        if image.format == "PPM" and data and tile[0] == "ppm":
            _, _, offset, (_, most) = tile
            samples = np.frombuffer(data, ">u2", image.height * image.width * 3, offset) * (65535 / most)
            samples = np.rint(np.minimum(samples, 65535)).astype(np.uint16)
            return samples.reshape(image.height, image.width, 3), []
    except ImportError:
        return None, [f"{reduced} (pip install 'prancimg[deep]' to keep them)"]
    except Exception as error:  # each library has its own
        raise PrancImgError(f"the image is broken: {error}") from error
    return None, [reduced]


def _tiff_samples(data: bytes) -> tuple[np.ndarray | None, list[str]]:
    """RGB, with plain alpha if there is any; None for other kinds of colour. (Pillow reads grey itself.)"""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        samples, extra = page.asarray(), [int(kind) for kind in page.extrasamples] or [PLAIN_ALPHA]
    samples = np.moveaxis(samples, 0, -1) if page.axes.startswith("S") else np.atleast_3d(samples)
    if page.photometric != RGB or samples.dtype != np.uint16 or samples.shape[2] not in (3, 4):
        return None, []
    colors, alpha = samples[:, :, :3], samples[:, :, 3:]
    if alpha.size and extra[0] not in (PREMULTIPLIED, PLAIN_ALPHA):
        return colors, ["a channel that is neither colour nor transparency is left out"]
    if alpha.size and extra[0] == PREMULTIPLIED:
        colors = np.rint(np.minimum(colors * (65535 / np.maximum(alpha, 1)), 65535)).astype(np.uint16)
    return np.concatenate([colors, alpha], 2), []
