"""One replay by several processes: each takes some of the queries, or looks at some of the rows.

*Queries.* Different queries have nothing to do with each other: every process takes its share of them, and the sums are
shared when it is done. Nothing is exchanged on the way, any model will do, and a process needs the memory
of its own queries only. This is the way if there are at least as many queries as processes.

*Rows.* With fewer queries, every process takes all of them back and evaluates its share of each step's rows:

    g = Σ_r (B_r/B) g_r,     u = (∂U/∂g)ᵀλ everywhere,     H u = Σ_r (B_r/B) H_r u,     x = all x_r side by side

Two sums of P and Q·P numbers a step. Rows must not depend on each other: no batch statistics, and no random numbers,
which one process would draw for all rows at once.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from finfluence.distributed import Processes
from finfluence.estimators.derivatives._exact import Adjoint
from finfluence.estimators.derivatives._finite_difference import FiniteDifference, reads
from finfluence.estimators.derivatives._protocol import Known, StepAdjoint
from finfluence.estimators.derivatives._returned import batch_normalised
from finfluence.grads import Batch, Traces
from finfluence.runs import Tape


def shares(count: int, parts: int) -> list[range]:
    """Return `count` things cut into `parts` consecutive ranges whose lengths differ by one at most.

    Returns
    -------
    list of range

    Examples
    --------
    >>> shares(5, 2)
    [range(0, 3), range(3, 5)]
    """
    ends = [(count * k + parts - 1) // parts for k in range(parts + 1)]
    return [range(a, b) for a, b in pairwise(ends)]


def by_rows(tape: Tape, queries: int, processes: Processes) -> bool:
    """Whether the processes share rows instead of queries."""
    return queries < processes.size and not tape.stochastic and not batch_normalised(tape.working)


class ShardedRows:
    """A step adjoint whose rows are shared among processes: the twin of the one that it is made of.

    `step` and `row_derivatives` are collective: every process calls them with the same arguments, and gets the same
    bits.
    """

    moves: Tensor | None = None
    gradient: Tensor | None = None

    def __init__(self, inner: StepAdjoint, processes: Processes) -> None:
        self._inner = inner
        self._processes = processes
        self._traces = Traces()
        self.losses, self.optimizer = inner.losses, inner.optimizer
        self.differentiation = inner.differentiation
        self._parts = (
            inner if isinstance(inner, FiniteDifference) else FiniteDifference(inner.losses, inner.optimizer)
        )

    @property
    def engine(self) -> str:
        """How the functions ran."""
        own = self._traces.engine
        return own if own != "traced" else self._inner.engine

    def step(
        self,
        state: Tensor,
        hyper: Tensor,
        batch: Batch,
        adjoint: Tensor,
        seed: int | None = None,
        known: Known | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Take one step backwards; arguments and returns as those of `StepAdjoint.step`."""
        theta = state[: self._parts.losses.layout.size]
        mine, sizes = self._mine(batch)
        share = sizes[self._processes.rank] / sum(sizes)
        pull = self._parts.pull(state, hyper, adjoint)
        gradient, hidden = torch.zeros_like(theta), self.optimizer.hides_gradient
        if hidden or reads(pull, 2):
            if share:
                gradient = share * self._parts.gradients(theta.unsqueeze(0), mine, seed)[0][0]
            gradient = self._processes.sum(gradient)
        self.gradient = gradient if hidden else None
        before, direction = pull(state, hyper, gradient, adjoint)
        if share:
            curved, of_rows = self._run("products", self._inner.products, theta, direction, mine, seed)
        else:
            curved, of_rows = torch.zeros_like(direction), direction.new_zeros(len(direction), 0)
        before = before.clone()
        before[:, 0] += self._processes.sum(share * curved)
        return before, self._processes.joined(of_rows, sizes), direction

    def row_derivatives(
        self, theta: Tensor, direction: Tensor, batch: Batch, seed: int | None = None
    ) -> Tensor:
        """Return x_i = ⟨u, ∇ℓ_i(θ)⟩ [Q, B] for directions u [Q, P]."""
        mine, sizes = self._mine(batch)
        if sizes[self._processes.rank]:
            own = self._inner.row_derivatives(theta, direction, mine, seed)
        else:
            own = direction.new_zeros(len(direction), 0)
        return self._processes.joined(own, sizes)

    def products(
        self, theta: Tensor, direction: Tensor, batch: Batch, seed: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (∂g/∂θ)ᵀu [Q, P] and x [Q, B] of all rows; for a few checks, and by every process for itself."""
        return self._inner.products(theta, direction, batch, seed)

    def _mine(self, batch: Batch) -> tuple[Batch, list[int]]:
        """Return this process's rows of the batch, and how many rows each process has."""
        count = len(batch["id"])
        cut = shares(count, self._processes.size)
        own = cut[self._processes.rank]
        return {k: v[own.start : own.stop] if v.ndim and len(v) == count else v for k, v in batch.items()}, [
            len(part) for part in cut
        ]

    def _run(
        self,
        kind: str,
        function: Callable[..., Any],
        theta: Tensor,
        direction: Tensor,
        batch: Batch,
        seed: int | None,
    ) -> Any:
        """Call an adjoint's function, traced if it does not trace by itself."""
        if not isinstance(self._inner, Adjoint):
            return function(theta, direction, batch, seed)
        keys = sorted(batch)
        tensors = (theta, direction, *(batch[k] for k in keys))

        def flat(theta: Tensor, direction: Tensor, *fields: Tensor) -> Any:
            return function(theta, direction, dict(zip(keys, fields, strict=True)), seed)

        return self._traces.run(kind, flat, *tensors)
