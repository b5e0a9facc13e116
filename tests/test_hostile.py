"""Any bytes at all give a picture or one PrancImgError, soon and in bounded memory; no change goes unnoticed."""

import io
import itertools
import random
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import prancimg
from prancimg import PrancImgError, codec  # noqa: F401  (before memory is measured)
from prancimg.apps import cli
from prancimg.decoding import decoder
from prancimg.format import bitstream, facts, files  # noqa: F401  (before memory is measured)
from prancimg.format.bitstream import SIGNATURE, Segment
from prancimg.format.header import Coded, Header
from prancimg.format.layout import Kind, Siren
from prancimg.format.range_coder import Encoder
from tools.fuzz import check, mutate
from tools.mutations import measured, scrambler

HERE = Path(__file__).parent
GOLDEN = {path.stem: path.read_bytes() for path in sorted((HERE / "golden").glob("*.prc"))}
HOSTILE = sorted((HERE / "hostile").glob("*.prc"))
QUICK = [name for name in GOLDEN if name not in ("siren", "siren-sign", "siren-popcount", "siren-extremes")]
MIB = 1 << 20


REFUSED = {
    "a-field-of-many-steps": "takes 12386865 steps",
    "a-field-one-pixel-wide": "takes 6291453 steps",
    "basis-of-popcounts": "basis has 3934720000 entries",
    "sines": "network is too large",
    "wide-network": "network is too large",
    "wrong-length": "wrong checksum",
}


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path.stem)
def test_what_once_went_wrong_does_not_any_more(path):
    """Each refused by the cap that it led to, or decoded, whatever its number of pixels."""
    data = path.read_bytes()
    if path.stem in REFUSED:
        with pytest.raises(PrancImgError, match=REFUSED[path.stem]):
            prancimg.info(data)
    assert check(data, None) == {"one-wave-per-pixel": "whole", "wrong-length": "partial"}.get(path.stem, "refused")


def test_mutations_inside_the_structure():
    became = Counter()
    for seed in range(150):
        choose = random.Random(seed)
        became[check(mutate(GOLDEN[QUICK[seed % len(QUICK)]], choose, scrambler(choose)))] += 1
    assert became.total() == 150 and min(became["whole"], became["refused"]) > 10 and became["partial"] > 1


def test_every_flipped_bit_is_noticed():
    """Also in what decoders skip: there is no byte that no checksum covers."""
    for data in GOLDEN.values():
        for bit in range(0, 8 * len(data), 1 if len(data) < 400 else 5):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            with pytest.raises(PrancImgError):
                bitstream.read(bytes(changed))


def test_random_bytes_and_lengths():
    rng = random.Random(0)
    for length in itertools.chain(range(40), (1000, 100_000)):
        for start in (b"", SIGNATURE, SIGNATURE + b"\x01"):
            with pytest.raises(PrancImgError):
                prancimg.decode(start + rng.randbytes(length))


def file(header: Header, payload: bytes = bytes(64), field: bytes = bytes(64)) -> bytes:
    """A file of a header, its other payloads all the same."""
    more = [(Segment.FIELD_0, field)] if header.channels else []
    return bitstream.write([(Segment.HEADER, header.pack()), (Segment.WEIGHTS, payload), *more])


def network(width: int, height: int, hidden: int, layers: int, kind: Kind = Kind.IDENTITY, k: int = 0) -> Header:
    """A global network with ``k`` coefficients of every tensor (or as many as it has)."""
    tensors = tuple(Coded(min(k, size), 0, 99) if k else Coded(0) for size in Siren(hidden, layers).sizes)
    return Header(width, height, 0, hidden, layers, 1, kind, tensors)


def field(width: int, height: int, **changes: int) -> Header:
    """A frozen network and a field of all grids."""
    header = Header.unpack(bitstream.read(GOLDEN["field-frozen"])[Segment.HEADER])
    return replace(header, width=width, height=height, luma_from=0, chroma_from=0, **changes)


