"""The Kodak benchmark: what is measured, how it is kept, and what is made of it."""

import csv
import io
import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.kodak import curves, metrics, records
from benchmarks.kodak.__main__ import main
from benchmarks.kodak.codecs import STILLS, Codec, Setting, codecs
from benchmarks.kodak.curves import Curve, Measured
from benchmarks.kodak.records import Record, Task
from prancimg.errors import PrancImgError
from prancimg.fit import siren_encoder
from prancimg.format.header import Coded, Header
from prancimg.format.layout import Siren
from prancimg.images.metrics import decibels, measure
from prancimg.network.siren import coordinates, forward

ROOT = Path(__file__).parents[2]


# What is measured


def test_psnr_is_that_of_all_samples(photo):
    noisy = np.clip(photo + np.random.default_rng(1).normal(0, 9, photo.shape), 0, 255).astype(np.uint8)
    large = [np.tile(picture, (2, 2, 1)) for picture in (photo, noisy)]
    assert measure(*large)["psnr"] == pytest.approx(peak_signal_noise_ratio(*large), abs=1e-9)
    assert measure(large[0], large[1])["ms_ssim"] < measure(large[0] // 2, large[0] // 2 + 1)["ms_ssim"]


def test_ms_ssim_in_decibels():
    assert [decibels(x) for x in (0.9, 0.99, 1)] == pytest.approx([10, 20, 100])


def header(**changes):
    coded = (Coded(0),) * len(Siren(24, 3, changes.get("channels", 0)).shapes)
    return replace(Header(12, 9, 1, 24, 3, 0, 0, coded), **changes)


def test_macs_of_a_global_network_are_those_that_torch_counts():
    siren = header().siren
    weights = {name: torch.zeros(shape) for name, shape in siren.shapes.items()}
    with FlopCounterMode(display=False) as counter:
        forward(siren, weights, torch.from_numpy(coordinates(9, 12)))
    assert metrics.macs_per_pixel(header()) == counter.get_total_flops() / 2 / (9 * 12)


def test_macs_of_a_field_add_what_is_done_for_every_coefficient():
    field = header(width=8, height=8, channels=4, luma_from=0, chroma_from=1)  # levels of 8 x 8 and of 4 x 4
    network = 4 * 24 + 2 * 24 * 24 + 24 * 3 + 3 * 27
    luma, chroma = (64 + 16) * (24 * (16 + 24 + 2) + 4), 2 * 16 * (24 * (22 + 24 + 2) + 4)
    enlarging = 4 * (8 * 4 + 8 * 8) * 4  # four channels, first the rows and then the columns, four taps a sample
    assert metrics.macs_per_pixel(field) == pytest.approx(network + (luma + chroma + enlarging) / 64)


@pytest.mark.parametrize(("slug", "value", "variant", "options"), [
    ("jpeg", 28, "4:2:0", {"quality": 28, "optimize": True}),
    ("jpeg", 52, "4:4:4", {"quality": 52, "optimize": True, "subsampling": 0}),
    ("webp", 44, "", {"quality": 44, "method": 6}),
    ("avif", 42, "4:2:0", {"quality": 42, "speed": 4, "max_threads": 1, "advanced": {"tune": "psnr"}}),
])  # fmt: skip
@pytest.mark.parametrize("number", [3, 15])
def test_points_agree_with_pillow_and_scikit_image(kodak, tmp_path, number, slug, value, variant, options):
    codec = codecs(1, "cpu")[slug]
    if not codec.available:
        pytest.skip(f"this Pillow has no {codec.name}")
    path = kodak / f"kodim{number:02}.png"
    task = Task(path, codec, next(s for s in codec.settings([]) if s == Setting(value, variant)))
    [(_, record)] = records.run([task], tmp_path, 1)
    picture, buffer = Image.open(path), io.BytesIO()
    picture.save(buffer, codec.form, **options)
    size = buffer.tell()
    if slug == "jpeg":  # of two files that decode alike, the smaller one counts
        progressive = io.BytesIO()
        picture.save(progressive, codec.form, progressive=True, **options)
        size = min(size, progressive.tell())
    decoded = np.asarray(Image.open(buffer).convert("RGB"))
    assert record.bytes == size == (tmp_path / record.file).stat().st_size
    assert record.bpp == size * 8 / (768 * 512)
    assert record.psnr == pytest.approx(peak_signal_noise_ratio(np.asarray(picture), decoded), abs=1e-9)


def test_jpeg_2000_uses_the_colour_transform(photos):
    """Pillow's default is without, which costs it 3 dB."""
    picture, jpeg2000 = Image.open(photos / "kodim01.png"), codecs(1, "cpu")["jpeg2000"]
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG2000", irreversible=True, no_jp2=True, quality_mode="rates", quality_layers=[24])
    files = (buffer.getvalue(), jpeg2000.encode(picture, Setting(1)))
    plain, transformed = (peak_signal_noise_ratio(np.asarray(picture), jpeg2000.decode(file)) for file in files)
    assert len(files[1]) <= 1.02 * len(files[0]) and transformed > plain + 1


@pytest.mark.parametrize("still", STILLS, ids=lambda still: still.slug)
def test_a_higher_setting_is_a_larger_and_better_file(still, photos):
    if not still.available:
        pytest.skip(f"this Pillow has no {still.name}")
    picture = Image.open(photos / "kodim01.png")
    files = [still.encode(picture, Setting(value, still.variants[-1])) for value in (still.sweep[1], still.sweep[-3])]
    errors = [np.square(still.decode(file).astype(float) - np.asarray(picture)).mean() for file in files]
    assert len(files[0]) < len(files[1]) and errors[0] > errors[1]


def test_the_control_keeps_to_the_bytes_of_the_preset(photos, monkeypatch):
    monkeypatch.setitem(siren_encoder.EFFORTS, 1, 10)
    picture, direct = Image.open(photos / "kodim01.png"), codecs(1, "cpu")["direct"]
    data = direct.encode(picture, Setting(0.1))
    assert 0.9 * 0.1 * 224 * 176 / 8 < len(data) <= 0.1 * 224 * 176 / 8
    assert direct.decode(data).shape == (176, 224, 3)


# How it is kept


@dataclass(frozen=True)
class Fake(Codec):
    """PNG with a list of its calls; it cannot reach 1 bpp."""

    calls: list
    version: str = "1"
    slug: str = "fake"
    name: str = "fake"
    suffix: str = ".png"
    about: str = "a PNG file"

    @property
    def made_by(self):
        return self.version

    def __repr__(self):
        return "Fake()"

    def encode(self, picture, setting):
        self.calls.append(setting.value)
        if setting.value == 1:
            raise PrancImgError("out of reach")
        buffer = io.BytesIO()
        picture.quantize(round(setting.value)).save(buffer, "PNG")
        return buffer.getvalue()

    def decode(self, data):
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_nothing_is_computed_twice(photos, tmp_path):
    fake = Fake([])
    todo = records.tasks([photos / "kodim01.png"], [fake], [1, 8, 64])
    first = records.run(todo, tmp_path, 1)
    assert sorted(fake.calls) == [1, 8, 64] and [task.setting.value for task, _ in first] == [8, 64]
    assert records.run(todo, tmp_path, 1) == first and len(fake.calls) == 3


def test_what_other_software_made_is_computed_again(photos, tmp_path):
    for version in ("1", "2"):
        fake = Fake([], version)
        records.run(records.tasks([photos / "kodim01.png"], [fake], [8]), tmp_path, 1)
        assert fake.calls == [8]


@pytest.mark.parametrize("damage", ["cut record", "cut file", "no file", "other image"])
def test_what_is_damaged_is_computed_again(photos, tmp_path, damage):
    image = tmp_path / "kodim01.png"
    image.write_bytes((photos / "kodim01.png").read_bytes())
    todo = records.tasks([image], [fake := Fake([])], [8])
    first = records.run(todo, tmp_path, 1)
    file = tmp_path / first[0][1].file
    if damage == "cut record":
        record = file.with_name(file.name + ".json")
        record.write_bytes(record.read_bytes()[:-20])
    elif damage == "cut file":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "no file":
        file.unlink()
    else:
        (tmp_path / "other").mkdir()
        other = tmp_path / "other" / "kodim01.png"
        other.write_bytes((photos / "kodim02.png").read_bytes())
        todo = records.tasks([other], [fake], [8])
    records.run(todo, tmp_path, 1)
    assert fake.calls == [8, 8]


def test_a_killed_run_leaves_no_process_and_goes_on(photos, tmp_path):
    command = ["--data", str(photos), "--images", "1", "2", "--bpp", "1", "--out", str(tmp_path)]
    command += ["--codecs", "webp", "--jobs", "2"]
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.kodak", *command], cwd=ROOT)
    while len(kept := list(tmp_path.rglob("kodim*/*.json"))) < 5:
        assert process.poll() is None
        time.sleep(0.02)
    workers = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in kept}
    deadline = time.monotonic() + 20
    while any(_runs(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (tmp_path / "points.csv").exists()
    assert main(command[:-2]) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    assert len((tmp_path / "points.csv").read_text().splitlines()) == 1 + 2 * 16


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# What is made of it


def rows(rates, psnr):
    return [{"bpp": rate, "psnr-rgb": value} for rate, value in zip(rates, psnr, strict=True)]


def test_of_two_variants_the_better_counts_at_each_rate():
    coarse, fine = rows([0.1, 0.4, 1.6], [24, 28, 30]), rows([0.2, 0.8, 3.2], [23, 30, 36])
    assert curves.better([coarse, fine]) == [coarse[0], coarse[1], fine[1], fine[2]]


def record(bpp, psnr, ms_ssim):
    return Record("f", 1, bpp, psnr, ms_ssim, decibels(ms_ssim), 2.0, 0.5)


def test_the_mean_curve_is_of_each_setting_over_all_images_that_reach_it():
    fake = Fake([])
    task = {(i, s): Task(Path(f"kodim0{i}.png"), fake, Setting(s)) for i in (1, 2) for s in (1, 2, 3)}
    points = [
        (task[1, 2], record(0.2, 30, 0.9)),
        (task[2, 2], record(0.4, 40, 0.98)),
        (task[1, 1], record(0.1, 25, 0.8)),
    ]
    measured = Measured(fake, ["kodim01", "kodim02"], points)
    expected = {"bpp": [0.3], "psnr-rgb": [35], "ms-ssim-rgb": [0.94], "encoding_time": [2], "decoding_time": [0.5]}
    assert {key: pytest.approx(values) for key, values in measured.mean.results.items()} == expected
    assert list(measured.each["kodim01"].bpp) == [0.1, 0.2]
    apart = Measured(fake, ["kodim01", "kodim02"], points[1:])
    alone = Measured(fake, ["kodim01", "kodim02"], points[:1])
    assert (
        list(apart.mean.bpp) == list(alone.mean.bpp) == []
        and curves.delta(apart.mean, apart.each["kodim01"], "PSNR") is None
    )


def curve(rates, psnr):
    return Curve("c", "", {"bpp": list(rates), "psnr-rgb": list(psnr)})


def test_a_codec_that_saves_a_fifth_everywhere_has_a_bd_rate_of_minus_twenty():
    rates = np.geomspace(0.1, 2, 7)
    quality = 36 + 5 * np.log2(rates) - 0.3 * np.log2(rates) ** 2
    found = curves.delta(curve(rates, quality), curve(0.8 * rates[1:5], quality[1:5]), "PSNR")
    assert (found.akima, found.pchip) == pytest.approx((-20, -20), abs=0.3)
    assert (found.low, found.high) == pytest.approx((quality[1], quality[4]))


def test_a_bd_rate_needs_common_qualities_and_rising_curves():
    low, high = curve([0.1, 0.2, 0.3], [20, 21, 22]), curve([0.1, 0.2, 0.3], [30, 31, 32])
    assert curves.delta(low, high, "PSNR") is None and curves.delta(low, low, "MS-SSIM") is None
    dented = curve([0.1, 0.15, 0.2, 0.3], [20, 19, 21, 22])
    assert curves.delta(low, dented, "PSNR").akima == pytest.approx(0, abs=1e-9)


def test_every_codec_is_compared_and_little_overlap_is_marked():
    """A fitted one with all others, the others with the first of them; image by image only if there are several."""

    def measured(codec, images, base):
        points = [
            (Task(Path(f"{i}.png"), codec, Setting(s)), record(0.1 * s, base + s, 0.9))
            for i in images
            for s in (1, 2, 3)
        ]
        return Measured(codec, images, points)

    class Still(Fake):
        sweep = (Setting(1), Setting(2), Setting(3))

    fitted, first, second = Fake([], name="fitted"), Still([], name="first"), Still([], name="second")
    for images, columns in ((["a"], 5), (["a", "b"], 8)):
        three = [measured(codec, images, base) for codec, base in ((fitted, 30), (first, 30), (second, 30.5))]
        table = curves.bd_table(three, [], "PSNR")
        assert [row[:2] for row in table] == [["fitted", "first"], ["fitted", "second"], ["second", "first"]]
        assert [row[4] for row in table] == ["31.0 … 33.0 dB", *["31.5 … 33.0 dB (little)"] * 2]
        assert {len(row) for row in table} == {columns} == {len(curves.bd_head(images))}


def test_result_files_have_compressais_shape_and_can_be_read_back(kodak_report):
    entry = json.loads((kodak_report / "rd" / "jpeg.json").read_text())
    assert set(entry) == {"name", "description", "results"}
    wanted = {"bpp", "psnr-rgb", "ms-ssim-rgb", "encoding_time", "decoding_time"}
    assert set(entry["results"]) == wanted and len({len(values) for values in entry["results"].values()}) == 1
    assert set(json.loads((kodak_report / "rd" / "siren.json").read_text())["results"]) == wanted | {"macs_per_pixel"}
    back = curves.read(kodak_report / "rd" / "kodim01" / "jpeg.json")
    assert back.name == "JPEG" and (np.diff(back.bpp) > 0).all() and (np.diff(back.quality("PSNR")) > 0).all()


def test_compressai_reads_result_files(kodak_report):
    parse = pytest.importorskip("compressai.utils.plot.__main__").parse_json_file
    for metric in ("psnr", "ms-ssim"):
        read = parse(kodak_report / "rd" / "webp.json", metric)
        own = curves.read(kodak_report / "rd" / "webp.json").quality(metric.upper())
        assert read["name"] == "WebP" and np.allclose(read["ys"], own)


def test_files_of_compressai_can_be_read(tmp_path):
    path = tmp_path / "theirs.json"
    path.write_text('{"name": "bmshj", "results": {"psnr": [34, 28], "ms-ssim": [0.99, 0.9], "bpp": [0.7, 0.1]}}')
    read = curves.read(path)
    assert (read.name, list(read.bpp)) == ("bmshj", [0.1, 0.7])
    assert list(read.quality("PSNR")) == [28, 34] and list(read.quality("MS-SSIM")) == pytest.approx([10, 20])


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"results": [1]}', '{"results": {"bpp": [1]}}', '{"results": {"bpp": [1], "psnr": [1, 2]}}']
)
def test_other_files_are_refused_in_one_line(tmp_path, capsys, text):
    path = tmp_path / "bad.json"
    path.write_text(text)
    assert main(["--curves", str(path), "--codecs", "jpeg", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"benchmarks.kodak: {path}: not a file of results in CompressAI's shape\n"


def test_published_curves_name_their_sources():
    found = {each.name: each for each in curves.published()}
    inrs = ["COIN", "COIN++", "SPY", "MSCN", "VC-INR", "RECOMBINER", "COOL-CHIC", "C3", "Cool-Chic 5.0"]
    assert set(found) == {*inrs, "BPG 4:4:4", "VTM", "MLIC+"}
    assert all("published: " in each.description and " from " in each.description for each in found.values())
    assert all((np.diff(each.quality("PSNR")) > 0).all() for each in found.values())


def test_a_run_writes_everything(kodak_report):
    lines = list(csv.DictReader((kodak_report / "points.csv").read_text().splitlines()))
    assert {(line["image"], line["codec"]) for line in lines} == {
        (image, codec) for image in ("kodim01", "kodim02") for codec in ("siren", "jpeg", "webp")
    }
    for line in lines:
        assert (kodak_report / "files" / line["file"]).stat().st_size == int(line["bytes"])
        if line["codec"] == "siren":
            assert 0.9 * float(line["setting"]) < float(line["bpp"]) <= float(line["setting"])
    for name in ("psnr", "psnr_log", "ms_ssim", "ms_ssim_log"):
        assert (kodak_report / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (kodak_report / "plots" / f"{name}.svg").read_bytes()
    table = (kodak_report / "tables.md").read_text()
    assert (
        "| prancimg siren | JPEG | " in table
        and "| WebP | JPEG | " in table
        and "libjpeg_turbo" in table
        and "kodim" not in table
    )


def test_the_page_needs_nothing_but_itself(kodak_report):
    page = (kodak_report / "index.html").read_text()
    assert "src=" not in page.replace("src=picture", "") and "@import" not in page and "href=" not in page


@pytest.mark.parametrize(
    ("wrong", "told"),
    [(["--data", "nowhere"], "--data is the folder"), (["--codecs", "siren", "--device", "cuda"], "CUDA")],
)
def test_errors_are_one_line(wrong, told, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--images", "1", "--data", str(photos), "--out", str(tmp_path), *wrong]) == 1
    err = capsys.readouterr().err
    assert told in err and err.strip().splitlines()[-1].startswith("benchmarks.kodak: ")


def test_other_pictures_are_called_by_their_names(photos, tmp_path):
    chosen = [str(tmp_path / f"{name}.png") for name in ("a", "b")]
    for path, picture in zip(chosen, sorted(photos.glob("*.png")), strict=True):
        Path(path).write_bytes(picture.read_bytes())
    assert main(["--pictures", *chosen, "--codecs", "jpeg", "webp", "--out", str(tmp_path / "out")]) == 0
    table = (tmp_path / "out" / "tables.md").read_text()
    assert table.startswith("Mean of a, b;") and "| WebP | JPEG | " in table


@pytest.mark.parametrize(
    "wrong", [["--pictures", "nowhere.png"], ["--images", "25"], ["--bpp", "0"], ["--jobs", "0"], ["--codecs", "gif"]]
)
def test_wrong_usage_is_status_2(wrong, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*wrong, "--out", "nowhere"])
    assert caught.value.code == 2 and wrong[0] in capsys.readouterr().err
