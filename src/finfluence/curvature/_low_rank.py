"""Curvatures of low rank: the inverse from a few eigenvectors, by Arnoldi's iteration or Nyström's sketch."""

from dataclasses import dataclass

import torch
from torch import Tensor

from finfluence.curvature._operators import Operator, random_vectors
from finfluence.curvature._solution import Solution, residuals
from finfluence.errors import NotSupportedError, explain

BREAKDOWN = 1e-10


@dataclass(frozen=True)
class LowRank:
    """Solves (C + λ) x = v with C ≈ U diag(e) Uᵀ.

    x = U (e + λ)⁻¹ Uᵀ v, and beside these directions v/λ (`beside`) or nothing.

    Parameters
    ----------
    values : Tensor [k]
        e.
    basis : Tensor [P, k]
        U, orthonormal.
    damping : float
        λ.
    beside : bool
        Whether directions outside of U count as ones of no curvature; otherwise they are dropped.
    operator : Operator
        C, for the residual of a solution.
    """

    values: Tensor
    basis: Tensor
    damping: float
    beside: bool
    operator: Operator

    def solve(self, vectors: Tensor) -> Solution:
        """Return x [K, P] for v [K, P]."""
        v = vectors.to(self.basis)
        within = v @ self.basis
        x = within / (self.values + self.damping) @ self.basis.T
        if self.beside:
            x = x + (v - within @ self.basis.T) / self.damping
        left = residuals(self.operator, self.damping, x.to(vectors), vectors)
        kept = (within.norm(dim=1) / v.norm(dim=1).clamp_min(1e-300)).clamp(0, 1)
        facts = {"rank": len(self.values), "residual": float(left.max()), "kept": float(kept.min())}
        return Solution(x.to(vectors), facts)


def arnoldi(operator: Operator, damping: float, rank: int, iterations: int, seed: int) -> LowRank:
    """Return the `rank` eigenpairs of largest |eigenvalue| of a Krylov space; directions beside them are dropped.

    C is symmetric, so the iteration is Lanczos', with every vector orthogonalised against all before it, twice. Where
    the space closes (a vector with no new direction), it goes on from a new random start, so that with `iterations` = P
    all of C is found.

    Parameters
    ----------
    operator : Operator
        C.
    damping : float
        λ ≥ 0.
    rank : int
        Eigenpairs kept, those whose |e + λ| is zero left out.
    iterations : int
        Vectors of the Krylov space, each a product.
    seed : int
        Of the random start.

    Returns
    -------
    LowRank

    References
    ----------
    Schioppa et al., "Scaling up influence functions" (2022).

    Examples
    --------
    >>> from finfluence.curvature import Matrix
    >>> found = arnoldi(Matrix(torch.diag(torch.tensor([1.0, 2.0, 5.0]))), 0.0, rank=2, iterations=3, seed=0)
    >>> [round(e, 4) for e in found.values.tolist()]
    [5.0, 2.0]
    """
    steps = min(iterations, operator.size)
    basis = torch.zeros(operator.size, steps, dtype=torch.float64, device=operator.like.device)
    images = torch.zeros_like(basis)
    fresh = random_vectors(operator, steps + 1, seed).double()
    vector, largest = fresh[0], 0.0
    for k in range(steps):
        remainder = _orthogonal(vector, basis[:, :k])
        if float(remainder.norm()) <= BREAKDOWN * max(largest, float(vector.norm())):
            remainder = _orthogonal(fresh[k + 1], basis[:, :k])
        basis[:, k] = remainder / remainder.norm()
        images[:, k] = operator.products(basis[:, k].to(operator.like)[None])[0].double()
        vector = images[:, k]
        largest = max(largest, float(vector.norm()))
    block = basis.T @ images
    values, turned = torch.linalg.eigh((block + block.T) / 2)
    top = values.abs().argsort(descending=True)[:rank]
    top = top[(values[top] + damping).abs() > 1e-12 * max(largest, damping)]
    return LowRank(values[top], basis @ turned[:, top], damping, False, operator)


def nystrom(operator: Operator, damping: float, rank: int, seed: int) -> LowRank:
    """Return Nyström's approximation C ≈ (CΩ)(ΩᵀCΩ)⁺(CΩ)ᵀ from `rank` random directions Ω.

    (C + λ)⁻¹v = (1/λ)[v − CΩ (λ ΩᵀCΩ + (CΩ)ᵀCΩ)⁻¹ (CΩ)ᵀ v], through the eigenpairs of the approximation.

    Parameters
    ----------
    operator : Operator
        C, positive semi-definite.
    damping : float
        λ > 0.
    rank : int
        Columns of Ω, each a product.
    seed : int
        Of Ω.

    Returns
    -------
    LowRank

    Raises
    ------
    NotSupportedError
        λ = 0, or a C with negative eigenvalues.

    References
    ----------
    Hataya and Yamada, "Nyström method for accurate and scalable implicit differentiation" (2023); Frangella, Tropp and
    Udell, "Randomized Nyström preconditioning" (2023), algorithm 2.1.

    Examples
    --------
    >>> from finfluence.curvature import Matrix
    >>> found = nystrom(Matrix(torch.diag(torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64))), 0.1, rank=3, seed=0)
    >>> [round(e, 4) for e in found.values.tolist()]
    [5.0, 2.0, 1.0]
    """
    if damping <= 0:
        raise NotSupportedError(
            explain(
                "damping above zero for Nyström's approximation",
                f"damping={damping!r}",
                "directions outside of the sketch have no curvature but the damping",
                "leave damping out for a tenth of the mean eigenvalue",
            )
        )
    drawn = random_vectors(operator, min(rank, operator.size), seed).double()
    omega, _ = torch.linalg.qr(drawn.T)
    sketch = operator.products(omega.T.to(operator.like)).double().T
    core = omega.T @ sketch
    values, turned = torch.linalg.eigh((core + core.T) / 2)
    largest = float(values.abs().max())
    if float(values.min()) < -1e-3 * largest:
        raise NotSupportedError(
            explain(
                "a curvature without negative eigenvalues for Nyström's approximation",
                f"eigenvalues from {float(values.min()):.2g} to {float(values.max()):.2g} in the sketch",
                "the end of the run is no minimum of the loss",
                "use curvature='gauss-newton', or method='if-arnoldi', which takes negative eigenvalues",
            )
        )
    kept = values > torch.finfo(operator.like.dtype).eps * len(values) * largest
    half = sketch @ (turned[:, kept] / values[kept].sqrt())
    basis, singular, _ = torch.linalg.svd(half, full_matrices=False)
    return LowRank(singular**2, basis, damping, True, operator)


def _orthogonal(vector: Tensor, basis: Tensor) -> Tensor:
    """Return what of a vector is orthogonal to a basis, in two sweeps: one leaves rounding errors behind."""
    for _ in range(2):
        vector = vector - basis @ (basis.T @ vector)
    return vector
