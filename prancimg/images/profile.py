"""Colour profiles (ICC.1): what one is for, what it means, and small ones made from primaries and a curve.

LittleCMS, through Pillow, reads them; it makes no others than that of sRGB.
"""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image

Primaries = tuple[float, ...]
"""Chromaticities x and y of white, red, green and blue."""
SRGB: Primaries = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
ADOBE_RGB: Primaries = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)

_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
"""To the responses of three kinds of cones, in which colours are adapted to another white."""
_MOST = 4
"""No primary of a real space is as bright, next to its white."""
_CURVES = (b"rTRC", b"gTRC", b"bTRC")


def space_of(icc: bytes) -> str:
    """``RGB``, ``GRAY``, ``CMYK``, ...: the space of the pixels that a profile is for; empty if it is none."""
    if len(icc) < 132 or icc[36:40] != b"acsp" or _opened(icc) is None:
        return ""
    return icc[16:20].decode("latin-1").strip()


def fitting(icc: bytes, grey: bool) -> tuple[bytes, list[str]]:
    """A profile for grey or RGB pixels from what they have, and in words why it is not the same.

    A profile for RGB also says how bright grey is, and one for grey what is behind one curve of R, G and B.
    """
    space, wanted = space_of(icc), "GRAY" if grey else "RGB"
    if not icc or space == wanted:
        return icc, []
    if not space:
        return b"", ["the colour profile is broken: left out"]
    made = _with_curve_of(icc, grey) if space in ("RGB", "GRAY") else b""
    if made:
        return made, [f"the colour profile is for {space}: made one for {wanted} of its curve"]
    return b"", [f"the colour profile is for {space}, not {wanted}: left out"]


def is_srgb(icc: bytes) -> bool:
    """Whether a profile changes no colour of 8 bits by more than a level. Such a one is often a quarter of a file."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    colors = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(len(levels), -1, 3)
    meant = to_srgb(Image.fromarray(colors), icc)
    return meant is not None and bool(np.abs(np.asarray(meant) - colors.astype(np.int16)).max() <= 1)


def to_srgb(image: Image.Image, icc: bytes) -> Image.Image | None:
    """What a colour profile means, in sRGB; None if it does not fit, and is as good as none."""
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        return ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return None


def rgb_profile(primaries: Primaries, gamma: float | None = None) -> bytes:
    """Of primaries and a gamma (of the display, such as 2.2), or sRGB's curve; ValueError for impossible ones."""
    return _matrix_profile(primaries, _srgb_curve() if gamma is None else _parametric(0, gamma))


def _matrix_profile(primaries: Primaries, curve: bytes) -> bytes:
    x, y = np.array(primaries, float).reshape(4, 2).T
    if not (y > 0).all():
        raise ValueError("no such primaries")
    points = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    white, corners = points[:, 0], points[:, 1:]
    try:
        matrix = corners * np.linalg.solve(corners, white)
    except np.linalg.LinAlgError as error:
        raise ValueError("the primaries lie on a line") from error
    cones, wanted = _BRADFORD @ white, _BRADFORD @ _D50
    adaptation = np.linalg.inv(_BRADFORD) @ np.diag(wanted / cones) @ _BRADFORD
    red, green, blue = (adaptation @ matrix).T
    if np.abs([red, green, blue]).max() > _MOST:
        raise ValueError("no such primaries")
    tags = {b"rXYZ": _xyz(red), b"gXYZ": _xyz(green), b"bXYZ": _xyz(blue)} | dict.fromkeys(_CURVES, curve)
    tags[b"chad"] = b"sf32" + bytes(4) + b"".join(_fixed(value) for value in adaptation.ravel())
    return _packed(b"RGB ", tags)


def _with_curve_of(icc: bytes, grey: bool) -> bytes:
    """A profile for grey from one for RGB or the opposite; nothing where there is no one curve, or no sense."""
    try:
        (count,) = struct.unpack_from(">I", icc, 128)
        table = [struct.unpack_from(">4sII", icc, 132 + 12 * i) for i in range(min(count, 100))]
        found = {name: icc[start : start + size] for name, start, size in table}
        if grey:
            curve = found[b"gTRC"]
            if any(found[name] != curve for name in _CURVES):
                return b""
            made = _packed(b"GRAY", {b"kTRC": curve})
        else:
            made = _matrix_profile(SRGB, found[b"kTRC"])
    except (struct.error, LookupError):
        return b""
    return made if _opened(made) is not None else b""


def _opened(icc: bytes) -> object | None:
    from PIL import ImageCms

    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(icc))
    except (ImageCms.PyCMSError, OSError):
        return None


def _packed(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A display profile of version 4.2."""
    tags = {b"desc": _words("prancimg"), b"cprt": _words("CC0"), b"wtpt": _xyz(_D50)} | tags
    start, places, bodies = 132 + 12 * len(tags), dict[bytes, int](), b""
    for body in tags.values():
        if body not in places:
            places[body] = start + len(bodies)
            bodies += body + bytes(-len(body) % 4)
    table = b"".join(struct.pack(">4sII", name, places[body], len(body)) for name, body in tags.items())
    head = struct.pack(">I4xI4s4s4s", start + len(bodies), 0x04200000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H4s28x", 2026, 1, 1, 0, 0, 0, b"acsp") + b"".join(_fixed(value) for value in _D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + bodies


def _words(text: str) -> bytes:
    return struct.pack(">4s4xII4sII", b"mluc", 1, 12, b"enUS", 2 * len(text), 28) + text.encode("utf-16-be")


def _xyz(values: np.ndarray | tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(_fixed(value) for value in values)


def _srgb_curve() -> bytes:
    return _parametric(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def _parametric(kind: int, *numbers: float) -> bytes:
    return struct.pack(">4s4xH2x", b"para", kind) + b"".join(_fixed(number) for number in numbers)


def _fixed(value: float) -> bytes:
    try:
        return struct.pack(">i", round(float(value) * 65536))
    except (struct.error, OverflowError) as error:
        raise ValueError("no such primaries") from error
