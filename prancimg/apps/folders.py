"""The images in a folder and those below it, and in words what else lies there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

OWN = {".prc", ".csv", ".json"}
"""Endings of what a batch writes: no images, whatever the pattern."""
_APPLE_DOUBLE = b"\0\5\x16\7"
"""How a file begins that macOS puts beside another where a file system has no place for its attributes: ``._NAME``."""
_SHOWN = 5


def images_in(root: Path, output: Path | None = None) -> tuple[list[Path], list[str]]:
    """All images by their endings, and what is left out, in words; nothing of the folder ``output``, if it lies here.

    Links to files are followed, links to folders are not. ``output`` begins with ``root``.
    """
    usual = Image.registered_extensions().items()
    endings = {ending for ending, kind in usual if kind in Image.OPEN and kind in Image.SAVE} - OWN
    images, others, links, lost, closed = list[Path](), list[Path](), list[Path](), list[Path](), list[OSError]()
    for name, folders, names in os.walk(root, onerror=closed.append):
        here = Path(name)
        folders[:] = [folder for folder in folders if (here / folder).absolute() != output]
        links += [here / folder for folder in folders if (here / folder).is_symlink()]
        for path in map(here.joinpath, names):
            if path.suffix.lower() in OWN or (path.name.startswith("._") and _is_apple_double(path)):
                continue
            if not path.is_file():
                lost.append(path)
            else:
                (images if path.suffix.lower() in endings else others).append(path)
    kinds = Counter(path.suffix.lower() or "without an ending" for path in others)
    told = [(", ".join(f"{count} {kind}" for kind, count in kinds.most_common()), others)]
    told += [(f"{len(links)} linked folder{'s' * (len(links) > 1)}", links)]
    told += [(f"{len(lost)} that {'is no file' if len(lost) == 1 else 'are no files'}", lost)]
    left_out = [f"left out: {what} ({_named(root, paths)})" for what, paths in told if paths]
    left_out += [f"left out: {error.filename}: {error.strerror}" for error in closed]
    return images, left_out


def _is_apple_double(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_APPLE_DOUBLE)) == _APPLE_DOUBLE
    except OSError:
        return False


def _named(root: Path, paths: Sequence[Path]) -> str:
    """Some of their names."""
    names = sorted(str(path.relative_to(root)) for path in paths)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
