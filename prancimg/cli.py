"""The command ``prancimg``: encode, decode, info.

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
import secrets
import stat
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

import prancimg
from prancimg.codec import load_image, read_prc, save_image
from prancimg.errors import PrancImgError

PIPE = "-"

Run = Callable[[argparse.Namespace], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments`` (default: the process's own) and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output is gone: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except PrancImgError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))
    except MemoryError:
        return _fail("not enough memory")
    except Exception as error:  # a defect, still told in one line
        return _fail(f"internal error, please report it: {type(error).__name__}: {error}".replace("\n", " "))
    return 0


def _encode(options: argparse.Namespace) -> None:
    with _naming(options.input):
        image = load_image(io.BytesIO(_read(options.input)))
    _check_writable(options.output, options.input)
    began = time.perf_counter()
    with _progress(options, "encoding") as progress:
        data = prancimg.encode(
            image,
            bpp=options.bpp,
            size=options.size,
            quality=options.quality,
            psnr=options.psnr,
            model=options.model,
            effort=options.effort,
            seed=options.seed,
            device=options.device,
            progress=progress,
        )
    _write(options.output, data)
    if options.quiet:
        return
    seconds, pixels = time.perf_counter() - began, image.shape[0] * image.shape[1]
    error = np.asarray(prancimg.decode(data, max_pixels=None), np.float64) - image
    psnr = 10 * np.log10(255**2 / max(float(np.square(error).mean()), 1e-10))
    _say(f"{options.output}: {len(data)} bytes, {8 * len(data) / pixels:.4f} bpp, {psnr:.2f} dB, {seconds:.1f} s")
    wanted = options.size or (options.bpp and options.bpp * pixels / 8)
    if wanted and len(data) < 0.97 * wanted:
        _say(f"{options.output}: smaller than asked for: more bits would not make the picture better")
    if options.verbose:
        for name, value in prancimg.info(data).items():
            _say(f"  {name}: {value}")


def _decode(options: argparse.Namespace) -> None:
    output = options.output
    if output is None:
        output = PIPE if options.input == PIPE else str(Path(options.input).with_suffix(".png"))
    _check_writable(output, options.input)
    began = time.perf_counter()
    with _naming(options.input), _warnings(options):
        picture = prancimg.decode(
            _read_prc(options.input), max_pixels=options.max_pixels, allow_partial=options.allow_partial
        )
    _write(output, save_image(picture, ".png" if output == PIPE else Path(output).suffix))
    if options.verbose:
        _say(f"{output}: {picture.width} x {picture.height}, {time.perf_counter() - began:.2f} s")


def _info(options: argparse.Namespace) -> None:
    with _naming(options.input):
        facts = prancimg.info(_read_prc(options.input))
    if options.json:
        print(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{part} {size} bytes" for part, size in value.items())
        print(f"{name:13}{f'{value:.4f}' if isinstance(value, float) else value}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prancimg", description="A neural image codec.", allow_abbrev=False)
    parser.add_argument("-V", "--version", action="version", version=f"prancimg {prancimg.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Run, text: str, epilog: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        added.add_argument("input", metavar="IN", help="a file, or - for standard input")
        return added

    def talk(added: argparse.ArgumentParser) -> None:
        group = added.add_mutually_exclusive_group()
        group.add_argument("-v", "--verbose", action="store_true", help="say more")
        group.add_argument("--quiet", action="store_true", help="say nothing but errors")

    encode = command(
        "encode",
        _encode,
        "fit a network to an image and write a .prc file",
        "examples:\n  prancimg encode photo.png photo.prc --bpp 0.1\n  prancimg encode - - --size 5000 <a.png >a.prc",
    )
    encode.add_argument("output", metavar="OUT", help="a file, or - for standard output")
    target = encode.add_mutually_exclusive_group()
    target.add_argument("--bpp", type=_number(float, 1e-6), metavar="R", help="bits per pixel of the file, at most")
    target.add_argument("--size", type=_number(int, 1), metavar="BYTES", help="bytes of the file, at most")
    target.add_argument("-q", "--quality", type=_number(float, 0, 100), metavar="Q", help="0 to 100 (default: 50)")
    target.add_argument("--psnr", type=_number(float, 1, 100), metavar="DB", help="at least this, in few bytes")
    encode.add_argument(
        "-m",
        "--model",
        choices=["field", "siren"],
        default="field",
        help="field: local features (default); siren: one global network",
    )
    encode.add_argument(
        "-e", "--effort", type=int, choices=range(1, 10), default=5, metavar="1..9", help="1 fast, 9 best (default: 5)"
    )
    encode.add_argument(
        "--seed", type=_number(int, 0, 2**32 - 1), metavar="N", help="basis seed (default: 0; siren: the best of a few)"
    )
    encode.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to fit")
    talk(encode)

    decode = command(
        "decode",
        _decode,
        "render a .prc file to an image file",
        "examples:\n  prancimg decode photo.prc\n  prancimg decode photo.prc photo.webp",
    )
    decode.add_argument("output", metavar="OUT", nargs="?", help="format by its ending (default: IN with .png)")
    decode.add_argument(
        "--max-pixels", type=_number(int, 1), metavar="N", default=178_956_970, help="refuse larger pictures"
    )
    decode.add_argument(
        "--allow-partial", action="store_true", help="of a damaged or truncated file, show what is there"
    )
    talk(decode)

    information = command("info", _info, "print what a .prc file says of itself", "example:\n  prancimg info photo.prc")
    information.add_argument("--json", action="store_true", help="for machines")
    return parser


def _number(kind: type, low: float, high: float = math.inf) -> Callable[[str], float]:
    """A parser of numbers from ``low`` to ``high``."""

    def parse(text: str) -> float:
        value: float = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g}")
        return value

    parse.__name__ = "whole number" if kind is int else "number"
    return parse


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Put the file's name before an error about it."""
    try:
        yield
    except PrancImgError as error:
        raise PrancImgError(f"{'standard input' if name == PIPE else name}: {error}") from error


