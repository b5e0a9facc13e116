"""Whatever happens while a file is written, it is whole or it is the old one, and one line says what happened."""

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import prancimg
from prancimg import PrancImgError
from prancimg.apps.cli import main
from prancimg.fit import field_encoder
from prancimg.format import files
from tools.faults import OLD, encoder, kill_encoders, kill_writers, prepare
from tools.make_golden import FOLDER

FILE = (FOLDER / "field-row.prc").read_bytes()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in.prc").write_bytes(FILE)
    (tmp_path / "out.png").write_bytes(OLD)
    return tmp_path


def untouched(folder) -> bool:
    return {path.name for path in folder.iterdir()} == {"in.prc", "out.png"} and (
        folder / "out.png"
    ).read_bytes() == OLD


def test_killed_writers_leave_the_old_file_or_a_new_one(tmp_path):
    count = kill_writers(tmp_path, 3, random.Random(1))
    assert (count["killed"], count["not whole"]) == (3, 0)


def test_killed_encoders_leave_the_old_file_or_the_new_one(tmp_path):
    count = kill_encoders(tmp_path, 1, random.Random(1))
    assert (count["killed"], count["not whole"]) == (1, 0)


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="the system has no files without a name")
@pytest.mark.parametrize("call", ["fdopen", "fsync", "chmod", "link", "replace"])
def test_a_file_has_no_name_until_it_is_whole(tmp_path, call):
    """A process that dies before any of these calls leaves nothing, but a whole file before the last."""
    (tmp_path / "out").write_bytes(OLD)
    die = f"import os; os.{call} = lambda *_, **__: os._exit(9)"
    code = f"{die}\nfrom prancimg.format.files import write; write('out', b'new')"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 9
    assert (tmp_path / "out").read_bytes() == OLD
    stray = [path.read_bytes() for path in tmp_path.iterdir() if path.name != "out"]
    assert stray == ([b"new"] if call == "replace" else [])


@pytest.mark.parametrize("nameless", [True, False], ids=["nameless", "named"])
@pytest.mark.parametrize("fault", ["write", "fsync", "replace", "interrupt"])
def test_a_write_that_fails_leaves_nothing(folder, monkeypatch, capsys, nameless, fault):
    def fail(*_, **__):
        raise KeyboardInterrupt if fault == "interrupt" else OSError(28, "No space left on device")

    if not nameless:
        monkeypatch.delattr(os, "O_TMPFILE")
    if fault == "write":
        monkeypatch.setattr(os, "fdopen", lambda *_: FullFile(_[0]))
    else:
        monkeypatch.setattr(os, "fsync" if fault == "interrupt" else fault, fail)
    status = main(["decode", str(folder / "in.prc"), str(folder / "out.png")])
    said = capsys.readouterr().err
    assert untouched(folder) and said.count("\n") == 1
    if fault == "interrupt":
        assert (status, said) == (130, "prancimg: interrupted\n")
    else:
        assert (status, said) == (1, f"prancimg: {folder / 'out.png'}: No space left on device\n")


class FullFile:
    """A file on a full disk."""

    def __init__(self, handle):
        self.handle = handle

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.handle)

    def write(self, _):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("nameless", [True, False], ids=["nameless", "named"])
def test_files_are_written_with_and_without_a_name(folder, monkeypatch, nameless):
    if not nameless:
        monkeypatch.delattr(os, "O_TMPFILE")
    assert main(["decode", str(folder / "in.prc"), str(folder / "out.png")]) == 0
    assert main(["decode", str(folder / "in.prc"), str(folder / "new.png")]) == 0
    assert (folder / "new.png").read_bytes() == (folder / "out.png").read_bytes() != OLD
    assert len(list(folder.iterdir())) == 3


def test_a_limit_on_file_sizes_is_a_full_disk(folder):
    """As ulimit -f sets it; a real failure of the system's write."""
    with (folder / "in.prc").open("wb") as file:
        file.write((FOLDER / "field-escapes.prc").read_bytes())
    code = f"import sys, resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200, {resource.RLIM_INFINITY}))"
    run = f"{code}\nfrom prancimg.apps.cli import main; sys.exit(main(['decode', 'in.prc', 'out.png']))"
    done = subprocess.run([sys.executable, "-c", run], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "prancimg: out.png: File too large\n") and untouched(folder)


