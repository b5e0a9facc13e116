"""The operations of a fit against plain autograd: values and every gradient."""

import numpy as np
import pytest
import torch
import wide_prior
from torch.nn.functional import pad

from prancimg.fit.loss import RateDistortion, visibility
from prancimg.fit.ops.contexts import active_contexts
from prancimg.fit.ops.rate import held_bits
from prancimg.fit.ops.resampling import upsample, upsample_add
from prancimg.fit.ops.rounding import soft_round, squash
from prancimg.format.layout import CAUSAL, FAR, FIRST, KINDS, LUMA, PARENT, Pyramid
from prancimg.network import context, context_features, field
from prancimg.network.field import feature_field
from prancimg.network.prior import load_prior
from prancimg.network.siren import synthesise, to_floats


def plain_laplace(q, mean, scale):
    """ln P(q ± 1/2) by the distribution function, in float64."""
    b = torch.exp2(scale.clamp(-4, 5.75))

    def below(x):
        return torch.where(x < 0, 0.5 * torch.exp(-x.abs() / b), 1 - 0.5 * torch.exp(-x.abs() / b))

    return torch.log(below(q - mean + 0.5) - below(q - mean - 0.5))


def shifted(x, offsets, mode):
    wide = pad(x[None, None], (4, 4, 4, 4), mode=mode)[0, 0]
    return [wide[4 + dy : 4 + dy + x.shape[0], 4 + dx : 4 + dx + x.shape[1]] for dy, dx in offsets]


def bilinear(x, height, width):
    doubled = torch.nn.functional.interpolate(x[None, None], scale_factor=2, mode="bilinear", align_corners=False)
    return doubled[0, 0, :height, :width]


def sizes(q, offsets):
    return torch.asinh(sum(shifted(q.detach().abs(), offsets, "constant")) / 4)


CORNERS = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
BOX = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)]
BEFORE = [(dy, dx) for dy in range(-4, 0) for dx in range(-4, 5 if dy < -2 else 4 if dy < -1 else 2)]
BEFORE += [(0, dx) for dx in range(-4, 0)]


def plain_features(pyramid, grid, q, wide):
    u = {key: torch.asinh(grid) for key, grid in q.items()}
    component, level = grid.key
    size, nothing = (grid.height, grid.width), torch.zeros_like(q[grid.key])

    def read(plane, offsets):
        return [nothing] * len(offsets) if plane is None else shifted(plane, offsets, "replicate")

    def raised(x, *size):
        return None if x is None else bilinear(x, *size)

    parent = u.get((component, level + 1))
    near = None if parent is None else parent.repeat_interleave(2, 0).repeat_interleave(2, 1)
    rows = shifted(u[grid.key], CAUSAL + (FAR if wide else ()), "constant")
    rows += [nothing] if near is None else [near[: size[0], : size[1]]]
    rows += read(raised(parent, *size), [*PARENT, *((2 * y, 2 * x) for y, x in CORNERS if wide)])
    if wide:
        grandparent = raised(u.get((component, level + 2)), *pyramid.size(level + 1))
        rows += read(raised(grandparent, *size), [(3 * y, 3 * x) for y, x in LUMA])
        rows += [sizes(q[grid.key], BEFORE)]
        rows += read(None if parent is None else raised(sizes(q[component, level + 1], BOX), *size), [(0, 0)])
        for other in (3 - component,) if component else (1, 2):
            plane = raised(u.get((other, level + 1)), *size)
            rows += read(None if plane is None else plane.detach().abs(), [(0, 0)])
    if component:
        rows += read(u.get((0, level)), [*LUMA, *(CORNERS if wide else ())])
        rows += read(u[1, level] if component == 2 else None, LUMA if wide else [(0, 0)])
    return torch.stack(rows).reshape(len(rows), -1)


