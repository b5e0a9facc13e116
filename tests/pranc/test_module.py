"""PRANC on a module with every common kind of layer, against the explicit matrix in float64."""

import copy
import io
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from explicit_basis import matrix
from torch import nn

from prancimg import PrancImgError
from prancimg.format.bitstream import step_size
from prancimg.format.layout import Kind
from prancimg.pranc import compact
from prancimg.pranc.compact import STEP_FRACTION, STEPS, Layout, Network, Recipe, Structure
from prancimg.pranc.loaded import load
from prancimg.pranc.module import Pranc, direct, step_code
from prancimg.pranc.tensors import apart_parameters


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.GELU(), nn.Flatten(), nn.Linear(96, 20), nn.LayerNorm(20)]
    return nn.Sequential(*layers, nn.Linear(20, 4)).double()


def batch() -> torch.Tensor:
    return torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def loss_of(output: torch.Tensor) -> torch.Tensor:
    return (output - torch.arange(4)).square().mean()


cases = pytest.mark.parametrize(
    ("basis", "structure"),
    [(b, s) for b in ("sign", "popcount", "hadamard", "identity") for s in ("tensor", "dense", "chunks")],
)
ROWS = {"tensor": 0, "dense": 0, "chunks": 100}


@cases
def test_output_and_gradient_equal_the_explicit_matrix(basis, structure):
    model = Pranc(network(), exclude=(), k=300, seed=5, basis=basis, structure=structure, rows=ROWS[structure])
    explicit = torch.from_numpy(matrix(model.layout.basis, 300)).double()
    alpha = 0.1 * torch.randn(300, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        model.alpha.copy_(alpha)
    loss = loss_of(model(batch()))
    loss.backward()

    plain = network()
    reference = alpha.clone().requires_grad_()
    theta = model.theta0 + model.scale * (explicit @ reference)
    shapes = {name: p.shape for name, p in plain.named_parameters()}
    parts = theta.split([shape.numel() for shape in shapes.values()])
    weights = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
    expected = loss_of(torch.func.functional_call(plain, weights, batch()))
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(model.alpha.grad, reference.grad, rtol=1e-9, atol=1e-12)


@cases
def test_the_gradient_is_that_of_finite_differences(basis, structure):
    model = Pranc(network().eval(), k=40, seed=5, basis=basis, structure=structure, rows=ROWS[structure])
    loss_of(model(batch())).backward()
    for i in (0, 17, 39):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                model.alpha.zero_()[i] = sign * 1e-6
                values.append(loss_of(model(batch())).item())
        assert model.alpha.grad[i].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-8)


def test_only_the_coefficients_and_the_excluded_parameters_train():
    model = Pranc(network(), k=100, exclude=["1.weight", "1.bias"])
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == {
        "alpha": (100,),
        "module.1.weight": (6,),
        "module.1.bias": (6,),
    }


