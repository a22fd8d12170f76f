"""A chosen step adjoint, with the reason, and what it was checked on."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from finfluence.distributed import Processes
from finfluence.estimators.derivatives._check import Agreement
from finfluence.estimators.derivatives._checked import CheckedAdjoint
from finfluence.estimators.derivatives._one_sided import OneSided
from finfluence.estimators.derivatives._sharded_rows import ShardedRows


@dataclass(frozen=True)
class Choice:
    """A step adjoint, why it was taken, and how far it was from other ways to the same numbers.

    agreement : with the gradients that training got.
    error : of finite differences: their largest relative difference from those that they were compared with, `against`,
    along the gradients of queries.
    exact : of finite differences taken because they cost less: makes the exact pass, should they differ on the way.
    """

    adjoint: CheckedAdjoint
    reason: str
    agreement: Agreement
    error: float | None = None
    against: str | None = None
    exact: "Callable[[], Choice] | None" = None

    @property
    def name(self) -> str:
        """How derivatives are taken: "exact", "reverse-over-reverse" or "finite-difference"."""
        return self.adjoint.differentiation

    @property
    def one_by_one(self) -> bool:
        """Whether each direction takes a plain step of its own, in the memory of one."""
        return isinstance(self.adjoint.inner, OneSided)

    @property
    def findings(self) -> list[str]:
        """What a reader of the result should know."""
        found = []
        if self.name == "reverse-over-reverse":
            found.append(
                f"derivatives were taken of the gradient that training got, reverse over reverse: {self.reason}; "
                f"{self.agreement.sentence}"
            )
        elif self.name == "finite-difference":
            found.append(
                f"derivatives were taken by finite differences: {self.reason}; "
                f"on a few steps they agree with {self.against} to {self.error:.1g}; "
                + (
                    f"of the exact pass, {self.agreement.sentence}"
                    if self.adjoint.exact
                    else self.agreement.sentence
                )
            )
        if self.agreement.coupled:
            found.append(
                "the gradient of a row depends on the other rows of its batch: an effect is that of the row's weight, "
                "without what its absence changes in the gradients of the others"
            )
        return found

    def over_rows(self, processes: Processes) -> "Choice":
        """Return the same with the rows of each step shared among processes."""
        return replace(self, adjoint=self.adjoint.around(ShardedRows(self.adjoint.inner, processes)))
