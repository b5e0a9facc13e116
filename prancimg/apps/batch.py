"""Many pictures: a plan of what to encode, done by processes here or by a Dask cluster, each file once.

A file that fails is an outcome like any other and stops nothing. Outputs appear whole or not at all, so a run can be
resumed. Every fit uses one thread, so that its bytes do not depend on the number of processes.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import io
import json
import logging
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import unicodedata
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from prancimg.apps.folders import OWN, images_in
from prancimg.codec import encode_picture, psnr_of, remarks
from prancimg.errors import PrancImgError
from prancimg.format import files
from prancimg.format.facts import info
from prancimg.images.picture import load_picture

ATTEMPTS = 3
"""How often a file is given to a process that then dies."""
_AHEAD = 2
"""Files a cluster's worker is given at a time; their bytes wait in memory."""


@dataclass(frozen=True)
class Task:
    """One picture to encode."""

    source: Path
    output: Path
    target: Mapping[str, Any]
    options: Mapping[str, Any]
    orient: bool = True
    strip: bool = False

    @property
    def orders(self) -> tuple[Mapping[str, Any], Mapping[str, Any], bool, bool]:
        """What whoever does it has to know."""
        return self.target, self.options, self.orient, self.strip


@dataclass(frozen=True)
class Outcome:
    """What became of one picture: a row of the summary."""

    input: str
    output: str
    status: str
    """``done``, ``kept`` (from an earlier run) or ``failed``."""
    width: int = 0
    height: int = 0
    input_bytes: int = 0
    bytes: int = 0
    bpp: float = 0.0
    psnr: float | None = None
    """In dB over RGB; None without loss. Of an earlier run's output it is not known, as the time is not."""
    seconds: float | None = None
    note: str = ""
    error: str = ""


@dataclass(frozen=True)
class Plan:
    """What there is to do, and what has been done before."""

    tasks: Sequence[Task]
    kept: Sequence[Outcome]
    left_out: Sequence[str] = ()
    """What lies in the folder and is no image here, in words."""

    @property
    def files(self) -> list[str]:
        """All inputs and outputs."""
        tasks = [(str(task.source), str(task.output)) for task in self.tasks]
        return [name for pair in (*tasks, *((kept.input, kept.output) for kept in self.kept)) for name in pair]


@dataclass(frozen=True)
class Encoded:
    """What a worker sends back: a file, or why there is none."""

    data: bytes = b""
    width: int = 0
    height: int = 0
    psnr: float | None = None
    seconds: float = 0.0
    note: str = ""
    error: str = ""


Results = Generator[tuple[Task, Encoded], None, None]


def plan(
    where: str,
    folder: Path,
    target: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    orient: bool = True,
    strip: bool = False,
    resume: bool = False,
) -> Plan:
    """The images in a folder (and those below it) or of a pattern, and their places in the output folder.

    With ``resume`` an output that is whole, readable and newer than its input is kept. ``target`` and ``options``
    are named as in :func:`prancimg.encode`.
    """
    root = Path(where)
    left_out = list[str]()
    if root.is_file():
        found, root = [root], root.parent
    elif root.is_dir():
        found, left_out = images_in(root, _within(folder, root))
    else:
        found = [Path(name) for name in glob.glob(where, recursive=True)]
        root = Path(os.path.commonpath([path.absolute().parent for path in found])) if found else root
    inner = _within(folder, root)  # what an earlier run left there
    sources = sorted(
        path
        for path in found
        if path.is_file() and path.suffix.lower() not in OWN and not (inner and inner in path.absolute().parents)
    )
    if not sources:
        raise PrancImgError("; ".join([f"{where}: no images there", *left_out]))
    places = [path.absolute().relative_to(root.absolute()) for path in sources]
    taken = Counter(_key(name) for place in places for name in (place, place.with_suffix("")))
    tasks, kept = [], []
    for source, place in zip(sources, places, strict=True):
        # Images that differ by their ending alone keep it, and so does one whose name is another's but for its ending.
        alone = taken[_key(place.with_suffix(""))] == 1
        name = place.with_suffix(".prc") if alone else place.with_name(place.name + ".prc")
        task = Task(source, folder / name, target, options, orient, strip)
        earlier = _kept(task) if resume else None
        if earlier:
            kept.append(earlier)
        else:
            tasks.append(task)
    return Plan(tasks, kept, left_out)


def _key(name: Path) -> str:
    """The same for all names that are one on some file system."""
    return unicodedata.normalize("NFC", str(name)).casefold()


