"""A page that shows an original beside what codecs made of it, with their figures. It needs nothing but itself."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image

from prancimg.apps.viewer import PAGE, Picture, Scene, viewer
from prancimg.codec import decode, load_image
from prancimg.errors import PrancImgError
from prancimg.format import files
from prancimg.format.bitstream import SIGNATURE
from prancimg.images.metrics import decibels, measure

HEAD = ("file", "bytes", "bpp", "PSNR", "MS-SSIM")
_WEBP_SIDE = 16383


def page(original: str, others: Sequence[str]) -> tuple[bytes, list[str]]:
    """The HTML file, and its table as lines of text. Transparency is shown on white, 16 bits as 8.

    Raises:
        PrancImgError: not an image, or one of another size.
        OSError: a file that cannot be read.
    """
    data, pixels = _loaded(original)
    height, width = pixels.shape[:2]
    versions: dict[str, list[Picture]] = {}
    rows = [(original, f"{len(data):,}", f"{8 * len(data) / (width * height):.4f}", "–", "–")]
    for name, path in zip(_labels(others), others, strict=True):
        coded, picture = _loaded(path)
        if picture.shape != pixels.shape:
            raise PrancImgError(
                f"{path}: {picture.shape[1]} x {picture.shape[0]} pixels, {original}: {width} x {height}"
            )
        quality, bpp = measure(pixels, picture), 8 * len(coded) / (width * height)
        psnr = "identical" if np.array_equal(pixels, picture) else f"{quality['psnr']:.2f} dB"
        similar = "–"
        if not math.isnan(quality["ms_ssim"]):
            similar = f"{quality['ms_ssim']:.4f} ({decibels(quality['ms_ssim']):.2f} dB)"
        rows.append((path, f"{len(coded):,}", f"{bpp:.4f}", psnr, similar))
        caption = f"{bpp:.3f} bpp, {len(coded):,} bytes · PSNR {psnr} · MS-SSIM {similar}"
        versions[name] = [Picture(*_copy(picture), caption, len(coded))]
    caption = f"{8 * len(data) / (width * height):.2f} bpp, {len(data):,} bytes"
    scene = Scene(Path(original).name, width, height, Picture(*_copy(pixels), caption, len(data)), versions)
    html = Template((PAGE / "compare.html").read_text(encoding="utf-8")).substitute(
        title=escape(Path(original).name),
        size=f"{width} x {height}",
        viewer=viewer([scene]),
        head="".join(f"<th scope=col>{name}</th>" for name in HEAD),
        rows="".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows),
    )
    widths = [max(len(row[i]) for row in (HEAD, *rows)) for i in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (HEAD, *rows)]
    return html.encode("utf-8", "replace"), [line.rstrip() for line in lines]


def _loaded(path: str) -> tuple[bytes, np.ndarray]:
    """A file's bytes and its picture (H, W, 3) uint8."""
    try:
        data = files.read(path)
        return data, load_image(decode(data) if data.startswith(SIGNATURE) else io.BytesIO(data))
    except PrancImgError as error:
        raise PrancImgError(f"{path}: {error}") from error


def _labels(paths: Sequence[str]) -> list[str]:
    """The files' names, or their whole paths where names are not enough."""
    names = [Path(path).name for path in paths]
    labels = names if len(set(names)) == len(names) else list(paths)
    return [label if labels.count(label) == 1 else f"{label} ({i + 1})" for i, label in enumerate(labels)]


def _copy(pixels: np.ndarray) -> tuple[bytes, str]:
    """A lossless copy that browsers show, and its MIME type."""
    buffer = io.BytesIO()
    if max(pixels.shape) > _WEBP_SIDE:
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue(), "image/png"
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, method=4)
    return buffer.getvalue(), "image/webp"
