"""Model files as modules again: the same outputs, in little memory."""

import copy
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_network import ROWS, batch, cases, network, trained
from torch import nn

from prancimg import PrancImgError
from prancimg.format.layout import Kind
from prancimg.pranc import compact
from prancimg.pranc.compact import Layout, Network, Recipe, Structure
from prancimg.pranc.loaded import load
from prancimg.pranc.module import Pranc


@cases
def test_a_saved_model_is_the_model_up_to_its_step(basis, structure, tmp_path):
    model = trained(Pranc(network(), k=300, seed=5, basis=basis, structure=structure, rows=ROWS[structure]))
    outputs = []
    for step in (1 / 8, 2**-12):
        model.save(tmp_path / "model.prn", step)
        outputs.append(load(tmp_path / "model.prn", network())(batch()))
    expected = model(batch())
    assert (outputs[1] - expected).abs().max() < 0.02 * (expected - expected.mean()).abs().max()
    assert (outputs[0] - expected).abs().max() > (outputs[1] - expected).abs().max()


def test_layers_made_when_they_run_and_all_layers_in_place_give_the_same(tmp_path):
    trained(Pranc(network(), k=300)).save(tmp_path / "model.prn")
    lean = load(tmp_path / "model.prn", network())
    output = lean(batch())
    assert not list(lean.parameters()) or {name for name, _ in lean.named_parameters()} == {
        "module.1.weight",
        "module.1.bias",
    }, "only what is apart"
    assert torch.equal(output, lean(batch())) and not output.requires_grad
    weights = lean.weights()
    plain = lean.materialise()
    assert type(plain) is nn.Sequential
    assert torch.equal(plain(batch()), output)
    assert all(torch.equal(plain.get_parameter(name), weight.double()) for name, weight in weights.items())


