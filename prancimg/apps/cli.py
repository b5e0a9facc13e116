"""The command ``prancimg``: encode, decode, info, batch, compare, completion.

Exit status: 0 done, 1 failed (one line on stderr says why), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prancimg.apps.arguments import command_parser
from prancimg.errors import PrancImgError
from prancimg.format import files
from prancimg.format.facts import info

if TYPE_CHECKING:
    from prancimg.decoding.lazy import LazyImage

_GOOD = 55
"""dB from which what is left of an error is mostly the rounding to 8 bits, which alone is 59."""
PREVIEW = 2
"""Finest level of a preview: a file's first part ends there."""

_TARGET, _HOW = ("bpp", "size", "quality", "psnr"), ("model", "effort", "seed", "device", "tune", "lossless")
"""Options of what to encode to, and how, named as :func:`prancimg.encode` names them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments`` (default: the process's own) and return its exit status."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's matrices are small here: more only wait for each other
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name is no reason to fail
    if sys.stderr is None:  # closed by the caller
        sys.stderr = io.StringIO()
    parser, commands = command_parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks for completions
        import argcomplete

        argcomplete.autocomplete(parser)
    words = _plain(sys.argv[1:] if arguments is None else arguments)
    command = commands.get(words[0]) if words else None
    # Only so may options stand between names, and before an OUT that need not be there.
    options = command.parse_intermixed_args(words[1:]) if command else parser.parse_args(words)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")  # of libraries, to programmers
            _COMMANDS[options.command](options)
        if sys.stdout:
            with files.writing_to_standard_output():
                sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output is gone: nobody is left to tell
        _write_no_more()
        return 1
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except PrancImgError as error:
        return _fail(str(error))
    except OSError as error:
        if error.filename == files.STANDARD_OUTPUT and sys.stdout:
            _write_no_more()
        named = f"{error.filename or repr(error.filename)}: " if error.filename is not None else ""
        return _fail(named + (error.strerror or str(error)))
    except MemoryError:
        return _fail("not enough memory")
    except Exception as error:  # a defect, still told in one line
        return _fail(f"internal error, please report it: {type(error).__name__}: {error}".replace("\n", " "))
    return 0


def _write_no_more() -> None:
    """What is left of our output goes nowhere, instead of failing again when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plain(arguments: Sequence[str]) -> list[str]:
    """Without the ``--`` that ends the options: names behind it that look like options get a folder before them."""
    if "--" not in arguments:
        return list(arguments)
    end = list(arguments).index("--")
    names = [f"./{name}" if name.startswith("-") and name != files.PIPE else name for name in arguments[end + 1 :]]
    return [*arguments[:end], *names]


def _encode(options: argparse.Namespace) -> None:
    from prancimg.codec import encode_picture, psnr_of, remarks
    from prancimg.images.picture import load_picture

    files.check_writable(options.output, options.input)
    with _naming(options.input):
        data = files.read(options.input)
        picture = load_picture(io.BytesIO(data), orient=options.orientation == "apply", strip=options.strip)
    _note(options, options.input, picture.notes)
    began = time.perf_counter()
    target = {name: getattr(options, name) for name in _TARGET}
    how = {name: getattr(options, name) for name in _HOW}
    with _progress(options, "encoding") as progress:
        data = encode_picture(picture, target, how, progress)
    files.write(options.output, data)
    if options.quiet:
        return
    seconds, (height, width) = time.perf_counter() - began, picture.colors.shape[:2]
    wanted, psnr = options.size or (options.bpp and options.bpp * height * width / 8), psnr_of(data, picture)
    quality = f"{psnr:.2f} dB" if math.isfinite(psnr) else "lossless"
    _say(f"{options.output}: {len(data)} bytes, {8 * len(data) / (height * width):.4f} bpp, {quality}, {seconds:.1f} s")
    if wanted and len(data) < 0.97 * wanted and math.isfinite(psnr):
        found = (
            "a fit at a higher --effort may make use of more bits"
            if psnr < _GOOD
            else "more bits change next to nothing"
        )
        _say(f"{options.output}: smaller than asked for: {found}")
    _note(options, options.output, remarks(data))
    if options.verbose:
        for line in report(info(data)):
            _say(line)


def _decode(options: argparse.Namespace) -> None:
    from prancimg.decoding.lazy import LazyImage
    from prancimg.images.metadata import stripped
    from prancimg.images.save import format_of, save_samples

    kind = format_of(options.format) if options.format else None
    output = options.output
    if output is None:
        ending, kind = (f".{options.format.lower().removeprefix('.')}", kind) if options.format else (".png", "PNG")
        output = files.PIPE if options.input == files.PIPE else os.path.splitext(options.input)[0] + ending  # noqa: PTH122
    files.check_writable(output, options.input)
    if options.output is None and output != files.PIPE and Path(output).exists() and not options.force:
        raise PrancImgError(f"{output} is there already; name the output, or replace it with --force")
    if kind is None:
        kind = "PNG" if output == files.PIPE else format_of(Path(output).suffix)
    began = time.perf_counter()
    with _naming(options.input):
        data = files.read_prc(options.input)
        picture = LazyImage(data, options.max_pixels, allow_partial=options.allow_partial)
        samples = picture.array(
            _size(picture, options), options.crop, level=PREVIEW if options.preview else 0, depth=options.depth
        )
    metadata, notes = stripped(picture.extras.metadata) if options.strip else (picture.extras.metadata, [])
    data, left_out = save_samples(samples, metadata, kind)
    files.write(output, data)
    if picture.damage:
        _say(f"prancimg: {'standard input' if options.input == files.PIPE else options.input}: {picture.damage}")
    _note(options, output, notes + left_out)
    if options.verbose:
        _say(f"{output}: {samples.shape[1]} x {samples.shape[0]}, {time.perf_counter() - began:.2f} s")


