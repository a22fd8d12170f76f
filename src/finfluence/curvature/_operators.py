"""Curvatures of the mean loss as operators: products with vectors, nothing stored."""

from collections.abc import Callable
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor
from torch.func import grad, jvp, vjp

from finfluence._seeds import torch_seed
from finfluence.curvature._objective import Objective, each, forward_derivatives
from finfluence.curvature._outputs import check_split
from finfluence.grads import Batch

Curvature = Literal["gauss-newton", "hessian", "empirical-fisher"]
CURVATURES: tuple[Curvature, ...] = get_args(Curvature)
EVALUATIONS: dict[Curvature, int] = {"gauss-newton": 3, "hessian": 1, "empirical-fisher": 2}
DIRECTIONS = 64


class Operator(Protocol):
    """A symmetric matrix [P, P] known by its products."""

    @property
    def size(self) -> int:
        """P."""

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype and on the device of its vectors."""

    def products(self, vectors: Tensor) -> Tensor:
        """Return C v [K, P] for vectors v [K, P]."""


class Matrix:
    """A symmetric matrix [P, P] that is given.

    Examples
    --------
    >>> Matrix(torch.diag(torch.tensor([2.0, 3.0]))).products(torch.ones(1, 2)).tolist()
    [[2.0, 3.0]]
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    @property
    def size(self) -> int:
        """P."""
        return len(self.matrix)

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype and on the device of its vectors."""
        return self.matrix

    def products(self, vectors: Tensor) -> Tensor:
        """Return C v [K, P] for vectors v [K, P]."""
        return vectors @ self.matrix


class LossCurvature:
    """A curvature of L(θ) = (1/n) Σ ℓ_i(θ), known by its products.

    *hessian*: ∇²L, by `jvp` over `grad`. *gauss-newton*: (1/n) Σ J_iᵀ (∂²ℓ_i/∂o²) J_i with J_i = ∂o_i/∂θ of the model's
    outputs o: positive semi-definite where the loss is convex in them, and the Fisher information for a log-likelihood.
    *empirical-fisher*: (1/n) Σ ∇ℓ_i ∇ℓ_iᵀ.

    Parameters
    ----------
    objective : Objective
    kind : {"gauss-newton", "hessian", "empirical-fisher"}

    Raises
    ------
    NotSupportedError
        Gauss–Newton of a loss that is not one of the model's outputs alone.

    References
    ----------
    Martens, "New insights and perspectives on the natural gradient method" (2020), sections 8 and 11.
    """

    def __init__(self, objective: Objective, kind: Curvature = "gauss-newton") -> None:
        self.objective, self.kind = objective, kind
        if kind == "gauss-newton":
            few = objective.rows.batch(torch.arange(min(2, objective.rows.count)))
            check_split(objective.loss, objective.model, few, objective.layout.parameters(objective.model))

    @property
    def size(self) -> int:
        """P."""
        return self.objective.size

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype and on the device of its vectors."""
        return self.objective.theta

    def products(self, vectors: Tensor) -> Tensor:
        """Return C v [K, P] for vectors v [K, P]: so many passes over the rows as `EVALUATIONS` says."""
        total = torch.zeros_like(vectors)
        with forward_derivatives():
            for _, batch in self.objective.rows.chunks():
                function = self._function(batch)
                for at in range(0, len(vectors), DIRECTIONS):
                    total[at : at + DIRECTIONS] += each(function, vectors[at : at + DIRECTIONS]).detach()
        return total / self.objective.rows.count

    def _function(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        if self.kind == "hessian":
            return self._hessian(batch)
        return self._gauss_newton(batch) if self.kind == "gauss-newton" else self._empirical_fisher(batch)

    def _hessian(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        gradient = grad(lambda p: self.objective.losses(p, batch).sum())
        return lambda v: jvp(gradient, (self.objective.theta,), (v,))[1]

    def _gauss_newton(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        objective, theta = self.objective, self.objective.theta

        def outputs(p: Tensor) -> Tensor:
            return objective.outputs(p, batch)

        values, back, *_ = vjp(outputs, theta)
        of_outputs = grad(lambda o: objective.of_outputs(o, batch).sum())

        def product(v: Tensor) -> Tensor:
            moved = jvp(outputs, (theta,), (v,))[1]
            found: Tensor = back(jvp(of_outputs, (values,), (moved,))[1])[0]
            return found

        return product

    def _empirical_fisher(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        objective, theta = self.objective, self.objective.theta

        def losses(p: Tensor) -> Tensor:
            return objective.losses(p, batch)

        _, back, *_ = vjp(losses, theta)

        def product(v: Tensor) -> Tensor:
            found: Tensor = back(jvp(losses, (theta,), (v,))[1])[0]
            return found

        return product


def mean_eigenvalue(operator: Operator, probes: int, seed: int) -> float:
    """Return tr C / P, from the exact diagonal where P ≤ `probes`, else by Hutchinson's random signs.

    Returns
    -------
    float
        Standard error about √(2 Σ_{i≠j} C_ij² / probes) / P.

    Examples
    --------
    >>> round(mean_eigenvalue(Matrix(torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64))), 8, seed=0), 9)
    2.0
    """
    signs = _signs(operator, probes, seed)
    return float((signs * operator.products(signs)).sum().double()) / (len(signs) * operator.size)


def largest_eigenvalue(operator: Operator, seed: int, iterations: int = 50, tolerance: float = 1e-3) -> float:
    """Return the largest |eigenvalue|, by the power method from a random start.

    Returns
    -------
    float
        From below; it stops where a further product changes it by less than `tolerance`.

    Examples
    --------
    >>> round(largest_eigenvalue(Matrix(torch.diag(torch.tensor([1.0, 3.0]))), seed=0), 2)
    3.0
    """
    vector = _as(operator, torch.randn(1, operator.size, generator=_generator(seed), dtype=torch.float64))
    found = 0.0
    for _ in range(iterations):
        vector = operator.products(vector / vector.norm())
        before, found = found, float(vector.norm())
        if found == 0.0 or abs(found - before) <= tolerance * found:
            break
    return found


def random_vectors(operator: Operator, count: int, seed: int) -> Tensor:
    """Return standard normal vectors [count, P] in the operator's precision."""
    drawn = torch.randn(count, operator.size, generator=_generator(seed), dtype=torch.float64)
    return _as(operator, drawn)


def _signs(operator: Operator, probes: int, seed: int) -> Tensor:
    if operator.size <= probes:
        return _as(operator, torch.eye(operator.size, dtype=torch.float64) * operator.size**0.5)
    drawn = torch.randint(0, 2, (probes, operator.size), generator=_generator(seed)) * 2 - 1
    return _as(operator, drawn.double())


def _as(operator: Operator, vectors: Tensor) -> Tensor:
    return vectors.to(operator.like)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(torch_seed(seed, "curvature"))
