"""The networks of a fit as functions of their coefficients along the basis, and how those move."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from prancimg.decoding.decoder import Model
from prancimg.fit.ops.rate import laplace_bits
from prancimg.fit.soap import Soap
from prancimg.format import range_coder
from prancimg.format.header import Coded, step_size
from prancimg.format.layout import LEARNED, PAINT, Kind, part_of
from prancimg.network import basis
from prancimg.network.siren import FRACTION

LEARNED_RATE = 4.0
"""The learning rate of coefficients of learned directions, relative to that of weights: one is about 1."""


def _basis(model: Model, tensor: int, k: int) -> Tensor:
    """The basis of a tensor's coefficients, see :class:`Networks`."""
    block = model.blocks[tensor]
    if block.kind == Kind.IDENTITY:
        places = basis.expand_block(model.seed, tensor, block, np.arange(k, dtype=np.float64))
        return torch.from_numpy(places.astype(np.int64))
    columns = basis.entries(model.seed, tensor, block, 0, k, like=np.zeros(0, np.int64))
    return torch.from_numpy(columns).to(torch.float32)


class Networks:
    """θ = θ0 + B a for every adapted tensor, in real units, and learned directions; and the optimiser of a."""

    def __init__(self, model: Model, coded: Sequence[Coded], device: torch.device) -> None:
        names = list(model.theta0)
        self.shapes, self.coded = model.siren.shapes, coded
        self.theta0 = {
            name: torch.from_numpy(tensor / 2.0**FRACTION).to(device, torch.float32).view(self.shapes[name])
            for name, tensor in model.theta0.items()
        }
        self.step: dict[str, float] = {}
        self.basis: dict[str, Tensor] = {}
        """Pseudo-random columns (size, k); of the identity basis the place of every coefficient (size,)."""
        self.a: dict[str, Tensor] = {}
        self.identity: set[str] = set()
        for i, (name, how) in enumerate(zip(names, coded, strict=True)):
            if how.k:
                self.basis[name] = _basis(model, i, how.k).to(device)
                self.step[name] = step_size(how.step) / 2**FRACTION
                self.a[name] = torch.zeros(how.k, device=device, requires_grad=True)
                if model.blocks[i].kind == Kind.IDENTITY:
                    self.identity.add(name)
        sizes = torch.tensor([len(a) for a in self.a.values()], dtype=torch.long, device=device)
        self._sizes, self._tensor = sizes, torch.repeat_interleave(torch.arange(len(sizes), device=device), sizes)
        self._steps = torch.tensor(list(self.step.values()), device=device)[self._tensor]
        self._learned_by = model.siren.design.learned_by
        self.directions = {
            name: torch.from_numpy(along.floats).to(device, torch.float32)
            for name, along in model.directions.items()
            if self._learned_by(name) in self.a
        }
        """Learned ones of the tensors whose part uses any, (m, size)."""
        self._settled: frozenset[str] = frozenset()
        """Tensors whose coefficients move no more."""
        self._soap = Soap(len(self.a), beta2=0.95, every=5)

    @property
    def few(self) -> bool:
        """Whether the context networks' large matrices move by few coefficients: those need no exact gradient."""
        return not any(name.endswith((".a", ".b")) for name in self.identity)

    def weights(self, rounded: bool) -> tuple[dict[str, Tensor], Tensor]:
        """All tensors in their shapes, and about how many bits the coefficients take."""
        weights = dict(self.theta0)
        if not self.a:
            return weights, next(iter(weights.values())).new_zeros(())
        q = torch.cat(list(self.a.values())) / self._steps
        if rounded:
            q = q + (q.round() - q).detach()
        mean = q.new_zeros(len(self._sizes)).index_add_(0, self._tensor, q.detach().abs()) / self._sizes
        moved = torch.split(q * self._steps, self._sizes.tolist())
        for name, a in zip(self.a, moved, strict=True):
            weights[name] = weights[name] + self._expand(name, a).view(self.shapes[name])
        for name, along in self.directions.items():
            weights[name] = weights[name] + (weights[self._learned_by(name)] @ along).view(self.shapes[name])
        return weights, laplace_bits(q, (mean + 0.1)[self._tensor]).sum()

    def settle_synthesis(self) -> None:
        """Round the coefficients of what paints, and leave them there."""
        self._settled = frozenset(name for name in self.a if part_of(name) == PAINT or name == f"{LEARNED}.{PAINT}")
        with torch.no_grad():
            for name in self._settled:
                self.a[name] /= self.step[name]
                self.a[name].round_().mul_(self.step[name])

    def update(self, rate: float, step: float) -> None:
        """One step along the gradients: SOAP where a tensor is sent whole, else Adam on the few coefficients.

        The synthesis must move less where the field's ``step`` is fine: a finer picture shows it sooner.
        """
        gradients = []
        for name, a in self.a.items():
            assert a.grad is not None
            whole = name in self.identity
            spread, shape = self._expand(name, a.grad), self.shapes[name]
            gradients.append(a.grad if not whole else spread if len(shape) == 1 else spread.view(-1, shape[-1]))
        if not gradients:
            return
        with torch.no_grad():
            for (name, a), direction in zip(self.a.items(), self._soap.directions(gradients), strict=True):
                # A basis that just turned may meet the squares of other directions: no step is larger than usual.
                direction = direction / direction.square().mean().sqrt().clamp(min=1.0)
                part = part_of(name)
                own = 0.4 * rate * min(2.0, step / 0.09) if part == PAINT else rate
                if part == LEARNED:
                    own = LEARNED_RATE * rate
                if name in self._settled:
                    own = 0.0
                if name in self.identity:
                    a -= own * direction.reshape(-1)[self.basis[name].argsort()]
                else:
                    a -= 0.3 * own * direction
                a.grad = None

    def _expand(self, name: str, a: Tensor) -> Tensor:
        """B a, flat."""
        basis = self.basis[name]
        return a[basis] if name in self.identity else basis @ a

    def integers(self) -> tuple[list[np.ndarray], tuple[Coded, ...]]:
        """The coefficients of every tensor and how to code them."""
        alpha, coded = [], []
        for name, how in zip(self.theta0, self.coded, strict=True):
            a = np.zeros(0, np.int64)
            if how.k:
                a = np.rint(self.a[name].detach().cpu().numpy() / self.step[name]).astype(np.int64)
            keep = bool(a.any())
            alpha.append(a if keep else a[:0])
            coded.append(Coded(len(a), how.step, range_coder.best_scale(a)) if keep else Coded(0))
        return alpha, tuple(coded)