def _size(picture: LazyImage, options: argparse.Namespace) -> tuple[int, int] | None:
    if options.scale is None:
        return None
    width, height = options.crop[2:] if options.crop else picture.size
    return max(1, round(options.scale * width)), max(1, round(options.scale * height))


def _info(options: argparse.Namespace) -> None:
    with _naming(options.input):
        facts = info(files.read_prc(options.input))
    _print(json.dumps(facts, indent=2) if options.json else "\n".join([options.input, *report(facts)]))


_CODINGS = {"raw": "plain samples", "png": "PNG", "webp": "WebP"}


def report(facts: Mapping[str, Any]) -> list[str]:
    """What :func:`prancimg.info` says, as lines to read."""
    pixels, parts = facts["width"] * facts["height"], facts["segments"]
    lines = [
        f"  size        {facts['width']} x {facts['height']}, {facts['mode']}, {facts['depth']} bits a sample",
        f"  file        {facts['bytes']} bytes, {facts['bpp']:.4f} bits per pixel",
    ]
    if facts["model"] == "lossless":
        lines.append(f"  lossless    {_CODINGS[facts['coding']]}: every sample as it was, no network")
    else:
        network = f"{facts['layers']} x {facts['hidden']} sine units"
        start = f"prior {facts['prior']}" if facts["prior"] else f"a start drawn from seed {facts['seed']}"
        lines += [
            f"  preset      {facts['model']}: {network}, {start}",
            f"  network     D = {facts['parameters']} parameters, moved by k = {facts['coefficients']} coefficients "
            f"({facts['basis']} basis, seed {facts['seed']})",
        ]
    if facts["symbols"]:
        lines.append(
            f"  field       {facts['symbols']} integers in {facts['levels']} levels, {facts['channels']} channels"
            + (f", coded by a model that learns (pace {facts['pace']})" if facts["pace"] else "")
        )
    held = [f"{what.upper()} {size} bytes" for what, size in facts["metadata"].items() if size]
    if held:
        lines.append(f"  metadata    {', '.join(held)}")
    lines += [
        f"  checks      format version {facts['version']}, {len(parts)} checksums: all good",
        "",
        f"  {'part':24}{'bytes':>9}{'bits':>10}{'bpp':>9}{'share':>8}",
    ]
    rows, above = [("container", facts["bytes"] - sum(parts.values()))], facts["levels"]
    for name, size in parts.items():
        level = name.removeprefix("field_")
        if level != name:
            first, name = int(level), f"field, level {level}"
            if above > first + 1:
                name = f"field, levels {above - 1} to {first}"
            above = first
        rows.append((name, size))
    for name, size in rows:
        share = f"{100 * size / facts['bytes']:.1f} %"
        lines.append(f"  {name:24}{size:>9}{8 * size:>10}{8 * size / pixels:>9.4f}{share:>8}")
    return lines


def _batch(options: argparse.Namespace) -> None:
    from prancimg.apps import batch

    for name in (options.input, options.output):
        if not name:  # which Path takes for the folder
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    how = {name: getattr(options, name) for name in _HOW}
    target = {name: getattr(options, name) for name in _TARGET}
    plan = batch.plan(
        options.input,
        Path(options.output),
        target,
        how,
        orient=options.orientation == "apply",
        strip=options.strip,
        resume=options.resume,
    )
    Path(options.output).mkdir(parents=True, exist_ok=True)
    summary = options.summary or str(Path(options.output) / "summary.csv")
    files.check_writable(summary, *plan.files)
    outcomes = batch.run(plan, options.jobs, options.cluster, quiet=options.quiet)
    files.write(summary, batch.summary(outcomes, Path(summary).suffix))
    failed = sum(bool(outcome.error) for outcome in outcomes)
    if not options.quiet:
        for line in (*plan.left_out, f"{batch.totals(outcomes)}; {summary}"):
            _say(line)
    if failed:
        raise PrancImgError(f"{failed} of {len(outcomes)} files failed; {summary} says why")


def _compare(options: argparse.Namespace) -> None:
    from prancimg.apps import compare

    files.check_writable(options.output, options.original, *options.input)
    page, rows = compare.page(options.original, options.input)
    files.write(options.output, page)
    if not options.quiet:
        for line in rows:
            _say(line)


def _completion(options: argparse.Namespace) -> None:
    from argcomplete.shell_integration import shellcode

    _print(shellcode(["prancimg"], shell=options.shell))


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "encode": _encode,
    "decode": _decode,
    "info": _info,
    "batch": _batch,
    "compare": _compare,
    "completion": _completion,
}


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Put the file's name before an error about it."""
    try:
        yield
    except PrancImgError as error:
        raise PrancImgError(f"{'standard input' if name == files.PIPE else name}: {error}") from error


@contextlib.contextmanager
def _progress(options: argparse.Namespace, label: str) -> Iterator[Callable[[float], None] | None]:
    if options.quiet or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    shape = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    with tqdm(total=1.0, desc=label, bar_format=shape, leave=False) as bar:

        def advance(done: float) -> None:
            bar.update(done - bar.n)

        yield advance


def _note(options: argparse.Namespace, name: str, notes: Sequence[str]) -> None:
    if not options.quiet:
        for note in notes:
            _say(f"{'standard input or output' if name == files.PIPE else name}: {note}")


def _print(text: str) -> None:
    if not sys.stdout:
        raise files.closed(files.STANDARD_OUTPUT)
    with files.writing_to_standard_output():
        print(text)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _fail(text: str, status: int = 1) -> int:
    _say(f"prancimg: {text}")
    return status