BOMBS = {
    "pixels": network(1 << 20, 1 << 20, 1, 1),
    "more pixels than Pillow's": network(30_000, 6_000, 1, 1),
    "wide network": network(4000, 4000, 512, 16),
    "sines": network(13_000, 13_000, 512, 1),
    "basis of signs": network(9, 9, 512, 16, Kind.SIGN, 1000),
    "basis of popcounts": network(9, 9, 512, 16, Kind.POPCOUNT, 1000),
    "a field's pixels": field(20_000, 20_000),
    "a field one pixel wide": field(1, 1 << 20),
    "a field one pixel high": field(1 << 20, 1),
    "a field of many steps": field(100, 1 << 20),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_anything_is_allocated(name):
    data = file(BOMBS[name])
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(PrancImgError):
        prancimg.decode(data)
    assert time.process_time() - began < 0.5
    assert tracemalloc.get_traced_memory()[1] < MIB
    tracemalloc.stop()


def zeros(header: Header) -> bytes:
    """The weights segment of coefficients that are 0."""
    encoder = Encoder()
    for each in header.tensors:
        encoder.put(np.zeros(each.k, np.int64), each.scale)
    return encoder.finish()


LARGE = {
    "wide": (network(1 << 14, 2, 512, 1), 160),
    "tall": (network(2, 1 << 14, 512, 1), 160),
    "all weights": (network(3, 3, 512, 16), 220),
    "hadamard": (network(3, 3, 512, 4, Kind.HADAMARD, 1 << 17), 160),
    "signs": (network(3, 3, 256, 2, Kind.SIGN, 20), 120),
    "popcounts": (network(3, 3, 256, 2, Kind.POPCOUNT, 20), 120),
    "tall field": (field(3, 300), 12),
    "wide field": (field(700, 1), 12),
    "field": (field(120, 160), 12),
}


@pytest.mark.parametrize("name", LARGE)
def test_memory_follows_from_the_pixels_and_the_network(name):
    """30 bytes a pixel, the network, and a tile."""
    header, mebibytes = LARGE[name]
    data = file(header, zeros(header))
    _, peak, became = measured(lambda: prancimg.decode(data))
    assert became == "decoded" and peak < mebibytes * MIB


@pytest.mark.parametrize("value", [1, -1])
def test_absurd_weights_paint_something_without_a_word(value):
    """The largest coefficients at the largest step: floats overflow, and nobody hears of it."""
    for kind in Kind:
        header = network(5, 4, 40, 3, kind, 300)
        header = replace(header, tensors=tuple(replace(each, step=135) for each in header.tensors))
        model = decoder.Model.of(header)
        alpha = [np.full(each.k, value * ((1 << 20) - 1)) for each in header.tensors]
        theta = model.parameters(alpha, header.tensors)
        assert max(np.abs(tensor).max() for tensor in theta.values()) < 2**62
        assert decoder.render(model.siren, theta, 4, 5).shape == (4, 5, 3)


def test_too_little_memory_is_our_own_error(monkeypatch):
    def allocate(*_):
        raise MemoryError

    monkeypatch.setattr(decoder, "read_field_prefix", allocate)
    with pytest.raises(PrancImgError, match="memory"):
        prancimg.decode(GOLDEN["field"])


def test_a_picture_beyond_memory_is_told_in_one_line(tmp_path):
    """The whole command under a limit on its address space, as ulimit -v sets it."""
    (tmp_path / "in").write_bytes(file(field(12_000, 8_000)))
    limit = 1_400 * MIB
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))"
    run = "import sys; from prancimg.apps.cli import main; sys.exit(main(['decode', 'in', 'out.png']))"
    done = subprocess.run([sys.executable, "-c", f"{limited}\n{run}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "not enough memory" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")]
)
def test_too_little_memory_to_encode_is_our_own_error(monkeypatch, error):
    from prancimg.fit import encoder

    def allocate(*_):
        raise error

    monkeypatch.setattr(encoder, "encode_array", allocate)
    with pytest.raises(PrancImgError, match="not enough memory to encode a picture of 5 x 4"):
        prancimg.encode(np.zeros((4, 5, 3), np.uint8))


def test_endless_input_is_not_read():
    with Path("/dev/zero").open("rb") as endless:
        assert files._beginning(endless) == bytes(8)
    with pytest.raises(PrancImgError, match="signature"):
        prancimg.decode("/dev/zero")


def test_endless_images_are_not_read_either(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(files, "MAX_FILE", 1 << 20)
    with Path("/dev/zero").open("rb") as endless:
        for image in ("/dev/zero", endless):
            with pytest.raises(PrancImgError, match="larger than 1048576 bytes"):
                prancimg.encode(image)
    assert cli.main(["encode", "/dev/zero", str(tmp_path / "out.prc")]) == 1
    assert capsys.readouterr().err == "prancimg: /dev/zero: the file is larger than 1048576 bytes\n"


def test_files_of_a_gigabyte_are_refused(monkeypatch):
    monkeypatch.setattr(files, "MAX_FILE", 1000)
    monkeypatch.setattr(bitstream, "MAX_FILE", 1000)
    endless = io.BytesIO(GOLDEN["field-frozen"] + bytes(1 << 16))
    data = files._beginning(endless)
    assert len(data) == 1001
    with pytest.raises(PrancImgError, match="larger than"):
        prancimg.decode(data)


def test_nothing_is_left_behind_by_large_blocks():
    """Caches keep what ordinary files use, not what a hostile one brought."""
    header = network(3, 3, 512, 2, Kind.HADAMARD, 10)
    prancimg.decode(file(header, zeros(header)))
    tracemalloc.start()
    for seed in range(2, 5):
        prancimg.decode(file(replace(header, seed=seed), zeros(header)))
    assert tracemalloc.get_traced_memory()[0] < 2 * MIB  # signs and orders of one such block take 4
    tracemalloc.stop()
