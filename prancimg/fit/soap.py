"""SOAP: Adam in the slowly turning eigenbasis of Shampoo's preconditioner, for a list of small tensors.

Vyas et al., "SOAP: improving and stabilizing Shampoo using Adam" (arXiv 2409.11321). A rotation of a weight matrix
rotates its steps alike, which is why coefficients in a pseudo-random basis lose nothing to direct weights here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Soap:
    """Turns gradients into directions of about unit size per entry; vectors get plain Adam directions."""

    def __init__(self, count: int, beta1: float = 0.9, beta2: float = 0.98, every: int = 10) -> None:
        self.beta1, self.beta2, self.every = beta1, beta2, every
        self.time = 0
        self._states: list[_State | None] = [None] * count

    def directions(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """One direction for every gradient, to be subtracted after scaling by a learning rate."""
        self.time += 1
        fix1, fix2 = 1 - self.beta1**self.time, 1 - self.beta2**self.time
        out = []
        for i, gradient in enumerate(gradients):
            state = self._states[i]
            if state is None:
                state = self._states[i] = _State(gradient)
            out.append(state.direction(gradient, self, fix1, fix2))
        return out


class _State:
    def __init__(self, gradient: Tensor) -> None:
        self.mean, self.square = torch.zeros_like(gradient), torch.zeros_like(gradient)
        self.sides = gradient.dim() == 2
        if self.sides:
            rows, columns = gradient.shape
            self.left, self.right = gradient.new_zeros(rows, rows), gradient.new_zeros(columns, columns)
            self.left_basis = self.right_basis = gradient.new_zeros(0)

    def direction(self, gradient: Tensor, soap: Soap, fix1: float, fix2: float) -> Tensor:
        self.mean.lerp_(gradient, 1 - soap.beta1)
        turned, mean = gradient, self.mean
        if self.sides:
            self.left.lerp_(gradient @ gradient.t(), 1 - soap.beta2)
            self.right.lerp_(gradient.t() @ gradient, 1 - soap.beta2)
            if soap.time == 1:
                self.left_basis, self.right_basis = torch.linalg.eigh(self.left)[1], torch.linalg.eigh(self.right)[1]
            elif soap.time % soap.every == 0:  # one step of orthogonal iteration
                self.left_basis = torch.linalg.qr(self.left @ self.left_basis)[0]
                self.right_basis = torch.linalg.qr(self.right @ self.right_basis)[0]
            turned = self.left_basis.t() @ gradient @ self.right_basis
            mean = self.left_basis.t() @ mean @ self.right_basis
        self.square.lerp_(turned.square(), 1 - soap.beta2)
        step = (mean / fix1) / ((self.square / fix2).sqrt() + 1e-12)
        return self.left_basis @ step @ self.right_basis.t() if self.sides else step