@contextlib.contextmanager
def _warnings(options: argparse.Namespace) -> Iterator[None]:
    """Say the library's warnings about the input in the command's own way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        _say(f"prancimg: {'standard input' if options.input == PIPE else options.input}: {warning.message}")


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


def _read(name: str) -> bytes:
    return sys.stdin.buffer.read() if name == PIPE else Path(name).read_bytes()


def _read_prc(name: str) -> bytes:
    if name == PIPE:
        return read_prc(sys.stdin.buffer)
    with Path(name).open("rb") as file:
        return read_prc(file)


def _write(name: str, data: bytes) -> None:
    """Write all of a file or nothing: through a temporary neighbour that takes its place at the end."""
    if name == PIPE:
        if sys.stdout.isatty():
            raise PrancImgError("will not write binary data to a terminal; name a file or use a pipe")
        sys.stdout.buffer.write(data)
        return
    path = Path(os.path.realpath(name))  # a link stays a link
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        path.write_bytes(data)  # a device or a named pipe cannot be replaced
        return
    try:
        umask = os.umask(0)
        os.umask(umask)
        _replace(path, data, path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~umask)
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error


def _replace(path: Path, data: bytes, mode: int) -> None:
    """Put a whole new file in the place of ``path``. Until it is whole it has no name, where the system can do that,
    so that not even a process that is killed leaves anything behind."""
    temporary = str(path.with_name(f".{path.name}.{secrets.token_hex(8)}"))
    handle = None
    if hasattr(os, "O_TMPFILE") and Path("/proc/self/fd").is_dir():
        with contextlib.suppress(OSError):  # not on every file system
            handle = os.open(path.parent, os.O_WRONLY | os.O_TMPFILE, 0o600)
    nameless = handle is not None
    if handle is None:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
            os.chmod(handle if nameless else temporary, mode)
            if nameless:
                os.link(f"/proc/self/fd/{handle}", temporary, src_dir_fd=handle)  # only then it follows the link
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _check_writable(name: str, source: str) -> None:
    """Fail before the work, not after it."""
    path = Path(os.path.realpath(name))
    if name == PIPE or (path.exists() and not stat.S_ISREG(path.stat().st_mode)):
        return
    if not os.access(path.parent, os.W_OK):
        number = errno.EACCES if path.parent.is_dir() else errno.ENOENT
        raise OSError(number, os.strerror(number), str(path.parent))
    if source != PIPE and path.exists() and path.samefile(source):
        raise PrancImgError(f"{name}: the output would take the place of the input")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _fail(text: str, status: int = 1) -> int:
    _say(f"prancimg: {text}")
    return status
