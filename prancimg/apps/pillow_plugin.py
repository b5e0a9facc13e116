"""Pillow reads and writes .prc files after :func:`register_pillow_plugin`, and so does what builds on it (imageio)."""

from __future__ import annotations

import os
from inspect import signature
from typing import IO, TYPE_CHECKING

from PIL import Image, ImageFile

from prancimg.decoding.lazy import LazyImage
from prancimg.errors import PrancImgError
from prancimg.format.bitstream import SIGNATURE

if TYPE_CHECKING:
    from PIL._imaging import PixelAccess

FORMAT = "PRC"
EXTENSION = ".prc"
MIME = "image/x-prc"


class PrcImageFile(ImageFile.ImageFile):
    """A .prc file that ``Image.open`` found: size, mode and metadata at once, the pixels when they are needed.

    ``ImageFile.LOAD_TRUNCATED_IMAGES`` lets files through that end early, as soon as they hold the network.
    """

    format = FORMAT
    format_description = "prancimg neural image"

    def _open(self) -> None:
        assert self.fp is not None
        data = self.fp.read()
        try:
            # Pillow has its own limit on pixels, checked after this and before any are made.
            self._lazy = LazyImage(data, None, allow_partial=ImageFile.LOAD_TRUNCATED_IMAGES)
        except PrancImgError as error:
            raise OSError(str(error)) from error
        self._size, self._mode = self._lazy.size, self._lazy.mode
        self.info.update(self._lazy.info)

    def load(self) -> PixelAccess | None:
        """Decode, the first time."""
        if self._im is None:
            try:
                self.im = self._lazy.render().im
            except PrancImgError as error:
                raise OSError(str(error)) from error
            if self._exclusive_fp and self.fp:
                self.fp.close()
            self.fp = None
        return Image.Image.load(self)


def register_pillow_plugin() -> None:
    """Teach Pillow the format: ``Image.open("x.prc")`` and ``image.save("x.prc", bpp=0.3)``.

    ``save`` takes all options of :func:`prancimg.encode`. Like Pillow's other writers it keeps the image's colour
    profile and XMP, writes EXIF only if it is given, does not turn the picture, and ignores options of other formats.
    Pillow empties an old file before it asks for the new one, so a ``save`` that fails leaves nothing of it:
    ``Path(name).write_bytes(prancimg.encode(image))`` is the safe way.
    """
    Image.register_open(FORMAT, PrcImageFile, lambda prefix: prefix.startswith(SIGNATURE))
    Image.register_save(FORMAT, _save)
    Image.register_save_all(FORMAT, _save_all)
    Image.register_extension(FORMAT, EXTENSION)
    Image.register_mime(FORMAT, MIME)


def _save(image: Image.Image, file: IO[bytes], filename: str | bytes | os.PathLike[str]) -> None:
    from prancimg.codec import encode

    known = signature(encode).parameters.keys() - {"image"}
    options = {name: value for name, value in image.encoderinfo.items() if name in known}
    exif = options.get("exif") or b""
    if isinstance(exif, Image.Exif):
        exif = exif.tobytes()
    try:
        file.write(encode(image, **options | {"orient": False, "exif": exif}))
    except TypeError as error:
        raise PrancImgError(f"cannot write the image as .prc: {error}") from error


def _save_all(image: Image.Image, file: IO[bytes], filename: str | bytes | os.PathLike[str]) -> None:
    frames = [image, *image.encoderinfo.get("append_images", ())]
    if (count := sum(getattr(frame, "n_frames", 1) for frame in frames)) > 1:
        raise PrancImgError(f"a .prc file holds one picture, not {count}: save them one by one")
    _save(image, file, filename)
