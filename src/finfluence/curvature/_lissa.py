"""LiSSA: the inverse as a Neumann series."""

from dataclasses import dataclass

from torch import Tensor

from finfluence.curvature._operators import Operator
from finfluence.curvature._solution import Solution, residuals, unreached
from finfluence.errors import NotSupportedError, explain

GROWN = 1e3


@dataclass(frozen=True)
class Lissa:
    """Solves (C + λ) x = v by x_{k+1} = v + x_k − (C + λ) x_k / s from x_0 = v; the solution is x / s.

    Damping stands beside C, inside the division: the fixed point is (C + λ)⁻¹v whatever s is. It converges if every
    eigenvalue of C + λ lies between 0 and 2s; errors along an eigenvalue e shrink by 1 − e/s a product.

    Parameters
    ----------
    operator : Operator
        C, by products over all rows.
    damping : float
        λ ≥ 0.
    scale : float
        s.
    depth : int
        At most so many products.
    tolerance : float
        It stops at ‖x_{k+1} − x_k‖ ≤ tolerance · ‖v‖, which is the residual of x_k.

    References
    ----------
    Agarwal, Bullins and Hazan, "Second-order stochastic optimization for machine learning in linear time" (2017); Koh
    and Liang (2017), section 3.

    Examples
    --------
    >>> import torch
    >>> from finfluence.curvature import Matrix
    >>> ridge = Matrix(torch.tensor([[5.0, 6.0], [6.0, 15.0]], dtype=torch.float64))
    >>> v = torch.tensor([[-2 / 3, -8 / 3]], dtype=torch.float64)
    >>> [round(x, 6) for x in Lissa(ridge, 0.0, scale=50.0, depth=10).solve(v).vectors[0].tolist()]
    [0.021092, -0.17582]
    """

    operator: Operator
    damping: float
    scale: float
    depth: int = 1000
    tolerance: float = 1e-3

    def solve(self, vectors: Tensor) -> Solution:
        """Return x [K, P] for v [K, P].

        Returns
        -------
        Solution

        Raises
        ------
        NotSupportedError
            The series diverges.
        """
        size = vectors.norm(dim=1)
        x, done, largest = vectors, 0, float(size.max())
        while done < self.depth:
            moved = vectors - (self.operator.products(x) + self.damping * x) / self.scale
            x, done = x + moved, done + 1
            apart = moved.norm(dim=1)
            if not float(apart.max()) <= GROWN * largest:
                raise self._diverged(done)
            if bool((apart <= self.tolerance * size).all()):
                break
        left = residuals(self.operator, self.damping, x / self.scale, vectors)
        worst = float(left.max())
        facts = {"iterations": done, "residual": worst, "scale": self.scale}
        if worst <= 2 * self.tolerance:
            return Solution(x / self.scale, facts)
        if worst > 1.0:
            raise self._diverged(done)
        return Solution(
            x / self.scale, facts, (unreached(f"LiSSA ({done} products)", worst, self.tolerance),)
        )

    def _diverged(self, done: int) -> NotSupportedError:
        return NotSupportedError(
            explain(
                f"a Neumann series that converges: eigenvalues of C + λ between 0 and {2 * self.scale:.3g}",
                f"one that grows, noticed after {done} products",
                "scale is below half of the largest eigenvalue, or the Hessian has negative eigenvalues",
                "leave scale out, so that it is taken from the largest eigenvalue; use curvature='gauss-newton'",
            )
        )