def test_a_folder_that_cannot_be_written_to(folder, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    assert main(["decode", str(folder / "in.prc"), str(folder / "out.png")]) == 1
    assert "Permission denied" in capsys.readouterr().err and untouched(folder)


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_a_folder_is_no_output(folder, monkeypatch, capsys, command):
    """And that is noticed before the work."""
    (folder / "there.png").mkdir()
    monkeypatch.setattr(files, "_opened", None)
    assert main([command, str(folder / "in.prc"), str(folder / "there.png")]) == 1
    assert capsys.readouterr().err == f"prancimg: {folder / 'there.png'}: Is a directory\n"


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_a_protected_file_is_not_replaced(folder, monkeypatch, capsys, command):
    (folder / "out.png").chmod(0o444)
    if os.access(folder / "out.png", os.W_OK):
        pytest.skip("root may write everywhere")
    monkeypatch.setattr(files, "_opened", None)
    assert main([command, str(folder / "in.prc"), str(folder / "out.png")]) == 1
    assert capsys.readouterr().err == f"prancimg: {folder / 'out.png'}: Permission denied\n" and untouched(folder)


def test_new_files_have_the_mode_that_the_umask_leaves_and_old_ones_keep_theirs(tmp_path, monkeypatch):
    for mask in (0o22, 0o27, 0o77):
        before = os.umask(mask)
        try:
            monkeypatch.setattr(os, "umask", None)  # it is the whole process's: other threads would see it change
            for name in ("new", "old"):
                path = tmp_path / f"{name} {mask}"
                if name == "old":
                    path.touch(0o604)
                    path.chmod(0o604)
                files.write(str(path), b"x")
                assert path.stat().st_mode & 0o777 == (0o604 if name == "old" else 0o666 & ~mask)
        finally:
            monkeypatch.undo()
            os.umask(before)


def test_standard_input_is_no_file_of_that_name(folder, monkeypatch):
    monkeypatch.chdir(folder)
    files.check_no_source("./-", "-")
    with pytest.raises(PrancImgError, match="take the place"):
        files.check_no_source("./a", "a")


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_the_output_may_not_be_the_input(folder, capsys, command):
    (folder / "link").symlink_to("in.prc")
    for output in ("in.prc", "link", "../" + folder.name + "/in.prc"):
        assert main([command, str(folder / "in.prc"), str(folder / output)]) == 1
    assert (folder / "in.prc").read_bytes() == FILE
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3 and all("would take the place of" in line for line in said)


def test_an_interrupt_ends_in_one_line(tmp_path):
    prepare(tmp_path)
    with subprocess.Popen(
        [*encoder(), "-e9"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored by what runs in the background
    ) as process:
        while not loaded(process.pid):
            time.sleep(0.05)
        start = busy(process.pid)
        while busy(process.pid) < start + 1.5:  # until it is fitting
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
    assert (process.returncode, said) == (130, "prancimg: interrupted\n")
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.prc")} == {"out.prc": OLD}


def loaded(process: int) -> bool:
    """Whether the process has got as far as loading the compiler of its kernels."""
    return "llvmlite" in Path(f"/proc/{process}/maps").read_text()


def busy(process: int) -> float:
    """Seconds of processor time of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_writers_of_one_file_take_turns(tmp_path):
    """Whole files only, whoever is last."""
    path, stop = tmp_path / "out", threading.Event()
    contents = {bytes([i]) * 200_000 for i in range(4)}
    files.write(str(path), min(contents))

    def write(data: bytes) -> None:
        while not stop.is_set():
            files.write(str(path), data)

    threads = [threading.Thread(target=write, args=(data,)) for data in contents]
    for thread in threads:
        thread.start()
    seen = {path.read_bytes() for _ in range(300)}
    stop.set()
    for thread in threads:
        thread.join()
    assert seen <= contents and [each.name for each in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("what", ["field", "alpha"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_fit_that_diverges_is_never_written(monkeypatch, what, value):
    if what == "field":
        fit, model = field_encoder.fit_field, "field"
        monkeypatch.setattr(
            field_encoder, "fit_field", lambda *a, **k: spoiled(fit(*a, **k), y=np.full(1, value, np.float32))
        )
    else:
        from prancimg.fit import siren_encoder

        fit, model = siren_encoder.fit_siren, "siren"
        monkeypatch.setattr(
            siren_encoder, "fit_siren", lambda *a, **k: spoiled(fit(*a, **k), alpha=[np.full(1, value)])
        )
    with pytest.raises(PrancImgError, match="diverged"):
        prancimg.encode(np.zeros((8, 8, 3), np.uint8), size=150, effort=1, model=model, lossless=False)


def spoiled(fitted, **change):
    return replace(fitted, **change)
