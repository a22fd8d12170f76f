"""Functions of a curvature applied to vectors, by products with it: Lanczos' iteration from each vector."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from finfluence.curvature._operators import Operator

CLOSED = 1e-10
BASES = 2**24  # numbers in the bases of a block of vectors, at most, unless one vector takes more


@dataclass(frozen=True)
class FunctionValues:
    """What Lanczos' iteration found.

    Attributes
    ----------
    values : list of Tensor [K, P]
        f(C) v, a tensor for each function.
    products : int
        Of the curvature, the most that a block of vectors took.
    change : float
        By how much of its size the last product changed a value, the most of all; 0 where the spaces closed.
    """

    values: list[Tensor]
    products: int
    change: float


def functions_of(
    operator: Operator,
    vectors: Tensor,
    functions: Sequence[Callable[[Tensor], Tensor]],
    products: int = 40,
    tolerance: float = 1e-3,
) -> FunctionValues:
    """Return f(C) v for vectors v [K, P] and several functions f of the eigenvalues.

    f(C) v ≈ ‖v‖ V f(T) e₁, V the orthonormal basis of span(v, Cv, …, C^{m−1}v) and T = VᵀCV: exact at m = P, and as
    good as the best polynomial of degree m − 1 before. It stops where two products in a row change no value by more
    than `tolerance` of its size.

    Parameters
    ----------
    operator : Operator
        C, symmetric.
    vectors : Tensor [K, P]
    functions : sequence of callable
        Of a tensor of eigenvalues, elementwise.
    products : int
        At most so many of the curvature, each with all vectors of a block.
    tolerance : float

    Returns
    -------
    FunctionValues

    References
    ----------
    Saad, "Analysis of some Krylov subspace approximations to the matrix exponential operator" (1992).

    Examples
    --------
    >>> from finfluence.curvature import Matrix
    >>> c = Matrix(torch.diag(torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)))
    >>> found = functions_of(c, torch.ones(1, 3, dtype=torch.float64), [torch.sqrt])
    >>> found.values[0].round(decimals=6).tolist(), found.products
    ([[1.0, 1.414214, 2.236068]], 3)
    """
    block = max(1, BASES // max(1, operator.size * min(products, operator.size)))
    parts = [_block(operator, some, functions, products, tolerance) for some in vectors.split(block)]
    values = [torch.cat([part.values[k] for part in parts]) for k in range(len(functions))]
    return FunctionValues(values, max(p.products for p in parts), max(p.change for p in parts))


def _block(
    operator: Operator,
    vectors: Tensor,
    functions: Sequence[Callable[[Tensor], Tensor]],
    products: int,
    tolerance: float,
) -> FunctionValues:
    v = vectors.double()
    size = v.norm(dim=1)
    basis = _unit(v, size)[:, None]  # [K, m, P]
    diagonal, beside = list[Tensor](), list[Tensor]()
    weights, change, settled = list[Tensor](), torch.inf, 0
    most = min(products, operator.size)
    while True:
        newest = basis[:, -1]
        image = operator.products(newest.to(operator.like)).double()
        diagonal.append((image * newest).sum(1))
        before, weights = weights, _weights(diagonal, beside, functions)
        change = _largest_change(before, weights)
        settled = settled + 1 if change <= tolerance else 0
        remainder = image
        for _ in range(2):  # one sweep leaves rounding errors behind
            remainder = remainder - torch.einsum(
                "kmp,km->kp", basis, torch.einsum("kmp,kp->km", basis, remainder)
            )
        left = remainder.norm(dim=1)
        left = torch.where(left > CLOSED * image.norm(dim=1), left, 0.0)
        if not bool(left.any()):
            change = 0.0
        if len(diagonal) == most or settled == 2 or change == 0.0:
            break
        beside.append(left)
        basis = torch.cat([basis, _unit(remainder, left)[:, None]], 1)
    if len(diagonal) == operator.size:
        change = 0.0
    found = [(torch.einsum("kmp,km->kp", basis, w) * size[:, None]).to(vectors) for w in weights]
    return FunctionValues(found, len(diagonal), float(change))


def _weights(
    diagonal: list[Tensor], beside: list[Tensor], functions: Sequence[Callable[[Tensor], Tensor]]
) -> list[Tensor]:
    """Return f(T) e₁ [K, m] of each function."""
    tridiagonal = torch.diag_embed(torch.stack(diagonal, 1))
    if beside:
        off = torch.diag_embed(torch.stack(beside, 1), offset=1)
        tridiagonal = tridiagonal + off + off.mT
    values, turned = torch.linalg.eigh(tridiagonal)
    return [torch.einsum("kij,kj,kj->ki", turned, f(values), turned[:, 0]) for f in functions]


def _largest_change(before: list[Tensor], now: list[Tensor]) -> float:
    if not before:
        return torch.inf
    changes = [
        (n - torch.nn.functional.pad(b, (0, 1))).norm(dim=1) / n.norm(dim=1).clamp_min(1e-300)
        for b, n in zip(before, now, strict=True)
    ]
    return float(torch.stack(changes).max())


def _unit(vectors: Tensor, sizes: Tensor) -> Tensor:
    """Return vectors over their sizes; zero where these are."""
    return torch.where(sizes[:, None] > 0, vectors / sizes.clamp_min(1e-300)[:, None], 0.0)
