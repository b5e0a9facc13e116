"""Decode many changed files, each in the structure of the format and with right checksums, and report the worst.

python -m tools.mutations [--count 20000] [--from 0] [--out docs/mutations.json]

The same numbers give the same files. Any exception but PrancImgError ends the run with the number of its file.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from prancimg import PrancImgError, codec  # noqa: F401  (else the first file pays for loading them)
from prancimg.format import bitstream, facts  # noqa: F401  (else the first file pays for loading them)
from tools.fuzz import check, mutate

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"


def scrambler(choose: random.Random) -> Callable[[bytes], bytes]:
    """Changes a few bytes, or puts some in, or takes some out."""

    def scramble(part: bytes) -> bytes:
        changed = bytearray(part or b"\0")
        for _ in range(choose.randint(1, 4)):
            at, how = choose.randrange(len(changed) + 1), choose.random()
            if how < 0.6 and at < len(changed):
                changed[at] = choose.randrange(256)
            elif how < 0.8:
                changed[at:at] = choose.randbytes(choose.randint(1, 8))
            elif len(changed) > 8:
                del changed[at : at + choose.randint(1, 8)]
        return bytes(changed)

    return scramble


def measured(decode: Callable[[], object]) -> tuple[float, int, str]:
    """Seconds of processor time, the peak of allocated bytes, and what became of it: ``decoded`` or ``refused``."""
    tracemalloc.start()
    began = time.process_time()
    try:
        became = "refused" if decode() is None else "decoded"
    except PrancImgError:
        became = "refused"
    took, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return took, peak, became


def noticed(data: bytes, choose: random.Random) -> bool:
    """Whether a random change of a file's bytes, without right checksums, is noticed."""
    changed = scrambler(choose)(data)
    if changed == data:
        return True
    try:
        bitstream.read(changed)
    except PrancImgError:
        return True
    return False


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    seeds = [path.read_bytes() for path in sorted(GOLDEN.glob("*.prc"))]
    became: Counter[str] = Counter()
    slowest, hungriest, silent = (0.0, 0), (0, 0), 0
    for number in range(options.first, options.first + options.count):
        choose = random.Random(number)
        data = seeds[number % len(seeds)]
        for _ in range(choose.choice((1, 1, 2, 4))):
            data = mutate(data, choose, scrambler(choose))

        def attempt(data: bytes = data) -> None:
            became[check(data)] += 1

        try:
            took, peak, _ = measured(attempt)
        except BaseException:
            print(f"file {number}", flush=True)
            raise
        slowest, hungriest = max(slowest, (took, number)), max(hungriest, (peak, number))
        silent += not noticed(seeds[number % len(seeds)], choose)
    result = {
        "files": dict(became),
        "slowest": {"seconds": round(slowest[0], 2), "file": slowest[1]},
        "hungriest": {"bytes": hungriest[0], "file": hungriest[1]},
        "changed without right checksums": {"files": options.count, "unnoticed": silent},
    }
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