def _within(folder: Path, root: Path) -> Path | None:
    """A folder that lies below ``root``, as a path that begins with it."""
    inner, outer = folder.resolve(), root.resolve()
    return root.absolute() / inner.relative_to(outer) if outer in inner.parents else None


def run(plan: Plan, jobs: int = 1, cluster: str | None = None, *, quiet: bool = False) -> list[Outcome]:
    """Do what is planned, by ``jobs`` processes or a Dask cluster; the outcomes in the order of the inputs."""
    for folder in {task.output.parent for task in plan.tasks}:
        folder.mkdir(parents=True, exist_ok=True)
    outcomes = list(plan.kept)
    encoded = _on_cluster(plan.tasks, cluster) if cluster else _here(plan.tasks, jobs)
    with _display(len(plan.tasks) + len(plan.kept), quiet) as show:
        for outcome in outcomes:
            show(outcome)
        with contextlib.closing(encoded):
            for task, result in encoded:
                outcomes.append(_stored(task, result))
                show(outcomes[-1])
    return sorted(outcomes, key=lambda outcome: outcome.input)


def encode_bytes(
    data: bytes, target: Mapping[str, Any], options: Mapping[str, Any], orient: bool, strip: bool
) -> Encoded:
    """The work itself, in whatever process: the bytes of an image file to those of a .prc file."""
    import torch

    torch.set_num_threads(1)
    began = time.perf_counter()
    try:
        picture = load_picture(io.BytesIO(data), orient=orient, strip=strip)
        made = encode_picture(picture, target, options)
        height, width = picture.colors.shape[:2]
        psnr, notes = psnr_of(made, picture), [*picture.notes, *remarks(made)]
        known = psnr if math.isfinite(psnr) else None
        notes += [] if known else ["lossless"]
        return Encoded(made, width, height, known, time.perf_counter() - began, "; ".join(notes))
    except MemoryError:
        return Encoded(error="not enough memory")
    except Exception as error:  # whatever it is, the other files go on
        known = isinstance(error, PrancImgError | OSError)
        return Encoded(error=str(error) if known else f"internal error, please report it: {error!r}")


def summary(outcomes: Sequence[Outcome], ending: str) -> bytes:
    """All outcomes as CSV, or as JSON where the ending is ``.json``."""
    if ending.lower() == ".json":
        return (json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n").encode()
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, [field.name for field in fields(Outcome)])
    writer.writeheader()
    for outcome in outcomes:
        row = {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(outcome).items()}
        writer.writerow(row)
    return table.getvalue().encode("utf-8", "surrogateescape")


def totals(outcomes: Sequence[Outcome]) -> str:
    """One line about all of them."""
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in ("done", "kept", "failed")}
    good = [outcome for outcome in outcomes if outcome.bytes]
    before, after = sum(outcome.input_bytes for outcome in good), sum(outcome.bytes for outcome in good)
    pixels = sum(outcome.width * outcome.height for outcome in good)
    line = ", ".join(f"{count} {status}" for status, count in counts.items() if count or status == "done")
    return f"{line}: {before} to {after} bytes, {8 * after / pixels:.4f} bpp" if pixels else line


def _here(tasks: Sequence[Task], jobs: int) -> Results:
    """By processes of this machine. What one had that died is tried again, alone, so that nobody else is blamed."""
    unfinished, deaths = {task.source: task for task in tasks}, Counter[Path]()
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    while unfinished:
        fresh = [task for source, task in unfinished.items() if not deaths[source]]
        waiting = deque(fresh or list(unfinished.values())[:1])
        running: dict[Future[Encoded], Task] = {}
        with ProcessPoolExecutor(min(jobs, len(waiting)), context, follow_parent) as pool:
            try:
                while waiting or running:
                    while waiting and len(running) < jobs:
                        task = waiting.popleft()
                        data = _read(task)
                        if isinstance(data, Encoded):
                            yield unfinished.pop(task.source), data
                        else:
                            running[pool.submit(encode_bytes, data, *task.orders)] = task
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        yield unfinished.pop(running.pop(future).source), result
            except BrokenExecutor:
                for task in running.values():
                    deaths[task.source] += 1
                    if deaths[task.source] == ATTEMPTS:
                        lost = Encoded(error="the process died, perhaps for lack of memory")
                        yield unfinished.pop(task.source), lost
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _on_cluster(tasks: Sequence[Task], address: str) -> Results:
    """By a Dask cluster's workers, which need no access to our files; what a lost one had is given to others."""
    try:
        from distributed import Client, as_completed
        from distributed.scheduler import KilledWorker
    except ImportError as error:
        raise PrancImgError("a cluster needs dask.distributed: pip install 'prancimg[cluster]'") from error
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # the rows say what became of the files
    try:
        client = Client(address, timeout=10, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TimeoutError) as error:
        raise PrancImgError(f"no Dask scheduler at {address}: {error or 'timed out'}") from error
    with client:
        waiting, running = deque(tasks), dict[str, Task]()
        lost = Encoded(error="the connection to the scheduler was lost")
        arriving = as_completed(loop=client.loop)  # type: ignore[no-untyped-call]

        def give() -> Results:
            while waiting:
                try:
                    if len(running) >= _AHEAD * max(1, len(client.scheduler_info(n_workers=-1)["workers"])):
                        return
                    data = _read(waiting[0])
                    if not isinstance(data, Encoded):
                        future = client.submit(encode_bytes, data, *waiting[0].orders, pure=False, retries=0)
                        arriving.add(future)  # type: ignore[no-untyped-call]
                        running[str(future.key)] = waiting.popleft()
                        continue
                except Exception:  # there is no one way in which a client says that its scheduler is gone
                    data = lost
                yield waiting.popleft(), data

        yield from give()
        for future in arriving:
            try:
                result = future.result()
            except CancelledError:  # not by us
                result = lost
            except KilledWorker:
                result = Encoded(error="the workers that had it died, perhaps for lack of memory")
            except Exception as error:  # such as a worker without prancimg
                result = Encoded(error=f"the cluster failed: {error}")
            yield running.pop(str(future.key)), result
            yield from give()


