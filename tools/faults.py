"""Kill encoders at random moments, and see that nothing half-written is left.

python -m tools.faults [--kills 50] [--out docs/faults.json]

Every encoder is to replace an existing file. After it has been killed, the folder must hold the input and, under the
output's name, either all of the old file or all of the new one. Other files are counted as stray: between the two calls
of the system that give a finished file first a name and then its own, a kill leaves it under the first. A second series
kills a process that does nothing but write, so that many kills hit the moment of writing.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from PIL import Image

OLD = b"the old file"
WRITER = """
import sys
from prancimg.format.files import write
print(flush=True)
while True:
    write("out.prc", b"a" * 3_000_000)
    write("out.prc", b"b" * 3_000_000)
"""


def encoder() -> list[str]:
    """The command that encodes ``in.png`` to ``out.prc``."""
    return [sys.executable, "-m", "prancimg", "encode", "in.png", "out.prc", "--size", "300", "-e1", "--quiet"]


def prepare(folder: Path) -> None:
    """An input, and an output that exists."""
    Image.radial_gradient("L").resize((32, 32)).save(folder / "in.png")
    (folder / "out.prc").write_bytes(OLD)


def kill(command: list[str], folder: Path, after: float) -> bool:
    """Start a command and kill it ``after`` some seconds; whether it was still running."""
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        return process.returncode == -signal.SIGKILL


def look(folder: Path, new: set[bytes]) -> dict[str, int]:
    """What a kill left: an output that is neither the old one nor new and whole, and files that nobody asked for."""
    stray = [path for path in folder.iterdir() if path.name not in {"in.png", "out.prc"}]
    for path in stray:
        path.unlink()
    return {"not whole": (folder / "out.prc").read_bytes() not in {OLD} | new, "stray": len(stray)}


def kill_encoders(folder: Path, kills: int, choose: random.Random) -> Counter[str]:
    """Kill encoders at moments spread over a whole run and a little beyond."""
    prepare(folder)
    began = time.monotonic()
    subprocess.run(encoder(), cwd=folder, check=True)
    whole, new = time.monotonic() - began, (folder / "out.prc").read_bytes()
    count = Counter(killed=0)
    while count["killed"] < kills:
        (folder / "out.prc").write_bytes(OLD)
        killed = kill(encoder(), folder, choose.uniform(0, 1.05 * whole))
        count.update({"killed" if killed else "finished first": 1, **look(folder, {new})})
        print(dict(count), flush=True)
    return count


def kill_writers(folder: Path, kills: int, choose: random.Random) -> Counter[str]:
    """Kill processes that write all the time."""
    prepare(folder)
    count = Counter(killed=0)
    for _ in range(kills):
        command = [sys.executable, "-c", WRITER]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()  # it has started to write
            time.sleep(choose.uniform(0, 0.05))
            process.kill()
        count.update({"killed": 1, **look(folder, {b"a" * 3_000_000, b"b" * 3_000_000})})
    return count


def main() -> None:
    """Run both series."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    choose = random.Random(0)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        result = {
            "encoders": kill_encoders(Path(one), options.kills, choose),
            "writers": kill_writers(Path(two), options.kills, choose),
        }
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(any(series["not whole"] for series in result.values()))


if __name__ == "__main__":
    main()
