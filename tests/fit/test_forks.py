"""Processes that are forked or spawned after an encode, and threads: they encode, or say why not, and never hang."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

forking = pytest.mark.skipif(sys.platform != "linux", reason="forks, and what GNU's OpenMP makes of them")

BEGIN = """
import faulthandler, multiprocessing, os, signal, threading, time
import numpy as np
import prancimg

faulthandler.dump_traceback_later(500, exit=True)  # the first encode of all may have to compile
PICTURE = (np.indices((24, 32)).sum(0)[..., None] * [4, 3, 2]).astype(np.uint8)

def encode(model="field"):
    return prancimg.encode(PICTURE, effort=1, bpp=2, model=model, lossless=False)

def in_a_pool(method, models=("field", "field")):
    with multiprocessing.get_context(method).Pool(len(models)) as pool:
        return pool.map_async(encode, models).get(timeout=60)

def in_threads(count):
    made = []
    threads = [threading.Thread(target=lambda: made.append(encode())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return made

def in_a_child(generations=1):
    "What a child says, or its child."
    read, write = os.pipe()
    if not os.fork():
        signal.alarm(60)
        try:
            said = in_a_child(generations - 1) if generations > 1 else str(len(encode()))
        except prancimg.PrancImgError as error:
            said = str(error)
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    os.wait()
    with open(read) as pipe:
        return pipe.read()

if __name__ == "__main__":
"""


def run(code: str, folder: Path, layer: str = "default", count: int = 2) -> None:
    """A program that has so many threads of each kind, of one of Numba's layers; it ends well, and by itself."""
    (folder / "program.py").write_text(BEGIN + "".join(f"    {line}\n" for line in code.strip().splitlines()))
    settings = {"NUMBA_NUM_THREADS": str(count), "OMP_NUM_THREADS": str(count), "NUMBA_THREADING_LAYER": layer}
    settings["PYTHONPATH"] = str(ROOT)
    program = [sys.executable, "program.py"]
    done = subprocess.run(program, cwd=folder, env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def has_tbb() -> bool:
    try:
        return bool(distribution("tbb"))
    except PackageNotFoundError:
        return False


@forking
@pytest.mark.skipif(not has_tbb(), reason="TBB is not to be had for this machine")
def test_processes_and_threads_make_the_same_bytes(tmp_path):
    code = """
import numba, torch
torch.set_num_threads(1)  # two wait for each other on a busy machine
field, siren = encode(), encode("siren")
assert numba.threading_layer() == "tbb"
torch.set_num_threads(2)
torch.ones(1 << 20).exp()  # in torch's own threads, which a child does not have
assert in_a_pool("fork", ("siren", "field")) == [siren, field]
assert in_a_pool("spawn", ("field",)) == [field]
assert in_threads(3) == 3 * [field]
assert in_a_pool("fork") == 2 * [field]
"""
    run(code, tmp_path)


@forking
def test_a_fork_beside_a_thread_that_encodes_is_refused_where_it_might_wait_for_its_locks(tmp_path):
    code = """
begun, go_on = threading.Event(), threading.Event()
def wait(_):
    begun.set()
    go_on.wait(60)
thread = threading.Thread(target=lambda: prancimg.encode(PICTURE, effort=1, bpp=2, progress=wait, lossless=False))
thread.start()
begun.wait(60)
said = in_a_child()
go_on.set()
thread.join()
assert "while another thread encoded" in said and "'spawn'" in said, said
assert encode() == encode()
"""
    run(code, tmp_path)


@forking
def test_without_tbb_a_child_says_what_it_lacks_and_so_does_its_own_child(tmp_path):
    code = """
encode()
for generations in (1, 2):
    said = in_a_child(generations)
    assert "OpenMP's threads are lost" in said and "install tbb" in said, said
"""
    run(code, tmp_path, "omp", 1)


def test_with_numbas_own_layer_threads_take_turns(tmp_path):
    run("made = in_threads(3)\nassert len(made) == 3 and len(set(made)) == 1", tmp_path, "workqueue")
