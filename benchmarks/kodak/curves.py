"""Rate-distortion curves, in the shape of CompressAI's result files, and how far they lie apart."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import bjontegaard
import numpy as np

from benchmarks.kodak.codecs import Codec
from benchmarks.kodak.data import CHECKSUMS, file_name
from benchmarks.kodak.records import Record, Task
from prancimg.errors import PrancImgError
from prancimg.images.metrics import decibels

PUBLISHED = Path(__file__).with_name("published.json")
METRICS = {"PSNR": "psnr-rgb", "MS-SSIM": "ms-ssim-rgb"}
_COLUMNS: dict[str, Callable[[Record], float | None]] = {
    "bpp": lambda record: record.bpp,
    "psnr-rgb": lambda record: record.psnr,
    "ms-ssim-rgb": lambda record: record.ms_ssim,
    "encoding_time": lambda record: record.encoding_time,
    "decoding_time": lambda record: record.decoding_time,
    "macs_per_pixel": lambda record: record.macs_per_pixel,
}


@dataclass(frozen=True)
class Curve:
    """A codec's points by rising rate; ``results`` holds a list for every quantity, all of the same length."""

    name: str
    description: str
    results: dict[str, list[float]]

    @property
    def bpp(self) -> np.ndarray:
        """Bits per pixel."""
        return np.array(self.results["bpp"])

    def quality(self, metric: str) -> np.ndarray | None:
        """PSNR, or MS-SSIM in decibels; None where the curve has no such figures."""
        values = self.results.get(METRICS[metric])
        if values is None:
            return None
        return np.array(values if metric == "PSNR" else list(map(decibels, values)))


@dataclass(frozen=True)
class Measured:
    """What one codec did on all images of a run."""

    codec: Codec
    images: Sequence[str]
    """The names of all images of the run."""
    records: Sequence[tuple[Task, Record]]

    @cached_property
    def mean(self) -> Curve:
        """Of every quantity over the images, setting by setting; settings that an image cannot reach are left out."""
        return self._curve(self.images)

    @cached_property
    def each(self) -> dict[str, Curve]:
        """The curve of every image that reaches any setting."""
        curves = {image: self._curve([image]) for image in self.images}
        return {image: curve for image, curve in curves.items() if len(curve.bpp)}

    def _curve(self, images: Sequence[str]) -> Curve:
        groups: dict[str, dict[str, list[Record]]] = {}
        for task, record in self.records:
            if task.image.stem in images:
                groups.setdefault(task.setting.variant, {}).setdefault(str(task.setting), []).append(record)
        variants = [
            _by_rate([_mean(group) for group in settings.values() if len(group) == len(images)])
            for settings in groups.values()
        ]
        rows = _by_rate(better(variants))
        columns = [column for column in _COLUMNS if all(column in row for row in rows)]
        results = {column: [row[column] for row in rows] for column in columns}
        return Curve(self.codec.name, self.codec.about, results)


Row = dict[str, float]


def _mean(group: Sequence[Record]) -> Row:
    columns = {column: [read(record) for record in group] for column, read in _COLUMNS.items()}
    return {column: float(np.mean(values)) for column, values in columns.items() if None not in values}


def _by_rate(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row["bpp"])


def better(variants: Sequence[Sequence[Row]]) -> list[Row]:
    """The points at which no other variant's curve, PSNR over log rate in straight pieces, is higher."""

    def height(curve: Sequence[Row], bpp: float) -> float:
        rates, quality = (np.array([row[key] for row in curve]) for key in ("bpp", "psnr-rgb"))
        return float(np.interp(np.log(bpp), np.log(rates), quality, left=-np.inf, right=-np.inf))

    return [
        row
        for curve in variants
        for row in curve
        if all(row["psnr-rgb"] >= height(other, row["bpp"]) for other in variants if other is not curve and other)
    ]


def to_json(curve: Curve) -> bytes:
    """A file that CompressAI's ``compressai.utils.plot`` reads."""
    return json.dumps(asdict(curve), indent=2).encode() + b"\n"


def read(path: Path) -> Curve:
    """A result file of CompressAI's shape, theirs or ours."""
    try:
        return _parse(json.loads(path.read_text()), path.stem)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PrancImgError(f"{path}: not a file of results in CompressAI's shape") from error


def published() -> list[Curve]:
    """Curves from papers and reference software: means over the 24 images, measured by their authors."""
    return [_parse(entry, "") for entry in json.loads(PUBLISHED.read_text())]


def _parse(entry: dict[str, object], name: str) -> Curve:
    given = entry["results"]
    if not isinstance(given, dict):
        raise ValueError
    older = {"psnr": "psnr-rgb", "ms-ssim": "ms-ssim-rgb"}
    columns = {older.get(key, key): values for key, values in given.items() if older.get(key, key) in _COLUMNS}
    order = np.argsort(columns["bpp"])
    if not {"bpp", "psnr-rgb"} <= columns.keys() or {len(values) for values in columns.values()} != {len(order)}:
        raise ValueError
    results = {key: [float(values[i]) for i in order] for key, values in columns.items()}
    return Curve(str(entry.get("name", name)), str(entry.get("description", "")), results)


