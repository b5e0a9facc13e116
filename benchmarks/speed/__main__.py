"""How long things take, as ratios to something known that is measured in the same run.

    python -m benchmarks.speed --picture PHOTO --out build/speed.json                 # everything but growth and basis
    python -m benchmarks.speed step decode --picture PHOTO --out build/speed.json     # some of it; the rest stays
    python -m benchmarks.speed encode --efforts 1 2 3 4 5 --lmbda 1e-3 --picture PHOTO --out build/speed.json
    python -m benchmarks.speed growth --megapixels 0.1 0.4 1.6 6.4 25 --picture PHOTO --out build/speed.json
    python -m benchmarks.speed layers --effort 2 --picture PHOTO --out build/speed.json
    python -m benchmarks.speed basis --out build/speed.json
    python -m benchmarks.speed training --coefficients 1000 --out build/speed.json    # of LeNet; needs no picture
    python -m benchmarks.speed --plot docs/effort.svg --out build/speed.json          # draws what is there

``step``: a step of the fit's loss, compiled and in plain torch. ``decode``: whole processes, and the parts of one.
``encode``: whole processes by effort, with their loss mse + λ · bpp. ``growth``: processes by picture size, with
their peak memory; sizes come from the picture, tiled. ``layers``: processes that encode on two threads of TBB's or of
OpenMP's, alone and beside as many busy processes as there are cores. ``basis``: products with a basis against a
stored matrix.
``training``: whole steps of a classifier, with a basis made at every step against a stored float32 matrix.

Seconds are those of the processor, the least of several runs where there are several, ``wall`` those of the clock; both
suffer on a busy machine, ratios less so. Where a GPU is measured, seconds are the clock's.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PYTHON = [sys.executable]
REFERENCE = "from PIL import Image; Image.open({!r}).convert('RGB').save({!r}, quality={})"
Row = dict[str, Any]


def least(run: Callable[[], object], times: int = 5) -> float:
    """The least processor time of some runs, after one to warm up."""
    run()
    taken = []
    for _ in range(times):
        began = time.process_time()
        run()
        taken.append(time.process_time() - began)
    return min(taken)


def process(command: list[str], times: int = 3) -> Row:
    """Least processor and clock seconds and peak MiB of a whole process."""
    rows = []
    for _ in range(times):
        began = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if status:
            raise SystemExit(f"failed: {' '.join(command)}")
        wall = time.perf_counter() - began
        rows.append({"seconds": used.ru_utime + used.ru_stime, "wall": wall, "mebibytes": used.ru_maxrss / 1024})
    return {key: min(row[key] for row in rows) for key in rows[0]}


def step(picture: np.ndarray) -> list[Row]:
    """A step's loss and gradients, and its parts."""
    import torch

    from prancimg.decoding.decoder import Model
    from prancimg.fit.loss import RateDistortion, initial_grids, noisy_soft_round, to_planes
    from prancimg.fit.networks import Networks
    from prancimg.fit.ops import backend
    from prancimg.fit.ops.rounding import squash
    from prancimg.fit.setup import Setup, relative_rate
    from prancimg.network.field import grid_step

    header = Setup().header(picture, 1e-3, (0, 2))
    objective = RateDistortion(to_planes(picture, torch.device("cpu")), header.pyramid)
    weights = Networks(Model.of(header), header.tensors, torch.device("cpu")).theta0
    with torch.no_grad():
        y = initial_grids(objective, weights, header).requires_grad_()
    generator, quantiser, r = torch.Generator().manual_seed(0), grid_step(header.step), relative_rate(header.rate)

    def bits(q: Any) -> Any:
        return objective.bits(q, squash(q), weights, r)

    def whole() -> None:
        q = noisy_soft_round(y, 0.3, 0.2, generator)
        (objective.distortion(q, weights, quantiser, r) + 1e-9 * bits(q)).backward()
        y.grad = None

    parts = {
        "soft rounding": lambda: noisy_soft_round(y, 0.3, 0.2, generator),
        "picture error, forward and back": lambda: objective.distortion(y, weights, quantiser, r).backward(),
        "bits, forward and back": lambda: bits(y).backward(),
    }
    rows = [{"what": "step, compiled", "seconds": least(whole)}]
    rows += [{"what": f"  {name}", "seconds": least(run)} for name, run in parts.items()]
    compiled, backend.compiled = backend.compiled, lambda x: False
    rows.append({"what": "step, plain torch (reference)", "seconds": least(whole, 2)})
    backend.compiled = compiled
    return ratios(rows)


