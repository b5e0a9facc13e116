"""Labelled pictures from a zip file or a folder, decoded once into a file of uint8 arrays.

Both hold ``train/CLASS/…`` and ``test/CLASS/…`` (or ``val/CLASS/…``), as torchvision's ImageFolder takes them, with any
number of folders below a class: CIFAR-10, CIFAR-100, and, with their validation pictures sorted into folders by class,
tinyImageNet and ImageNet-100.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from prancimg.errors import PrancImgError
from prancimg.format import files

SUFFIXES = (".jpg", ".jpeg", ".png")
TEST = ("test", "val")


@dataclass(frozen=True)
class Dataset:
    """Pictures (n, 3, side, side) uint8 and their labels (n,) int64, to train on and to test on."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]

    def digest(self) -> str:
        """Of all pictures and labels: what a training depends on, whatever the file is called and how it is packed."""
        whole = hashlib.sha256()
        for array in (self.train, self.train_labels, self.test, self.test_labels):
            whole.update(f"{array.shape} {array.dtype.str}".encode())
            whole.update(np.ascontiguousarray(array).data)
        return whole.hexdigest()[:16]

    def some(self, count: int) -> Dataset:
        """The same with ``count`` of the training pictures, evenly from all classes; all, if there are fewer."""
        chosen = np.linspace(0, len(self.train), min(count, len(self.train)), endpoint=False).astype(np.int64)
        return replace(self, train=self.train[chosen], train_labels=self.train_labels[chosen])


def load(source: Path, side: int, cache: Path) -> Dataset:
    """The pictures of a zip file or a folder, resized to ``side`` where they are not; decoded into ``cache`` once."""
    listing, opened = _listing(source)
    names = list(listing)
    parts = {name: _split(name) for name in names}
    classes = tuple(sorted({label for split, label in parts.values() if split == "train"}))
    if not classes or {label for _, label in parts.values()} != set(classes):
        raise PrancImgError(f"{source}: not train/CLASS/… and test/CLASS/… of the same classes")
    if not {split for split, _ in parts.values()} & set(TEST):
        raise PrancImgError(f"{source}: there is nothing to test on: no test/CLASS/… and no val/CLASS/…")
    stamp = f"{source.resolve()} {side} {listing}"
    path = cache / f"pictures-{hashlib.sha256(stamp.encode()).hexdigest()[:16]}.npz"
    arrays = _cached(path)
    if not arrays:
        arrays, buffer = _decode(names, parts, classes, opened, side), io.BytesIO()
        np.savez(buffer, **arrays)
        cache.mkdir(parents=True, exist_ok=True)
        files.write(os.fspath(path), buffer.getvalue())
    return Dataset(**arrays, classes=classes)


def _cached(path: Path) -> dict[str, np.ndarray]:
    """What was decoded before; nothing if it is not there, or cannot be read."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in ("train", "train_labels", "test", "test_labels")}
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error):
        return {}


def _listing(source: Path) -> tuple[dict[str, str], Callable[[str], bytes]]:
    """The pictures by name, with what changes when their contents do; and how to read one."""
    if source.is_dir():
        found = {path.relative_to(source).as_posix(): path.stat() for path in source.rglob("*") if path.is_file()}
        stats = {name: f"{stat.st_size} {stat.st_mtime_ns}" for name, stat in found.items()}
        return _pictures(stats), lambda name: (source / name).read_bytes()
    if not source.is_file():
        raise PrancImgError(f"{source}: no such file or folder")
    try:
        archive = zipfile.ZipFile(source)
    except zipfile.BadZipFile as error:
        raise PrancImgError(f"{source}: neither a folder nor a zip file") from error
    return _pictures({one.filename: f"{one.file_size} {one.CRC}" for one in archive.infolist()}), archive.read


def _pictures(listing: dict[str, str]) -> dict[str, str]:
    wanted = ("train", *TEST)
    found = [name for name in listing if name.lower().endswith(SUFFIXES) and name.count("/") >= 2]
    return {name: listing[name] for name in sorted(found) if name.partition("/")[0] in wanted}


def _split(name: str) -> tuple[str, str]:
    split, label, *_ = name.split("/")
    return split, label


def _decode(
    names: list[str],
    parts: dict[str, tuple[str, str]],
    classes: tuple[str, ...],
    opened: Callable[[str], bytes],
    side: int,
) -> dict[str, np.ndarray]:
    arrays = {}
    progress = tqdm(names, "decoding", unit="image", leave=False, disable=not sys.stderr.isatty())
    pictures: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    labels: dict[str, list[int]] = {"train": [], "test": []}
    for name in progress:
        split, label = parts[name]
        kind = "train" if split == "train" else "test"
        try:
            with Image.open(io.BytesIO(opened(name))) as image:
                picture = image.convert("RGB")
        except OSError as error:
            raise PrancImgError(f"{name}: cannot be read as a picture: {error}") from error
        if picture.size != (side, side):
            picture = picture.resize((side, side), Image.Resampling.BICUBIC)
        pictures[kind].append(np.asarray(picture).transpose(2, 0, 1))
        labels[kind].append(classes.index(label))
    for kind in pictures:
        arrays[kind] = np.stack(pictures[kind])
        arrays[f"{kind}_labels"] = np.array(labels[kind], np.int64)
    return arrays