@dataclass(frozen=True)
class Delta:
    """How much more rate (in percent) one curve takes than another for the same quality; negative is better."""

    akima: float
    pchip: float
    low: float
    """The qualities that both curves have, and that the mean is over."""
    high: float


def delta(anchor: Curve, test: Curve, metric: str) -> Delta | None:
    """The BD-rate of ``test`` against ``anchor``; None where their qualities do not overlap."""
    curves = [_rising(curve, metric) for curve in (anchor, test)]
    if any(len(rate) < 2 for rate, _ in curves):
        return None
    low, high = max(quality[0] for _, quality in curves), min(quality[-1] for _, quality in curves)
    if low >= high:
        return None
    figures = [
        bjontegaard.bd_rate(*curves[0], *curves[1], method=method, require_matching_points=False, min_overlap=0)
        for method in ("akima", "pchip")
    ]
    return Delta(*map(float, figures), float(low), float(high))


def _rising(curve: Curve, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Rates and qualities of the points that are better than all cheaper ones: a curve that can be inverted."""
    quality = curve.quality(metric)
    if quality is None or not len(quality):
        return np.empty(0), np.empty(0)
    rises = quality > np.concatenate([[-np.inf], np.maximum.accumulate(quality)[:-1]])
    return curve.bpp[rises], quality[rises]


def complete(images: Sequence[str]) -> bool:
    """Whether a run has all 24 images, so that its means compare with published ones."""
    return sorted(images) == [Path(file_name(number)).stem for number in sorted(CHECKSUMS)]


def bd_table(measured: Sequence[Measured], further: Sequence[Curve], metric: str) -> list[list[str]]:
    """Rows of text: a codec, another one, the BD-rate between them, on mean curves and, if several, image by image.

    Every codec that fits a network is compared with all others, every other one with the first of its kind.
    """
    tests, stills = ([each for each in measured if bool(each.codec.sweep) == still] for still in (False, True))
    pairs = [(test, anchor) for test in tests for anchor in measured]
    pairs += [(still, stills[0]) for still in stills]
    rows = []
    for test, anchor in pairs:
        if test is anchor:
            continue
        found = [delta(anchor.each[i], test.each[i], metric) for i in test.each.keys() & anchor.each.keys()]
        row = _row(test.mean, anchor.mean, metric)
        rows.append([*row, *_per_image([each for each in found if each])])
    rows += [[*_row(test.mean, anchor, metric), "–", "–", "0"] for test in tests for anchor in further]
    columns = len(bd_head(measured[0].images))
    return [row[:columns] for row in rows if row[2:] != ["–", "–", "–", "–", "–", "0"]]


def bd_head(images: Sequence[str]) -> tuple[str, ...]:
    """The columns of :func:`bd_table` for a run of these images."""
    head = ("codec", "against", "Akima", "PCHIP", "overlap")
    return head if len(images) == 1 else (*head, "mean of images", "best … worst image", "images")


LITTLE = 2.0
"""Overlap in decibels below which a BD-rate says little."""


def _row(test: Curve, anchor: Curve, metric: str) -> list[str]:
    found = delta(anchor, test, metric)
    if found is None:
        return [test.name, anchor.name, "–", "–", "–"]
    overlap = f"{found.low:.1f} … {found.high:.1f} dB" + (" (little)" if found.high - found.low < LITTLE else "")
    return [test.name, anchor.name, f"{found.akima:+.1f} %", f"{found.pchip:+.1f} %", overlap]


def _per_image(found: Sequence[Delta]) -> list[str]:
    if not found:
        return ["–", "–", "0"]
    akima, pchip = [each.akima for each in found], [each.pchip for each in found]
    mean = f"{np.mean(akima):+.1f} % ({np.mean(pchip):+.1f} %)"
    return [mean, f"{min(akima):+.1f} … {max(akima):+.1f} %", str(len(found))]


SPEED_HEAD = ("codec", "encode", "decode", "decoder's work", "how")


def speed_table(measured: Sequence[Measured]) -> list[list[str]]:
    """Rows of text: times, work and settings of every codec, means over all images and settings."""
    rows = []
    for each in measured:
        records = [record for _, record in each.records]
        work = [record.macs_per_pixel for record in records if record.macs_per_pixel is not None]
        encode, decode = (np.mean([getattr(r, f"{way}coding_time") for r in records]) for way in ("en", "de"))
        macs = f"{np.mean(work):.0f} MAC/pixel" if work else "–"
        rows.append([each.codec.name, f"{encode:.2f} s", f"{decode:.3f} s", macs, each.codec.about])
    return rows


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def to_csv(measured: Sequence[Measured]) -> bytes:
    """A line for every image, codec and setting."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["image", "codec", "setting", *Record.__dataclass_fields__])
    for each in measured:
        for task, record in each.records:
            writer.writerow([task.image.stem, each.codec.slug, task.setting, *asdict(record).values()])
    return out.getvalue().encode()
