"""Model files: literal bytes, an independent decoder, round trips, exactness, and a refusal for everything else."""

import json
import math
import random
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import plain_model
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plain_decoder import Bad

import prancimg
from prancimg import PrancImgError
from prancimg.format import bitstream
from prancimg.format.layout import Kind
from prancimg.format.range_coder import MAGNITUDE
from prancimg.pranc import compact
from prancimg.pranc.compact import MODEL, Layout, ModelSegment, Network, Recipe, Start, Structure, rounded, runs
from tools.make_golden_models import APART, RECIPES, SHAPES, SORTS, contents, network

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.prn"))
SIZE = sum(math.prod(shape) for shape in SHAPES.values())


def unpack(data: bytes, **options) -> Network:
    return Network.unpack(data, SHAPES, SORTS, **options)


def all_weights(made: Network, like=np.asarray) -> dict[str, np.ndarray]:
    weights = made.weights(SHAPES, like(made.coefficients.astype(np.float64)))
    return {name: np.asarray(weight.cpu() if like is not np.asarray else weight) for name, weight in weights.items()}


recipes = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


def test_a_file_byte_by_byte():
    """Written down by hand but for the range coder's words, which the independent decoder vouches for."""
    made = Network(
        Layout({"w": (2, 3)}, Recipe(300, Kind.SIGN, Structure.TENSOR)),
        80,
        np.array([3, -2, 0, 1, 0, -1]),
        {"mean": np.array([1.5, -2], np.float32), "n": np.array(5)},
    )

    def segment(body: bytes) -> bytes:
        return body + zlib.crc32(body).to_bytes(4, "little")

    fingerprint = bitstream.varint(zlib.crc32(b"w 2 3\nmean float 2\nn int\n"))
    header = fingerprint + b"\xac\x02" + b"\x01" + b"\x01" + b"\x01" + b"\x06" + b"\x50" + b"\x00" + b"\x11"
    #                      seed 300      sign      tensor    θ0 seeded k = 6    step 80   no zeros  scale 17
    apart = b"\xc0\x3f\x00\xc0" + b"\x05" + bytes(7)  # 1.5, -2; 5
    coefficients = bytes.fromhex("482952f1")
    expected = (
        b"\x8bPRN\r\n\x1a\n\x01"
        + segment(bytes([1, len(header)]) + header)
        + segment(bytes([2, 12]) + apart)
        + segment(bytes([3, len(coefficients)]) + coefficients)
    )
    assert made.pack() == expected
    alpha, tensors = plain_model.decode(expected, {"w": (2, 3)}, {"mean": ("float", (2,)), "n": ("int", ())})
    assert alpha == [3, -2, 0, 1, 0, -1] and tensors["mean"] == [1.5, -2] and tensors["n"] == [5]


def test_there_is_a_golden_file_of_every_structure_and_kind():
    assert {path.stem for path in GOLDEN} == set(RECIPES)
    assert {recipe.structure for recipe in RECIPES.values()} == set(Structure)
    assert {recipe.kind for recipe in RECIPES.values()} == set(Kind)
    assert {recipe.start for recipe in RECIPES.values()} == set(Start)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_golden_file_has_the_same_weights(path):
    """They are made once and kept forever."""
    assert contents(path.read_bytes()) == json.loads(path.with_suffix(".json").read_text())


@recipes
@pytest.mark.parametrize("k", [1, 7, 200, 1000])
def test_a_decoder_written_from_the_specification_agrees(recipe, k):
    made = network(recipe, k)
    alpha, tensors = plain_model.decode(made.pack(), SHAPES, APART)
    assert alpha == made.coefficients.tolist()
    for name, weight in all_weights(made).items():
        assert tensors[name] == weight.ravel().tolist()
    for name, array in made.apart.items():
        assert tensors[name] == array.ravel().tolist()


