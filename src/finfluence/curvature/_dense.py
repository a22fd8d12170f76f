"""The whole curvature as a matrix: the slow reference of every other solver, for small models."""

import torch
from torch import Tensor

from finfluence.curvature._operators import Operator
from finfluence.curvature._solution import Solution
from finfluence.errors import NotSupportedError, explain

LARGEST = 10_000


class Dense:
    """Solves (C + λ) x = v with C written out, through its eigenvalues in double precision.

    Parameters
    ----------
    operator : Operator
        C, of at most 10,000 parameters.
    damping : float
        λ ≥ 0.

    Raises
    ------
    NotSupportedError
        Too many parameters, or a C + λ that is singular.

    Examples
    --------
    >>> from finfluence.curvature import Matrix
    >>> solver = Dense(Matrix(torch.tensor([[5.0, 6.0], [6.0, 15.0]])), damping=0.0)
    >>> [round(x, 4) for x in solver.solve(torch.tensor([[-2 / 3, -8 / 3]])).vectors[0].tolist()]
    [0.1538, -0.2393]
    """

    def __init__(self, operator: Operator, damping: float) -> None:
        check_size(operator.size)
        written = written_out(operator)
        values, self._vectors = torch.linalg.eigh((written + written.T) / 2)
        self._values = values + damping
        largest = float(self._values.abs().max())
        if float(self._values.abs().min()) <= 1e-12 * largest:
            raise NotSupportedError(
                explain(
                    "a curvature that has an inverse",
                    f"eigenvalues of C + λ down to {float(self._values.abs().min()):.1g} of a largest {largest:.2g}",
                    "some directions of the parameters do not change the loss, as in every over-parametrised model",
                    "pass damping= a number above zero, or leave it out for a tenth of the mean eigenvalue",
                )
            )
        self._negative = int((self._values < 0).sum())

    def solve(self, vectors: Tensor) -> Solution:
        """Return x [K, P] for v [K, P]."""
        basis = self._vectors
        found = vectors.to(basis) @ basis / self._values @ basis.T
        facts = {
            "smallest_eigenvalue": float(self._values.min()),
            "largest_eigenvalue": float(self._values.max()),
        }
        return Solution(found.to(vectors), facts, self._said())

    def _said(self) -> tuple[str, ...]:
        if not self._negative:
            return ()
        return (
            f"{self._negative} of {len(self._values)} eigenvalues of the curvature with its damping are negative: the "
            "end of the run is no minimum, and the sign of an effect along them means nothing; use "
            "curvature='gauss-newton', or more damping",
        )


def written_out(operator: Operator) -> Tensor:
    """Return C [P, P] in double precision."""
    eye = torch.eye(operator.size, dtype=operator.like.dtype, device=operator.like.device)
    return operator.products(eye).double()


def check_size(size: int) -> None:
    """Raise unless a matrix of so many parameters can be written out.

    Raises
    ------
    NotSupportedError
        There are more than 10,000.
    """
    if size > LARGEST:
        raise NotSupportedError(
            explain(
                f"at most {LARGEST:,} trained parameters, to write the curvature out",
                f"{size:,}",
                "a matrix of parameters by parameters is for small models",
                "use method='if-ekfac' or method='if-cg', which store none",
            )
        )
