"""Conjugate gradients, for several right-hand sides side by side."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from finfluence.curvature._operators import Operator
from finfluence.curvature._solution import Solution, residuals, unreached
from finfluence.errors import NotSupportedError, explain


@dataclass(frozen=True)
class ConjugateGradients:
    """Solves (C + λ) x = v by conjugate gradients from x = 0, or from a preconditioner's x.

    r = v − (C+λ)x; z = M⁻¹r; p = z; repeat: α = rᵀz / pᵀ(C+λ)p, x ← x + αp, r ← r − α(C+λ)p, β = r′ᵀz′ / rᵀz, p ← z′
    + βp.

    Parameters
    ----------
    operator : Operator
        C; C + λ must be positive definite.
    damping : float
        λ ≥ 0.
    iterations : int
        At most so many, each a product.
    tolerance : float
        It stops at ‖r‖ ≤ tolerance · ‖v‖ for every v.
    preconditioner : callable, optional
        M⁻¹: [K, P] to [K, P], symmetric and positive definite.

    Examples
    --------
    >>> from finfluence.curvature import Matrix
    >>> ridge = Matrix(torch.tensor([[5.0, 6.0], [6.0, 15.0]], dtype=torch.float64))
    >>> v = torch.tensor([[-2 / 3, -8 / 3]], dtype=torch.float64)
    >>> one, two = (ConjugateGradients(ridge, 0.0, k).solve(v).vectors[0] for k in (1, 2))
    >>> [round(x, 6) for x in one.tolist()], [round(x, 6) for x in two.tolist()]
    ([-0.03868, -0.154721], [0.153846, -0.239316])
    """

    operator: Operator
    damping: float
    iterations: int = 100
    tolerance: float = 1e-5
    preconditioner: Callable[[Tensor], Tensor] | None = None

    def solve(self, vectors: Tensor) -> Solution:
        """Return x [K, P] for v [K, P].

        Returns
        -------
        Solution
            Its residuals are those of x itself, with a product of their own.

        Raises
        ------
        NotSupportedError
            A direction of negative curvature was met.
        """
        scale = vectors.norm(dim=1, keepdim=True)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        x, done = self._iterate(vectors / scale)
        x = x * scale
        left = residuals(self.operator, self.damping, x, vectors)
        worst = float(left.max())
        facts = {"iterations": done, "residual": worst}
        if worst <= 2 * self.tolerance:
            return Solution(x, facts)
        said = unreached(f"conjugate gradients ({done} products)", worst, self.tolerance)
        return Solution(x, facts, (said,))

    def _iterate(self, v: Tensor) -> tuple[Tensor, int]:
        prepare = self.preconditioner
        x = torch.zeros_like(v) if prepare is None else prepare(v)
        r = v if prepare is None else v - self._times(x)
        z = r if prepare is None else prepare(r)
        p, rz = z, (r * z).sum(1, keepdim=True)
        for k in range(self.iterations):
            active = r.norm(dim=1, keepdim=True) > self.tolerance
            if not bool(active.any()):
                return x, k
            curved = self._times(p)
            along = (p * curved).sum(1, keepdim=True)
            self._check(along, active)
            step = torch.where(
                active, rz / torch.where(active, along, torch.ones_like(along)), torch.zeros_like(rz)
            )
            x, r = x + step * p, r - step * curved
            z = r if prepare is None else prepare(r)
            before, rz = rz, (r * z).sum(1, keepdim=True)
            p = z + torch.where(before > 0, rz / before, torch.zeros_like(rz)) * p
        return x, self.iterations

    def _times(self, p: Tensor) -> Tensor:
        return self.operator.products(p) + self.damping * p

    def _check(self, along: Tensor, active: Tensor) -> None:
        if bool((along[active] > 0).all()):
            return
        raise NotSupportedError(
            explain(
                "a curvature that is positive in every direction",
                f"pᵀ(C + λ)p = {float(along[active].min()):.2g} along a direction of conjugate gradients",
                "the end of the run is no minimum of the loss, so that its Hessian has negative eigenvalues, or "
                "damping is zero and some directions do not change the loss",
                "use curvature='gauss-newton', which is never negative, or raise damping",
            )
        )
