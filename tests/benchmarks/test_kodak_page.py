"""The report in a browser: the divider moves, the picture zooms, the curves tell their values."""

import json
import shutil

import pytest
from PIL import Image

from prancimg.apps.viewer import Picture, Scene, as_script, viewer

sync_api = pytest.importorskip("playwright.sync_api")


@pytest.fixture(scope="module")
def chromium():
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("there is no Chromium here")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, kodak_report):
    """The report, and a check that it was quiet and fetched nothing."""
    page, complaints, requests = chromium.new_page(viewport={"width": 1280, "height": 900}), [], []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((kodak_report / "index.html").as_uri())
    yield page
    page.close()
    assert not complaints
    assert all(url.startswith(("file:", "data:")) for url in requests)


def middle(page, selector):
    box = page.locator(selector).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def share(page):
    return int(page.get_attribute("#viewer-divider", "aria-valuenow"))


def test_the_divider_can_be_dragged_and_what_lies_below_it_shows(page, tmp_path):
    page.locator("#viewer").scroll_into_view_if_needed()
    stage = page.locator("#viewer-stage").bounding_box()
    x, y = middle(page, "#viewer-divider")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(stage["x"] + 0.8 * stage["width"], y, steps=5)
    page.mouse.up()
    assert share(page) == 80
    page.mouse.move(stage["x"], y)  # without a button nothing moves
    assert share(page) == 80

    def at(part):
        page.screenshot(path=tmp_path / "shot.png")
        with Image.open(tmp_path / "shot.png") as shot:
            return shot.convert("RGB").getpixel((round(stage["x"] + part * stage["width"]), round(stage["y"] + 20)))

    page.evaluate("""() => ["left", "right"].forEach((side, i) => {
        const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
        canvas.fillStyle = ["red", "blue"][i];
        canvas.fillRect(0, 0, 1, 1);
        document.getElementById(`viewer-${side}-image`).src = canvas.canvas.toDataURL();
    })""")
    page.wait_for_timeout(200)
    assert (at(0.7), at(0.9)) == ((255, 0, 0), (0, 0, 255))


def test_the_divider_moves_with_the_keys(page):
    page.focus("#viewer-divider")
    for key, expected in (("ArrowLeft", 48), ("Shift+ArrowRight", 58), ("Home", 0), ("ArrowLeft", 0), ("End", 100)):
        page.keyboard.press(key)
        assert share(page) == expected


def test_zoom_keeps_the_place_and_the_picture_can_be_moved(page):
    page.locator("#viewer").scroll_into_view_if_needed()
    image = page.locator("#viewer-left-image")
    before, (x, y) = image.bounding_box(), middle(page, "#viewer-stage")
    page.mouse.dblclick(x - 100, y - 50)
    after = image.bounding_box()
    assert after["width"] == pytest.approx(4 * before["width"], rel=0.01)
    assert (x - 100 - after["x"]) / after["width"] == pytest.approx((x - 100 - before["x"]) / before["width"], abs=0.01)
    page.mouse.move(x - 100, y)
    page.mouse.down()
    page.mouse.move(x - 60, y + 30)
    page.mouse.up()
    moved = image.bounding_box()
    assert (moved["x"] - after["x"], moved["y"] - after["y"]) == pytest.approx((40, 30), abs=1)
    page.click("#viewer-fit")
    assert image.bounding_box() == pytest.approx(before)


def test_codecs_are_compared_at_the_nearest_rate(page):
    assert page.locator("#viewer-left-caption b").inner_text() == "prancimg siren"
    page.select_option("#viewer-right", "WebP")
    for rate in range(page.locator("#viewer-rate option").count()):
        page.select_option("#viewer-rate", index=rate)
        left, right = (float(page.locator(f"#viewer-{side}-caption").inner_text().split("\n")[1].split()[0])
                       for side in ("left", "right"))  # fmt: skip
        assert 0.8 < right / left < 1.25
    page.select_option("#viewer-right", "Original")
    assert "as PNG" in page.locator("#viewer-right-caption").inner_text()
    sources = [page.get_attribute(f"#viewer-{side}-image", "src") for side in ("left", "right")]
    assert sources[0] != sources[1]


def test_curves_show_values_and_can_be_hidden(page):
    page.locator("#chart").scroll_into_view_if_needed()
    x, y = middle(page, "#chart circle >> nth=0")
    page.mouse.move(x, y)
    assert page.locator("#tip").is_visible() and page.locator("#tip").inner_text().endswith(" dB")
    shown = page.locator("#chart path").count()
    page.get_by_role("button", name="WebP").click()
    assert page.locator("#chart path").count() == shown - 1
    page.select_option("#metric", "MS-SSIM")
    page.check("#log")
    page.select_option("#view", "kodim02")
    assert page.locator("#chart path").count() == 2  # JPEG and siren: WebP stays hidden
    assert page.get_by_role("button", name="WebP").get_attribute("aria-pressed") == "false"


def test_labels_cannot_break_out_of_the_page():
    names = ["</script><b>", "a<!--.png", "b<script>.png"]  # the last two together would hide the script's end
    assert "<" not in as_script(names) and json.loads(as_script(names)) == names
    picture = Picture(b"", "image/png", "</script>", 1)
    fragment = viewer([Scene("</script>", 8, 8, picture, {"</script>": [picture]})])
    assert fragment.count("</script>") == 2
