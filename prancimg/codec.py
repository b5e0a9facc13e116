"""The library's front door: encode and decode, on paths, bytes and Pillow images."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from prancimg.decoding.lazy import open_image
from prancimg.errors import OutOfReach, PrancImgError, too_few
from prancimg.fit.forks import encoding
from prancimg.format import bitstream
from prancimg.format.bitstream import MAX_PIXELS, Segment
from prancimg.format.extras import MARGIN, Alpha, Extras
from prancimg.format.facts import info
from prancimg.format.files import DataLike
from prancimg.format.layout import MAX_SIDE
from prancimg.images import profile
from prancimg.images.lossless import code_samples, quick_size
from prancimg.images.picture import ImageLike, Picture, load_picture

if TYPE_CHECKING:
    from prancimg.fit.encoder import Options, Target

ALPHA_SHARE, ALPHA_BPP = 0.3, 0.15
"""What lossless transparency may take: a share of the bytes asked for, or bits per pixel where none are."""
SLOW = 7
"""The effort from which the smallest lossless file is looked for slowly: ten times the time for some percent."""
_GAIN, _TINY = 4, 200
"""What a quick lossless file may be larger than one worth looking for: so many times, or so many bytes."""
_POOR = 5e-3
"""Mean squared error (23 dB) beyond which it is not looked up whether a lossless file is worth its bits."""


def encode(
    image: ImageLike,
    *,
    bpp: float | None = None,
    size: int | None = None,
    quality: float | None = None,
    psnr: float | None = None,
    model: str = "field",
    effort: int = 5,
    seed: int = 0,
    device: str = "auto",
    tune: str | None = None,
    lossless: bool | None = None,
    orient: bool = True,
    strip: bool = False,
    icc_profile: bytes | None = None,
    exif: bytes | Image.Exif | None = None,
    xmp: bytes | None = None,
    progress: Callable[[float], None] | None = None,
) -> bytes:
    """Fit a network to a picture and return the bytes of its .prc file.

    At most one of ``bpp``, ``size``, ``quality`` and ``psnr`` may be given; without any, ``quality`` is 50.

    Args:
        image: a path, an open file or its bytes, a Pillow image, or an array (H, W) or (H, W, channels) of bool, uint8
            or uint16: grey, grey and alpha, RGB, or RGBA. Grey stays grey, transparency stays, palettes and CMYK
            become RGB; 16 bits a sample are used where they can be read (arrays, grey and PPM always, PNG, TIFF, AVIF
            and JPEG 2000 with the extra ``deep``).
        bpp: bits per pixel of the whole file: never more, and at least 97 % of it where the picture can use them.
        size: bytes of the whole file, likewise.
        quality: 0 (smallest) to 100, in even steps of the logarithm of λ, what a bit may cost.
        psnr: in dB over RGB: at least that, in as few bytes as this encoder finds.
        model: ``field``, a small network that reads a field of local features, or ``siren``, one global network.
        effort: 1 (fastest) to 9 (best).
        seed: of the basis, 0 to 2**32-1; another seed is another fit.
        device: ``auto``, ``cpu`` or ``cuda``, where the fit runs.
        tune: what ``field`` is fitted for: ``ssim``, to look good (errors count less where the picture is busy, fine
            bits more than coarse ones), or ``psnr``, mean squared error alone. By default ``ssim``, or
            ``psnr`` where a PSNR is asked for.
        lossless: True: every sample as it is (no rate or quality can be asked for then); None: where that is within
            the size asked for, or smaller than a ``field`` of the quality asked for; False: never.
        orient: turn the picture upright by its EXIF orientation; otherwise pixels and EXIF stay as they are.
        strip: leave out colour profile, EXIF (but for an orientation that was not applied) and XMP.
        icc_profile, exif, xmp: bytes to carry instead of the image's own; ``b""``: none.
        progress: called with the fraction done, 0 to 1.

    Raises:
        PrancImgError: not an image, a rate out of reach, no such device, a forked process without its threads.
        OSError: a file that cannot be read.
    """
    picture = load_picture(image, orient=orient, strip=strip)
    given: dict[str, bytes | Image.Exif | None] = {"icc": icc_profile, "exif": exif, "xmp": xmp}
    words = {name: _raw(name, data) for name, data in given.items() if data is not None}
    meant = profile.space_of(words.get("icc", b""))
    if meant not in ("", "GRAY" if picture.samples.grey else "RGB"):
        raise PrancImgError(f"the profile is for {meant}, the pixels are {'grey' if picture.samples.grey else 'RGB'}")
    metadata = replace(picture.metadata, **words)
    return encode_picture(
        replace(picture, metadata=metadata),
        {"bpp": bpp, "size": size, "quality": quality, "psnr": psnr},
        {"model": model, "effort": effort, "seed": seed, "device": device, "tune": tune, "lossless": lossless},
        progress,
    )


def _raw(name: str, data: bytes | Image.Exif) -> bytes:
    """Metadata as they are given."""
    if isinstance(data, Image.Exif) and name == "exif":
        data = data.tobytes() if len(data) else b""
    if not isinstance(data, bytes | bytearray | memoryview):
        raise PrancImgError(f"the {name.upper()} to carry is {type(data).__name__}, not bytes")
    return bytes(data).removeprefix(b"Exif\0\0" if name == "exif" else b"")


def encode_picture(
    picture: Picture,
    target: Mapping[str, Any],
    options: Mapping[str, Any],
    progress: Callable[[float], None] | None = None,
) -> bytes:
    """:func:`encode` for a picture that is loaded already; ``target`` and ``options`` are named as there."""
    try:
        return _best(picture, target, options, progress)
    except SystemError as error:
        cause: BaseException | None = error
        while isinstance(cause, SystemError):  # what CPython makes, layer by layer, of an interrupt in compiled code
            cause = cause.__cause__
        if isinstance(cause, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):  # so torch says it
            raise
        extent = f"{picture.colors.shape[1]} x {picture.colors.shape[0]}"
        raise PrancImgError(f"there is not enough memory to encode a picture of {extent} pixels") from error


def _best(
    picture: Picture,
    target: Mapping[str, Any],
    options: Mapping[str, Any],
    progress: Callable[[float], None] | None,
) -> bytes:
    """What is asked for: without loss, never so, or whatever is better."""
    lossless = options.get("lossless")
    options = {name: value for name, value in options.items() if name != "lossless"}
    if lossless:
        for name in target:
            if target[name] is not None:
                raise PrancImgError(f"a lossless file has no {name} to ask for")
        return _lossless_file(picture, options.get("effort", 5))
    with encoding():
        from prancimg.fit import encoder  # the only way to torch, which takes seconds to import

        wanted, how = encoder.Target(**target), encoder.Options(**options)
        way = _lossless_or_lossy if lossless is None and how.model == "field" else _encode_picture
        return way(picture, wanted, how, progress)


def _lossless_or_lossy(
    picture: Picture, wanted: Target, how: Options, progress: Callable[[float], None] | None
) -> bytes:
    """Without loss where that is within the size asked for, smaller, or worth its bits at the quality asked for."""
    from prancimg.fit.field_encoder import MIN_PIXELS

    pixels = picture.colors.shape[0] * picture.colors.shape[1]
    size, least = wanted.limit(pixels), quick_size(picture.exact) / _GAIN
    exact = _lossless_file(picture, how.effort) if least <= max(size or 0, _TINY) else b""
    if size is not None and 0 < len(exact) <= size:
        return exact
    try:
        lossy = _encode_picture(picture, wanted, how, progress)
    except OutOfReach as error:
        if size is None:  # it was a PSNR, which every lossless file has
            return exact or _lossless_file(picture, how.effort)
        if 0 < len(exact) < error.lowest:
            raise OutOfReach(f"{too_few(size, len(exact), pixels)}{_way_out(picture)}") from error
        raise
    if size is not None:
        return lossy
    error_per_byte = 8 * wanted.lmbda * min(1.0, pixels / MIN_PIXELS) / pixels if wanted.psnr is None else math.inf

    def worth(bytes_more: float, error: float) -> bool:
        return bytes_more <= 0 or bytes_more * error_per_byte <= error

    if worth(least - len(lossy), _POOR):
        exact = exact or _lossless_file(picture, how.effort)
        more = len(exact) - len(lossy)
        if more <= 0 or (worth(more, _POOR) and worth(more, 10 ** (-psnr_of(lossy, picture) / 10))):
            return exact
    return lossy


def _lossless_file(picture: Picture, effort: int) -> bytes:
    """The file of every sample as it is."""
    height, width = picture.exact.shape[:2]
    if max(height, width) > MAX_SIDE:
        raise PrancImgError(f"the picture is {width} x {height}; the format ends at {MAX_SIDE} a side")
    alpha = None
    if picture.alpha is not None:
        alpha = _flat(picture.alpha) or Alpha(lossless=code_samples(picture.alpha, slow=effort >= SLOW))
    extras = Extras(picture.samples, alpha, picture.metadata).segments()
    colors = code_samples(picture.exact, slow=effort >= SLOW)
    return bitstream.write([*extras, (Segment.LOSSLESS, colors.pack())])


def _encode_picture(picture: Picture, wanted: Target, how: Options, progress: Callable[[float], None] | None) -> bytes:
    """A fit of the colours, with all that the picture has beside them."""
    from prancimg.fit import encoder

    pixels = picture.colors.shape[0] * picture.colors.shape[1]
    size = wanted.limit(pixels)
    alpha, share = None, 0.0
    if picture.alpha is not None:
        share = 0.3 if progress else 0.0

        def first(done: float) -> None:
            if progress:
                progress(share * done)

        alpha = _coded_alpha(picture.alpha, size, wanted, how, first)

    def rest(done: float) -> None:
        if progress:
            progress(share + (1 - share) * done)

    extras = Extras(picture.samples, alpha, picture.metadata).segments()
    if not extras:
        return encoder.encode_array(picture.colors, wanted, how, progress)
    beside = len(bitstream.write(extras)) - len(bitstream.write([]))
    hint = _way_out(picture)
    if size is not None:
        if size <= beside:
            alone = f"transparency and metadata alone take {beside}{hint}"
            raise OutOfReach(f"{size} bytes are too few: {alone}", beside + 1)
        wanted = encoder.Target(size=size - beside)
    try:
        colors = encoder.encode_array(picture.colors, wanted, how, rest)
    except OutOfReach as error:
        lowest = beside + error.lowest
        raise OutOfReach(f"{error} (beside {beside} of transparency and metadata{hint})", lowest) from error
    *others, last = bitstream.read(colors).items()  # the last must be there: no cut goes unnoticed
    return bitstream.write([*others, *extras, last])


def _way_out(picture: Picture) -> str:
    """What to say of metadata where a size is too small."""
    spare = len(bitstream.write(Extras(metadata=picture.metadata).segments())) - len(bitstream.write([]))
    return f"; --strip (strip=True) leaves out {spare} of metadata" if spare else ""


def _coded_alpha(
    plane: np.ndarray, size: int | None, target: Target, options: Options, progress: Callable[[float], None]
) -> Alpha:
    """Without loss where that is cheap, as it is for flat shapes; by a field of its own otherwise."""
    from prancimg.fit import encoder

    if flat := _flat(plane):
        return flat
    exact = Alpha(lossless=code_samples(plane, slow=options.effort >= SLOW))
    most = ALPHA_SHARE * size if size is not None else ALPHA_BPP * plane.size / 8
    if len(exact.pack()) <= most:
        return exact
    opacity = plane.astype(np.float32) / np.iinfo(plane.dtype).max
    shrunk = np.where((plane == 0) | (opacity == 1), opacity, (opacity + MARGIN) / (1 + 2 * MARGIN))
    colors = np.ascontiguousarray(np.broadcast_to(255 * shrunk[:, :, None], (*plane.shape, 3)))
    own = target if size is None else encoder.Target(size=math.floor(most))
    try:
        prc = encoder.encode_array(colors, own, replace(options, model="field"), progress)
    except OutOfReach:  # not even possible in so few bytes
        return exact
    return min(Alpha(prc=prc), exact, key=lambda alpha: len(alpha.pack()))


def _flat(plane: np.ndarray) -> Alpha | None:
    """One opacity everywhere, if it is."""
    if plane.min() != plane.max():
        return None
    return Alpha(flat=int(plane[0, 0]) * (257 if plane.dtype == np.uint8 else 1))


def decode(source: DataLike, *, max_pixels: int | None = MAX_PIXELS, allow_partial: bool = False) -> Image.Image:
    """The picture in a .prc file (bytes, a path, an open file): a Pillow image, RGB, RGBA, L, LA or (16 bits) I;16.

    Colour of 16 bits comes as 8, because Pillow has no such mode; ``prancimg.open(source).array()`` has it all.

    Args:
        source: the file.
        max_pixels: the largest picture to decode; memory is about 30 bytes a pixel. None: no limit.
        allow_partial: of a ``field`` file that is cut short or damaged, make the softer picture that its beginning
            describes, with a :class:`UserWarning` that says what is missing.

    Raises:
        PrancImgError: not a .prc file, damaged, from a later version, of more than ``max_pixels`` pixels, or more than
            the memory there is.
        OSError: a file that cannot be read.
    """
    lazy = open_image(source, max_pixels=max_pixels, allow_partial=allow_partial)
    picture = lazy.render()
    if lazy.damage:
        warnings.warn(lazy.damage, stacklevel=2)
    return picture


def psnr_of(data: bytes, picture: Picture) -> float:
    """How near the colours of a file are to the picture it was made of, in dB over RGB; infinite without loss."""
    if info(data)["model"] == "lossless":
        return math.inf
    decoded = open_image(data, max_pixels=None).array(depth=picture.samples.depth)
    colors = decoded[:, :, : 1 if picture.samples.grey else 3] / (257 if decoded.dtype == np.uint16 else 1)
    error = float(np.square(colors - picture.colors).mean())
    return 10 * math.log10(255**2 / max(error, 1e-10))


def remarks(data: bytes) -> list[str]:
    """What may surprise whoever asked for a file, in words: that metadata take more than a third of it."""
    parts = info(data)["segments"]
    held = {what.upper(): parts[what] for what in ("icc", "exif", "xmp") if what in parts}
    if 3 * sum(held.values()) <= len(data):
        return []
    share = 100 * sum(held.values()) / len(data)
    names = f"{' and '.join(held)} {'takes' if len(held) == 1 else 'take'}"
    return [f"{names} {share:.0f} % of the file; --strip leaves out metadata"]


def load_image(image: ImageLike) -> np.ndarray:
    """Anything :func:`encode` takes, as (H, W, 3) uint8 RGB, upright, with transparency flattened onto white."""
    picture = load_picture(image)
    colors, alpha = picture.colors, picture.alpha
    if alpha is not None:
        share = alpha[:, :, None] / np.iinfo(alpha.dtype).max
        colors = share * colors + (1 - share) * 255
    return np.asarray(np.rint(colors), np.uint8)
