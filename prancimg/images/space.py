"""Colour that a file says without a profile: by the numbers of ITU-T H.273, a gamma, chromaticities, or an EXIF tag.

Samples are given sRGB's curve where they have one of another kind; wider primaries become a colour profile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from prancimg.images import boxes, profile
from prancimg.images.profile import ADOBE_RGB, SRGB, Primaries

_D65, _C, _DCI = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351)
_SMPTE_170M = (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)
_PRIMARIES: dict[int, Primaries] = {
    1: SRGB,
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: _SMPTE_170M,
    7: _SMPTE_170M,
    8: (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (*_DCI, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
"""By their number in table 2 of H.273; 2 means that nobody knows."""
_UNKNOWN = 2
_EXIF, _INTEROPERABILITY, _COLOR_SPACE = 0x8769, 0xA005, 0xA001
_SRGB, _ADOBE = 1, 2
"""EXIF's numbers of colour spaces; the second is no standard's, but some cameras write it."""
_AS_SRGB = {1, 6, 7, 11, 12, 13, 14, 15}
"""Transfer characteristics of table 3 that stand for sRGB's curve: those of television are shown by about the same."""
_PQ, _HLG = 16, 18
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0, 17: 2.6}
_USUAL_GAMMA, _NEAR = 2.2, 1.05
"""A gamma of 2.2 or so, by five percent, is what PNG files say that mean sRGB; libpng takes it so too."""
_LUMA = (0.2627, 0.6780, 0.0593)
"""Shares of red, green and blue in luminance (ITU-R BT.2100)."""
Curve = Callable[[np.ndarray], np.ndarray]
_WHITE, _PQ_PEAK, _HLG_PEAK = 203.0, 10000.0, 1000.0
"""Light, in cd/m², of white in pictures of high dynamic range (ITU-R BT.2408), and of the brightest samples."""


@dataclass(frozen=True)
class Space:
    """What samples from 0 to 1 mean."""

    primaries: Primaries = SRGB
    transfer: int = 13
    """Its number in table 3 of H.273."""
    gamma: float | None = None
    """Of the display, in the place of a transfer characteristic."""
    full: bool = True
    """Whether black is 0 and white 1, and not as in television 16 and 235 of 255."""
    notes: tuple[str, ...] = ()


def of_image(image: Image.Image, data: bytes, cicp: tuple[int, ...] | None) -> tuple[Space | None, bytes]:
    """What a file says, and a profile that Pillow does not find. ``data`` may be empty, if it is not there."""
    if cicp:
        primaries, transfer, _, full = cicp
        return of_numbers(primaries, transfer, bool(full)), b""
    if image.format in ("PNG", None):  # None: made from an image of any format
        return _of_png(image.info) or _of_tags(image), b""
    if image.format == "AVIF":
        said = boxes.avif(data)
        return of_numbers(said.cicp[0], said.cicp[1]) if said.cicp else None, b""
    if image.format == "JPEG2000":
        found = boxes.jpeg2000(data)
        known = found.enumerated in (0, 12, 16, 17, 18)
        note = f"colours of the space numbered {found.enumerated} are taken as sRGB"
        return None if known else Space(notes=(note,)), found.icc
    if image.format == "QOI" and data[13:14] == b"\1":
        return Space(gamma=1.0), b""
    return _of_tags(image), b""


def of_numbers(primaries: int, transfer: int, full: bool = True) -> Space:
    """By the numbers of H.273."""
    notes = []
    if primaries not in _PRIMARIES and primaries != _UNKNOWN:
        notes.append(f"the colour primaries numbered {primaries} are taken as sRGB's")
    if transfer not in _AS_SRGB and transfer not in (*_GAMMAS, _PQ, _HLG, _UNKNOWN):
        notes.append(f"the transfer characteristics numbered {transfer} are taken as sRGB's")
        transfer = _UNKNOWN
    gamma = _GAMMAS.get(transfer)
    return Space(_PRIMARIES.get(primaries, SRGB), transfer, gamma, full, tuple(notes))


def _of_png(info: dict[Any, Any]) -> Space | None:
    """By sRGB, or gAMA and cHRM."""
    if "srgb" in info:
        return Space()
    gamma, primaries = info.get("gamma"), info.get("chromaticity")
    return Space(primaries or SRGB, gamma=1 / gamma if gamma else None) if gamma or primaries else None


