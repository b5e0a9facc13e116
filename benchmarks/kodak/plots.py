"""Rate-distortion plots for print: every codec has a marker and a dash of its own, so that they work in grey too."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from benchmarks.kodak.curves import METRICS, Curve

STYLES = {
    "field": ("#b3001b", "o", "-"),
    "psnr": ("#8c5a3c", "h", "-"),
    "siren": ("#e07a00", "s", "-"),
    "direct": ("#d65fa5", "D", ":"),
    "jpeg": ("#5a5a5a", "v", "--"),
    "jpeg2000": ("#7a5195", "P", "-."),
    "webp": ("#2a7f3f", "^", "--"),
    "avif": ("#0060a8", "X", "-"),
    "jpegxl": ("#00a0b0", "*", "-."),
}
"""Colour, marker and dash of every codec by its slug; the page has the same colours."""
_GREYS = ("#6b6b6b", "#8a8a8a", "#a8a8a8")
_DASHES = ("-", "--", ":", "-.")
AXIS = {"PSNR": "PSNR (RGB), dB", "MS-SSIM": "MS-SSIM (RGB), −10·log₁₀(1 − x), dB"}


def plot(
    metric: str, measured: dict[str, Curve], further: Sequence[Curve], note: str, most: float, log: bool
) -> dict[str, bytes]:
    """The image files by suffix: measured curves by slug, further ones thinner; rates up to ``most``."""
    with matplotlib.rc_context({"font.size": 9, "svg.hashsalt": "prancimg", "svg.fonttype": "path"}):
        figure = Figure((9, 5.4), layout="constrained")
        axes = figure.add_subplot()
        drawn, heights = [], []
        for slug, curve in measured.items():
            colour, marker, dash = STYLES[slug]
            looks = {
                "color": colour,
                "marker": marker,
                "linestyle": dash,
                "linewidth": 1.7,
                "markersize": 5,
                "zorder": 3,
            }
            drawn.append((curve, looks))
        for i, curve in enumerate(further):
            colour, dash = _GREYS[i % len(_GREYS)], _DASHES[i // len(_GREYS) % len(_DASHES)]
            drawn.append(
                (curve, {"color": colour, "linestyle": dash, "linewidth": 0.8, "marker": ".", "markersize": 2.5})
            )
        for curve, looks in drawn:
            quality = curve.quality(metric)
            if quality is not None and len(quality):
                axes.plot(curve.bpp, quality, label=curve.name, **looks)
                heights.append(quality[curve.bpp <= most])
        shown = np.concatenate([*heights, np.empty(0)])
        rates = np.concatenate([curve.bpp for curve in measured.values()])
        axes.set_xlim(0.9 * rates.min() if log else 0, most)
        if len(shown):
            axes.set_ylim(np.floor(max(shown.min(), np.quantile(shown, 0.02))), np.ceil(shown.max()))
        if log:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.xaxis.set_major_locator(matplotlib.ticker.FixedLocator([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2]))
        axes.set_xlabel("bits per pixel of the file" + (", logarithmic" if log else ""))
        axes.set_ylabel(AXIS[metric])
        axes.set_title(note, fontsize=9)
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
        lines = axes.get_lines()
        own = len(lines) - sum(curve.quality(metric) is not None for curve in further)
        for title, group, place in (("measured here", lines[:own], "upper"), ("published", lines[own:], "lower")):
            if group:
                looks = {"fontsize": 8, "frameon": False, "alignment": "left"}
                figure.legend(handles=group, title=title, loc=f"outside right {place}", **looks)
        files = {}
        for suffix, metadata in ((".svg", {"Date": None}), (".png", {})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix[1:], dpi=160, metadata=metadata)
            files[suffix] = buffer.getvalue()
        return files


def all_plots(measured: dict[str, Curve], further: Sequence[Curve], note: str, most: float) -> dict[str, bytes]:
    """Every plot by its file name: both metrics, linear and logarithmic rates, SVG and PNG."""
    return {
        metric.lower().replace("-", "_") + ("_log" if log else "") + suffix: data
        for metric in METRICS
        for log in (False, True)
        for suffix, data in plot(metric, measured, further, note, most, log).items()
    }
