"""Image files of more than 8 bits a sample, which Pillow would reduce."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from prancimg.errors import PrancImgError
from prancimg.images import boxes

BITS, PHOTOMETRIC, WHITE_IS_ZERO, RGB = 258, 262, 0, 2
SAMPLE_FORMAT, SIGNED = 339, 2
PREMULTIPLIED, PLAIN_ALPHA = 1, 2
"""What a TIFF file says of a further channel."""
_PLAIN_SPACES = (0, 16, 17)
"""JPEG 2000's numbers of colour spaces that need no conversion: none, sRGB and grey."""


def deep_samples(data: bytes, image: Image.Image) -> tuple[np.ndarray | None, list[str]]:
    """The samples (H, W, channels) uint16 of a file that has more than 8 bits of them, and what is lost, in words.

    None where there are not more, where Pillow reads them itself (grey), and where what reads them is not here.
    """
    bits = _bits(data, image)
    if bits <= 8 or image.mode.startswith("I"):
        return None, []
    reduced = f"{bits}-bit samples reduced to 8 bits"
    if not data:
        return None, [reduced]
    try:
        if image.format == "PNG":
            import imagecodecs

            samples = np.atleast_3d(imagecodecs.png_decode(data))
            return (samples, []) if samples.dtype == np.uint16 else (None, [reduced])
        if image.format == "TIFF":
            found, notes = _tiff_samples(data)
            return found, notes if found is not None else [reduced]
        if image.format in ("AVIF", "JPEG2000"):
            found = _boxed_samples(data, image, bits)
            if found is None and image.format == "JPEG2000":
                raise PrancImgError(f"JPEG 2000 of {bits} bits a sample in another space than RGB or grey is not read")
            return found, [] if found is not None else [reduced]
        tile = (getattr(image, "tile", None) or [("",)])[0]  # none, once it is loaded
        if image.format == "PPM" and tile[0] == "ppm":
            _, _, offset, (_, most) = tile
            samples = np.frombuffer(data, ">u2", image.height * image.width * 3, offset) * (65535 / most)
            samples = np.rint(np.minimum(samples, 65535)).astype(np.uint16)
            return samples.reshape(image.height, image.width, 3), []
    except ImportError as error:
        if image.format == "JPEG2000":  # of which Pillow makes white black
            raise PrancImgError(f"JPEG 2000 of {bits} bits needs imagecodecs: pip install 'prancimg[deep]'") from error
        return None, [f"{reduced} (pip install 'prancimg[deep]' to keep them)"]
    except PrancImgError:
        raise
    except Exception as error:  # each library has its own
        raise PrancImgError(f"the image is broken: {error}") from error
    return None, [reduced]


def stretched(image: Image.Image, data: bytes, samples: np.ndarray) -> np.ndarray:
    """Grey samples uint16 as Pillow has them, white at 65535 where they have fewer bits."""
    if image.format == "JPEG2000" and data and (bits := boxes.jpeg2000(data).bits) < 16:
        return _scaled(samples >> (16 - bits), bits)
    if image.format == "TIFF" and image.mode == "I;16" and (bits := _bits(data, image)) < 16:
        return _scaled(samples & (2**bits - 1), bits)
    return samples


def _bits(data: bytes, image: Image.Image) -> int:
    """Bits a sample in the file of an image that is not loaded yet."""
    if image.format == "TIFF":
        return int(max(getattr(image, "tag_v2", {}).get(BITS, (1,))))
    if image.format == "AVIF":
        return boxes.avif(data).bits
    if image.format == "JPEG2000":
        return boxes.jpeg2000(data).bits
    tiles = getattr(image, "tile", ())
    if image.format == "PPM":
        return 16 if any(isinstance(tile[3], tuple) and tile[3][-1] > 255 for tile in tiles) else 8
    return 16 if any(";16" in str(tile) for tile in tiles) else 8


def _scaled(samples: np.ndarray, bits: int) -> np.ndarray:
    """To all of 16 bits."""
    most = 2**bits - 1
    return np.asarray((samples.astype(np.uint32) * 65535 + most // 2) // most, np.uint16)


def _boxed_samples(data: bytes, image: Image.Image, bits: int) -> np.ndarray | None:
    """Of AVIF and JPEG 2000; None for what must be converted, or has not the shape that Pillow finds."""
    import imagecodecs

    if image.format == "JPEG2000":
        said = boxes.jpeg2000(data)
        if said.signed or said.enumerated not in _PLAIN_SPACES:
            return None
    if getattr(image, "n_frames", 1) > 1:  # of which it would decode all
        return None
    try:
        decode = imagecodecs.jpeg2k_decode if image.format == "JPEG2000" else imagecodecs.avif_decode
        samples = np.atleast_3d(decode(data))
    except Exception:  # Pillow may make more of it, or say what is wrong
        return None
    if samples.dtype != np.uint16 or samples.shape[:2] != image.size[::-1] or samples.shape[2] > 4:
        return None
    return _scaled(samples, bits)


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
