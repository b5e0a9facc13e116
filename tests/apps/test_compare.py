"""The page that compares files, in a browser, and the command that makes it."""

import base64
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import prancimg
from prancimg.apps import compare
from prancimg.apps.cli import main
from prancimg.errors import PrancImgError
from prancimg.images.metrics import decibels, measure


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from skimage import data

    folder = tmp_path_factory.mktemp("compare me")
    photo = Image.fromarray(data.coffee()).resize((240, 170), Image.Resampling.LANCZOS)
    photo.save(folder / "phöto <1>.png")
    photo.save(folder / "b.jpg", quality=30)
    photo.save(folder / "same.webp", lossless=True)
    photo.resize((10, 10)).save(folder / "small.png")
    (folder / "a.prc").write_bytes(prancimg.encode(photo, quality=10, effort=1, seed=0))
    return folder


@pytest.fixture(scope="module")
def report(folder):
    files = [str(folder / name) for name in ("a.prc", "b.jpg", "same.webp")]
    arguments = ["compare", str(folder / "phöto <1>.png"), *files, "-o", str(folder / "report.html"), "--quiet"]
    assert main(arguments) == 0
    return folder / "report.html"


def test_the_table_has_bytes_psnr_and_ms_ssim(folder):
    original, data = folder / "phöto <1>.png", (folder / "a.prc").read_bytes()
    _, lines = compare.page(str(original), [str(folder / "a.prc"), str(folder / "same.webp")])
    pixels = np.asarray(Image.open(original))
    quality = measure(pixels, np.asarray(prancimg.decode(data)))
    row = next(line for line in lines if "a.prc" in line)
    assert f"{len(data):,}" in row and f"{8 * len(data) / (240 * 170):.4f}" in row
    assert f"{quality['psnr']:.2f} dB" in row
    assert f"{quality['ms_ssim']:.4f} ({decibels(quality['ms_ssim']):.2f} dB)" in row
    assert "identical" in lines[-1] and "1.0000" in lines[-1]


def test_the_page_holds_the_pictures_and_asks_for_nothing(report, folder):
    page = report.read_text(encoding="utf-8")
    assert "<title>phöto &lt;1&gt;.png – compared</title>" in page and "<h1>phöto &lt;1&gt;.png" in page
    assert page.count("<tr>") == 5 and "240 x 170 pixels" in page  # a head and four files
    assert not re.search(r"https?://|url\(|<link|<\w+[^>]* src=", page)
    (content,) = re.findall(r'<script type="application/json" id="viewer-content">(.*)</script>', page)
    (scene,) = json.loads(content)["scenes"]
    assert scene["name"] == "phöto <1>.png" and list(scene["versions"]) == ["a.prc", "b.jpg", "same.webp"]

    def shown(picture: dict) -> np.ndarray:
        data = picture["source"].removeprefix("data:image/webp;base64,")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))

    assert np.array_equal(shown(scene["original"]), Image.open(folder / "phöto <1>.png"))
    assert np.array_equal(shown(scene["versions"]["a.prc"][0]), prancimg.decode(folder / "a.prc"))
    assert np.array_equal(shown(scene["versions"]["b.jpg"][0]), Image.open(folder / "b.jpg"))


def test_options_may_stand_between_the_files(folder, tmp_path):
    page = tmp_path / "r.html"
    files = [str(folder / name) for name in ("phöto <1>.png", "a.prc", "b.jpg")]
    assert main(["compare", *files[:2], "-o", str(page), files[2], "--quiet"]) == 0
    assert "b.jpg" in page.read_text(encoding="utf-8")
    assert main(["compare", "-o", str(page), files[0], "--quiet", files[1]]) == 0
    assert "b.jpg" not in page.read_text(encoding="utf-8")


def test_small_pictures_have_no_ms_ssim(folder):
    _, lines = compare.page(str(folder / "small.png"), [str(folder / "small.png")])
    assert lines[-1].endswith("–")


def test_what_does_not_compare_is_one_line(folder, capsys):
    for other, message in (
        ("small.png", "10 x 10 pixels"),
        ("none.prc", "No such file"),
        ("report.html", "not an image"),
    ):
        (folder / "report.html").touch()
        assert main(["compare", str(folder / "b.jpg"), str(folder / other), "-o", str(folder / "x.html")]) == 1
        told = capsys.readouterr().err
        assert message in told and told.count("\n") == 1
    assert not (folder / "x.html").exists()
    with pytest.raises(PrancImgError, match=r"b\.jpg: the image is broken"):
        (folder / "cut").mkdir()
        (folder / "cut" / "b.jpg").write_bytes((folder / "b.jpg").read_bytes()[:1500])
        compare.page(str(folder / "b.jpg"), [str(folder / "cut" / "b.jpg")])


def test_no_file_that_is_compared_is_overwritten(folder, capsys):
    (folder / "link.png").symlink_to("small.png")
    for output in ("small.png", "link.png", "b.jpg"):
        before, page = (folder / output).read_bytes(), str(folder / output)
        assert main(["compare", str(folder / "small.png"), str(folder / "b.jpg"), "-o", page]) == 1
        assert "would take the place of" in capsys.readouterr().err and (folder / output).read_bytes() == before


def test_names_that_are_alike_are_told_apart():
    assert compare._labels(["x/a.prc", "y/b.prc"]) == ["a.prc", "b.prc"]
    assert compare._labels(["x/a.prc", "y/a.prc"]) == ["x/a.prc", "y/a.prc"]
    assert compare._labels(["a.prc", "a.prc"]) == ["a.prc (1)", "a.prc (2)"]


def test_the_page_in_a_browser(report, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("there is no Chromium here")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page, complaints, requests = browser.new_page(viewport={"width": 1000, "height": 900}), [], []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(report.as_uri())
        assert page.title() == "phöto <1>.png – compared" and "phöto <1>.png" in page.inner_text("h1")
        assert page.is_hidden("#viewer-rates") and page.is_hidden("#viewer-scenes")
        assert page.locator("tbody tr").count() == 4
        assert page.inner_text("#viewer-left-caption b") == "a.prc"
        page.select_option("#viewer-left", "Original")
        page.select_option("#viewer-right", "same.webp")
        page.check("#viewer-difference")
        stage = page.locator("#viewer-stage").bounding_box()

        def shown() -> np.ndarray:
            page.screenshot(path=tmp_path / "shot.png", clip=stage)
            return np.asarray(Image.open(tmp_path / "shot.png").convert("RGB"))[20:-20, 20:-20].astype(int)

        assert shown().max() == 0  # a lossless copy differs nowhere
        page.select_option("#viewer-right", "a.prc")
        assert shown().mean() > 5 and page.is_hidden("#viewer-divider")
        page.uncheck("#viewer-difference")
        assert shown().mean() > 40 and page.is_visible("#viewer-divider")
        page.dblclick("#viewer-stage")
        assert "%" in page.inner_text("#viewer-scale")
        browser.close()
    assert not complaints and all(url.startswith(("file:", "data:")) for url in requests)
