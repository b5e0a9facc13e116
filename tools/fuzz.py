"""Coverage-guided fuzzing of decode and info: any bytes give a picture or one PrancImgError.

python -m tools.fuzz --seconds 600 [--work build/fuzz]

Seeds are the golden files and tests/hostile. Most mutations are made inside the structure of a file (numbers of the
header, payloads, the order of segments) and get right checksums, so that they reach what lies behind them. What is
found is left in the working folder as crash-*, timeout-* or oom-*; move it to tests/hostile and it stays a test.
Counts, the slowest input and the largest memory go to stats.json there. Needs atheris (pip install '.[fuzz]').
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAX_PIXELS = 1 << 11
"""Pictures are kept small, so that many can be tried."""


def check(data: bytes, max_pixels: int | None = MAX_PIXELS) -> str:
    """What became of one input: ``whole``, ``partial`` or ``refused``. Any other exception than ours goes through."""
    from prancimg import PrancImgError, decode, info

    def attempt(**options: bool) -> str:
        """Why it does not decode; empty if it does."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)
                warnings.simplefilter("ignore", UserWarning)
                picture = decode(data, max_pixels=max_pixels, **options)
        except PrancImgError as error:
            return str(error)
        assert picture.mode in ("L", "LA", "RGB", "RGBA", "I;16")
        assert max_pixels is None or picture.width * picture.height <= max_pixels
        return ""

    refused = attempt()
    try:
        facts = info(data)
    except PrancImgError:
        assert refused, "a picture that decodes has facts"
    else:
        assert json.dumps(facts) and not refused.startswith("the file is cut short"), "what has facts is whole"
    if not refused:
        return "whole"
    return "refused" if attempt(allow_partial=True) else "partial"


def numbers(kind: int, payload: bytes) -> tuple[list[int], bytes]:
    """The varints that the payload of a kind begins with, and what follows them."""
    from prancimg import PrancImgError
    from prancimg.format.bitstream import Segment
    from prancimg.format.numbers import read_varint

    found, at = [], 0
    most = {Segment.HEADER: len(payload), Segment.LOSSLESS: 4}.get(Segment(kind), 0) if kind in set(Segment) else 0
    try:
        while at < len(payload) and len(found) < most:
            value, at = read_varint(payload, at)
            found.append(value)
    except PrancImgError:
        return [], payload
    return found, payload[at:]


LIMIT = 60
"""Seconds of processor time for an input (libFuzzer's own limit counts the time that other processes take)."""
INTERESTING = [
    0,
    1,
    2,
    3,
    5,
    127,
    128,
    255,
    256,
    511,
    512,
    513,
    1 << 16,
    (1 << 20) - 1,
    1 << 20,
    1 << 32,
    (1 << 64) - 1,
]


def parsed(data: bytes) -> list[tuple[int, bytes]]:
    """The segments of a file, whatever their checksums and their order are."""
    from prancimg import PrancImgError
    from prancimg.format import bitstream
    from prancimg.format.numbers import read_varint

    at, segments = len(bitstream.SIGNATURE) + 1, []
    try:
        while at < len(data):
            kind = data[at]
            length, at = read_varint(data, at + 1)
            segments.append((kind, data[at : at + length]))
            at += length + 4
    except PrancImgError:
        pass
    return segments


def mutate(data: bytes, choose: random.Random, scramble) -> bytes:  # type: ignore[no-untyped-def]
    """One change inside the structure of a file, its checksums made right again; ``scramble`` changes plain bytes."""
    from prancimg.format import bitstream
    from prancimg.format.numbers import varint

    segments = parsed(data)
    if not segments or choose.random() < 0.05:
        return bytes(scramble(data))
    i = choose.randrange(len(segments))
    kind, payload = segments[i]
    fields, rest = numbers(kind, payload)
    action = choose.random()
    if fields and action < 0.5:
        at = choose.randrange(len(fields))
        small = choose.random() < 0.5
        fields[at] = max(0, fields[at] + choose.randint(-3, 3)) if small else choose.choice(INTERESTING)
        segments[i] = kind, b"".join(map(varint, fields)) + rest
    elif action < 0.75:
        changed = bytes(scramble(payload))  # mostly whole words, or nothing is decoded
        words = kind != bitstream.Segment.LOSSLESS and choose.random() >= 0.1
        segments[i] = kind, changed[: len(changed) // 4 * 4] if words else changed
    elif action < 0.8:
        segments[i] = kind, payload[: choose.randrange(len(payload) + 1)]
    elif action < 0.85:
        del segments[i]
    elif action < 0.9:
        segments.insert(choose.randrange(len(segments) + 1), (choose.randrange(256), payload))
    elif action < 0.95:
        choose.shuffle(segments)
    else:
        whole = bitstream.write(segments)
        return whole[: choose.randrange(len(whole) + 1)]
    return bitstream.write(segments)


def main() -> None:
    """Fuzz until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "fuzz")
    options = parser.parse_args()
    import atheris

    with atheris.instrument_imports(include=["prancimg"]):
        from prancimg import LazyImage, decode, info  # noqa: F401  (the package itself loads nothing)

    corpus = options.work / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for folder in ("golden", "hostile"):
        for path in (ROOT / "tests" / folder).glob("*.prc"):
            (corpus / path.stem).write_bytes(path.read_bytes())
    path = options.work / "stats.json"
    stats = json.loads(path.read_text()) if path.exists() else {}
    stats = {"inputs": 0, "whole": 0, "partial": 0, "refused": 0, "slowest": 0.0, "seconds": 0, **stats}
    began, before = time.process_time(), stats["seconds"]

    def test(data: bytes) -> None:
        start = time.process_time()
        stats[check(data)] += 1
        took = time.process_time() - start
        stats["inputs"] += 1
        assert took < LIMIT, f"{took:.0f} s for one input"
        if took > stats["slowest"]:
            stats["slowest"] = took
            (options.work / "slowest.prc").write_bytes(data)
        if stats["inputs"] % 10 == 0:
            stats["seconds"] = before + round(time.process_time() - began)
            stats["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
            path.write_text(json.dumps(stats, indent=1) + "\n")

    def mutator(data: bytes, max_size: int, seed: int) -> bytes:
        def scramble(part: bytes) -> bytes:
            return bytes(atheris.Mutate(part, max(len(part) + 8, 8)))

        return mutate(data, random.Random(seed), scramble)[:max_size]

    arguments = [
        sys.argv[0],
        f"-max_total_time={options.seconds}",
        "-max_len=8192",
        "-timeout=3600",
        "-rss_limit_mb=4096",
    ]
    arguments += [f"-artifact_prefix={options.work}/", "-print_final_stats=1", str(corpus)]
    atheris.Setup(arguments, test, custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