class Reaching(nn.Module):
    """Modules that read the parameters of others."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.more = nn.Embedding(20, 16), nn.ParameterList([torch.zeros(16, 16)])
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.recurrent = nn.LSTM(16, 16, batch_first=True)

    def forward(self, i: torch.Tensor) -> torch.Tensor:
        x = self.words(i) @ self.more[0]
        x = self.recurrent(self.layer(x + self.attention(x, x, x)[0]))[0]
        return nn.functional.linear(x, self.words.weight)


@pytest.mark.parametrize("structure", ["tensor", "dense"])
def test_modules_may_read_each_others_parameters(structure, tmp_path):
    model = trained(Pranc(Reaching(), k=400, structure=structure))
    model.save(tmp_path / "model.prn", 2**-12)
    lean, i = load(tmp_path / "model.prn", Reaching()), torch.arange(10).view(2, 5)
    output = lean(i)
    torch.testing.assert_close(output, model(i), rtol=0, atol=1e-2)
    torch.testing.assert_close(lean.materialise()(i), output, rtol=1e-4, atol=1e-4)


def test_a_dense_basis_is_multiplied_once_a_call(tmp_path, monkeypatch):
    Pranc(network(), k=300, structure="dense").save(tmp_path / "model.prn")
    lean, calls = load(tmp_path / "model.prn", network()), []
    product = compact.pb.expand_block
    monkeypatch.setattr(compact.pb, "expand_block", lambda *a: calls.append(a) or product(*a))
    lean(batch())
    assert len(calls) == 1


def test_a_compact_model_takes_the_dtype_that_it_is_given(tmp_path):
    trained(Pranc(network(), k=300)).save(tmp_path / "model.prn")
    exact = load(tmp_path / "model.prn", network())(batch())
    lean = load(tmp_path / "model.prn", network().float())
    for dtype, near in ((torch.float32, 1e-5), (torch.float64, 1e-12), (torch.bfloat16, 0.1)):
        output = lean.to(dtype)(batch().to(dtype))
        assert output.dtype == dtype
        if dtype != torch.float64:  # the norms had been rounded to float32 before, and lost nothing
            torch.testing.assert_close(output.double(), exact, rtol=near, atol=near)
    assert lean.double().materialise()[0].weight.dtype == torch.float64


def test_copies_share_nothing(tmp_path):
    trained(Pranc(network(), k=300)).save(tmp_path / "model.prn")
    lean = load(tmp_path / "model.prn", network())
    expected, other = lean(batch()), copy.deepcopy(lean)
    lean.coefficients.zero_()
    assert torch.equal(other(batch()), expected) and not torch.equal(lean(batch()), expected)


def test_a_compact_model_is_kept_as_its_file_only(tmp_path):
    trained(Pranc(network(), k=300)).save(tmp_path / "model.prn")
    lean = load(tmp_path / "model.prn", network())
    for keep in (pickle.dumps, lambda model: torch.save(model, io.BytesIO()), nn.Module.state_dict):
        with pytest.raises(PrancImgError, match=r"use save\(\)"):
            keep(nn.Sequential(lean))
    lean.save(tmp_path / "again.prn")
    assert (tmp_path / "again.prn").read_bytes() == (tmp_path / "model.prn").read_bytes()


@pytest.mark.parametrize("structure", ["tensor", "dense"])
def test_a_module_without_memory_gets_some(structure, tmp_path):
    trained(Pranc(network(), k=300, structure=structure)).save(tmp_path / "model.prn")
    expected = load(tmp_path / "model.prn", network())(batch())
    lean = load(tmp_path / "model.prn", network().to("meta"))
    assert torch.equal(lean(batch()), expected)
    assert torch.equal(lean.materialise()(batch()), expected)
    bare = network()
    bare[2].register_buffer("table", torch.ones(3), persistent=False)
    with pytest.raises(PrancImgError, match=r"2\.table is on the meta device"):
        load(tmp_path / "model.prn", bare.to("meta"))
    with pytest.raises(ValueError, match="meta"):
        Pranc(network().to("meta"), k=30)


def test_weights_do_not_stay_where_a_layer_fails(tmp_path):
    trained(Pranc(network(), k=300)).save(tmp_path / "model.prn")
    lean = load(tmp_path / "model.prn", network())
    with pytest.raises(RuntimeError):
        lean(torch.zeros(1, 4, 6, 6, dtype=torch.float64))
    assert {name for name, _ in lean.named_parameters()} == {"module.1.weight", "module.1.bias"}
    assert lean(batch()).isfinite().all()


def test_fewer_coefficients_of_a_file_are_a_model_too(tmp_path):
    model = trained(Pranc(network(), k=300))
    path = tmp_path / "model.prn"
    model.save(path, 2**-8)
    model.prefix = 120
    torch.testing.assert_close(load(path, network(), k=120)(batch()), model(batch()), rtol=0, atol=0.05)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(PrancImgError, match="cut short"):
        load(path, network())
    cut = load(path, network(), allow_partial=True)
    assert 0 < len(cut.coefficients) < 300
    path.write_bytes(whole)
    assert torch.equal(cut(batch()), load(path, network(), k=len(cut.coefficients))(batch()))


def test_a_pickle_is_not_read(tmp_path):
    """A file that torch.load would execute is refused for its first bytes."""
    path = tmp_path / "model.prn"

    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "sprung"), "w")

    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(PrancImgError, match=r"not a \.prn file"):
        load(path, network())
    torch.save({"trap": Trap()}, path)
    with pytest.raises(PrancImgError, match=r"not a \.prn file"):
        load(path, network())
    assert not (tmp_path / "sprung").exists()


def test_the_file_of_another_network_is_refused(tmp_path):
    Pranc(network(), k=30).save(tmp_path / "model.prn")
    for other, options in ((nn.Linear(3, 4), {}), (network(), {"exclude": []}), (network()[:5], {})):
        with pytest.raises(PrancImgError, match="other tensors"):
            load(tmp_path / "model.prn", other, **options)
    with pytest.raises(PrancImgError, match="k = 31"):
        load(tmp_path / "model.prn", network(), k=31)


def test_buffers_come_back_as_they_were(tmp_path):
    def net(fill: Callable[[int], torch.Tensor]) -> nn.Module:
        made = network()
        for i, dtype in enumerate((torch.float64, torch.float32, torch.bfloat16, torch.bool, torch.int64)):
            made.register_buffer(f"b{i}", fill(i).to(dtype))
        return made

    values = [[1e300, -0.0, 1 / 3], [1 / 3, 1e-40], [1.5, 0.1], [i % 3 == 0 for i in range(1000)], [-(2**62) - 1]]
    before = net(lambda i: torch.tensor(values[i], dtype=torch.float64 if i < 3 else None))
    state = {name: tensor.clone() for name, tensor in before.state_dict().items() if name[0] == "b"}
    Pranc(before, k=30).save(tmp_path / "model.prn")
    lean = load(tmp_path / "model.prn", net(lambda i: torch.zeros(len(values[i]))))
    for name, tensor in state.items():
        found = lean.module.get_buffer(name)
        assert found.dtype == tensor.dtype and torch.equal(found, tensor), name
        assert torch.equal(found.signbit(), tensor.signbit())
    Pranc(network(), k=30).save(tmp_path / "bare.prn")
    more = (tmp_path / "model.prn").stat().st_size - (tmp_path / "bare.prn").stat().st_size
    assert more <= 3 * 8 + 2 * 4 + 2 * 2 + 3 + 125 + 8 + 2


MEMORY = """
import sys, torch
from pathlib import Path
from torch import nn
from prancimg.pranc import load

def most():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

torch.set_num_threads(1)
with torch.device("meta"):
    net = nn.Sequential(*[nn.Linear(1024, 1024) for _ in range(12)])
net.to_empty(device="cpu")  # memory that nothing is written to takes no room
x = torch.ones(1, 1024)
nn.Linear(1024, 1024)(x)
before = most()
model = load(sys.argv[1], net)
model(x)
print(most() - before)
model.materialise()(x)
print(most() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell how much memory is used")
def test_inference_needs_the_memory_of_a_layer(tmp_path):
    """12 layers of 4 MiB."""
    shapes = {f"{i}.{name}": shape for i in range(12) for name, shape in (("weight", (1024, 1024)), ("bias", (1024,)))}
    recipe = Recipe(0, Kind.SIGN, Structure.CHUNKS, 16384)
    path = tmp_path / "model.prn"
    path.write_bytes(Network(Layout(shapes, recipe), 80, np.arange(2000) % 7 - 3, {}).pack())
    done = subprocess.run([sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True)
    layers, everything = map(int, done.stdout.split())  # KiB
    assert everything > 48 << 10 and layers < 24 << 10, (layers, everything)
