"""The classifier benchmark on a small folder of pictures made here: loading, training, resuming, files, reports."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks.cifar10 import __main__ as command
from benchmarks.cifar10 import report, train
from benchmarks.cifar10.data import load
from benchmarks.cifar10.networks import NETWORKS, narrow
from benchmarks.cifar10.train import Pictures, Plan, entries_kept, entropy_bytes, prune, step_by_size
from prancimg import PrancImgError
from prancimg.format.range_coder import MAGNITUDE
from prancimg.pranc import Pranc, direct

CPU = torch.device("cpu")


def tree(folder: Path, test: str = "test", suffix: str = ".png", side: int = 32, per: int = 20) -> Path:
    """Dark and bright pictures, and classes by that."""
    choose = np.random.default_rng(0)
    for split, count in (("train", per), (test, per // 2)):
        for label, low in (("bright", 130), ("dark", 0)):
            for i in range(count):
                path = folder / split / label / "images" / f"{i}{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(choose.integers(low, low + 120, (side, side, 3)).astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tree(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def pictures(folder, tmp_path_factory) -> Pictures:
    return Pictures(load(folder, 32, tmp_path_factory.mktemp("cache")), CPU)


# Data


def test_a_folder_and_a_zip_file_of_it_are_the_same(folder, tmp_path):
    path = tmp_path / "pictures.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder).as_posix())
    found, zipped = load(folder, 32, tmp_path / "a"), load(path, 32, tmp_path / "b")
    assert found.classes == zipped.classes == ("bright", "dark")
    assert found.train.shape == (40, 3, 32, 32) and found.test.shape == (20, 3, 32, 32)
    assert found.train.dtype == np.uint8 and found.train_labels.dtype == np.int64
    for one, other in zip(vars(found).values(), vars(zipped).values(), strict=True):
        assert np.array_equal(one, other)
    first = np.asarray(Image.open(folder / "train" / "bright" / "images" / "0.png"))
    assert np.array_equal(found.train[0], first.transpose(2, 0, 1))
    assert found.train_labels.tolist() == [0] * 20 + [1] * 20 and (found.train[:20].mean((1, 2, 3)) > 130).all()


def test_pictures_are_decoded_once(folder, tmp_path, monkeypatch):
    before = load(folder, 32, tmp_path)
    monkeypatch.setattr("benchmarks.cifar10.data._decode", lambda *_: pytest.fail("decoded again"))
    assert np.array_equal(load(folder, 32, tmp_path).train, before.train)


def test_pictures_that_change_are_decoded_again(folder, tmp_path):
    mine = tree(tmp_path / "mine")
    before = load(mine, 32, tmp_path / "cache")
    name = mine / "train" / "dark" / "images" / "3.png"
    name.write_bytes((mine / "train" / "bright" / "images" / "3.png").read_bytes())  # no folder's time changes
    after = load(mine, 32, tmp_path / "cache")
    assert not np.array_equal(after.train, before.train) and after.digest() != before.digest()
    assert before.digest() == load(folder, 32, tmp_path / "cache").digest(), "whatever it is called"
    assert before.some(10).digest() != before.digest() != load(mine, 16, tmp_path / "cache").digest()


@pytest.mark.parametrize("garbage", [b"", b"no arrays", b"PK\x03\x04 cut short"])
def test_a_cache_that_cannot_be_read_is_made_again(folder, tmp_path, garbage):
    before = load(folder, 32, tmp_path)
    (cache,) = tmp_path.glob("pictures-*.npz")
    for damaged in (
        garbage,
        cache.read_bytes()[:-1000],
        cache.read_bytes().replace(before.train[3].tobytes(), bytes(3072)),
    ):
        cache.write_bytes(damaged)
        assert np.array_equal(load(folder, 32, tmp_path).train, before.train)


def test_some_of_the_pictures_are_of_all_classes(folder, tmp_path):
    data = load(folder, 32, tmp_path)
    some = data.some(10)
    assert np.bincount(some.train_labels).tolist() == [5, 5] and len(some.train) == 10 and some.test is data.test
    assert len(data.some(10**6).train) == 40


def test_other_sizes_suffixes_and_names_of_the_test_part(tmp_path):
    found = load(tree(tmp_path / "a", "val", ".JPEG", side=40, per=4), 64, tmp_path / "cache")
    assert found.train.shape == (8, 3, 64, 64) and len(found.test) == 4


def test_what_is_no_data_set_is_refused(folder, tmp_path):
    (tmp_path / "text.zip").write_text("no archive")
    (tmp_path / "empty").mkdir()
    tree(tmp_path / "untested", "other", per=2)
    broken = tree(tmp_path / "broken", per=2)
    (broken / "train" / "dark" / "images" / "1.png").write_bytes(b"no picture")
    for name, message in (
        ("nothing", "no such"),
        ("text.zip", "zip"),
        ("empty", "train/CLASS"),
        ("untested", "test on"),
        ("broken", "dark/images/1.png"),
    ):
        with pytest.raises(PrancImgError, match=message):
            load(tmp_path / name, 32, tmp_path / "cache")


def test_training_pictures_are_shifted_and_mirrored_copies(pictures):
    for x, labels in pictures.batches(16, 3):
        assert x.shape == (16, 3, 32, 32)
        assert torch.equal((x.mean((1, 2, 3)) < 0).long(), labels)  # dark ones stay dark
    again = [labels.tolist() for _, labels in pictures.batches(16, 3)]
    assert again == [labels.tolist() for _, labels in pictures.batches(16, 3)]
    assert again != [labels.tolist() for _, labels in pictures.batches(16, 4)]


# Networks


@pytest.mark.parametrize(("name", "size"), [("lenet", 62_006), ("resnet20", 269_722), ("resnet56", 853_018)])
def test_networks_have_their_published_sizes(name, size):
    assert sum(p.numel() for p in NETWORKS[name](10).parameters()) == size


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_give_a_number_for_every_class_at_any_side(name):
    for side in (32, 40):
        assert NETWORKS[name](7, side, 0.2).eval()(torch.zeros(2, 3, side, side)).shape == (2, 7)


def test_the_narrow_network_is_the_widest_that_fits():
    for parameters in (800, 5000, 30_000):
        module, width = narrow("lenet", parameters, 10, 32)
        assert sum(p.numel() for p in module.parameters()) <= parameters
        assert sum(p.numel() for p in NETWORKS["lenet"](10, 32, 1.2 * width).parameters()) > parameters


# Training


def test_an_interrupted_training_ends_like_an_uninterrupted_one(pictures, tmp_path):
    def model() -> Pranc:
        torch.manual_seed(0)
        return Pranc(NETWORKS["resnet20"](2, width=0.2), k=300, basis="hadamard")

    plan = Plan(3, 16, 0.01, nested=True)
    once, first, second = model(), model(), model()
    train.train(once, pictures, plan, tmp_path / "once.pt", "")

    class Killed(Exception):
        pass

    def kill(done: float) -> None:
        if done > 0.8:
            raise Killed

    with pytest.raises(Killed):
        train.train(first, pictures, plan, tmp_path / "twice.pt", "", kill)
    train.train(second, pictures, plan, tmp_path / "twice.pt", "")
    assert once.alpha.abs().max() > 0
    for name, tensor in once.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            assert torch.equal(tensor, second.state_dict()[name]), name
    with pytest.raises(PrancImgError, match="other settings"):
        train.train(model(), pictures, Plan(4, 16, 0.01), tmp_path / "twice.pt", "")


@pytest.mark.parametrize("garbage", [b"", b"no checkpoint", b"PK\x03\x04 cut short"])
def test_a_checkpoint_that_is_none_is_one_line(pictures, tmp_path, garbage):
    (tmp_path / "model.pt").write_bytes(garbage)
    with pytest.raises(PrancImgError, match=r"model\.pt: not a checkpoint"):
        train.train(NETWORKS["lenet"](2, width=0.2), pictures, Plan(1, 16, 0.01), tmp_path / "model.pt", "")


def test_pruning_leaves_as_many_weights_as_asked_and_some_of_every_tensor():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 10))
    tensors = [p for p in module.parameters() if p.dim() > 1]
    with torch.no_grad():
        tensors[1] /= 1000  # by magnitude alone nothing of it would be left
    before = [p.detach().clone() for p in tensors]
    after_step = prune(module, 50)
    after_step(0.1)
    assert 50 < sum(int((p != 0).sum()) for p in tensors) < 800
    after_step(0.5)
    left = [int((p != 0).sum()) for p in tensors]
    assert sum(left) == 50 and min(left) >= 10
    for p, was, number in zip(tensors, before, left, strict=True):
        largest = was.abs().flatten().sort().values[-number:]
        assert torch.equal(p[p != 0].abs().sort().values, largest)


def test_files_of_a_budget(pictures):
    torch.manual_seed(0)
    model = direct(NETWORKS["lenet"](2, width=0.2))
    sizes = {step: len(model.network(step).pack()) for step in (step_by_size(model, n) for n in (900, 1500, 2500))}
    assert list(sizes) == sorted(sizes, reverse=True) and len(sizes) == 3
    assert all(0.9 * budget < size <= budget for budget, size in zip((900, 1500, 2500), sizes.values(), strict=True))
    with torch.no_grad():
        model.alpha[7] = 1000
    finest = step_by_size(model, 10**6)
    assert abs(model.network(finest).coefficients[7]) > 0.8 * MAGNITUDE, "the finest step that holds them all"
    assert entries_kept(60_000, 700) < entries_kept(60_000, 7000) < 60_000


def test_entropy_is_that_of_every_tensors_own_values():
    values, groups = np.array([0, 1, 2, 3, 5, 5, 5, 5]), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert entropy_bytes(values, groups) == pytest.approx(1)


# The command


@pytest.fixture(scope="module")
def results(folder, tmp_path_factory) -> tuple[Path, list[str]]:
    out = tmp_path_factory.mktemp("out")
    shared = ["--model", "lenet", "--data", str(folder), "--out", str(out), "--results", str(out / "results.json")]
    arguments = [*shared, "--k", "400", "--epochs", "2", "--prune-epochs", "2", "--batch", "8", "--nested"]
    assert command.main(arguments) == 0
    return out, arguments


def test_all_methods_are_trained_written_read_and_tested(results):
    records = {r["method"]: r for r in json.loads((results[0] / "results.json").read_text())}
    assert set(records) == {"full", "pranc", "small", "pruned"}
    for method, record in records.items():
        (kept,) = results[0].glob(f"lenet-*/{method}*.prn")
        assert kept.stat().st_size == record["bytes"]
        assert 0 <= record["accuracy"] <= 1 and record["bytes_entropy"] < record["bytes"]
    assert records["full"]["accuracy"] > 0.9, "dark and bright pictures are told apart"
    assert max(records["small"]["bytes"], records["pruned"]["bytes"]) <= records["pranc"]["bytes"]
    assert records["full"]["numbers"] > 20 * records["small"]["numbers"] and records["pranc"]["numbers"] == 400
    assert list(records["pranc"]["cuts"]) == ["100", "200", "300"]


def test_finished_results_are_not_made_again(results, monkeypatch, capfd):
    monkeypatch.setattr(command, "train", lambda *_: pytest.fail("trained again"))
    assert command.main(results[1]) == 0
    said = capfd.readouterr()
    assert said.out == f"nothing to train: all of this is in {results[0] / 'results.json'}\n"
    assert not said.err, "no progress where there is no terminal"


class Trained(Exception):
    pass


@pytest.mark.parametrize(
    ("options", "trained"),
    [
        (["--rate", "0.002"], "full"),
        (["--batch", "10"], "full"),
        (["--side", "33"], "full"),
        (["--seed", "1"], "full"),
        (["--epochs", "1"], "full"),
        (["--pictures", "30"], "full"),
        (["--prune-epochs", "1"], "pruned-400-"),
        (["--basis", "sign"], "pranc-400-sign-tensor-nested"),
    ],
)
def test_other_options_are_other_results(results, options, trained, monkeypatch):
    """Not even a checkpoint is taken from them."""

    def train(model, pictures, plan, checkpoint, label, prepare):
        assert label.startswith(trained) and not checkpoint.exists()
        raise Trained

    if trained == "pruned-400-":  # starts from the full network, which is there
        monkeypatch.setattr(command.Bench, "full", lambda self: self.fresh())
    monkeypatch.setattr(command, "train", train)
    with pytest.raises(Trained):
        command.main([*results[1], *options])


def test_other_pictures_are_other_results(results, tmp_path, monkeypatch, folder):
    """Under the same name, too; and a zip file of the same pictures is the same."""
    other, zipped = tree(tmp_path / folder.name, per=22), tmp_path / "pictures.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder).as_posix())

    def train(*_):
        raise Trained

    monkeypatch.setattr(command, "train", train)
    assert command.main([*results[1], "--data", str(zipped)]) == 0
    with pytest.raises(Trained):
        command.main([*results[1], "--data", str(other)])


def test_narrow_and_pruned_networks_belong_to_a_budget(results):
    """Another basis takes other bytes."""
    records = {r["method"]: r for r in json.loads((results[0] / "results.json").read_text())}
    assert records["small"]["budget"] == records["pruned"]["budget"] == records["pranc"]["bytes"]
    assert records["full"]["budget"] == 0


def test_the_report_has_a_row_for_every_record(results):
    records = json.loads((results[0] / "results.json").read_text())
    lines = report.table(records).splitlines()
    assert len(lines) == 2 + len(records)
    assert lines[2].startswith("| all weights |")
    assert report.plot(records, "title").startswith(b"<?xml")


def test_a_report_is_printed_and_written_and_goes_where_the_page_has_its_mark(results, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(command, "DOCS", tmp_path)
    page = tmp_path / "deep.md"
    page.write_text("nothing")
    assert command.main([*results[1], "--report"]) == 0
    table = report.table(json.loads((results[0] / "results.json").read_text()))
    assert table in capfd.readouterr().out and page.read_text() == "nothing" and len(list(tmp_path.iterdir())) == 1
    (folder,) = (path.parent for path in results[0].glob("*/table.md"))
    assert (folder / "table.md").read_text() == table + "\n" and (folder / "plot.svg").read_bytes()[:5] == b"<?xml"
    title, _, settings = folder.name.rpartition("-")
    text = f"before\n<!-- {title} {{}} -->\nold\n<!-- end of {title} -->\nafter"
    for mark, after in (
        ("ffffffffffff", text.format("ffffffffffff")),
        (settings, text.format(settings).replace("\nold\n", f"\n\n{table}\n\n")),
    ):
        page.write_text(text.format(mark))
        assert command.main([*results[1], "--report"]) == 0
        assert page.read_text() == after
    assert (tmp_path / f"{title}.svg").read_bytes() == (folder / "plot.svg").read_bytes()


def test_kept_results_are_complete():
    """Those in the repository; a result without an option would never be found."""
    records = json.loads((command.HERE / "results.json").read_text())
    assert all(set(command.KEY) <= set(record) for record in records)
    assert len({tuple(record[name] for name in command.KEY) for record in records}) == len(records)


def test_results_that_do_not_say_how_they_were_made_are_refused(results, tmp_path, capfd):
    (tmp_path / "results.json").write_text('[{"model": "lenet"}]')
    assert command.main([*results[1], "--results", str(tmp_path / "results.json")]) == 1
    assert capfd.readouterr().err.count("\n") == 1


def test_bad_requests_are_one_line(tmp_path, capfd):
    assert command.main(["--model", "lenet", "--data", str(tmp_path / "none"), "--out", str(tmp_path)]) == 1
    said = capfd.readouterr()
    assert said.err.count("\n") == 1 and "no such file" in said.err and not said.out