def plain_bits(pyramid, q, weights, r):
    """The context model's cost with one tensor for everything."""
    total = 0.0
    for grid in pyramid.grids:
        kind, (component, level) = KINDS[grid.component > 0], grid.key
        x = plain_features(pyramid, grid, q, weights["luma.a"].shape[1] > 16)
        w = {name.partition(".")[2]: tensor for name, tensor in weights.items() if name.startswith(kind)}
        bias = w["bias"][max(component - 1, 0), level] + w["slope"][level] * r
        h = torch.relu(w["a"] @ x + bias[:, None])
        h = h + torch.relu(w["b"] @ h + w["b0"][:, None])
        mean, scale = w["c"] @ h + w["c0"][:, None]
        total = total - plain_laplace(q[grid.key].reshape(-1), mean, scale).sum() / np.log(2)
    return total


DESIGNS = {"near": FIRST, "wide": wide_prior.DESIGN}
designs = pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS)


def some_weights(design):
    """Those of prior 2 in a design, all of them changed a little."""
    weights = {name: torch.from_numpy(w) for name, w in wide_prior.enlarged(design).items()}
    return {name: w + 0.03 * torch.randn_like(w) for name, w in weights.items()}


@pytest.fixture(params=DESIGNS.values(), ids=DESIGNS)
def problem(request):
    """Pixels, packed coefficients and weights of a small picture, all in float64."""
    torch.manual_seed(0)
    pyramid, siren = Pyramid(45, 70, chroma_from=1), load_prior(2).siren
    weights = {name: w.double() for name, w in some_weights(request.param).items()}
    for kind in KINDS:
        weights[f"{kind}.c"] *= 0.1  # within the tables: at their ends the gradient is not autograd's, on purpose
    objective = RateDistortion(torch.rand(3, 45, 70, dtype=torch.float64), pyramid)
    y = 0.7 * torch.randn(sum(grid.count for grid in pyramid.grids), dtype=torch.float64)
    return siren, objective, y, weights


def gradients(loss, y, weights):
    loss.backward()
    grads = {name: w.grad for name, w in weights.items() if w.grad is not None} | {"y": y.grad}
    y.grad = None
    for w in weights.values():
        w.grad = None
    return grads


def agree(fast, plain, y, weights):
    torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-9)
    fast_grads, plain_grads = gradients(fast, y, weights), gradients(plain, y, weights)
    assert fast_grads.keys() == plain_grads.keys()
    for name, grad in fast_grads.items():
        torch.testing.assert_close(grad, plain_grads[name], rtol=1e-6, atol=1e-8 * float(grad.abs().max() + 1))


def leaves(y, weights):
    return y.requires_grad_(), {name: w.requires_grad_() for name, w in weights.items()}


def test_the_picture_and_its_gradient_equal_the_renderers(problem):
    siren, objective, y, weights = problem
    y, weights = leaves(y, weights)
    fast = objective.distortion(y, weights, 0.05, -0.25)
    plain_field = feature_field(objective.pyramid, objective.pyramid.split(y), weights, 0.05)
    plain = (synthesise(siren, weights, plain_field, 112) - objective.pixels).square().mean()
    agree(fast, plain, y, weights)


def test_the_bits_and_their_gradient_equal_plain_autograd(problem):
    _, objective, y, weights = problem
    y, weights = leaves(y, weights)
    fast = objective.bits(y, squash(y), weights, 0.3)
    agree(fast, plain_bits(objective.pyramid, objective.pyramid.split(y), weights, 0.3), y, weights)


def test_soft_rounding_equals_its_formula():
    y = torch.linspace(-3.3, 3.3, 60, dtype=torch.float64).requires_grad_()
    noise, t = 0.2 * torch.randn(60, dtype=torch.float64), 0.3

    def r(x):
        middle = x.detach().floor() + 0.5
        return middle + torch.tanh((x - middle) / t) / (2 * np.tanh(0.5 / t))

    fast, plain = soft_round(y, noise, t), r(r(y) + noise)
    torch.testing.assert_close(fast, plain)
    (a,), (b,) = torch.autograd.grad(fast.square().sum(), y), torch.autograd.grad(plain.square().sum(), y)
    torch.testing.assert_close(a, b)


