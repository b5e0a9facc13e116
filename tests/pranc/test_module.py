"""PRANC on a module with every common kind of layer, against the explicit matrix in float64."""

import io

import numpy as np
import pytest
import torch
from explicit_basis import matrix
from small_network import ROWS, batch, cases, loss_of, network, trained
from torch import nn

from prancimg import PrancImgError
from prancimg.format.header import step_size
from prancimg.pranc.compact import STEP_FRACTION, STEPS
from prancimg.pranc.loaded import load
from prancimg.pranc.module import Pranc, direct, step_code


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


def test_a_module_as_it_is_comes_back(tmp_path):
    net = network().eval()
    expected = net(batch())
    weights = {name: p.detach().clone() for name, p in net.named_parameters()}
    model = direct(net)
    for name, weight in model.weights().items():
        torch.testing.assert_close(weight, weights[name], rtol=1e-12, atol=1e-14)
    model.save(tmp_path / "net.prn", 2**-12)
    torch.testing.assert_close(load(tmp_path / "net.prn", network())(batch()), expected, rtol=0, atol=0.02)


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
