"""prancimg and other codecs on the Kodak images: files, rate-distortion curves, BD-rates and a page to look at.

    python -m benchmarks.kodak --images 15 --bpp 0.15 0.3 0.6 --effort 2 --out build/kodak

docs/benchmarks.md says what is measured and how.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path

import torch

from benchmarks.kodak import curves, data, page, plots
from benchmarks.kodak.codecs import STILLS, codecs
from benchmarks.kodak.records import run, tasks
from prancimg.errors import PrancImgError


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing and write everything; the exit status."""
    try:
        report(_options(arguments))
    except PrancImgError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except BrokenExecutor:
        return _fail("a worker process died, perhaps for lack of memory; the same command goes on from here")
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on from here", 130)
    return 0


def report(options: argparse.Namespace) -> None:
    """The whole run."""
    further = [curves.read(path) for path in options.curves]
    known = codecs(options.effort, _device(options.device))
    unavailable = {still.slug: still.name for still in STILLS if not still.available}
    for slug in unavailable.keys() & (options.codecs or known):
        hint = " without pillow-jxl-plugin (pip install 'prancimg[jxl]')" if slug == "jpegxl" else ""
        _say(f"{unavailable[slug]} is left out: this Pillow cannot write it{hint}")
    chosen = [known[slug] for slug in options.codecs or known if slug not in unavailable]
    if not chosen:
        raise PrancImgError("no codec is left to run")
    images = options.pictures or data.images(options.images, options.data)
    out: Path = options.out
    done = run(tasks(images, chosen, sorted(options.bpp)), out / "files", options.jobs)
    names = [path.stem for path in images]
    everything = [curves.Measured(codec, names, [pair for pair in done if pair[0].codec is codec]) for codec in chosen]
    measured = [each for each in everything if each.records]
    if not any(len(each.mean.bpp) for each in measured):
        raise PrancImgError("no codec reaches any of the rates on all images")
    facts = _facts(names, options)
    further += curves.published()
    compared = further if curves.complete(names) else []
    tables = {metric: curves.bd_table(measured, compared, metric) for metric in curves.METRICS}
    speeds = curves.speed_table(measured)
    for each in measured:
        data.write(out / "rd" / f"{each.codec.slug}.json", curves.to_json(each.mean))
        for image, curve in each.each.items():
            data.write(out / "rd" / image / f"{each.codec.slug}.json", curves.to_json(curve))
    data.write(out / "points.csv", curves.to_csv(measured))
    data.write(out / "tables.md", page.as_markdown(facts, tables, speeds).encode())
    most = max(1.0, 1.5 * max(options.bpp))
    means = {each.codec.slug: each.mean for each in measured}
    for name, content in plots.all_plots(means, further, facts.title, most).items():
        data.write(out / "plots" / name, content)
    data.write(
        out / "index.html", page.page(facts, measured, further, images, out / "files", tables, speeds, options.bpp)
    )
    _say(f"{out / 'index.html'}: the report; tables.md, points.csv, plots and rd are beside it")


def _facts(names: Sequence[str], options: argparse.Namespace) -> page.Facts:
    machine = f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"
    jobs = "one job at a time" if options.jobs == 1 else f"{options.jobs} jobs at once, one thread each"
    return page.Facts(names, f"{machine}; {jobs}")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise PrancImgError("no CUDA device is available")
    return name


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kodak",
        description="Rate-distortion curves of prancimg and other codecs on the Kodak images.",
        allow_abbrev=False,
    )
    known = list(codecs(1, "cpu"))
    add = parser.add_argument
    add("--data", type=Path, metavar="DIR", help="folder of kodim01.png ... (default: downloaded once, then cached)")
    add(
        "--images",
        type=int,
        nargs="+",
        choices=data.CHECKSUMS,
        default=list(data.CHECKSUMS),
        metavar="N",
        help="numbers from 1 to 24 (default: all)",
    )
    add("--pictures", type=_picture, nargs="+", metavar="FILE", help="any other pictures instead")
    add(
        "--bpp",
        type=_rate,
        nargs="+",
        default=[0.1, 0.2, 0.4, 0.8],
        metavar="R",
        help="bits per pixel asked of prancimg and the direct INR (default: 0.1 0.2 0.4 0.8)",
    )
    add("--codecs", nargs="+", choices=known, metavar="NAME", help=f"of {', '.join(known)} (default: all)")
    add("--effort", type=int, choices=range(1, 10), default=5, metavar="1..9", help="of prancimg (default: 5)")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where prancimg fits (default: auto)")
    add("--jobs", type=_count, default=1, metavar="N", help="processes; timings suffer beyond the number of cores")
    add("--curves", type=Path, nargs="+", default=[], metavar="FILE", help="further curves, in CompressAI's JSON")
    add("--out", type=Path, required=True, metavar="DIR", help="where everything goes; run again to go on")
    options = parser.parse_args(arguments)
    for name in ("images", "pictures", "bpp", "codecs"):
        if (values := getattr(options, name)) is not None:
            setattr(options, name, list(dict.fromkeys(values)))
    return options


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value <= 24:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 24")
    return value


def _picture(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text}: no such file")
    return Path(text)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _fail(text: str, status: int = 1) -> int:
    _say(f"benchmarks.kodak: {text}")
    return status


if __name__ == "__main__":
    sys.exit(main())
