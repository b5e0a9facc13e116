"""Many encodes and decodes in one process, from several threads at once: the same bytes as alone, and no growth.

python -m tools.load [--count 500] [--threads 8] [--out docs/load.json]

Pictures are tiny and the effort is 1. Every thread takes the next task from one queue; the tasks are a few pictures in
both models, again and again. Memory is the process's resident set after a garbage collection, at a fifth of the tasks
and at the end.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import prancimg


def pictures() -> list[np.ndarray]:
    """Small pictures of several sizes, (height, width, 3) uint8."""
    random = np.random.default_rng(0)
    sizes = [(16, 16), (9, 21), (20, 7), (1, 1)]
    return [
        (np.cumsum(random.integers(-9, 10, (h, w, 3)), 1) + random.integers(60, 190)).clip(0, 255).astype(np.uint8)
        for h, w in sizes
    ]


def task(number: int, images: list[np.ndarray]) -> str:
    """Encode and decode; a digest of both results."""
    model = ("field", "siren")[number // len(images) % 2]
    data = prancimg.encode(images[number % len(images)], size=150, effort=1, seed=0, model=model)
    return hashlib.sha256(data + prancimg.decode(data).tobytes()).hexdigest()


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def run(
    count: int, threads: int, images: list[np.ndarray], note: Callable[[str], None] = print
) -> dict[str, int | float]:
    """The counts, and memory in bytes."""
    kinds = 2 * len(images)
    alone = [task(number, images) for number in range(kinds)]
    began, first, different, before = time.process_time(), max(kinds, count // 5), 0, 0
    with ThreadPoolExecutor(threads) as pool:
        for part in (range(first), range(first, count)):
            results = pool.map(lambda number: task(number, images), part)
            different += sum(found != alone[number % kinds] for number, found in zip(part, results, strict=True))
            before, after = before or resident(), resident()
            note(f"{part.stop} tasks, {after >> 20} MiB")
    return {
        "encodes": count,
        "decodes": count,
        "threads": threads,
        "different from alone": different,
        "resident bytes at a fifth": before,
        "resident bytes at the end": after,
        "processor seconds": round(time.process_time() - began, 1),
    }


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = run(options.count, options.threads, pictures())
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(bool(result["different from alone"]))


if __name__ == "__main__":
    main()
