"""What a solver of (C + λ) x = v gives back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from finfluence.curvature._operators import Operator


@dataclass(frozen=True)
class Solution:
    """Solutions, and how good they are.

    Parameters
    ----------
    vectors : Tensor [K, P]
        x, in the dtype of v.
    facts : mapping
        Numbers of the solver: iterations, residuals.
    findings : tuple of str
        What qualifies them, in words.
    """

    vectors: Tensor
    facts: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[str, ...] = ()


class Solver(Protocol):
    """Solves (C + λ) x = v for a curvature that is prepared."""

    def solve(self, vectors: Tensor) -> Solution:
        """Return x [K, P] for v [K, P]."""


def residuals(operator: Operator, damping: float, solutions: Tensor, vectors: Tensor) -> Tensor:
    """Return ‖v − (C + λ) x‖ / ‖v‖ [K]; zero where v vanishes."""
    off = (vectors - operator.products(solutions) - damping * solutions).double().norm(dim=1)
    size = vectors.double().norm(dim=1)
    return (off / size).where(size > 0, off)


def unreached(what: str, worst: float, tolerance: float) -> str:
    """Say that a solver stopped before its tolerance was reached."""
    return (
        f"{what} stopped at a residual of {worst:.2g} of the right-hand side, above the tolerance of {tolerance:.2g}: "
        "the scores are those of an unfinished solution; raise damping, or allow more work"
    )