def _read(task: Task) -> bytes | Encoded:
    try:
        return files.read(task.source)
    except (OSError, PrancImgError) as error:
        return Encoded(error=getattr(error, "strerror", None) or str(error))


def _stored(task: Task, result: Encoded) -> Outcome:
    """Write the file; the row of the summary."""
    outcome = Outcome(str(task.source), str(task.output), "failed", error=result.error)
    if result.error:
        return outcome
    try:
        files.write(str(task.output), result.data)
        before = task.source.stat().st_size
    except OSError as error:
        return replace(outcome, error=f"{task.output}: {error.strerror or error}")
    return replace(
        outcome,
        status="done",
        width=result.width,
        height=result.height,
        input_bytes=before,
        bytes=len(result.data),
        bpp=8 * len(result.data) / (result.width * result.height),
        psnr=result.psnr,
        seconds=result.seconds,
        note=result.note,
    )


def _kept(task: Task) -> Outcome | None:
    """The row of an output that an earlier run left, if it is whole and newer than its input."""
    try:
        if task.output.stat().st_mtime < task.source.stat().st_mtime:
            return None
        facts = info(task.output)
    except (OSError, PrancImgError):
        return None
    return Outcome(
        str(task.source),
        str(task.output),
        "kept",
        width=facts["width"],
        height=facts["height"],
        input_bytes=task.source.stat().st_size,
        bytes=facts["bytes"],
        bpp=facts["bpp"],
    )


def follow_parent() -> None:
    """Of a worker process: no life after its parent's, even if that was killed, and no word at Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextlib.contextmanager
def _display(total: int, quiet: bool) -> Iterator[Any]:
    """A live table on a terminal, a line per file elsewhere."""
    if quiet:
        yield lambda outcome: None
        return
    if not sys.stderr.isatty():

        def tell(outcome: Outcome) -> None:
            what = outcome.error or (f"{outcome.bytes} bytes, {outcome.bpp:.4f} bpp" if outcome.bytes else "")
            print(f"{outcome.status:6} {outcome.input}: {what}", file=sys.stderr)

        yield tell
        return
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Table
    from rich.text import Text

    console = Console(stderr=True)
    progress = Progress(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), console=console)
    bar, recent = progress.add_task("", total=total), deque[Outcome](maxlen=max(3, console.height - 8))

    def table() -> Group:
        rows = Table("file", "", "bytes", "bpp", "dB", "seconds", expand=True)
        for outcome in recent:
            figures = [f"{outcome.bytes}", f"{outcome.bpp:.4f}"]
            figures += [f"{x:.{places}f}" for x, places in ((outcome.psnr, 2), (outcome.seconds, 1)) if x is not None]
            style = "red" if outcome.error else "dim" if outcome.status == "kept" else ""
            shown = [outcome.error] if outcome.error else figures
            cells = [Path(outcome.input).name, outcome.status, *shown]
            rows.add_row(*(Text(cell, overflow="ellipsis", no_wrap=True) for cell in cells), style=style)
        return Group(rows, progress)

    with Live(table(), console=console, refresh_per_second=4) as live:

        def advance(outcome: Outcome) -> None:
            recent.append(outcome)
            progress.advance(bar)
            live.update(table())

        yield advance