def decode(picture: np.ndarray, folder: Path, bpps: list[float]) -> list[Row]:
    """Processes that decode and tell, beside Pillow's with AVIF; and where a decoder's time goes."""
    from prancimg.decoding import decoder
    from prancimg.format import bitstream
    from prancimg.format.extras import Metadata
    from prancimg.images.save import save_samples
    from prancimg.network.field import grid_step
    from prancimg.network.siren import render_field

    source, avif, png = (str(folder / name) for name in ("source.png", "a.avif", "out.png"))
    Image.fromarray(picture).save(source)
    Image.fromarray(picture).save(avif, quality=50)
    rows: list[Row] = []
    for bpp in bpps:
        prc = str(folder / f"{bpp}.prc")
        made = [*PYTHON, "-m", "prancimg", "encode", source, prc, "--bpp", str(bpp), "--effort", "1", "--quiet"]
        subprocess.run(made, check=True)
        rows.append({"what": f"decode, {bpp} bpp", **process([*PYTHON, "-m", "prancimg", "decode", prc, png], 5)})
        header, segments = bitstream.read_header(Path(prc).read_bytes())
        model = decoder.Model.of(header)
        theta = model.parameters(decoder.read_coefficients(header, segments), header.tensors)
        q = decoder.read_field(header, segments, theta)
        size = grid_step(header.step)

        def paint(model: Any = model, theta: Any = theta, header: Any = header, q: Any = q, size: Any = size) -> Any:
            return render_field(model.siren, theta, header.pyramid, q, size, header.rate)

        def symbols(header: Any = header, segments: Any = segments, theta: Any = theta) -> Any:
            return decoder.read_field(header, segments, theta)

        rows.append({"what": "  coefficients of the field", "seconds": least(symbols)})
        rows.append({"what": "  rendering", "seconds": least(paint)})
        painted = paint()
        rows.append({"what": "  PNG", "seconds": least(lambda p=painted: save_samples(p, Metadata(), "PNG"))})
        rows.append({"what": "  info", **process([*PYTHON, "-m", "prancimg", "info", prc], 5)})
    rows.append({"what": "import numpy, PIL, constriction", **process([*PYTHON, "-c", _IMPORTS], 5)})
    rows.append({"what": "decode AVIF by Pillow (reference)", **process([*PYTHON, "-c", _save(avif, png)], 5)})
    return ratios(rows)


_IMPORTS = "import numpy, PIL.Image, constriction"


def _save(source: str, target: str, quality: int = 50) -> str:
    return REFERENCE.format(source, target, quality)


def encode(picture: np.ndarray, folder: Path, efforts: list[int], lmbda: float) -> list[Row]:
    """Processes that encode: each effort at the quality of a λ, and Pillow's formats at about its rate."""
    source = str(folder / "source.png")
    Image.fromarray(picture).save(source)
    quality, rows = -33 * (1.5 + math.log10(lmbda)), []
    bpp = 0.5
    for effort in efforts:
        prc = folder / f"{effort}.prc"
        made = ["-m", "prancimg", "encode", source, str(prc), "-q", str(quality), "--effort", str(effort), "--quiet"]
        taken = process([*PYTHON, *made], 1)
        rows.append({"what": f"effort {effort}", "effort": effort, **taken, **_quality(picture, prc, lmbda)})
        bpp = rows[-1]["bpp"]
    for kind in ("jpg", "webp", "avif"):
        best = min(range(5, 100, 5), key=lambda q, kind=kind: abs(_pillow(picture, folder, kind, q)["bpp"] - bpp))
        row = _pillow(picture, folder, kind, best)
        row |= process([*PYTHON, "-c", _save(source, str(folder / f"p.{kind}"), best)])
        row["loss"] = 10 ** (-row["psnr"] / 10) + lmbda * row["bpp"]
        rows.append({"what": f"{kind} by Pillow" + (" (reference)" if kind == "avif" else ""), **row})
    return ratios(rows)


def _pillow(picture: np.ndarray, folder: Path, kind: str, quality: int) -> Row:
    path = folder / f"p.{kind}"
    Image.fromarray(picture).save(path, quality=quality)
    return _measured(picture, np.asarray(Image.open(path).convert("RGB")), path)


def _quality(picture: np.ndarray, prc: Path, lmbda: float) -> Row:
    import prancimg

    row = _measured(picture, np.asarray(prancimg.decode(prc)), prc)
    return row | {"loss": 10 ** (-row["psnr"] / 10) + lmbda * row["bpp"]}


