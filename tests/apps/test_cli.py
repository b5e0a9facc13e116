"""The command as a user types it, each in a process of its own."""

import io
import json
import os
import pty
import subprocess
import sys
import termios
import time

import numpy as np
import pytest
from PIL import Image

import prancimg
from prancimg.__main__ import main as entry
from prancimg.apps.cli import main
from prancimg.format import bitstream
from prancimg.format.extras import Extras, Metadata


def run(*arguments, input=None, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "prancimg", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, input=input, **options)


def one_line(done: subprocess.CompletedProcess) -> str:
    """The only line on stderr of a failed command."""
    text = done.stderr.decode()
    assert done.returncode == 1 and text.startswith("prancimg: ") and text.count("\n") == 1, text
    return text


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photo):
    folder = tmp_path_factory.mktemp("a folder, with spaces")
    Image.fromarray(photo).save(folder / "phöto.png")
    done = run("encode", "phöto.png", "phöto.prc", "--bpp", "0.5", "-e1", "--seed", "0", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_encoding_writes_a_file_at_the_rate_and_one_line(folder, photo):
    done = run("encode", "phöto.png", "again.prc", "--bpp", "0.5", "-e1", "--seed", "0", cwd=folder)
    data = (folder / "again.prc").read_bytes()
    assert data == (folder / "phöto.prc").read_bytes()
    assert 0.97 * 768 <= len(data) <= 768
    assert done.stdout == b"" and f"{len(data)} bytes" in done.stderr.decode()


def test_a_fresh_process_decodes_what_the_library_decodes(folder):
    (folder / "copy.prc").write_bytes((folder / "phöto.prc").read_bytes())
    done = run("decode", "copy.prc", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert np.array_equal(pixels(folder / "copy.png"), prancimg.decode(folder / "phöto.prc"))


def test_pipes_carry_everything(folder):
    options = ("--bpp", "0.5", "-e1", "--seed", "0", "--quiet")
    encoded = run("encode", "-", "-", *options, input=(folder / "phöto.png").read_bytes())
    assert encoded.stderr == b"" and encoded.stdout == (folder / "phöto.prc").read_bytes()
    decoded = run("decode", "-", input=encoded.stdout)
    assert decoded.stdout[:4] == b"\x89PNG"
    facts = run("info", "-", "--json", input=encoded.stdout)
    assert json.loads(facts.stdout) == prancimg.info(encoded.stdout)


@pytest.mark.parametrize("model", ["field", "siren"])
def test_both_models_travel_through_files(folder, model):
    done = run("encode", "phöto.png", f"{model}.prc", "--bpp", "0.5", "-e1", "-m", model, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(run("info", f"{model}.prc", "--json", cwd=folder).stdout)["model"] == model
    assert run("decode", f"{model}.prc", cwd=folder).returncode == 0
    assert np.array_equal(pixels(folder / f"{model}.png"), prancimg.decode(folder / f"{model}.prc"))


@pytest.mark.parametrize("ending", ["jpg", "webp", "tiff", "ppm", "bmp"])
def test_the_ending_chooses_the_format(folder, ending):
    assert run("decode", "phöto.prc", f"out.{ending}", cwd=folder).returncode == 0
    assert pixels(folder / f"out.{ending}").shape == (96, 128, 3)


def test_info_prints_a_table(folder):
    lines = run("info", "phöto.prc", cwd=folder).stdout.decode().splitlines()
    size = (folder / "phöto.prc").stat().st_size
    assert lines[0] == "phöto.prc" and "  size        128 x 96, RGB, 8 bits a sample" in lines
    assert f"  file        {size} bytes, {8 * size / (128 * 96):.4f} bits per pixel" in lines
    parts = [line.rsplit(maxsplit=5) for line in lines[lines.index("") + 2 :]]
    assert [part[0].strip() for part in parts][:3] == ["container", "header", "weights"]
    assert sum(int(part[1]) for part in parts) == size


def test_parts_and_sizes(folder):
    whole = pixels_of(folder, "whole.png")
    assert whole.shape == (96, 128, 3)
    assert np.array_equal(pixels_of(folder, "--crop", "10,20,30,40", "part.png"), whole[20:60, 10:40])
    assert pixels_of(folder, "large.webp", "--scale", "2.5", "--crop", "0,0,40,10").shape == (25, 100, 3)
    assert pixels_of(folder, "--preview", "small.png").shape == (24, 32, 3)
    assert pixels_of(folder, "--scale=0.5", "half.png").shape == (48, 64, 3)


def pixels_of(folder, *arguments) -> np.ndarray:
    done = run("decode", "phöto.prc", *arguments, cwd=folder)
    assert (done.returncode, done.stderr) == (0, b"")
    return pixels(folder / next(name for name in arguments if name.endswith((".png", ".webp"))))


def test_the_format_may_be_named(folder):
    assert run("decode", "phöto.prc", "named.dat", "--format", "jpeg", cwd=folder).returncode == 0
    with Image.open(folder / "named.dat") as image:
        assert image.format == "JPEG"
    assert run("decode", "phöto.prc", "-", "--format", "QOI", cwd=folder).stdout[:4] == b"qoif"
    assert run("decode", "phöto.prc", "--format", "tiff", cwd=folder).returncode == 0
    with Image.open(folder / "phöto.tiff") as image:
        assert image.format == "TIFF"


def test_odd_names_after_two_dashes(folder):
    (folder / "-odd name.prc").write_bytes((folder / "phöto.prc").read_bytes())
    assert run("decode", "--", "-odd name.prc", "-ünd.png", cwd=folder).returncode == 0
    assert pixels(folder / "-ünd.png").shape == (96, 128, 3)
    assert run("decode", "./-odd name.prc", "--scale", "0.5", "--", "-half.png", cwd=folder).returncode == 0
    assert pixels(folder / "-half.png").shape == (48, 64, 3)


def test_a_file_that_was_not_named_is_not_replaced(folder):
    (folder / "mine.prc").write_bytes((folder / "phöto.prc").read_bytes())
    (folder / "mine.png").write_bytes(b"the original")
    told = one_line(run("decode", "mine.prc", cwd=folder))
    assert "mine.png is there already" in told and "--force" in told
    assert (folder / "mine.png").read_bytes() == b"the original"
    assert run("decode", "mine.prc", "--force", cwd=folder).returncode == 0
    assert pixels(folder / "mine.png").shape == (96, 128, 3)
    (folder / "mine.png").write_bytes(b"the original")
    assert run("decode", "mine.prc", "mine.png", cwd=folder).returncode == 0
    assert pixels(folder / "mine.png").shape == (96, 128, 3)


def test_options_may_stand_anywhere(folder):
    for arguments in (("--preview", "-", "-"), ("-", "--preview", "-"), ("-", "--preview"), ("-", "-", "--preview")):
        done = run("decode", *arguments, input=(folder / "phöto.prc").read_bytes())
        with Image.open(io.BytesIO(done.stdout)) as image:
            assert image.size == (32, 24)


def test_what_is_lost_on_the_way_is_said_unless_quiet(folder):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).convert("CMYK").save(folder / "cmyk.jpg")
    done = run("encode", "cmyk.jpg", "cmyk.prc", "-e1", "-q0", cwd=folder)
    assert done.returncode == 0 and "cmyk.jpg: CMYK converted to RGB" in done.stderr.decode()
    assert run("encode", "cmyk.jpg", "cmyk.prc", "-e1", "-q0", "--quiet", cwd=folder).stderr == b""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions(shell):
    done = run("completion", shell)
    assert done.returncode == 0 and b"prancimg" in done.stdout and b"_ARGCOMPLETE" in done.stdout


def test_bash_completes_commands_options_and_choices(tmp_path):
    (tmp_path / "prancimg").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m prancimg "$@"\n')
    (tmp_path / "prancimg").chmod(0o755)
    (tmp_path / "my photo.png").touch()

    def complete(line: str) -> set[str]:
        script = f"""eval "$(prancimg completion bash)"
            COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=9
            COMP_WORDS=($COMP_LINE); [[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('')
            COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
            _python_argcomplete prancimg "${{COMP_WORDS[COMP_CWORD]}}" x; printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        path = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, env=path)
        return {word.strip() for word in done.stdout.splitlines()}

    assert {"encode", "decode", "info", "batch", "compare", "completion"} <= complete("prancimg ")
    assert complete("prancimg decode --sc") == {"--scale"}
    assert complete("prancimg encode a b --model ") == {"field", "siren"}
    assert {"png", "jpeg", "webp"} <= complete("prancimg decode a --format ")


def test_version_and_help():
    assert run("-V").stdout.decode().strip() == f"prancimg {prancimg.__version__}"
    for command in ([], ["encode"], ["decode"], ["info"], ["batch"], ["compare"], ["completion"]):
        done = run(*command, "--help")
        assert done.returncode == 0 and b"usage: prancimg" in done.stdout
        assert b"example" in done.stdout


def test_an_output_that_cannot_be_written_is_noticed_before_the_work(folder):
    began = time.perf_counter()
    one_line(run("encode", "phöto.png", "no/such/folder/x.prc", "-e9", cwd=folder))
    assert time.perf_counter() - began < 10


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("frobnicate",),
        ("encode", "only-one"),
        ("encode", "a", "b", "--bpp", "0"),
        ("encode", "a", "b", "--bpp", "much"),
        ("encode", "a", "b", "--bpp", "nan"),
        ("encode", "a", "b", "--bpp", "inf"),
        ("encode", "a", "b", "--bpp", "1", "--size", "9"),
        ("encode", "a", "b", "-q", "101"),
        ("encode", "a", "b", "-e", "10"),
        ("encode", "a", "b", "-m", "jpeg"),
        ("encode", "a", "b", "--device", "tpu"),
        ("encode", "a", "b", "--seed", "-1"),
        ("encode", "a", "b", "--qual", "5"),
        ("decode", "a", "b", "c"),
        ("decode", "a", "--scale", "0"),
        ("decode", "a", "--scale", "inf"),
        ("decode", "a", "b", "--preview", "c"),
        ("decode", "a", "--crop", "1,2,3"),
        ("decode", "a", "--crop", "1,2,3,x"),
        ("decode", "a", "--depth", "12"),
        ("decode", "a", "--scale", "2", "--frobnicate"),
        ("decode", "--", "a", "b", "--preview"),
        ("batch", "a"),
        ("batch", "a", "b", "--jobs", "0"),
        ("batch", "a", "b", "--jobs", "2", "--cluster", "c"),
        ("compare", "a"),
        ("completion", "tcsh"),
    ],
)
def test_wrong_usage_exits_with_2(arguments):
    done = run(*arguments)
    assert done.returncode == 2 and b"usage: prancimg" in done.stderr and b"Traceback" not in done.stderr


def test_failures_are_one_line_and_exit_with_1(folder):
    (folder / "broken.prc").write_bytes((folder / "phöto.prc").read_bytes()[:100])
    (folder / "text.png").write_text("hello")
    (folder / "empty.png").write_bytes(b"")
    damaged = bytearray((folder / "phöto.prc").read_bytes())
    damaged[-20] ^= 1
    (folder / "damaged.prc").write_bytes(damaged)
    for arguments, message in [
        (("encode", "none.png", "x.prc"), "none.png: No such file"),
        (("encode", "text.png", "x.prc"), "text.png: not an image"),
        (("encode", "empty.png", "x.prc"), "empty.png: not an image"),
        (("encode", ".", "x.prc"), "Is a directory"),
        (("encode", "phöto.png", "no/such/folder/x.prc", "--size", "300"), "no/such/folder"),
        (("encode", "phöto.png", "x.prc", "--size", "3"), "lowest possible is"),
        (("encode", "phöto.png", "x.prc", "--bpp", "0.001"), "lowest possible is"),
        (("decode", "none.prc"), "none.prc: No such file"),
        (("decode", "text.png", "x.png"), "text.png: not a .prc file"),
        (("decode", "broken.prc"), "broken.prc: the file is cut short"),
        (("decode", "damaged.prc"), "damaged.prc: wrong checksum"),
        (("decode", "phöto.prc", "x.xyz"), "'.xyz'"),
        (("decode", "phöto.prc", "x"), "no image format"),
        (("decode", "phöto.prc", "x.png", "--max-pixels", "10"), "limit of 10"),
        (("info", "empty.png"), "the file is empty"),
    ]:
        assert message in one_line(run(*arguments, cwd=folder)), arguments
    assert not (folder / "x.prc").exists() and not (folder / "x.png").exists()
    assert not list(folder.glob(".*")), "a temporary file was left behind"


def test_a_failed_command_keeps_the_existing_output(folder):
    (folder / "kept.prc").write_bytes(b"precious")
    one_line(run("encode", "phöto.png", "kept.prc", "--size", "3", cwd=folder))
    assert (folder / "kept.prc").read_bytes() == b"precious"


def test_a_link_stays_a_link_and_permissions_stay(folder):
    (folder / "target.png").write_bytes(b"old")
    (folder / "target.png").chmod(0o640)
    (folder / "link.png").symlink_to("target.png")
    assert run("decode", "phöto.prc", "link.png", cwd=folder).returncode == 0
    assert (folder / "link.png").is_symlink() and (folder / "target.png").stat().st_mode & 0o777 == 0o640
    assert pixels(folder / "target.png").shape == (96, 128, 3)


def test_devices_are_written_to(folder):
    assert run("decode", "phöto.prc", "/dev/null", cwd=folder).returncode == 1  # no ending, no format
    (folder / "null.png").symlink_to("/dev/null")
    assert run("decode", "phöto.prc", "null.png", cwd=folder).returncode == 0
    assert os.path.realpath(folder / "null.png") == "/dev/null"


def test_a_closed_pipe_is_no_drama(folder):
    command = f'"{sys.executable}" -m prancimg decode "phöto.prc" - | head -c 1 >/dev/null'
    done = subprocess.run(command, shell=True, cwd=folder, capture_output=True)
    assert done.stderr == b""


@pytest.mark.parametrize("exif", [b"garbage", b"MM\0*\xff\xff\xff\xff"])
def test_odd_metadata_is_no_reason_to_fail_nor_to_talk_much(folder, exif):
    segments = bitstream.read((folder / "phöto.prc").read_bytes())
    odd = bitstream.write([*segments.items(), *Extras(metadata=Metadata(exif=exif)).segments()])
    for arguments in (["odd.tiff"], ["odd.avif"], ["odd.jpg"], ["odd.png", "--strip"]):
        done = run("decode", "-", *arguments, cwd=folder, input=odd)
        assert done.returncode == 0 and done.stderr.count(b"\n") <= 1, done.stderr


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("info phöto.prc >&-", "standard output: it is closed"),
        ("completion bash >&-", "standard output: it is closed"),
        ("decode phöto.prc - >&-", "standard output: it is closed"),
        ("encode phöto.png - >&-", "standard output: it is closed"),
        ("decode - x.png <&-", "standard input: it is closed"),
        ("encode - x.prc <&-", "standard input: it is closed"),
        ("info - <&-", "standard input: it is closed"),
        ("info phöto.prc >/dev/full", "standard output: No space left on device"),
        ("decode phöto.prc - >/dev/full", "standard output: No space left on device"),
        ("decode phöto.prc /dev/full --format png", "/dev/full: No space left on device"),
        ("decode ''", "'': No such file or directory"),
        ("decode .", ".: Is a directory"),
        ("encode '' x.prc", "'': No such file or directory"),
        ("encode phöto.png ''", "'': No such file or directory"),
        ("batch '' x", "'': No such file or directory"),
        ("batch phöto.png ''", "'': No such file or directory"),
    ],
)
def test_closed_and_full_streams_are_one_line(folder, command, said):
    done = subprocess.run(f'"{sys.executable}" -m prancimg {command}', shell=True, cwd=folder, capture_output=True)
    assert said in one_line(done)


def test_what_needs_no_stream_works_without_any(folder):
    command = f'"{sys.executable}" -m prancimg decode phöto.prc closed.png'
    assert subprocess.run(f"{command} <&- >&- 2>&-", shell=True, cwd=folder).returncode == 0
    assert pixels(folder / "closed.png").shape == (96, 128, 3)
    done = subprocess.run(f'"{sys.executable}" -m prancimg decode none.prc - 2>&-', shell=True, capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"")  # nothing strays into the output


def test_an_interrupt_while_the_command_is_loaded_ends_quietly_too(monkeypatch, capsys):
    class Interrupted:
        @property
        def main(self):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "prancimg.apps.cli", Interrupted())
    assert entry() == 130
    assert capsys.readouterr().err == "prancimg: interrupted\n"


def test_the_terminal_sees_progress_and_no_binary(folder):
    def in_terminal(*arguments):
        """Run with stdout and stderr on a terminal; return exit status and what it showed."""
        primary, secondary = pty.openpty()
        termios.tcsetwinsize(secondary, (24, 80))
        command = [sys.executable, "-m", "prancimg", *arguments]
        process = subprocess.Popen(command, stdout=secondary, stderr=secondary, stdin=subprocess.DEVNULL, cwd=folder)
        os.close(secondary)
        shown = b""
        while True:
            try:
                part = os.read(primary, 4096)
            except OSError:  # the other side closed
                break
            if not part:
                break
            shown += part
        os.close(primary)
        return process.wait(), shown

    status, shown = in_terminal("encode", "phöto.png", "bar.prc", "--size", "300", "-e1")
    assert status == 0 and b"encoding:" in shown and b"%|" in shown
    status, shown = in_terminal("decode", "phöto.prc", "-")
    assert status == 1 and b"terminal" in shown and b"PNG" not in shown
    status, shown = in_terminal("encode", "phöto.png", "bar.prc", "--size", "300", "-e1", "--quiet")
    assert (status, shown) == (0, b"")


def test_defects_are_told_in_one_line(monkeypatch, capsys, folder):
    def fail(*_, **__):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("prancimg.apps.cli.info", fail)
    assert main(["info", str(folder / "phöto.prc")]) == 1
    assert capsys.readouterr().err == "prancimg: internal error, please report it: RuntimeError: two lines\n"


def interrupted(*_, **__):
    raise KeyboardInterrupt


def interrupted_in_compiled_code(*_, **__):
    try:
        raise SystemError("a callback returned a result with an exception set") from KeyboardInterrupt()
    except SystemError as error:
        raise SystemError("a function returned a result with an exception set") from error


@pytest.mark.parametrize("interrupt", [interrupted, interrupted_in_compiled_code])
def test_an_interrupt_ends_quietly(monkeypatch, capsys, folder, interrupt):
    monkeypatch.setattr("prancimg.fit.encoder.encode_array", interrupt)
    assert main(["encode", str(folder / "phöto.png"), str(folder / "new.prc")]) == 130
    assert capsys.readouterr().err == "prancimg: interrupted\n" and not (folder / "new.prc").exists()
