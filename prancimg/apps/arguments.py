"""The arguments of the command ``prancimg``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping

from prancimg.version import __version__


def command_parser() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """The parser of the command, and those of its commands by their names; ``command`` tells which was chosen."""
    parser = argparse.ArgumentParser(
        prog="prancimg",
        description="A neural image codec.",
        epilog="example:\n  prancimg encode photo.png photo.prc\n  prancimg decode photo.prc back.png",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action="version", version=f"prancimg {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(
        name: str, text: str, epilog: str, input: str = "a file, or - for standard input"
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(command=name)
        if input:
            added.add_argument("input", metavar="IN", help=input)
        return added

    encode = command(
        "encode",
        "fit a network to an image and write a .prc file",
        "examples:\n  prancimg encode photo.png photo.prc --bpp 0.1\n  prancimg encode - - --size 5000 <a.png >a.prc",
    )
    encode.add_argument("output", metavar="OUT", help="a file, or - for standard output")
    _add_encoding(encode)
    _add_verbosity(encode)

    decode = command(
        "decode",
        "render a .prc file to an image file",
        "examples:\n  prancimg decode photo.prc\n  prancimg decode photo.prc photo.webp\n"
        "  prancimg decode photo.prc detail.png --crop 100,50,64,64 --scale 8\n"
        "  prancimg decode photo.prc - --preview --format jpeg >small.jpg",
    )
    decode.add_argument("output", metavar="OUT", nargs="?", help="format by its ending (default: IN with .png, if new)")
    decode.add_argument("-f", "--force", action="store_true", help="without OUT, replace a file that is there")
    formats = ["png", "jpeg", "webp", "avif", "tiff", "ppm", "qoi"]
    named = decode.add_argument("--format", metavar="NAME", help=f"{', '.join(formats)}, ...: whatever the ending")
    vars(named)["completer"] = lambda **_: formats  # argcomplete looks for it there
    decode.add_argument("--scale", type=_number(float, 1e-4, 1e6), metavar="S", help="so many times the size, e.g. 2.5")
    decode.add_argument("--crop", type=_region, metavar="X,Y,W,H", help="this part only, in pixels of the picture")
    decode.add_argument("--preview", action="store_true", help="from the coarse levels only, a quarter of the size")
    decode.add_argument("--depth", type=int, choices=[8, 16], help="bits a sample (default: those of the original)")
    decode.add_argument("--strip", action="store_true", help="leave out colour profile, EXIF and XMP")
    decode.add_argument(
        "--max-pixels", type=_number(int, 1), metavar="N", default=178_956_970, help="refuse larger pictures"
    )
    decode.add_argument(
        "--allow-partial", action="store_true", help="of a damaged or truncated file, show what is there"
    )
    _add_verbosity(decode)

    information = command("info", "print what a .prc file says of itself", "example:\n  prancimg info photo.prc")
    information.add_argument("--json", action="store_true", help="for machines")

    several = command(
        "batch",
        "encode many images",
        "examples:\n  prancimg batch photos/ small/ --bpp 0.5 --jobs 4\n"
        "  prancimg batch 'photos/**/*.png' small/ --resume --summary small.json\n"
        "  prancimg batch photos/ small/ --cluster tcp://scheduler:8786",
        "a folder, or a pattern such as 'photos/**/*.png' in quotes",
    )
    several.add_argument("output", metavar="OUT_DIR", help="a folder; inputs keep their places in it")
    _add_encoding(several)
    where = several.add_mutually_exclusive_group()
    where.add_argument("-j", "--jobs", type=_number(int, 1), metavar="N", default=1, help="processes (default: 1)")
    where.add_argument("--cluster", metavar="ADDRESS", help="an existing Dask cluster, e.g. tcp://scheduler:8786")
    several.add_argument("--resume", action="store_true", help="skip inputs whose whole, newer output is there")
    several.add_argument("--summary", metavar="FILE", help=".csv or .json (default: OUT_DIR/summary.csv)")
    several.add_argument("--quiet", action="store_true", help="say nothing but errors")

    beside = command(
        "compare",
        "make a page that shows an original beside other files",
        "example:\n  prancimg compare photo.png photo.prc photo.avif -o report.html",
        "",
    )
    beside.add_argument("original", metavar="ORIGINAL", help="an image file")
    beside.add_argument("input", metavar="IN", nargs="+", help=".prc files and other images of the same size")
    beside.add_argument("-o", "--output", metavar="OUT", default="report.html", help="default: report.html")
    beside.add_argument("--quiet", action="store_true", help="say nothing but errors")

    completion = command(
        "completion",
        "print what teaches a shell to complete this command",
        'examples:\n  eval "$(prancimg completion bash)"        # in ~/.bashrc, likewise zsh in ~/.zshrc\n'
        "  prancimg completion fish >~/.config/fish/completions/prancimg.fish",
        "",
    )
    completion.add_argument("shell", choices=["bash", "zsh", "fish"])
    return parser, commands.choices


def _add_encoding(added: argparse.ArgumentParser) -> None:
    """What to encode to, and how."""
    target = added.add_mutually_exclusive_group()
    target.add_argument(
        "--bpp", type=_number(float, 1e-6, 1e6), metavar="R", help="bits per pixel of the file, at most"
    )
    target.add_argument("--size", type=_number(int, 1, 2**53), metavar="BYTES", help="bytes of the file, at most")
    target.add_argument("-q", "--quality", type=_number(float, 0, 100), metavar="Q", help="0 to 100 (default: 50)")
    target.add_argument("--psnr", type=_number(float, 1, 100), metavar="DB", help="at least this, in few bytes")
    added.add_argument(
        "-m",
        "--model",
        choices=["field", "siren"],
        default="field",
        help="field: local features (default); siren: one global network",
    )
    added.add_argument(
        "-e",
        "--effort",
        type=int,
        choices=range(1, 10),
        default=5,
        metavar="1..9",
        help="1 fast, 9 best (default: 5)",
    )
    added.add_argument(
        "--seed",
        type=_number(int, 0, 2**32 - 1),
        default=0,
        metavar="N",
        help="basis seed (default: 0)",
    )
    added.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to fit")
    added.add_argument(
        "--tune",
        choices=["ssim", "psnr"],
        help="field: fit for the eye (default) or, as --psnr does, for squared error alone",
    )
    added.add_argument(
        "--lossless",
        action=argparse.BooleanOptionalAction,
        help="every sample as it is, or never so (default: where that is within the size, or as small)",
    )
    added.add_argument("--strip", action="store_true", help="leave out colour profile, EXIF and XMP")
    added.add_argument(
        "--orientation",
        choices=["apply", "keep"],
        default="apply",
        help="the EXIF orientation: turn the picture upright (default), or keep pixels and tag",
    )


def _add_verbosity(added: argparse.ArgumentParser) -> None:
    """How much to say."""
    group = added.add_mutually_exclusive_group()
    group.add_argument("-v", "--verbose", action="store_true", help="say more")
    group.add_argument("--quiet", action="store_true", help="say nothing but errors")


def _region(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"{text} is not X,Y,W,H in whole numbers")
    return tuple(map(int, parts))


def _number(kind: type, low: float, high: float = math.inf) -> Callable[[str], float]:
    """A parser of numbers from ``low`` to ``high``."""

    def parse(text: str) -> float:
        value: float = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g}")
        return value

    parse.__name__ = "whole number" if kind is int else "number"
    return parse
