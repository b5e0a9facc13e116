"""Downloads: whole and unchanged, or one line that says what to do."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.kodak import data
from benchmarks.kodak.__main__ import main
from prancimg.errors import PrancImgError

PICTURE = b"not really a picture, but with a checksum" * 100


class Mirror(BaseHTTPRequestHandler):
    """Good and bad mirrors, by the first part of the path."""

    def do_GET(self):
        kind = self.path.split("/")[1]
        self.server.requests.append(self.path)
        if kind == "lost":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(PICTURE)))
        self.end_headers()
        self.wfile.write({"good": PICTURE, "changed": PICTURE[::-1], "cut": PICTURE[:1000]}[kind])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setitem(data.CHECKSUMS, 7, hashlib.sha256(PICTURE).hexdigest())
    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        server.requests = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def url(server, kind):
    return f"http://127.0.0.1:{server.server_port}/{kind}/"


def test_a_good_download_is_kept_and_not_repeated(server, tmp_path):
    for _ in range(2):
        data.download([7], tmp_path / "new", [url(server, "good")])
    assert (tmp_path / "new" / "kodim07.png").read_bytes() == PICTURE
    assert server.requests == ["/good/kodim07.png"]


@pytest.mark.parametrize(
    ("kind", "told"), [("changed", "wrong checksum"), ("cut", "connection was cut"), ("lost", "Not Found")]
)
def test_a_bad_mirror_leaves_nothing_and_is_told_in_one_line(server, tmp_path, kind, told):
    with pytest.raises(PrancImgError, match=told) as caught:
        data.download([7], tmp_path, [url(server, kind)])
    assert "--data" in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_next_mirror_helps(server, tmp_path):
    data.download([7], tmp_path, [url(server, kind) for kind in ("lost", "cut", "changed", "good")])
    assert (tmp_path / "kodim07.png").read_bytes() == PICTURE


def test_without_a_network_the_command_names_data(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(data, "MIRRORS", ("http://127.0.0.1:9/",))  # discard: nobody listens
    monkeypatch.setattr(data.platformdirs, "user_cache_path", lambda _: tmp_path / "cache")
    assert main(["--images", "3", "--codecs", "jpeg", "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert "kodim03.png" in told and "--data" in told and told.count("\n") == 1


def test_the_checksums_are_those_of_the_images(kodak):
    for number, checksum in data.CHECKSUMS.items():
        assert hashlib.sha256((kodak / data.file_name(number)).read_bytes()).hexdigest() == checksum
