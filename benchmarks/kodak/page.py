"""The report: one HTML file that needs no network, and its tables as Markdown."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from PIL import Image

from benchmarks.kodak import plots
from benchmarks.kodak.curves import LITTLE, METRICS, SPEED_HEAD, Curve, Measured, bd_head, complete, delta, markdown
from benchmarks.kodak.records import Record
from prancimg.apps.viewer import Picture, Scene, as_script, viewer

HERE = Path(__file__).parent
SHOWN_BY_BROWSERS = {".jpg": "image/jpeg", ".webp": "image/webp", ".avif": "image/avif"}
FEW = 4
"""Images up to which the page holds all pictures without any further loss."""

Tables = Mapping[str, Sequence[Sequence[str]]]


@dataclass(frozen=True)
class Facts:
    """What the reader has to know of a run."""

    images: Sequence[str]
    machine: str

    @property
    def title(self) -> str:
        """What the curves are means over."""
        if complete(self.images):
            return "Mean of all 24 Kodak images"
        if len(self.images) == 1:
            return f"{self.images[0]} alone; published curves (thin) are means of all 24 images and do not compare"
        if not all(name.startswith("kodim") for name in self.images):
            return (
                f"Mean of {', '.join(self.images)}; published curves (thin) are of the Kodak images and do not compare"
            )
        numbers = ", ".join(name.removeprefix("kodim") for name in self.images)
        return f"Mean of Kodak images {numbers}; published curves (thin) are means of all 24 and do not compare"


def as_markdown(facts: Facts, tables: Tables, speeds: Sequence[Sequence[str]]) -> str:
    """The tables with what they need to be understood."""
    parts = [f"{facts.title}.\n\nMeasured on {facts.machine}.\n"]
    for metric, rows in tables.items():
        parts.append(f"BD-rate at equal {metric}: the change of file size for the same quality; negative is smaller.\n")
        parts.append(markdown(bd_head(facts.images), rows))
    parts += ["Means over all images and settings:\n", markdown(SPEED_HEAD, speeds)]
    return "\n".join(parts)


def page(
    facts: Facts,
    measured: Sequence[Measured],
    further: Sequence[Curve],
    images: Sequence[Path],
    files: Path,
    tables: Tables,
    speeds: Sequence[Sequence[str]],
    bpps: Sequence[float],
) -> bytes:
    """The whole file; ``files`` is the folder of the measured ones, ``bpps`` the rates to look at."""
    template = Template((HERE / "page.html").read_text())
    exact, head = len(images) <= FEW, bd_head(facts.images)
    scenes = [_scene(path, measured, files, bpps, exact) for path in images]
    filled = template.substitute(
        style=(HERE / "page.css").read_text(),
        script=(HERE / "page.js").read_text(),
        checked="checked" if complete(facts.images) else "",
        title=escape(facts.title),
        machine=escape(facts.machine),
        summary=_summary(measured),
        curves=as_script(_curves(measured, further, max(1.0, 1.5 * max(bpps)))),
        tables="".join(f"<h3>At equal {metric}</h3>{_table(head, rows)}" for metric, rows in tables.items()),
        little=f"{LITTLE:.0f}",
        by_image="" if len(images) == 1 else _BY_IMAGE,
        speeds=_table(SPEED_HEAD, speeds),
        points=_points(measured),
        sources="".join(f"<li><b>{escape(c.name)}</b>: {escape(c.description)}</li>" for c in further),
        viewer=viewer(scenes),
        copies=_COPIES[exact],
    )
    return filled.encode()


_BY_IMAGE = "The last columns compare image by image: the mean (Akima, PCHIP in brackets) and the range."
_COPIES = {
    True: "JPEG, WebP and AVIF files are shown by your browser as they are; all other pictures are lossless copies of "
    "what the decoder returned.",
    False: "JPEG, WebP and AVIF files are shown by your browser as they are; all other pictures are fine copies (AVIF, "
    "quality 90, 4:4:4) of what the decoder returned, to keep this page small. "
    f"The page of a run of up to {FEW} images holds lossless copies.",
}


def _summary(measured: Sequence[Measured]) -> str:
    """The first of our codecs against every classical one, in words."""
    tests = [each for each in measured if not each.codec.sweep]
    lines = []
    for anchor in measured if tests else ():
        found = anchor.codec.sweep and delta(anchor.mean, tests[0].mean, "PSNR")
        if found:
            size = f"{abs(found.akima):.0f} % {'smaller' if found.akima < 0 else 'larger'}"
            name, range_ = escape(anchor.codec.name), f"{found.low:.1f} to {found.high:.1f} dB"
            lines.append(f"<li><b>{size}</b> files than {name} <span>from {range_}</span></li>")
    if not lines:
        return ""
    return f"<p>For the same PSNR, {escape(tests[0].codec.name)} makes</p><ul class=summary>{''.join(lines)}</ul>"


def _curves(measured: Sequence[Measured], further: Sequence[Curve], most: float) -> object:
    """What the script draws: a view for the mean and one for every image."""

    def series(curve: Curve, colour: str | None) -> object:
        values = {metric: curve.quality(metric) for metric in METRICS}
        return {
            "name": curve.name,
            "colour": colour,
            "bpp": [round(rate, 5) for rate in curve.bpp],
            **{metric: None if q is None else [round(float(x), 4) for x in q] for metric, q in values.items()},
        }

    images = measured[0].images
    mean = [series(m.mean, plots.STYLES[m.codec.slug][0]) for m in measured]
    views = {} if len(images) == 1 else {f"Mean of {len(images)} images": mean}
    for image in images:
        shown = [(m.each[image], plots.STYLES[m.codec.slug][0]) for m in measured if image in m.each]
        views[image] = [series(curve, colour) for curve, colour in shown]
    return {"views": views, "further": [series(curve, None) for curve in further], "axis": plots.AXIS, "most": most}


def _scene(path: Path, measured: Sequence[Measured], files: Path, bpps: Sequence[float], exact: bool) -> Scene:
    """The original and, of the files that make the curves, those nearest to the rates."""
    with Image.open(path) as opened:
        original = opened.convert("RGB")
    versions = {}
    for each in measured:
        shown = each.each[path.stem].bpp if path.stem in each.each else ()
        records = [record for task, record in each.records if task.image == path and record.bpp in shown]
        nearest = [_nearest(records, bpp) for bpp in bpps if records]
        chosen = {record.file: record for record in nearest}
        versions[each.codec.name] = [_picture(each, record, files, exact) for record in chosen.values()]
    size = path.stat().st_size
    caption = f"{8 * size / (original.width * original.height):.2f} bpp as PNG, {size:,} bytes"
    data, mime = _copy(original, exact)
    return Scene(path.stem, *original.size, Picture(data, mime, caption, size), versions)


def _nearest(records: Sequence[Record], bpp: float) -> Record:
    return min(records, key=lambda record: abs(math.log(record.bpp / bpp)))


def _picture(each: Measured, record: Record, files: Path, exact: bool) -> Picture:
    path = files / record.file
    data, mime = path.read_bytes(), SHOWN_BY_BROWSERS.get(path.suffix)
    if mime is None:
        data, mime = _copy(Image.fromarray(each.codec.decode(data)), exact)
    caption = (
        f"{record.bpp:.3f} bpp, {record.bytes:,} bytes · PSNR {record.psnr:.2f} dB · MS-SSIM {record.ms_ssim:.4f} "
        f"({record.ms_ssim_db:.2f} dB)"
    )
    return Picture(data, mime, caption, record.bytes)


def _copy(picture: Image.Image, exact: bool) -> tuple[bytes, str]:
    buffer = io.BytesIO()
    if exact:
        picture.save(buffer, "WEBP", lossless=True, method=4)
        return buffer.getvalue(), "image/webp"
    picture.save(buffer, "AVIF", quality=90, subsampling="4:4:4", speed=8)
    return buffer.getvalue(), "image/avif"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th scope=col>{escape(name)}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=scroll><table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>"


def _points(measured: Sequence[Measured]) -> str:
    rows = []
    for each in measured:
        curve = each.mean
        columns = (curve.bpp, curve.results["psnr-rgb"], curve.results["ms-ssim-rgb"], curve.quality("MS-SSIM"))
        for bpp, psnr, ms_ssim, decibels in zip(*columns, strict=True):
            rows.append([curve.name, f"{bpp:.4f}", f"{psnr:.2f} dB", f"{ms_ssim:.4f}", f"{decibels:.2f} dB"])
    return _table(("codec", "bpp", "PSNR", "MS-SSIM", "−10·log₁₀(1 − MS-SSIM)"), rows)
