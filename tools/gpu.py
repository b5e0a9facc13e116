"""Try and measure all that runs on an NVIDIA GPU, and write what was found as JSON.

    python -m tools.gpu [--out build/gpu.json] [--picture PHOTO] [--efforts 1 2 3 4 5 6 7 8 9]

Three parts: the tests that use a CUDA device where there is one (symbols identical, pixels within one); products with a
basis that is drawn on the fly, against a matrix that is stored and against the device's arithmetic; fits at each
effort, whose files are decoded by the portable decoder. The file is written after every part and every effort. Where no
GPU can be used, one line says so and the exit status is 1; it is 1 as well where a test fails.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import prancimg
from benchmarks.speed.__main__ import basis
from prancimg.images import metrics

ROOT = Path(__file__).parents[1]
TESTS = ("tests/pranc", "tests/network/test_basis.py", "tests/test_machines.py", "tests/fit/test_ops.py")
SIZE = 768, 512
SIDE = 4096
"""Of the square matrices whose product tells how fast the device multiplies and adds."""
Row = dict[str, Any]


def tested(folder: Path) -> Row:
    """The tests' exit status, and how many passed, failed and were left out."""
    report = folder / "gpu-tests.xml"
    command = [sys.executable, "-m", "pytest", "-n0", f"--junitxml={report}", *TESTS]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    suite = ElementTree.parse(report).getroot()[0]
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    return {"status": status, **counts, "seconds": float(suite.get("time", 0))}


def multiplications(device: torch.device) -> float:
    """How many float32 multiplications and additions in pairs a second, by a product of matrices."""
    a = torch.randn(SIDE, SIDE, device=device)

    def product() -> float:
        began = time.perf_counter()
        (a @ a)[0, 0].item()  # waits for the device
        return time.perf_counter() - began

    return SIDE**3 / min(product() for _ in range(4))


def products(device: torch.device, parameters: int, coefficients: int) -> Row:
    """Seconds of B α, of a stored matrix, and of as many multiplications alone, which nothing can be faster than."""
    least = parameters * coefficients / multiplications(device)
    rows = basis(parameters, coefficients)
    return {
        "parameters": parameters,
        "coefficients": coefficients,
        "arithmetic alone": least,
        "rows": [{**row, "to arithmetic alone": row["seconds"] / least} for row in rows],
    }


def fitted(picture: np.ndarray, effort: int, device: str) -> Row:
    """A fit to half a bit a pixel, and how far the file is from the picture as NumPy decodes it."""
    began = time.perf_counter()
    data = prancimg.encode(picture, bpp=0.5, effort=effort, device=device, tune="psnr", lossless=False)
    seconds = time.perf_counter() - began
    psnr = metrics.measure(picture, np.asarray(prancimg.decode(data)))["psnr"]
    return {"effort": effort, "device": device, "seconds": seconds, "bytes": len(data), "psnr": psnr}


def sample() -> np.ndarray:
    """The photograph that the measurements take unless another is named."""
    from skimage import data

    return np.asarray(Image.fromarray(data.astronaut()).resize(SIZE, Image.Resampling.LANCZOS))


def measure(out: Path, picture: np.ndarray, efforts: list[int], device: str) -> int:
    """All parts on a device; the exit status."""
    out.parent.mkdir(parents=True, exist_ok=True)
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor()
    found: Row = {"device": name, "torch": torch.__version__, "tests": tested(out.parent)}

    def keep() -> None:
        out.write_text(json.dumps(found, indent=1) + "\n")

    keep()
    found["basis"] = [products(torch.device(device), *size) for size in ((27_000, 1_000), (270_000, 10_000))]
    keep()
    fitted(picture[:64, :64], 1, device)  # loads and compiles what is needed
    found["fits"] = []
    for effort in efforts:
        found["fits"].append(fitted(picture, effort, device))
        print(found["fits"][-1], flush=True)
        keep()
    print(f"{out}: tests {'passed' if found['tests']['status'] == 0 else 'FAILED'}, {len(efforts)} fits")
    return int(found["tests"]["status"] != 0)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(prog="python -m tools.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu.json")
    parser.add_argument("--picture", type=Path, help="a photograph to fit instead of a sample")
    parser.add_argument("--efforts", type=int, nargs="+", default=list(range(1, 10)), choices=range(1, 10))
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("no NVIDIA GPU that torch can use is here: nothing was tried", file=sys.stderr)
        return 1
    picture = np.asarray(Image.open(options.picture).convert("RGB")) if options.picture else sample()
    return measure(options.out, picture, options.efforts, "cuda")


if __name__ == "__main__":
    sys.exit(main())
