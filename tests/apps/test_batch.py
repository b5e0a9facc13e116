"""Many files at once: each arrives once, whatever happens to the others or to who works on them."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

import prancimg
from prancimg.apps import batch
from prancimg.apps.cli import main
from prancimg.errors import PrancImgError
from prancimg.format import bitstream

TARGET, OPTIONS = {"quality": 20}, {"effort": 1}


@pytest.fixture(scope="module")
def photos(tmp_path_factory, photo) -> Path:
    """Six pictures, two of them alike in name, one below, one broken; and a file that is none."""
    folder = tmp_path_factory.mktemp("in") / "my photos"
    (folder / "süd").mkdir(parents=True)
    small = Image.fromarray(photo).resize((24, 16))
    for i, name in enumerate(("a.png", "a.jpg", "B 1.webp", "süd/c.png", "süd/grau.png")):
        small.rotate(180 * (i % 2)).convert("L" if "grau" in name else "RGB").save(folder / name)
    (folder / "broken.png").write_bytes(b"nothing")
    (folder / "notes.txt").write_text("no image")
    return folder


NAMES = {"a.png.prc", "a.jpg.prc", "B 1.prc", "süd/c.prc", "süd/grau.prc"}


def made(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder).as_posix()): path.read_bytes() for path in folder.rglob("*.prc")}


@pytest.fixture(scope="module")
def alone(photos, tmp_path_factory) -> dict[str, bytes]:
    """What this process makes of each by itself."""
    out = tmp_path_factory.mktemp("alone")
    tasks = batch.plan(str(photos), out, TARGET, OPTIONS).tasks
    files = {t.output.relative_to(out).as_posix(): batch.encode_bytes(t.source.read_bytes(), *t.orders) for t in tasks}
    assert files.keys() == NAMES | {"broken.prc"} and "not an image" in files["broken.prc"].error
    return {name: encoded.data for name, encoded in files.items() if not encoded.error}


def test_places_names_and_what_is_no_image(photos, tmp_path):
    plan = batch.plan(str(photos), tmp_path, TARGET, OPTIONS)
    outputs = {task.output.relative_to(tmp_path).as_posix() for task in plan.tasks}
    assert outputs == NAMES | {"broken.prc"} and not plan.kept
    pattern = batch.plan(str(photos / "**" / "*.png"), tmp_path, TARGET, OPTIONS)
    assert {task.source.name for task in pattern.tasks} == {"a.png", "broken.png", "c.png", "grau.png"}
    bracket = tmp_path / "a[1].png"
    bracket.write_bytes(b"")
    assert [task.output.name for task in batch.plan(str(bracket), tmp_path / "out", {}, {}).tasks] == ["a[1].prc"]
    for nothing in (tmp_path / "out", photos / "*.tiff"):
        with pytest.raises(PrancImgError, match="no images there"):
            batch.plan(str(nothing), tmp_path / "out", TARGET, OPTIONS)


def test_the_output_folder_may_lie_within_the_input_folder(photos, alone, tmp_path):
    (tmp_path / "x.png").write_bytes((photos / "a.png").read_bytes())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "y.png").write_bytes(b"")
    assert [task.source.name for task in batch.plan(str(tmp_path), tmp_path / "out", TARGET, OPTIONS).tasks] == [
        "x.png"
    ]


def test_the_output_folder_may_be_the_input_folder_or_above_it(photos, tmp_path, monkeypatch):
    pics = tmp_path / "pics"
    (pics / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png", "old.prc"):
        (pics / name).touch()
    monkeypatch.chdir(tmp_path)

    def outputs(where: str, folder: str) -> set[str]:
        found = batch.plan(where, Path(folder), TARGET, OPTIONS).tasks
        return {task.output.resolve().relative_to(tmp_path.resolve()).as_posix() for task in found}

    for folder in ("pics", "./pics", "pics/sub/..", pics):
        assert outputs("pics", folder) == {"pics/a.prc", "pics/sub/b.prc"}
    for folder in (".", "pics/..", tmp_path):
        assert outputs("pics", folder) == {"a.prc", "sub/b.prc"}
        assert outputs("pics/*", folder) == {"a.prc"}
    assert outputs("pics/**/*.*", "pics/sub") == {"pics/sub/a.prc"}  # what lies in it is no input
    assert outputs("pics/sub/*.png", "pics/sub") == {"pics/sub/b.prc"}  # unless all inputs do
    monkeypatch.chdir(pics)
    assert outputs(".", ".") == {"pics/a.prc", "pics/sub/b.prc"}


def test_what_is_no_image_here_is_counted_and_named(tmp_path, photos, capsys):
    """A folder as phones and Macs leave them."""
    folder, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    (folder / "sub").mkdir(parents=True)
    elsewhere.mkdir()
    picture = (photos / "a.png").read_bytes()
    for name in ("a.png", "._my own.png", "sub/b.PNG"):
        (folder / name).write_bytes(picture)
    (elsewhere / "d.png").write_bytes(picture)
    (folder / "._a.png").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        " + b"\0" * 80)  # attributes of a.png
    for i in range(6):
        (folder / "sub" / f"{i}.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (folder / "README").touch()
    (folder / "linked").symlink_to(elsewhere)
    (folder / "linked.png").symlink_to(elsewhere / "d.png")
    (folder / "gone.png").symlink_to(elsewhere / "nothing.png")
    (folder / "out").mkdir()
    (folder / "out" / "notes.txt").touch()
    plan = batch.plan(str(folder), folder / "out", TARGET, OPTIONS)
    assert {task.source.name for task in plan.tasks} == {"a.png", "._my own.png", "b.PNG", "linked.png"}
    assert plan.left_out == [
        f"left out: 6 .heic, 1 without an ending (README, {', '.join(str(Path('sub', f'{i}.HEIC')) for i in range(4))}"
        " and 2 more)",
        "left out: 1 linked folder (linked)",
        "left out: 1 that is no file (gone.png)",
    ]
    assert main(["batch", str(folder / "sub"), str(tmp_path / "out"), "-q", "20", "-e", "1"]) == 0
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("done ") and told[1].startswith("left out: 6 .heic (0.HEIC") and len(told) == 3
    (folder / "sub" / "b.PNG").unlink()
    with pytest.raises(PrancImgError, match=r"no images there; left out: 6 \.heic"):
        batch.plan(str(folder / "sub"), tmp_path, TARGET, OPTIONS)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.png").touch()
    error = PermissionError(13, "Permission denied", "secret")
    walk = os.walk

    def refused(root, onerror):
        onerror(error)
        return walk(root)

    monkeypatch.setattr(os, "walk", refused)
    assert batch.plan(str(tmp_path), tmp_path, {}, {}).left_out == ["left out: secret: Permission denied"]


def test_an_earlier_summary_is_no_image(photos, tmp_path):
    (tmp_path / "a.png").write_bytes((photos / "a.png").read_bytes())
    (tmp_path / "summary.csv").write_text("")
    plan = batch.plan(str(tmp_path / "*"), tmp_path, TARGET, OPTIONS)
    assert [task.source.name for task in plan.tasks] == ["a.png"]


def test_no_two_images_have_one_output(tmp_path):
    names = ("a.png", "a.jpg", "a.png.webp", "b.png.png", "b.png", "C.png", "c.PNG", "d.e.png", "é.png", "e\u0301.jpg")
    for name in names:
        (tmp_path / name).touch()
    outputs = {task.source.name: task.output.name for task in batch.plan(str(tmp_path), tmp_path, {}, {}).tasks}
    assert len(set(outputs.values())) == len(names)
    assert outputs["é.png"] == "é.png.prc"  # on a Mac, both é are one letter
    assert outputs["a.png"] == "a.png.prc" != outputs["a.png.webp"] and outputs["d.e.png"] == "d.e.prc"


def test_two_processes_make_the_same_files_and_one_bad_file_stops_nothing(photos, alone, tmp_path, capsys):
    out = tmp_path / "out dir"
    assert main(["batch", str(photos), str(out), "-q", "20", "-e", "1", "--jobs", "2"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == f"prancimg: 1 of 6 files failed; {out / 'summary.csv'} says why"
    assert sum(line.startswith("done ") for line in told) == 5 and "5 done, 1 failed" in told[-2]
    assert made(out) == alone and alone.keys() == NAMES
    with (out / "summary.csv").open(newline="", encoding="utf-8") as file:
        rows = {Path(row["input"]).name: row for row in csv.DictReader(file)}
    assert rows["broken.png"]["status"] == "failed" and "not an image" in rows["broken.png"]["error"]
    assert int(rows["c.png"]["bytes"]) == len(alone["süd/c.prc"]) and float(rows["c.png"]["psnr"]) > 10


def test_resuming_does_what_is_missing(photos, alone, tmp_path, capsys, monkeypatch):
    for name, data in alone.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    segments = [*bitstream.read(alone["B 1.prc"]).items()]
    (tmp_path / "B 1.prc").write_bytes(bitstream.write(segments[:-1]))
    os.utime(tmp_path / "a.jpg.prc", (0, 0))
    todo = {task.source.name for task in batch.plan(str(photos), tmp_path, TARGET, OPTIONS, resume=True).tasks}
    assert todo == {"broken.png", "B 1.webp", "a.jpg"}  # never made, cut short between segments, older than its input

    def work(data, task):
        return (
            batch.Encoded(alone[task.output.name], 24, 16) if task.output.name in alone else batch.Encoded(error="no")
        )

    monkeypatch.setattr(batch, "_here", lambda tasks, jobs: ((t, work(b"", t)) for t in tasks))
    summary = tmp_path / "s.json"
    assert main(["batch", str(photos), str(tmp_path), "--resume", "--summary", str(summary)]) == 1
    assert "2 done, 3 kept, 1 failed" in capsys.readouterr().err
    assert made(tmp_path) == alone
    rows = {Path(row["input"]).name: row for row in json.loads(summary.read_bytes())}
    statuses = {name: row["status"] for name, row in rows.items()}
    assert rows["c.png"]["psnr"] is rows["c.png"]["seconds"] is None and rows["c.png"]["bytes"] > 0
    assert statuses["c.png"] == "kept" and statuses["broken.png"] == "failed" and statuses["a.jpg"] == "done"


def test_a_summary_takes_no_files_place(photos, alone, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(batch, "run", None)
    (tmp_path / "süd").mkdir()
    (tmp_path / "süd" / "c.prc").write_bytes(alone["süd/c.prc"])
    for summary in (photos / "a.png", tmp_path / "süd" / "c.prc", tmp_path / "B 1.prc"):  # the last is still to come
        assert main(["batch", str(photos), str(tmp_path), "--resume", "--summary", str(summary)]) == 1
        assert "would take the place of" in capsys.readouterr().err
    assert (photos / "a.png").read_bytes() != b"" and made(tmp_path) == {"süd/c.prc": alone["süd/c.prc"]}


class Deadly:
    """Ends whatever process it is sent to."""

    def __reduce__(self):
        return os._exit, (9,)


def test_a_process_that_dies_takes_no_other_file_with_it(photos, alone, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "ATTEMPTS", 2)
    plan = batch.plan(str(photos / "*.png"), tmp_path, TARGET, OPTIONS)
    tasks = {task.source.name: task for task in plan.tasks}
    deadly = batch.Task(tasks["broken.png"].source, tmp_path / "x.prc", Deadly(), OPTIONS)
    outcomes = batch.run(batch.Plan([deadly, tasks["a.png"]], []), jobs=2, quiet=True)
    assert [(outcome.status, "died" in outcome.error) for outcome in outcomes] == [("done", False), ("failed", True)]
    assert made(tmp_path) == {"a.prc": alone["a.png.prc"]}


def test_an_output_that_cannot_be_written_is_that_files_error(photos, alone, tmp_path, monkeypatch):
    (tmp_path / "c.prc").mkdir()
    monkeypatch.setattr(batch, "_here", lambda tasks, jobs: ((t, batch.Encoded(b"x", 1, 1)) for t in tasks))
    outcomes = batch.run(batch.plan(str(photos / "süd"), tmp_path, TARGET, OPTIONS), quiet=True)
    assert {Path(each.input).name: each.status for each in outcomes} == {"c.png": "failed", "grau.png": "done"}


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_makes_the_same_files_though_a_worker_is_killed(photos, alone, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    written = []
    original = batch.files.write

    def note(name, data):
        written.append(Path(name).name)
        original(name, data)

    monkeypatch.setattr(batch.files, "write", note)
    many = photos.parent / "many"
    many.mkdir()
    for i in range(4):
        for name in ("a.png", "süd/c.png"):
            (many / f"{i}{Path(name).name}").write_bytes((photos / name).read_bytes())
    (many / "broken.png").write_bytes(b"nothing")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        with distributed.Client(cluster, set_as_default=False) as client:
            pids = list(client.run(os.getpid).values())
        assert len(set(pids) | {os.getpid()}) == 3

        def kill():
            while len(written) < 2:
                threading.Event().wait(0.01)
            os.kill(pids[0], signal.SIGKILL)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        plan = batch.plan(str(many), tmp_path, TARGET, OPTIONS)
        outcomes = batch.run(plan, cluster=cluster.scheduler_address, quiet=True)
        killer.join(10)
        assert not killer.is_alive()
    assert [outcome.status for outcome in outcomes] == ["done"] * 8 + ["failed"]
    assert sorted(written) == sorted(made(tmp_path)) and len(written) == 8
    for name, data in made(tmp_path).items():
        assert data == alone["a.png.prc" if "a" in name else "süd/c.prc"]


@pytest.mark.filterwarnings("ignore")
def test_when_the_scheduler_is_lost_the_other_files_have_failed(photos, tmp_path, monkeypatch, capsys):
    distributed = pytest.importorskip("distributed")

    class Impatient(distributed.Client):
        def __init__(self, address, timeout, **options):
            super().__init__(address, timeout=1, **options)

    monkeypatch.setattr(distributed, "Client", Impatient)
    many = tmp_path / "many"
    many.mkdir()
    for i in range(6):
        (many / f"{i}.png").write_bytes((photos / "a.png").read_bytes())
    code = """if 1:
        import distributed
        cluster = distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None, protocol="tcp"
        )
        print(cluster.scheduler_address, flush=True)
        input()
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as scheduler:
        address = scheduler.stdout.readline().strip()
        assert address.startswith("tcp:")
        stored = batch._stored
        monkeypatch.setattr(batch, "_stored", lambda *what: (scheduler.kill(), stored(*what))[1])
        out = tmp_path / "out"
        assert main(["batch", str(many), str(out), "-q", "20", "-e", "1", "--cluster", address]) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 8 and told[-1] == f"prancimg: 5 of 6 files failed; {out / 'summary.csv'} says why"
    with (out / "summary.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["status"] for row in rows) == ["done"] + ["failed"] * 5
    assert {row["error"] for row in rows} == {"", "the connection to the scheduler was lost"}


def test_a_cluster_that_is_not_there_is_one_line(photos, tmp_path, capsys, monkeypatch):
    pytest.importorskip("distributed")
    arguments = ["batch", str(photos), str(tmp_path / "out"), "--cluster"]
    assert main([*arguments, "nonsense://x"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    assert main([*arguments, "tcp://127.0.0.1:1"]) == 1
    assert "prancimg[cluster]" in capsys.readouterr().err


def test_a_summary_that_cannot_be_written_is_noticed_before_the_work(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(batch, "run", lambda *_, **__: pytest.fail("work was begun"))
    assert main(["batch", str(photos), str(tmp_path / "out"), "--summary", str(tmp_path / "none" / "s.csv")]) == 1
    told = capsys.readouterr().err
    assert "No such file or directory" in told and told.count("\n") == 1


def test_the_live_table_fits_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stderr", Terminal())
    with batch._display(3, quiet=False) as show:
        show(batch.Outcome("in/a long name.png", "x", "done", 24, 16, 900, 99, 2.06, 30.1, 1.0))
        show(batch.Outcome("in/b.png", "x", "kept", 24, 16, 900, 88, 2.06))
        show(batch.Outcome("in/c.png", "x", "failed", error="not an image"))
        shown = __import__("sys").stderr
    assert all(text in shown.getvalue() for text in ("a long name.png", "30.10", "kept", "not an image", "3/3"))


def test_what_is_not_known_is_an_empty_cell():
    kept = batch.Outcome("in/b.png", "x", "kept", 24, 16, 900, 88, 2.06)
    (row,) = csv.DictReader(batch.summary([kept], ".csv").decode().splitlines())
    assert (row["bytes"], row["bpp"], row["psnr"], row["seconds"]) == ("88", "2.06", "", "")


def test_totals():
    outcomes = [batch.Outcome("a", "b", "done", 10, 10, 300, 25), batch.Outcome("c", "d", "failed", error="x")]
    assert batch.totals(outcomes) == "1 done, 1 failed: 300 to 25 bytes, 2.0000 bpp"
    assert batch.totals(outcomes[1:]) == "0 done, 1 failed"
    assert prancimg.PrancImgError is PrancImgError