def _measured(picture: np.ndarray, decoded: np.ndarray, path: Path) -> Row:
    error = float(np.square(decoded.astype(np.float64) - picture).mean()) / 255**2
    return {"bpp": 8 * path.stat().st_size / picture[..., 0].size, "psnr": -10 * math.log10(max(error, 1e-12))}


def growth(picture: np.ndarray, folder: Path, sizes: list[float], effort: int) -> list[Row]:
    """Processes that encode and decode pictures of more and more pixels: the picture, repeated and cut."""
    rows: list[Row] = []
    for megapixels in sizes:
        height = round(math.sqrt(megapixels * 1e6 / 1.5))
        width, source, prc = round(1.5 * height), str(folder / "big.png"), str(folder / "big.prc")
        times = (-(-height // picture.shape[0]), -(-width // picture.shape[1]), 1)
        Image.fromarray(np.tile(picture, times)[:height, :width]).save(source, compress_level=1)
        taken = process([*PYTHON, "-m", "prancimg", "encode", source, prc, "--effort", str(effort), "--quiet"], 1)
        rows.append({"what": f"encode {megapixels:g} MP", "megapixels": megapixels, **taken})
        taken = process([*PYTHON, "-m", "prancimg", "decode", prc, str(folder / "big.ppm")], 1)
        rows.append({"what": f"decode {megapixels:g} MP", "megapixels": megapixels, **taken})
    first = {"encode": rows[0]["seconds"] / sizes[0], "decode": rows[1]["seconds"] / sizes[0]}
    for row in rows:
        row["ratio"] = row["seconds"] / row["megapixels"] / first[row["what"].split()[0]]
    return rows


def layers(picture: np.ndarray, folder: Path, effort: int) -> list[Row]:
    """Processes that encode on two threads of TBB's or of OpenMP's, alone and beside others."""
    source, rows = str(folder / "source.png"), list[Row]()
    Image.fromarray(picture).save(source)
    made = [*PYTHON, "-m", "prancimg", "encode", source, str(folder / "a.prc"), "--effort", str(effort), "--quiet"]
    for others in (0, os.cpu_count() or 1):
        busy = [subprocess.Popen([*PYTHON, "-c", "while True: pass"]) for _ in range(others)]
        try:
            for layer in ("omp", "tbb"):
                chosen = ["env", f"NUMBA_THREADING_LAYER={layer}", "NUMBA_NUM_THREADS=2"]
                what = f"{layer}, beside {others} busy processes" + " (reference)" * (layer == "omp" and others > 0)
                rows.append({"what": what, **process([*chosen, *made], 2)})
        finally:
            for each in busy:
                each.kill()
                each.wait()
    return ratios(rows)


def basis(parameters: int, coefficients: int) -> list[Row]:
    """B α by drawing B against reading a stored float32 matrix, whose product is scaled up from 1,000 of its rows."""
    import torch

    from prancimg.format.layout import Kind
    from prancimg.network.basis import Block
    from prancimg.pranc.products import implementation

    device = "cuda" if torch.cuda.is_available() else "cpu"

    def wait(x: torch.Tensor) -> torch.Tensor:
        if device == "cuda":
            torch.cuda.synchronize()
        return x

    timer = time.perf_counter if device == "cuda" else time.process_time

    def clock(run: Callable[[], object], times: int = 3) -> float:
        run()
        began = timer()
        for _ in range(times):
            run()
        return (timer() - began) / times

    a, rows = torch.randn(coefficients, device=device), min(1000, parameters)
    stored = torch.randn(rows, coefficients, device=device)
    took = clock(lambda: wait(stored @ a)) * parameters / rows
    found = [{"what": f"stored float32 matrix, {device} (reference)", "seconds": took}]
    for kind in (Kind.SIGN, Kind.POPCOUNT, Kind.HADAMARD):
        block = Block(0, parameters, kind)
        product = implementation(block, a).expand_block
        took = clock(lambda p=product, b=block: wait(p(1, 0, b, a)), 1)
        found.append({"what": f"{kind.name.lower()}, {device}, by {product.__module__}", "seconds": took})
    return ratios(found)


def training(coefficients: int, pictures: int = 128) -> list[Row]:
    """A step of Adam of LeNet on the CPU: all of B stored as float32, or made anew, or no basis."""
    import torch

    from benchmarks.cifar10.networks import lenet
    from prancimg.pranc import Pranc

    x, labels = torch.randn(pictures, 3, 32, 32), torch.randint(10, (pictures,))

    def timed(what: str, model: torch.nn.Module) -> Row:
        optimizer = torch.optim.Adam(model.parameters())

        def run() -> None:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), labels).backward()
            optimizer.step()

        return {"what": what, "seconds": least(run)}

    rows = [timed("no basis: all 62,006 weights", lenet(10))]
    for structure in ("dense", "tensor"):
        for basis, keep in (("sign", 1 << 40), ("sign", 0), ("hadamard", 0)):
            how = "stored" if keep else "made at every step"
            if structure == "dense" and keep:
                how += " (reference)"
            model = Pranc(lenet(10), k=coefficients, basis=basis, structure=structure, keep=keep)
            rows.append(timed(f"{basis}, {structure}, {how}", model))
    return ratios(rows)