SHAPES = ((45, 70, 0, 1), (17, 5, 0, 0), (1, 1, 0, 0), (33, 150, 1, 2), (8, 30, 2, 1))
"""Heights, widths and finest levels: odd sides, blocks of one row, more columns than a tile, levels without grids."""


@designs
@pytest.mark.parametrize("shape", SHAPES)
def test_active_contexts_are_those_that_read_a_coefficient(shape, design):
    pyramid = Pyramid(*shape)
    y = 0.3 * torch.randn(sum(grid.count for grid in pyramid.grids))
    found = active_contexts(pyramid, y, design.features)
    assert torch.equal(found, active_contexts(pyramid, y.double(), design.features))
    theta = {name: (2**20 * w).long().numpy().ravel() for name, w in some_weights(design).items()}
    nets = {kind: context.Network(kind, theta, 20, 128) for kind in KINDS}
    done = {}
    for grid in pyramid.grids:
        q = pyramid.split(y.round())[grid.key].to(torch.int32).numpy()
        tables = np.stack(context.distributions(grid, q, done, nets[KINDS[grid.component > 0]]))
        inactive = tables[:, ~pyramid.split(found)[grid.key].numpy().ravel()]
        assert (inactive == inactive[:, :1]).all()  # one distribution for all of them
        done[grid.key] = q


@pytest.mark.parametrize("spread", [0.7, 0.25], ids=["all", "active"])
@designs
@pytest.mark.parametrize("shape", SHAPES)
def test_the_compiled_step_equals_plain_torch(shape, spread, design):
    """Single precision on a CPU is compiled, double is plain torch: both terms of the loss and every gradient."""
    torch.manual_seed(1)
    pyramid = Pyramid(*shape)
    start = some_weights(design)
    pixels, y = torch.rand(3, *shape[:2]), spread * torch.randn(sum(grid.count for grid in pyramid.grids))
    noise, active = 0.2 * torch.randn_like(y), None if spread > 0.5 else active_contexts(pyramid, y, design.features)

    def step(dtype):
        y_, weights = leaves(y.to(dtype, copy=True), {name: w.to(dtype, copy=True) for name, w in start.items()})
        objective = RateDistortion(pixels.to(dtype), pyramid, 0.5)
        q = soft_round(y_, noise.to(dtype), 0.3)
        terms = (
            objective.distortion(q, weights, 0.05, -0.25),
            objective.bits(q, squash(q), weights, 0.3, (1.4, 1.0), active),
        )
        return *terms, *(gradients(term, y_, weights) for term in terms)

    for fast, plain in zip(step(torch.float32), step(torch.float64), strict=True):
        if isinstance(fast, dict):
            assert fast.keys() == plain.keys()
            for name in fast:
                bound = 1e-5 * float(plain[name].abs().max()) + 1e-7
                torch.testing.assert_close(fast[name].double(), plain[name], rtol=0, atol=bound)
        else:
            assert fast.item() == pytest.approx(plain.item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["compiled", "plain"])
@designs
@pytest.mark.parametrize("shape", SHAPES)
def test_held_distributions_give_the_bits_they_come_of(shape, design, dtype):
    torch.manual_seed(1)
    pyramid = Pyramid(*shape)
    y = (0.7 * torch.randn(sum(grid.count for grid in pyramid.grids), dtype=dtype)).requires_grad_()
    weights = {name: w.to(dtype) for name, w in some_weights(design).items()}
    objective = RateDistortion(torch.zeros(3, *shape[:2], dtype=dtype), pyramid)
    bits, distributions = objective.rate(y, squash(y.detach()), weights, 0.3, (1.4, 1.0))
    held, by_q = held_bits(pyramid, y, distributions, (1.4, 1.0))
    assert held == pytest.approx(bits.item(), rel=1e-6)
    torch.testing.assert_close(by_q, torch.autograd.grad(bits, y)[0])


