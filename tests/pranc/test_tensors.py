"""Which tensors of a module are spanned, which are stored apart, and a module run with others."""

import sys
import threading
from collections.abc import Callable

import pytest
import torch
from small_network import batch, loss_of, network, trained
from torch import nn

from prancimg import PrancImgError
from prancimg.pranc.loaded import load
from prancimg.pranc.module import Pranc, direct
from prancimg.pranc.tensors import apart_parameters


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
