"""Decode the golden files under the oldest and the newest versions of what decoding needs, and under other kernels.

python -m tools.matrix [--out docs/matrix.json] [--work build/matrix]

Every set of versions gets a virtual environment of its own, filled from the registry. The oldest versions are the lower
bounds in pyproject.toml. Within one environment, NumPy is told to do without some of the processor's instructions, and
OpenBLAS to use the kernels of another processor or more threads: the same differences that other machines make.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

from tests.golden.report import totals

ROOT = Path(__file__).parents[1]
NEEDED = ("numpy", "pillow", "constriction")
AVX512 = "AVX512F AVX512CD AVX512_KNL AVX512_KNM AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR X86_V4"
"""NumPy's names for what it has kernels for, those up to 2.3 and those since."""
AVX2 = "AVX2 FMA3 X86_V3"
OLDER = {"SSSE3", "SSE41", "POPCNT", "SSE42", "X86_V2", "AVX", "F16C", "XOP", "FMA4"}
MACHINES: dict[str, dict[str, str]] = {
    "as it is": {},
    "NumPy without AVX-512": {"NPY_DISABLE_CPU_FEATURES": AVX512},
    "NumPy without FMA and AVX2": {"NPY_DISABLE_CPU_FEATURES": f"{AVX512} {AVX2}"},
    "OpenBLAS for Nehalem": {"OPENBLAS_CORETYPE": "Nehalem"},
    "OpenBLAS for Sandy Bridge": {"OPENBLAS_CORETYPE": "Sandybridge"},
    "OpenBLAS for Haswell": {"OPENBLAS_CORETYPE": "Haswell"},
    "OpenBLAS for Zen": {"OPENBLAS_CORETYPE": "Zen"},
    "two threads": {"OPENBLAS_NUM_THREADS": "2"},
}
"""Environment variables that make another machine of this one, as far as they can."""


def disobeyed(machine: str, kernels: list[str]) -> set[str]:
    """The kernels that NumPy still uses on a machine that should be without them, by whatever names it has for them."""
    if "NPY_DISABLE_CPU_FEATURES" not in MACHINES[machine] or platform.machine() not in ("x86_64", "AMD64"):
        return set()
    return set(kernels) - OLDER - (set() if AVX2 in MACHINES[machine]["NPY_DISABLE_CPU_FEATURES"] else {*AVX2.split()})


def bounds() -> dict[str, str]:
    """The lower bounds of what decoding needs."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    found = {match[1]: match[2] for each in dependencies if (match := re.match(r"(\w+)>=([\d.]+)", each))}
    return {name: found[name] for name in NEEDED}


def environment(folder: Path, requirements: list[str]) -> Path:
    """The Python of a virtual environment with some packages."""
    if not (folder / "bin" / "python").exists():
        venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    subprocess.run(command, check=True)
    return python


def decode(python: Path, machine: dict[str, str]) -> dict:  # type: ignore[type-arg]
    """The report of one environment on one machine."""
    extra = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OPENBLAS_NUM_THREADS": "1", **machine}
    command = [python, "-m", "tests.golden.report"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | extra, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def main() -> None:
    """All versions as the machine is, and the newest ones on all machines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "matrix")
    options = parser.parse_args()
    oldest = {name: f"{name}=={version}" for name, version in bounds().items()}
    capped = {name: f"{name}>={version}" for name, version in bounds().items()} | {"constriction": "constriction<0.6"}
    sets = {"oldest": oldest, "newest": capped}
    sets |= {f"oldest {name}": capped | {name: oldest[name]} for name in NEEDED}
    rows = []
    for label, requirements in sets.items():
        python = environment(options.work / label.replace(" ", "-"), list(requirements.values()))
        for machine, variables in MACHINES.items():
            if machine != "as it is" and label not in ("oldest", "newest"):
                continue
            found = decode(python, variables)
            if still := disobeyed(machine, found["kernels"]):
                sys.exit(f"{label}, {machine}: NumPy still uses {still}")
            rows.append({"versions": {name: found[name] for name in ("python", *NEEDED)}, "machine": machine})
            rows[-1] |= totals(found)
            print(label, json.dumps(rows[-1]), flush=True)
    if options.out:
        options.out.write_text("[\n" + ",\n".join(" " + json.dumps(row) for row in rows) + "\n]\n")
    sys.exit(any(row["wrong integers"] or row["by more"] for row in rows))


if __name__ == "__main__":
    main()