@recipes
def test_every_number_comes_back(recipe):
    for k in (1, 63, 64, 65, 900, SIZE):
        made, found = network(recipe, k), unpack(network(recipe, k).pack())
        assert np.array_equal(found.coefficients, made.coefficients) and found.step == made.step
        assert found.layout.recipe == recipe
        assert all(np.array_equal(found.apart[name], array) for name, array in made.apart.items())
        assert {name: a.dtype for name, a in found.apart.items()} == {name: a.dtype for name, a in made.apart.items()}


@recipes
def test_weights_are_the_same_bits_in_any_library(recipe):
    made = network(recipe, 500)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in devices:
        other = all_weights(made, lambda x, device=device: torch.from_numpy(x).to(device))
        assert all(w.tobytes() == other[name].tobytes() for name, w in all_weights(made).items())


@recipes
def test_a_layer_alone_has_the_weights_it_has_among_all(recipe):
    made = network(recipe, 500)
    for name, weight in all_weights(made).items():
        alone = made.weights([name], made.coefficients.astype(np.float64))[name]
        assert alone.tobytes() == weight.tobytes() and alone.shape == SHAPES[name] and alone.dtype == np.float32


@recipes
def test_a_prefix_is_the_network_of_fewer_coefficients(recipe):
    made = network(recipe, 900)
    zeroed = replace(made, coefficients=made.coefficients * (np.arange(900) < 350))
    short = unpack(made.prefix(350).pack())
    assert len(short.pack()) < len(made.pack())
    assert all(w.tobytes() == all_weights(zeroed)[name].tobytes() for name, w in all_weights(short).items())


def test_a_file_cut_anywhere_among_its_coefficients_is_a_prefix():
    made = network(RECIPES["model-tensor"], 1500)
    data, ends, seen = made.pack(), {high for _, high in runs(1500)}, set()
    for at in range(len(data) - 1, len(data) - 600, -23):
        with pytest.raises(PrancImgError):
            unpack(data[:at])
        found = unpack(data[:at], allow_partial=True).coefficients
        assert len(found) in ends and np.array_equal(found, made.coefficients[: len(found)])
        seen.add(len(found))
    assert len(seen) > 5
    with pytest.raises(PrancImgError):
        unpack(data[:60], allow_partial=True)


@pytest.mark.parametrize(
    ("draw", "spread"), [(d, s) for d in ("normal", "laplace", "sparse") for s in (1.5, 6, 25)][:-1]
)
def test_a_file_is_hardly_larger_than_the_entropy_of_its_symbols(draw, spread):
    choose = np.random.default_rng(0)
    k = 10_000
    values = choose.laplace(0, spread, k) if draw == "laplace" else choose.normal(0, spread, k)
    q = np.rint(values * (choose.random(k) < 0.1 if draw == "sparse" else 1)).astype(np.int64)
    made = Network(Layout({"w": (250, 300)}, Recipe(0, Kind.HADAMARD, Structure.DENSE)), 80, q, {})
    counts = np.unique(q, return_counts=True)[1]
    entropy = -(counts * np.log2(counts / k)).sum() / 8
    header = len(bitstream.read(made.pack(), MODEL)[ModelSegment.HEADER])
    assert len(made.pack()) < 1.02 * entropy + header + 33  # signature, version, three frames, the coder's last words


@given(st.floats(width=32))
def test_floats_apart_are_rounded_to_the_nearest_of_16_bits(x):
    found = rounded(np.array([x], np.float32))[0]
    assert found.view(np.uint32) & 0xFFFF == 0
    expected = torch.tensor([x]).bfloat16().float().numpy()[0]
    assert found == expected or (math.isnan(found) and math.isnan(expected))


SEVERAL = {
    "16 bits": np.array([1.5, -2], np.float32),
    "no more": np.array([1.5, -0.0, np.inf]),
    "float32": np.array([1 / 3], np.float32).astype(np.float64),
    "float64": np.array([[1e300, 1 / 3]]),
    "none": np.zeros(0),
    "n": np.array(-7),
    "mask": np.arange(11) % 3 == 0,
    "truth": np.array(True),
}
KINDS = {"16 bits": "float", "n": "int", "mask": "bool", "truth": "bool"}


