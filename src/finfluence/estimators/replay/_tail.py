"""Tail averaging: the query averaged over the last part of training.

Where the learning rate is high, the parameters hop around to the last step, and so does the gradient of a query: the
effects that two runs show differ mainly because they end at different points. What removal does to q(θ_T) is what it
does to q a few steps earlier, nearly, so it is estimated for the mean over K states of the last steps:

    q̄ = Σ_k q(θ_{t_k}) / K,    ∂q̄/∂s_t = (∂U_t/∂s)ᵀ ∂q̄/∂s_{t+1} + Σ_{k: t_k = t} ∇q(θ_t) / K

The spread is that of q(θ_T), one state. With θ_T = θ* + δ, δ normal with covariance Σ, and q quadratic,

    Var q(θ_T) = gᵀΣg + tr((HΣ)²)/2,     E[∇q(θ_T)ᵀ Σ ∇q(θ_T)] = gᵀΣg + tr((HΣ)²),     g = ∇q(θ*), H = ∇²q:

the gradient of one state counts the curved part twice. That of two states far enough apart, (∇q(θ_T) + ∇q(θ_t))/2,
has half of the noise of either and counts it once. So the spread is followed back from there, beside the adjoint of q̄
through the epochs that hold averaged states; effects come from the latter. Further back q̄ alone is followed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from finfluence.errors import ConfigError, explain
from finfluence.estimators.derivatives import query_gradients
from finfluence.runs import AnyQuery, Tape

STATES, MOST = 8, 0.5


def tail_steps(steps: int, covered: int, share: float, states: int = STATES) -> tuple[int, ...]:
    """Return the states averaged, as numbers of steps before them, last first: at most `states`, equally far apart.

    They lie within `share` of the steps that the backward pass covers.

    Returns
    -------
    tuple of int

    Examples
    --------
    >>> tail_steps(400, 400, 0.1, 4)
    (400, 390, 380, 370)
    >>> tail_steps(400, 100, 0.1, 4)
    (400, 398, 395, 393)
    >>> tail_steps(400, 400, 0.0)
    (400,)
    """
    width = round(share * covered)
    count = max(1, min(states, width))
    return tuple(steps - k * width // count for k in range(count))


def check_tail(share: float) -> None:
    """Refuse a share of steps that leaves no training before the states averaged.

    Raises
    ------
    ConfigError
    """
    if not 0 <= share <= MOST:
        raise ConfigError(
            explain(
                f"late from 0 to {MOST}",
                repr(share),
                "a share of the steps was given in per cent, or as a number of steps",
                "use the default, 0.1, or 0 for the final state alone",
            )
        )


@dataclass(frozen=True, eq=False)
class TailAverage:
    """Gradients ∇q(θ_t)/K of some queries at the states averaged.

    Parameters
    ----------
    tape : Tape
    queries : sequence of Query
        All queries asked.
    columns : range
        Those of their names that this backward pass follows.
    steps : tuple of int
        The states averaged, as numbers of steps before them, last first.
    model : nn.Module
        A working copy, overwritten.
    """

    tape: Tape
    queries: Sequence[AnyQuery]
    columns: range
    steps: tuple[int, ...]
    model: nn.Module

    @property
    def epochs(self) -> int:
        """Epochs from the end that hold averaged states beside the final one; 0 if there is none."""
        first = min(self.steps)
        return 0 if len(self.steps) == 1 else sum(epoch.stop > first for epoch in self.tape.epochs)

    def share(self, epoch: int) -> float:
        """Return how much of q̄ the epoch's steps lead to, on average over them."""
        steps = self.tape.epochs[epoch]
        return sum(sum(k > t for k in self.steps) for t in steps) / len(self.steps) / max(1, len(steps))

    def at(self, t: int, state: Tensor) -> Tensor | None:
        """Return ∇q(θ_t)/K [Q, P] if state t is averaged over, else None."""
        if t not in self.steps:
            return None
        return (self._other if t == self._apart else self._gradients(state)) / len(self.steps)

    def of_spread(self, final: Tensor) -> Tensor:
        """Return the gradients [Q, P] that the spread is followed back from; `final`: ∇q(θ_T)."""
        return (final + self._other) / 2

    @property
    def _apart(self) -> int:
        """The state in the middle: far enough from the last for chance, near enough for the gradient's trend."""
        return self.steps[len(self.steps) // 2]

    @cached_property
    def _other(self) -> Tensor:
        """∇q [Q, P] at that state."""
        return self._gradients(self.tape.state(self._apart).to(self.tape.layout.device))

    def _gradients(self, state: Tensor) -> Tensor:
        layout = self.tape.layout
        layout.assign(self.model, state[: layout.size])
        _, slopes = query_gradients(self.queries, self.model, self.tape, self.columns)
        return slopes
