"""The guide's examples, run one after the other as they stand."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from prancimg.apps.cli import main
from prancimg.fit import field_encoder, siren_encoder

GUIDE = Path(__file__).parents[1] / "docs" / "guide.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


def test_there_are_examples():
    assert {language for language, _ in BLOCKS} == {"sh", "python"} and len(BLOCKS) >= 6


def test_the_examples_run(tmp_path, monkeypatch, photo):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(field_encoder, "EFFORTS", dict.fromkeys(range(1, 10), 8))
    monkeypatch.setattr(siren_encoder, "EFFORTS", dict.fromkeys(range(1, 10), 60))
    small = Image.fromarray(photo).resize((48, 32))
    small.save("photo.png")
    Path("photos").mkdir()
    small.save("photos/one.jpg")
    names: dict[str, object] = {}
    for language, block in BLOCKS:
        if language == "python":
            exec(compile(block, str(GUIDE), "exec"), names)
            continue
        for line in block.splitlines():
            command = shlex.split(line, comments=True)
            assert command[0] == "prancimg" and main(command[1:]) == 0, line
    sizes = {}
    for path in (*Path().glob("*.png"), Path("back.jpg")):
        with Image.open(path) as image:
            sizes[path.name] = image.size
            assert image.format == ("WEBP" if path.suffix == ".jpg" else "PNG")
    assert sizes["large.png"] == (120, 80) and sizes["detail.png"] == (240, 160) and sizes["small.png"] == (12, 8)
    assert Path("small/one.prc").is_file() and Path("small/all.json").is_file() and Path("report.html").is_file()


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md"])
def test_options_that_pages_name_exist(page, capsys):
    from prancimg.apps.arguments import command_parser

    _, commands = command_parser()
    known = {option for command in commands.values() for option in command._option_string_actions}
    text = (GUIDE.parents[1] / page).read_text(encoding="utf-8")
    text = re.sub(r"`python -m benchmarks[^`]+`", "", text)  # these have options of their own
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= known