def several() -> tuple[Network, dict[str, compact.Apart]]:
    made = network(RECIPES["model-tensor"], 60)
    sorts = {name: compact.Apart(array.shape, KINDS.get(name, "exact")) for name, array in SEVERAL.items()}
    return replace(made, apart=SEVERAL), sorts


def test_tensors_apart_take_the_bytes_that_they_need():
    made, sorts = several()
    assert len(made.pack_apart()) == 2 * 2 + (1 + 3 * 2) + (1 + 4) + (1 + 2 * 8) + 1 + 8 + 2 + 1
    found = Network.unpack(made.pack(), SHAPES, sorts).apart
    plain = plain_model.decode(made.pack(), SHAPES, {name: (a.sort, a.shape) for name, a in sorts.items()})[1]
    for name, array in SEVERAL.items():
        assert (
            found[name].dtype == array.dtype
            and found[name].tobytes() == array.tobytes()
            and found[name].shape == array.shape
        )
        assert plain[name] == array.ravel().tolist()


@pytest.mark.parametrize(("at", "value"), [(4, 0), (4, 3), (4, 4), (16, 2), (43, 0xFF)])
def test_changed_widths_and_left_over_bits_are_refused(at, value):
    made, sorts = several()
    apart = bytearray(made.pack_apart())
    apart[at] = value
    segments = bitstream.read(made.pack(), MODEL) | {ModelSegment.APART: bytes(apart)}
    with pytest.raises(PrancImgError, match="apart"):
        Network.unpack(bitstream.write(segments.items(), MODEL), SHAPES, sorts)
    with pytest.raises(Bad):
        plain_model.decode(
            bitstream.write(segments.items(), MODEL), SHAPES, {name: (a.sort, a.shape) for name, a in sorts.items()}
        )


# What is refused


def rebuilt(**changes: bytes) -> bytes:
    """A good file with other payloads, checksums right."""
    segments = bitstream.read(network(RECIPES["model-tensor"], 200).pack(), MODEL)
    payloads = {kind: changes.get(kind.name.lower(), segments[kind]) for kind in ModelSegment}
    return bitstream.write(payloads.items(), MODEL)


def header(**changes: int) -> bytes:
    """The header of that file with other fields."""
    fields = {"fingerprint": network(RECIPES["model-tensor"], 200).fingerprint(), "seed": 1, "kind": 3, "structure": 1}
    fields |= {"start": 1, "k": 200, "step": 80, "zeros": 0}
    fields |= {f"scale {i}": 20 for i in range(5)} | changes
    return b"".join(map(bitstream.varint, fields.values()))


def test_the_rebuilt_header_is_a_good_one():
    assert len(unpack(rebuilt(header=header())).coefficients) == 200


BAD_HEADERS = {
    "another network": header(fingerprint=1),
    "kind": header(kind=4),
    "structure": header(structure=3),
    "start": header(start=2),
    "no coefficients": header(k=0),
    "more coefficients than parameters": header(k=SIZE + 1),
    "very many coefficients": header(k=2**63),
    "step": header(step=136),
    "zeros": header(zeros=256),
    "scale": header(**{"scale 4": 100}),
    "tiny chunks": header(structure=2, start=63),
    "trailing bytes": header() + b"\0",
    "cut": header()[:-1],
    "empty": b"",
}


