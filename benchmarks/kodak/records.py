"""Measured points: one for every image, codec and setting, kept on disk beside the file that was measured."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import random
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from benchmarks.kodak.codecs import Codec, Fitted, Setting
from benchmarks.kodak.data import write
from benchmarks.kodak.metrics import macs_per_pixel
from prancimg.apps.batch import follow_parent
from prancimg.errors import PrancImgError
from prancimg.format.bitstream import read_header
from prancimg.images.metrics import decibels, measure


@dataclass(frozen=True)
class Record:
    """What one file turned out to be."""

    file: str
    """Its path below the folder of files."""
    bytes: int
    bpp: float
    """Of the file on disk."""
    psnr: float
    ms_ssim: float
    ms_ssim_db: float
    encoding_time: float
    """Seconds of the call that encodes, in a running process."""
    decoding_time: float
    macs_per_pixel: float | None = None
    """Of the decoder; known for ours only."""


@dataclass(frozen=True)
class Task:
    """One image, codec and setting."""

    image: Path
    codec: Codec
    setting: Setting

    @property
    def name(self) -> str:
        """Of the file, below the folder of files."""
        effort = f"effort{self.codec.effort}-" if isinstance(self.codec, Fitted) else ""
        return f"{self.codec.slug}/{self.image.stem}/{effort}{self.setting}{self.codec.suffix}"


def run(tasks: Sequence[Task], folder: Path, jobs: int) -> list[tuple[Task, Record]]:
    """The records of all tasks whose settings are within reach; those that ``folder`` has are not computed again."""
    outcomes = {task.name: kept for task in tasks if (kept := _kept(task, folder))}
    missing = [task for task in tasks if task.name not in outcomes]
    random.Random(0).shuffle(missing)  # slow and fast codecs mixed, so that the time remaining means something
    shown = sys.stderr.isatty()
    with tqdm(total=len(tasks), initial=len(outcomes), unit="file", disable=not shown, smoothing=0.05) as display:
        for task, outcome in _computed(missing, folder, jobs):
            outcomes[task.name] = outcome
            display.set_postfix_str(f"{task.codec.name}, {task.image.stem}", refresh=False)
            display.update()
    records = [(task, outcomes[task.name]["record"]) for task in tasks]
    return [(task, Record(**record)) for task, record in records if record]


def _computed(tasks: Sequence[Task], folder: Path, jobs: int) -> Iterator[tuple[Task, dict[str, Any]]]:
    if jobs == 1 or len(tasks) < 2:
        for task in tasks:
            yield task, compute(task, folder)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with ProcessPoolExecutor(jobs, context, _prepare) as pool:
        futures = {pool.submit(compute, task, folder): task for task in tasks}
        try:
            for done in as_completed(futures):
                yield futures[done], done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _prepare() -> None:
    """Of a worker: one thread, so that as many workers as there are cores do not crowd each other."""
    follow_parent()
    torch.set_num_threads(1)


def compute(task: Task, folder: Path) -> dict[str, Any]:
    """Encode to a file, read it back, decode, measure; keep the outcome beside the file."""
    path = folder / task.name
    with Image.open(task.image) as opened:
        picture = opened.convert("RGB")
    began = time.perf_counter()
    try:
        data = task.codec.encode(picture, task.setting)
    except PrancImgError as error:
        return _keep(task, path, None, str(error))
    encoded = time.perf_counter()
    write(path, data)
    data = path.read_bytes()
    read = time.perf_counter()
    decoded = task.codec.decode(data)
    done = time.perf_counter()
    quality = measure(np.asarray(picture), decoded)
    record = Record(
        file=task.name,
        bytes=len(data),
        bpp=8 * len(data) / (picture.width * picture.height),
        **quality,
        ms_ssim_db=decibels(quality["ms_ssim"]),
        encoding_time=encoded - began,
        decoding_time=done - read,
        macs_per_pixel=macs_per_pixel(read_header(data)[0]) if isinstance(task.codec, Fitted) else None,
    )
    return _keep(task, path, record)


def _keep(task: Task, path: Path, record: Record | None, trouble: str | None = None) -> dict[str, Any]:
    outcome = {**_identity(task), "out_of_reach": trouble, "record": record and asdict(record)}
    write(_beside(path), json.dumps(outcome, indent=1).encode())
    return outcome


def _kept(task: Task, folder: Path) -> dict[str, Any] | None:
    """The outcome of an earlier run, if the same software made it from the same image and its file is still there."""
    path = folder / task.name
    try:
        outcome: dict[str, Any] = json.loads(_beside(path).read_bytes())
    except (OSError, ValueError):
        return None
    same = all(outcome.get(key) == value for key, value in _identity(task).items())
    complete = outcome.get("record") is None or (path.is_file() and path.stat().st_size == outcome["record"]["bytes"])
    return outcome if same and complete else None


def _identity(task: Task) -> dict[str, str]:
    """What a result depends on."""
    return {
        "image": _digest(task.image),
        "codec": repr(task.codec),
        "setting": str(task.setting),
        "made_by": task.codec.made_by,
    }


@cache
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def tasks(images: Iterable[Path], codecs: Iterable[Codec], bpps: Sequence[float]) -> list[Task]:
    """All there is to do."""
    chosen = list(codecs)
    return [Task(image, codec, setting) for image in images for codec in chosen for setting in codec.settings(bpps)]
