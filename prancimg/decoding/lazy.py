"""A .prc file as an image that is decoded when it is looked at: all of it or a part, at any size, coarse or fine."""

from __future__ import annotations

from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from prancimg.decoding import decoder
from prancimg.decoding.bitmap import Bitmap
from prancimg.decoding.decoder import Model
from prancimg.decoding.view import Renderer
from prancimg.errors import PrancImgError, enough_memory, whole_number, whole_numbers
from prancimg.format import bitstream, files
from prancimg.format.bitstream import MAX_PIXELS
from prancimg.format.extras import MARGIN, OPAQUE, Alpha, Extras
from prancimg.format.files import DataLike
from prancimg.format.header import Header
from prancimg.format.layout import MAX_LEVELS
from prancimg.format.lossless import Lossless
from prancimg.images.lossless import read_samples
from prancimg.images.plane import png_to_plane
from prancimg.images.save import to_image
from prancimg.network.field import Box, Coefficients, grid_step

Region = tuple[int, int, int, int]
"""x, y, width, height in pixels of the picture."""


class LazyImage:
    """A file whose header and checksums are verified, and whose samples are made on demand.

    Integers are decoded once and kept. Threads may share one.
    """

    def __init__(self, data: bytes, max_pixels: int | None = MAX_PIXELS, *, allow_partial: bool = False) -> None:
        """Raises PrancImgError if ``data`` is no .prc file or a damaged one.

        With ``allow_partial``, what is missing or damaged at its end makes the picture softer instead.
        """
        self._cut: bitstream.Damage | None = None
        self._lacks = ""
        if allow_partial:
            self._segments, self._cut = bitstream.salvage(data)
            self._header = bitstream.beginning(self._segments, max_pixels)
        else:
            self._header, self._segments = bitstream.read_beginning(data, max_pixels)
        self._extras = Extras.read(self._segments)
        self._max_pixels = max_pixels
        self._lock = Lock()
        self._renderers: dict[int, Renderer] = {}
        self._bitmap: Bitmap | None = None
        self._alpha: np.ndarray | LazyImage | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled and copied: the file's parts. The copy decodes for itself."""
        return self.__dict__ | {"_lock": None, "_renderers": {}, "_alpha": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = Lock()

    @property
    def width(self) -> int:
        """In pixels."""
        return self._header.width

    @property
    def height(self) -> int:
        """In pixels."""
        return self._header.height

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height

    @property
    def mode(self) -> str:
        """Of the Pillow images rendered: L, LA, RGB or RGBA; I;16 for grey of 16 bits without alpha."""
        return "I;16" if self._extras.mode == "L" and self.depth == 16 else self._extras.mode

    @property
    def depth(self) -> int:
        """Bits of the original's samples: 8 or 16."""
        return self._extras.samples.depth

    @property
    def levels(self) -> int:
        """Levels of the field; ``render(level=levels - 1)`` is the coarsest. 1 where there is no field."""
        header = self._header
        return header.pyramid.levels if isinstance(header, Header) and header.channels else 1

    @property
    def damage(self) -> str:
        """Why the file is not whole and, once something was rendered, what its picture lacks. Empty for whole files."""
        reasons = [str(self._cut.error)] if self._cut else ["the file is cut short"] if self._lacks else []
        return "; ".join([*reasons, self._lacks] if self._lacks else reasons)

    @property
    def info(self) -> dict[str, Any]:
        """``icc_profile``, ``exif`` and ``xmp`` as bytes, those that the file holds, as in Pillow's ``Image.info``."""
        image = to_image(np.zeros((1, 1, 1), np.uint8), self._extras.metadata)
        return {str(name): data for name, data in image.info.items()}

    @property
    def extras(self) -> Extras:
        """The optional segments: kind of samples, alpha, metadata."""
        return self._extras

    def render(
        self, size: tuple[int, int] | None = None, region: Region | None = None, *, level: int = 0
    ) -> Image.Image:
        """A Pillow image of ``region`` (x, y, width, height; default: everything) at ``size`` (width, height).

        The picture is a function of the place, so larger sizes are computed, not enlarged; smaller ones are averaged.
        ``level`` decodes only the grids from that level up: the picture is softer and, unless a size is given,
        2**level times smaller. Colour of 16 bits, which Pillow has no mode for, comes as 8; see :meth:`array`.

        Raises:
            PrancImgError: a region outside the picture, an impossible size, more pixels than the limit, damaged data.
        """
        samples = self.array(size, region, level=level, depth=16 if self.mode == "I;16" else 8)
        return to_image(samples, self._extras.metadata)

    def array(
        self,
        size: tuple[int, int] | None = None,
        region: Region | None = None,
        *,
        level: int = 0,
        depth: int | None = None,
    ) -> np.ndarray:
        """The samples that :meth:`render` shows: (height, width, 1 to 4), uint8 or for a ``depth`` of 16 uint16."""
        level = whole_number("level", level)
        if not 0 <= level < MAX_LEVELS:
            raise PrancImgError(f"level {level} is not between 0 and {MAX_LEVELS - 1}")
        depth = self.depth if depth is None else depth
        if depth not in (8, 16):
            raise PrancImgError(f"a depth of {depth} bits is not 8 or 16")
        x, y, width, height = (0, 0, *self.size) if region is None else whole_numbers("the region", region, 4)
        if min(x, y) < 0 or min(width, height) < 1 or x + width > self.width or y + height > self.height:
            raise PrancImgError(
                f"the region {x},{y},{width},{height} is not within {self.width} x {self.height} pixels"
            )
        columns, rows = -(-width >> level), -(-height >> level)
        if size is not None:
            columns, rows = whole_numbers("the size", size, 2)
        if min(columns, rows) < 1 or (self._max_pixels is not None and columns * rows > self._max_pixels):
            raise PrancImgError(f"a size of {columns} x {rows} pixels is out of range (limit: {self._max_pixels})")
        with enough_memory(f"{self.width} x {self.height}"):
            return self._samples((y, x, y + height, x + width), rows, columns, min(level, self.levels - 1), depth)

    def _samples(self, box: Box, rows: int, columns: int, level: int, depth: int) -> np.ndarray:
        renderer, everything = self._view(level), (0, 0, self.height, self.width)
        if self._extras.mode == "RGB" and depth == 8 and not level and box == everything and box[2:] == (rows, columns):
            return renderer.whole()
        colors = _resampled(renderer, box, rows, columns)
        if self._extras.samples.grey:
            colors = colors.mean(0, keepdims=True)
        if self._extras.alpha:
            colors = np.concatenate([colors, self._opacity(self._extras.alpha, box, rows, columns, level)[None]])
        samples = np.rint(colors.transpose(1, 2, 0) * (2**depth - 1))
        return np.ascontiguousarray(samples.astype(np.uint16 if depth == 16 else np.uint8))

    def _view(self, level: int) -> Renderer | Bitmap:
        """The picture as a function."""
        header = self._header
        if isinstance(header, Header):
            return self._renderer(header, level)
        with self._lock:
            if self._bitmap is None:
                _probe(header.width * header.height)
                self._bitmap = Bitmap(read_samples(header))
            return self._bitmap

    def _renderer(self, header: Header, level: int) -> Renderer:
        """The function from the levels from ``level`` up; what is known already is not decoded again."""
        with self._lock:
            if level in self._renderers:
                return self._renderers[level]
            finer = [known for known in self._renderers if known < level]
            renderer = self._renderers[max(finer)].coarse(level) if finer else self._decoded(header, level)
            return self._renderers.setdefault(level, renderer)

    def _decoded(self, header: Header, finest: int) -> Renderer:
        if self._renderers:
            theta = next(iter(self._renderers.values())).theta
        else:
            model = Model.of(header)
            theta = model.parameters(decoder.read_coefficients(header, self._segments), header.tensors)
        q: Coefficients = {}
        if header.channels:
            _probe((header.width >> finest) * (header.height >> finest))
            q, lacks = decoder.read_field_prefix(header, self._segments, theta, self._cut, finest)
            self._lacks = self._lacks or lacks
        return Renderer(header.siren, theta, header.pyramid, q, grid_step(header.step), header.rate, finest)

    def _opacity(self, alpha: Alpha, box: Box, rows: int, columns: int, level: int) -> np.ndarray:
        """The alpha channel of a box, (rows, columns) float32 from 0 to 1."""
        if alpha.flat is not None:
            return np.full((rows, columns), alpha.flat / OPAQUE, np.float32)
        with self._lock:
            if self._alpha is None:
                if alpha.lossless:
                    self._alpha = self._lossless_plane(alpha.lossless)
                elif alpha.png:
                    self._alpha = png_to_plane(alpha.png, self.height, self.width)
                else:
                    try:
                        self._alpha = LazyImage(alpha.prc, None)
                    except PrancImgError as error:
                        raise PrancImgError(f"the alpha segment is broken: {error}") from error
                    if self._alpha.size != self.size:
                        raise PrancImgError("the alpha segment does not belong to the picture")
        if isinstance(self._alpha, LazyImage):
            renderer = self._alpha._view(min(level, self._alpha.levels - 1))
            mean = _resampled(renderer, box, rows, columns).mean(0)
            return np.asarray(np.clip((1 + 2 * MARGIN) * mean - MARGIN, 0, 1))
        top, left, bottom, right = box
        part = self._alpha[top:bottom, left:right]
        return part if part.shape == (rows, columns) else np.clip(_resized(part, rows, columns), 0, 1)

    def _lossless_plane(self, coded: Lossless) -> np.ndarray:
        """The alpha channel (H, W) float32 from 0 to 1."""
        if (coded.width, coded.height) != self.size:
            raise PrancImgError("the alpha segment does not belong to the picture")
        plane = read_samples(coded)[:, :, 0]
        return plane / np.float32(np.iinfo(plane.dtype).max)


def open_image(source: DataLike, *, max_pixels: int | None = MAX_PIXELS, allow_partial: bool = False) -> LazyImage:
    """Open a .prc file (bytes, a path, an open file) without decoding it: ``prancimg.open``.

    >>> picture = prancimg.open("photo.prc")
    >>> picture.render(region=(100, 50, 64, 64), size=(640, 640)).save("detail.png")

    With ``allow_partial`` a damaged or truncated file gives a softer picture; :attr:`LazyImage.damage` says why.

    Raises:
        PrancImgError: not a .prc file, damaged, from a later version, or of more than ``max_pixels`` pixels.
        OSError: a file that cannot be read.
    """
    return LazyImage(files.read_bytes(source), max_pixels, allow_partial=allow_partial)


def _probe(pixels: int) -> None:
    """If there is too little memory, say so at once."""
    np.empty(decoder.BYTES_PER_PIXEL * pixels, np.uint8)


def _resampled(renderer: Renderer | Bitmap, box: Box, rows: int, columns: int) -> np.ndarray:
    """A box as (3, rows, columns) from 0 to 1; along an axis with fewer points than pixels, averages.

    What is not a number (absurd weights can give it) becomes 0.
    """
    height, width = ((after - before) >> renderer.finest or 1 for before, after in ((box[0], box[2]), (box[1], box[3])))
    with np.errstate(all="ignore"):
        picture = np.nan_to_num(renderer.render(box, max(rows, height), max(columns, width)))
    if picture.shape[1:] != (rows, columns):
        picture = np.stack([_resized(plane, rows, columns) for plane in np.clip(picture, 0, 1)])
    return np.asarray(np.clip(picture, 0, 1))


def _resized(plane: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """A float32 plane at another size, by Lanczos."""
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(image.resize((columns, rows), Image.Resampling.LANCZOS))