def _of_tags(image: Image.Image) -> Space | None:
    """By a TIFF file's own tags, or what cameras write for Adobe RGB, which has no number in EXIF."""
    tags = getattr(image, "tag_v2", {})
    white, primaries = tags.get(318) or _D65, tags.get(319)
    if primaries and (len(white), len(primaries)) == (2, 6):
        return Space((*map(float, white), *map(float, primaries)))
    try:
        exif = image.getexif()
        number, rule = exif.get_ifd(_EXIF).get(_COLOR_SPACE), exif.get_ifd(_INTEROPERABILITY).get(1)
    except Exception:  # whatever Pillow makes of broken EXIF
        return None
    adobe = number == _ADOBE or (number != _SRGB and rule == "R03")
    return Space(ADOBE_RGB, gamma=2.19921875) if adobe else None


def applied(space: Space, colors: np.ndarray) -> tuple[np.ndarray, bytes, list[str]]:
    """Samples (H, W, 1 or 3), uint8 or uint16, as sRGB's curve has them; a profile if they need one; what changed."""
    notes, gamma = list(space.notes), space.gamma
    if gamma is not None and not 0.1 < gamma < 10:
        notes.append(f"a gamma of {1 / gamma:.3g} makes no sense: left out")
        gamma = None
    usual = gamma is not None and 1 / _NEAR < gamma / _USUAL_GAMMA < _NEAR
    icc, said = _profile(space.primaries, gamma if usual else None) if colors.shape[2] == 3 else (b"", [])
    light: Curve | None = None
    if space.transfer in (_PQ, _HLG):
        light, name = (_pq, "PQ") if space.transfer == _PQ else (_hlg, "HLG")
        said.append(f"high dynamic range ({name}) converted: what is brighter than white is cut off")
    elif gamma is not None and not usual:
        light = _power(gamma)
        said.append(f"a gamma of {1 / gamma:.3g} converted to the curve of sRGB")
    if not space.full:
        said.append("the narrow range of television converted to the full one")
    if light is not None or not space.full:
        colors = _mapped(colors, light, space.full, space.transfer == _HLG)
    return colors, icc, notes + said


def _profile(primaries: Primaries, gamma: float | None) -> tuple[bytes, list[str]]:
    """Nothing where the primaries are sRGB's, whatever the gamma."""
    try:
        icc = profile.rgb_profile(primaries)
        if profile.space_of(icc):
            return b"" if profile.is_srgb(icc) else profile.rgb_profile(primaries, gamma), []
    except ValueError:
        pass
    return b"", ["chromaticities that make no sense are left out"]


def _mapped(colors: np.ndarray, light: Curve | None, full: bool, together: bool) -> np.ndarray:
    """Samples through a curve to light and back by sRGB's; ``together`` where a channel changes the others."""
    most = np.iinfo(colors.dtype).max
    x = np.arange(most + 1) / most
    if not full:
        x = np.clip((x * most / (1 if most == 255 else 256) - 16) / 219, 0, 1)
    if light is None:
        return np.asarray(np.rint(most * x).astype(colors.dtype)[colors])
    table = light(x)
    if not together:
        return np.asarray(np.rint(most * _encoded(table)).astype(colors.dtype)[colors])
    scene = table.astype(np.float32)[colors]
    luma = scene @ np.array(_LUMA if colors.shape[2] == 3 else [1], np.float32)
    shown = scene * (luma[:, :, None] ** np.float32(0.2) * np.float32(_HLG_PEAK / _WHITE))
    return np.asarray(np.rint(most * _encoded(shown)), colors.dtype)


def _encoded(light: np.ndarray) -> np.ndarray:
    """By sRGB's curve (IEC 61966-2-1); what is brighter than white is white."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _power(gamma: float) -> Curve:
    return lambda x: np.asarray(x**gamma)


def _pq(x: np.ndarray) -> np.ndarray:
    """ITU-R BT.2100, table 4, relative to white."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = x ** (1 / m2)
    return np.asarray((np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1) * (_PQ_PEAK / _WHITE))


def _hlg(x: np.ndarray) -> np.ndarray:
    """ITU-R BT.2100, table 5: the light of the scene, 0 to 1."""
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
    return np.asarray(np.where(x <= 0.5, x**2 / 3, (np.exp((x - c) / a) + b) / 12))