@pytest.mark.parametrize("bad", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_bad_headers_are_refused(bad):
    with pytest.raises(PrancImgError):
        unpack(rebuilt(header=bad))
    with pytest.raises(Bad):
        plain_model.decode(rebuilt(header=bad), SHAPES, APART)


@pytest.mark.parametrize("apart", [b"", bytes(19), bytes(21)])
def test_other_amounts_of_numbers_apart_are_refused(apart):
    with pytest.raises(PrancImgError, match="apart"):
        unpack(rebuilt(apart=apart))
    with pytest.raises(Bad):
        plain_model.decode(rebuilt(apart=apart), SHAPES, APART)


def test_weights_that_would_not_be_exact_are_refused():
    made = network(RECIPES["model-dense"], 900, step=135)
    huge = replace(made, coefficients=np.full(900, MAGNITUDE - 1))
    with pytest.raises(PrancImgError, match="too large"):
        huge.pack()
    assert np.isfinite(all_weights(network(RECIPES["model-dense"], 900, step=100))["3.weight"]).all()


def test_a_basis_that_takes_too_long_is_refused():
    data = network(RECIPES["model-dense"], 900).pack()
    assert unpack(data, max_entries=900 * SIZE)
    with pytest.raises(PrancImgError, match="entries"):
        unpack(data, max_entries=900 * SIZE - 1)


def test_a_file_without_coefficients_is_refused():
    segments = bitstream.read(network(RECIPES["model-tensor"], 200).pack(), MODEL)
    del segments[ModelSegment.COEFFICIENTS]
    for partial in (False, True):
        with pytest.raises(PrancImgError, match="no coefficients"):
            unpack(bitstream.write(segments.items(), MODEL), allow_partial=partial)


def test_pictures_and_models_are_not_taken_for_each_other():
    model = network(RECIPES["model-tensor"], 200).pack()
    picture = (GOLDEN[0].parent / "siren-pixel.prc").read_bytes()
    with pytest.raises(PrancImgError, match=r"not a \.prn file"):
        unpack(picture)
    with pytest.raises(PrancImgError, match=r"not a \.prc file"):
        prancimg.decode(model)


def test_every_flipped_bit_and_every_lost_byte_is_noticed():
    data = network(RECIPES["model-tensor"], 60).pack()
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PrancImgError):
            unpack(bytes(changed))
    for at in range(len(data)):
        with pytest.raises(PrancImgError):
            unpack(data[:at])


def test_changed_payloads_decode_alike_or_are_refused_by_both():
    refused = 0
    for seed in range(60):
        choose = random.Random(seed)
        segments = bitstream.read(network(RECIPES["model-chunks"], 150).pack(), MODEL)
        kind = choose.choice(list(ModelSegment))
        changed = bytearray(segments[kind])
        changed[choose.randrange(6 if kind == 1 else 0, len(changed))] = choose.randrange(256)
        data = bitstream.write((segments | {kind: bytes(changed)}).items(), MODEL)
        try:
            alpha = plain_model.decode(data, SHAPES, APART)[0]
        except Bad:
            refused += 1
            with pytest.raises(PrancImgError):
                unpack(data)
        else:
            assert unpack(data).coefficients.tolist() == alpha
    assert 5 < refused < 55


def test_hostile_sizes_take_no_memory():
    """Whatever a header says, memory follows from the tensors that the caller named."""
    import tracemalloc

    tracemalloc.start()
    for bad in BAD_HEADERS.values():
        with pytest.raises(PrancImgError):
            unpack(rebuilt(header=bad))
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("shapes", [{}, {"w": (0, 3)}, {"w": (1 << 15, 1 << 14)}])
def test_networks_of_no_or_too_many_parameters_are_refused(shapes):
    with pytest.raises(PrancImgError, match="parameters"):
        Layout(shapes, RECIPES["model-tensor"])


def test_reading_a_model_needs_no_torch():
    code = "import sys, prancimg.pranc.compact; assert not {'torch', 'prancimg.fit'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_specification_names_the_constants():
    page = " ".join((Path(__file__).parents[2] / "docs" / "format.md").read_text().split())
    assert MODEL.signature.hex(" ").upper() in page
    assert f"step | 0 … {compact.STEPS - 1}" in page and f"rows | {compact.MIN_ROWS} …" in page