def ratios(rows: list[Row]) -> list[Row]:
    """Add every row's ratio to the reference's seconds."""
    (reference,) = (row["seconds"] for row in rows if "(reference)" in row["what"])
    return [{**row, "ratio": row["seconds"] / reference} for row in rows]


def table(rows: list[Row]) -> str:
    """Rows to read."""
    keys = {"seconds": ".3f", "wall": ".3f", "ratio": ".2f", "mebibytes": ".0f", "bpp": ".4f", "psnr": ".2f"}
    keys |= {"loss": ".6f"}
    shown = [key for key in keys if any(key in row for row in rows)]
    lines = [f"{'':44}" + "".join(f"{key:>11}" for key in shown)]
    for row in rows:
        lines.append(f"{row['what']:44}" + "".join(f"{row[k]:>11{keys[k]}}" if k in row else 11 * " " for k in shown))
    return "\n".join(lines)


def plot(rows: list[Row], path: str) -> None:
    """Loss against seconds, by effort, and other encoders beside it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    ours = [row for row in rows if "effort" in row]
    axes.plot([row["seconds"] for row in ours], [1e6 * row["loss"] for row in ours], "o-", label="prancimg, by effort")
    for row in ours:
        axes.annotate(
            str(row["effort"]), (row["seconds"], 1e6 * row["loss"]), xytext=(4, 4), textcoords="offset points"
        )
    for row in rows:
        if "effort" not in row:
            axes.plot(row["seconds"], 1e6 * row["loss"], "x", label=row["what"].removesuffix(" (reference)"))
    axes.set(xscale="log", xlabel="processor seconds of the whole process", ylabel="(mse + λ · bpp) · 10⁶")
    axes.legend()
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None} if path.endswith(".svg") else None)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "pieces", nargs="*", help="step, decode, encode, growth, layers, basis, training (default: the first three)"
    )
    parser.add_argument("--picture", help="a photo")
    parser.add_argument("--out", required=True, help="JSON; pieces measured before stay in it")
    parser.add_argument("--bpp", type=float, nargs="+", default=[0.3, 1.0], help="of the files decoded")
    parser.add_argument("--efforts", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--lmbda", type=float, default=1e-3, help="of a bit a pixel in squared error, 0 to 1")
    parser.add_argument("--megapixels", type=float, nargs="+", default=[0.1, 0.4, 1.6, 6.4, 25])
    parser.add_argument("--effort", type=int, default=1, help="of growth and layers")
    parser.add_argument("--parameters", type=int, default=270_000)
    parser.add_argument("--coefficients", type=int, default=10_000)
    parser.add_argument("--plot", metavar="FILE", help="draw the efforts measured so far, and measure nothing")
    options = parser.parse_args()
    out = Path(options.out)
    results: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    if options.plot:
        plot(results["encode"]["rows"], options.plot)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for piece in options.pieces or ["step", "decode", "encode"]:
            picture = (
                np.zeros(0)
                if piece in ("basis", "training")
                else np.asarray(Image.open(options.picture).convert("RGB"))
            )
            measure = {
                "step": lambda p: step(p),
                "decode": lambda p: decode(p, folder, options.bpp),
                "encode": lambda p: encode(p, folder, options.efforts, options.lmbda),
                "growth": lambda p: growth(p, folder, options.megapixels, options.effort),
                "layers": lambda p: layers(p, folder, options.effort),
                "basis": lambda p: basis(options.parameters, options.coefficients),
                "training": lambda p: training(options.coefficients),
            }[piece]
            load = os.getloadavg()[0]
            rows = measure(picture)
            results[piece] = {"load before": load, "threads": os.environ.get("OMP_NUM_THREADS", "all"), "rows": rows}
            print(f"{piece} (load before: {load:.1f})\n{table(rows)}\n", flush=True)
            out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