def test_training_lowers_the_loss():
    model = Pranc(network(), k=100, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    losses = []
    for _ in range(60):
        loss = loss_of(model(batch()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_more_coefficients_start_from_the_same_weights():
    short, long = Pranc(network(), k=100, seed=4), Pranc(network(), k=250, seed=4)
    alpha = torch.randn(100, dtype=torch.float64)
    with torch.no_grad():
        short.alpha.copy_(alpha)
        long.alpha[:100] = alpha
    for name, weight in short.weights().items():
        torch.testing.assert_close(weight, long.weights()[name], rtol=1e-12, atol=1e-14)


def test_the_state_is_small_and_restores_every_bit():
    model = Pranc(network(), k=30, seed=6, exclude=["6.bias"])
    with torch.no_grad():
        model.alpha.normal_()
    model(batch())  # moves the running statistics
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert sum(v.numel() for v in state.values() if isinstance(v, torch.Tensor)) == 30 + 4 + 6 + 6 + 1
    again = Pranc(network(), k=30, seed=6, exclude=["6.bias"])
    again.load_state_dict(state)
    assert torch.equal(again.eval()(batch()), model.eval()(batch()))


def test_coefficients_of_another_seed_are_refused():
    state = Pranc(network(), k=30, seed=6).state_dict()
    with pytest.raises(ValueError, match="'seed': 6"):
        Pranc(network(), k=30, seed=7).load_state_dict(state)


def test_the_start_does_not_depend_on_torchs_generator():
    first = Pranc(network(), k=10, seed=3, exclude=()).weights()
    torch.manual_seed(99)
    second = Pranc(nn.Sequential(*[type(m)(*a) for m, a in _layers()]).double(), k=10, seed=3, exclude=()).weights()
    assert all(torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True))
    assert first["1.weight"].tolist() == [1.0] * 6 and first["1.bias"].tolist() == [0.0] * 6


def _layers():
    net = network()
    arguments = [(3, 6, 3), (6,), (), (), (96, 20), (20,), (20, 4)]
    return zip(net, arguments, strict=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k = 0"),
        ({"k": 10**6}, "k = 1000000"),
        ({"k": 5, "basis": "gaussian"}, "gaussian"),
        ({"k": 5, "structure": "layer"}, "layer"),
        ({"k": 5, "start": "ones"}, "ones"),
        ({"k": 5, "structure": "chunks", "rows": 63}, "rows = 63"),
        ({"k": 5, "rows": 64}, "rows = 64"),
        ({"k": 5, "exclude": ["7.weight"]}, "7.weight"),
        ({"k": 5, "seed": -1}, "seed"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Pranc(network(), **options)


def test_shared_parameters_are_refused():
    with pytest.raises(ValueError, match="shares"):
        Pranc(_tied(), k=5)


def _tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    return net


# Training


@pytest.mark.parametrize("basis", ["sign", "popcount"])
def test_blocks_that_are_kept_change_nothing(basis):
    options = {"k": 600, "basis": basis, "structure": "chunks", "rows": 500}
    # The only large tensor has four chunks of 480 rows and 72 columns, 276,480 bytes each.
    made, some, kept = (Pranc(network(), **options, keep=keep) for keep in (0, 600_000, 2_000_000))
    assert [sum("block" in name for name, _ in model.named_buffers()) for model in (made, some, kept)] == [0, 2, 4]
    gradients = []
    for model in (made, kept, some):
        with torch.no_grad():
            model.alpha.copy_(torch.linspace(-1, 1, 600))
        loss_of(model(batch())).backward()
        gradients.append(model.alpha.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradients[0], gradients[2], rtol=1e-9, atol=1e-12)
    assert made.state_dict().keys() == kept.state_dict().keys()


def test_a_prefix_counts_and_trains_alone():
    model, short = (trained(Pranc(network(), k=k, seed=4)) for k in (250, 100))
    model.prefix = 100
    for name, weight in short.weights().items():
        torch.testing.assert_close(weight, model.weights()[name], rtol=1e-12, atol=1e-14)
    loss_of(model(batch())).backward()
    assert (model.alpha.grad[:100] != 0).all() and (model.alpha.grad[100:] == 0).all()


@pytest.mark.parametrize("prefix", [-3, 0, 2.5, 31])
def test_prefixes_that_are_none_are_refused(prefix, tmp_path):
    model = Pranc(network(), k=30)
    with pytest.raises(ValueError, match=f"prefix = {prefix}"):
        model.prefix = prefix
    assert model.prefix is None
    model.save(tmp_path / "model.prn")
    with pytest.raises(PrancImgError, match=f"k = {prefix}"):
        load(tmp_path / "model.prn", network(), k=prefix)


def test_batch_norms_stay_apart_unless_told_otherwise():
    assert apart_parameters(network()) == {"1.weight", "1.bias"}
    apart = ["module.1.weight", "module.1.bias"]
    assert [name for name, _ in Pranc(network(), k=9).named_parameters()] == ["alpha", *apart]
    assert [name for name, _ in Pranc(network(), k=9, exclude=()).named_parameters()] == ["alpha"]


class Special(nn.Module):
    """Parameters that a network would not survive being zero, one or random at the start."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 16, padding_idx=0)
        self.token = nn.Parameter(torch.full((1, 1, 16), 0.3))
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.gamma = nn.Parameter(torch.full((16,), 1e-2))
        self.act = nn.PReLU()
        self.inner = nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16)

    def forward(self, i: torch.Tensor) -> torch.Tensor:
        x = self.words(i) + self.token
        return self.norm(x + self.gamma * self.act(self.inner(x)) * self.scale)


def test_what_the_seeds_start_does_not_suit_stays_as_it_is(tmp_path):
    expected = {"words.weight", "token", "scale", "gamma", "act.weight"}
    assert apart_parameters(Special()) == expected
    net = Special()
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    model = Pranc(net, k=50)
    assert set(model.weights()) == before.keys() - expected
    model.save(tmp_path / "model.prn")
    found = load(tmp_path / "model.prn", Special()).materialise()
    assert all(torch.equal(found.get_parameter(name), before[name]) for name in expected)
    assert (found.words.weight[0] == 0).all()


def test_frozen_parameters_stay_as_they_are(tmp_path):
    def net() -> nn.Module:
        made = network()
        made[0].requires_grad_(False)
        return made

    given = net()
    before = given[0].weight.clone()
    for options in ({}, {"exclude": ["1.weight", "1.bias", "6.bias"]}):
        model = Pranc(net(), k=50, **options)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        loss_of(model(batch())).backward()
        optimizer.step()
        assert torch.equal(model.module[0].weight, before) and not model.module[0].weight.requires_grad
        model.save(tmp_path / "model.prn")
        found = load(tmp_path / "model.prn", net(), **options).materialise()
        assert torch.equal(found[0].weight, before), "every bit of it"
        exclude = {"0.weight", "0.bias", *options.get("exclude", apart_parameters(network()))}
        assert torch.equal(load(tmp_path / "model.prn", network(), exclude=exclude).materialise()[0].weight, before)
        with pytest.raises(PrancImgError, match="apart"):
            load(tmp_path / "model.prn", network(), **options)


def test_parameters_keep_being_frozen_or_not(tmp_path):
    model = direct(network().requires_grad_(False))  # where all are, it says nothing
    assert model.layout.size == sum(p.numel() for p in network().parameters()) - 12
    model.save(tmp_path / "model.prn", 2**-12)
    for frozen in (True, False):
        found = load(tmp_path / "model.prn", network().requires_grad_(not frozen)).materialise()
        assert {p.requires_grad for p in found.parameters()} == {not frozen}


# Threads


def at_once(run: Callable[[], object]) -> None:
    """Four threads, 50 times each."""
    failures = []

    def work() -> None:
        try:
            for _ in range(50):
                run()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    assert not failures, failures[0]


def test_threads_share_a_model(tmp_path):
    model = trained(Pranc(network(), k=100))
    expected, names = model(batch()).detach(), set(model.state_dict())

    def run() -> None:
        with torch.no_grad():
            assert torch.equal(model(batch()), expected)

    at_once(run)
    assert set(model.state_dict()) == names and all(p is None for p in model.module[0]._parameters.values())
    model.save(tmp_path / "model.prn")
    lean = load(tmp_path / "model.prn", network())
    written = lean(batch())
    at_once(lambda: torch.testing.assert_close(lean(batch()), written, rtol=0, atol=0))


class Listed(nn.Module):
    """Keeps its layers in plain attributes as well."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 20), nn.Linear(20, 4)
        self.both, self.named = [self.first, self.last], {"first": (self.first,)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.both[1](torch.relu(self.named["first"][0](x)))


def test_layers_in_plain_attributes():
    model = Pranc(Listed(), k=50)
    x = torch.randn(3, 8)
    weights = {name: tensor.detach() for name, tensor in model.weights().items()}
    expected = torch.relu(x @ weights["first.weight"].t() + weights["first.bias"]) @ weights["last.weight"].t()
    assert torch.allclose(model(x), expected + weights["last.bias"], atol=1e-6)


class Counting(nn.Module):
    """Keeps the state that networks keep: attributes, and a method of its own under another name."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 4)
        self.calls, self.work = 0, self._work

    def _work(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.inner(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.utils.checkpoint.checkpoint(self.work, x, use_reentrant=False)


def test_layers_run_again_by_a_checkpoint_and_keep_their_attributes():
    model = Pranc(Counting(), k=20)
    x = torch.randn(3, 6)
    loss_of(model(x)).backward()
    found, model.alpha.grad = model.alpha.grad, None
    assert model.module.calls == 1
    weights = model.weights()
    loss_of(nn.functional.linear(x, weights["inner.weight"], weights["inner.bias"])).backward()
    torch.testing.assert_close(found, model.alpha.grad)


# Files


def trained(model: Pranc) -> Pranc:
    """As if it were: coefficients, norms and statistics are no longer those of the start."""
    with torch.no_grad():
        model.alpha.copy_(torch.sin(torch.arange(len(model.alpha), dtype=torch.float64) ** 1.1))
        for name, tensor in model.module.state_dict().items():
            if tensor.is_floating_point() and tensor.numel() == 6:
                tensor += 0.01 * len(name)
    return model.eval()


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


def test_a_module_as_it_is_comes_back(tmp_path):
    net = network().eval()
    expected = net(batch())
    weights = {name: p.detach().clone() for name, p in net.named_parameters()}
    model = direct(net)
    for name, weight in model.weights().items():
        torch.testing.assert_close(weight, weights[name], rtol=1e-12, atol=1e-14)
    model.save(tmp_path / "net.prn", 2**-12)
    torch.testing.assert_close(load(tmp_path / "net.prn", network())(batch()), expected, rtol=0, atol=0.02)


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


def test_coefficients_that_are_no_numbers_are_refused(tmp_path):
    model = Pranc(network(), k=30)
    with torch.no_grad():
        model.alpha[3] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        model.save(tmp_path / "model.prn")
    assert not (tmp_path / "model.prn").exists()


def test_values_that_do_not_fit_are_refused(tmp_path):
    model = Pranc(network(), k=30)
    with torch.no_grad():
        model.alpha[3] = 1000
    with pytest.raises(ValueError, match="larger step"):
        model.save(tmp_path / "model.prn", 2**-12)
    model.save(tmp_path / "model.prn", 1 / 16)
    model.module[1].running_var[2] = 1e300
    with pytest.raises(ValueError, match=r"1\.running_var has values too large"):
        model.save(tmp_path / "model.prn", 1)


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


def test_a_module_whose_tensors_came_or_went_is_not_saved(tmp_path):
    model = Pranc(network(), k=30)
    model.module[0].weight = nn.Parameter(torch.zeros(6, 3, 3, 3))
    with pytest.raises(ValueError, match="came or went"):
        model.save(tmp_path / "model.prn")
    assert not (tmp_path / "model.prn").exists()


def test_complex_tensors_are_refused(tmp_path):
    net = network()
    net.register_buffer("spectrum", torch.zeros(3, dtype=torch.complex64))
    with pytest.raises(ValueError, match="spectrum"):
        Pranc(net, k=30).save(tmp_path / "model.prn")


def test_steps_are_near_what_is_asked():
    for step in np.geomspace(2**-13, 14, 50):
        assert step_size(step_code(step)) / 2**STEP_FRACTION == pytest.approx(step, rel=0.07)
    assert step_code(1e-9) == 0 and step_code(1e9) == STEPS - 1


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