@designs
def test_sampled_gradients_are_right_on_average(design):
    torch.manual_seed(2)
    pyramid = Pyramid(150, 20)
    y, weights = leaves(0.7 * torch.randn(sum(grid.count for grid in pyramid.grids)), some_weights(design))
    objective = RateDistortion(torch.rand(3, 150, 20), pyramid)
    terms = [
        objective.rate(y, squash(y), weights, 0.3, sampling=how)[0] for how in ((1, 0), (4, 0), (4, 1), (4, 2), (4, 3))
    ]
    whole, *parts = (gradients(term, y, weights) for term in terms)
    for name, gradient in whole.items():
        mean = torch.stack([part[name] for part in parts]).mean(0)
        torch.testing.assert_close(mean, gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max()))
    assert not torch.allclose(parts[0]["luma.b"], whole["luma.b"], rtol=0.01)


def test_bits_of_integers_are_near_the_coders():
    siren, theta, _ = load_prior(2)
    pyramid = Pyramid(64, 90)
    rng = np.random.default_rng(0)
    spread = np.concatenate([np.full(grid.count, 0.4 * (1 + grid.level)) for grid in pyramid.grids])
    q = np.rint(rng.laplace(0, spread)).astype(np.int32)
    weights = {name: torch.from_numpy(w) for name, w in to_floats(siren, theta).items()}
    floats, squashed = torch.from_numpy(q).float(), torch.from_numpy(context_features.squash(q)).float() / 64
    soft = RateDistortion(torch.zeros(3, 64, 90), pyramid).bits(floats, squashed, weights, 0.5)
    exact = context.cost(pyramid, pyramid.split(q), context.networks(theta, 20, 160))
    assert float(soft) == pytest.approx(exact, rel=0.02)


def test_errors_count_where_they_are_seen():
    pixels = torch.full((3, 40, 80), 0.5)
    pixels[:, :, 40:] += 0.1 * torch.tensor([-1.0, 1.0]).repeat(20)
    counts = visibility(pixels, 0.3)
    assert counts.shape == (40, 80) and torch.equal(visibility(pixels, 0.0), torch.ones(40, 80))
    found = counts[20, 10].item(), counts[20, 70].item()
    assert found == pytest.approx((0.3**-0.3, 1.3**-0.3), rel=1e-3)
    for sides in ((1, 1), (2, 5), (40, 1)):
        assert visibility(torch.rand(3, *sides), 0.3).shape == sides


def test_what_a_bit_counts_for_by_level(problem):
    _, objective, y, weights = problem
    each = [float(objective.bits(y, y, weights, 0.3, [0.0] * level + [1.0] + [0.0])) for level in range(4)]
    assert all(bits > 0 for bits in each)
    weighted = float(objective.bits(y, y, weights, 0.3, (2.0, 1.0, 0.5, 0.25, 0.0)))
    assert weighted == pytest.approx(2 * each[0] + each[1] + each[2] / 2 + each[3] / 4)


def test_upsampling_is_the_renderers():
    x, taps = torch.randn(2, 5, 9), torch.tensor([-0.04, 0.26, 0.88, -0.1])
    torch.testing.assert_close(upsample(x, taps, 9, 18), field.upsample(x, taps, 9, 18))


@pytest.mark.parametrize("height, width, grids", [(9, 18, 1), (10, 17, 3), (9, 17, 0)])
def test_a_lift_is_the_renderers(height, width, grids):
    x, taps = torch.randn(4, 5, 9), torch.tensor([-0.04, 0.26, 0.88, -0.1])
    q, gain = [torch.randn(height, width) for _ in range(grids)], torch.randn(grids, 4)
    expected = field.upsample_add(x, taps, q, gain, height, width)
    torch.testing.assert_close(upsample_add(x, taps, q, gain, height, width), expected)
