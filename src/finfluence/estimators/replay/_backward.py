"""Walk a tape backwards, epoch by epoch, and fill the running sums."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finfluence._seeds import stream
from finfluence.estimators.derivatives import StepAdjoint
from finfluence.estimators.replay._accumulate import EpochSums, Totals
from finfluence.estimators.replay._recomputed_states import WalkedStates
from finfluence.estimators.replay._tail import Late
from finfluence.estimators.replay._truncation import Horizon
from finfluence.runs import Step, Tape

ROWS_AT_ONCE = 1024
FEWEST_PROBES = 64
FEWEST_EVALUATIONS = 4


@dataclass(frozen=True)
class Plan:
    """What is evaluated along the way.

    full : all rows at every step; effects come from them.
    budget : extra row evaluations on probe rows, as a share of the rows that training saw (0: no probes).
    seed : picks the probe rows, anew in each epoch.
    late : states over which effects are averaged, as numbers of steps before them; empty: the final one.
    """

    full: bool
    budget: float
    seed: int
    late: tuple[int, ...] = ()

    def probes(self, back: int, rows: int, steps: int, epochs: int) -> tuple[int, int]:
        """Return (number of probe rows, steps from one evaluation to the next), `back` epochs from the end.

        Nearly all of the variance comes from the last epoch: each epoch gets half of what is left, at least
        `FEWEST_EVALUATIONS` evaluations of `FEWEST_PROBES` rows. Only two row counts occur, so that few graphs
        are traced.
        """
        if self.full:
            return rows, 1
        if not self.budget:
            return 0, 1
        share = self.budget * rows * epochs / steps * 0.5 ** (back + 1)
        if back == 0 and share >= FEWEST_PROBES:
            return int(min(rows, share)), 1
        every = int(min(max(1, FEWEST_PROBES // max(share, 1e-9)), max(1, steps // FEWEST_EVALUATIONS)))
        return min(rows, FEWEST_PROBES), every


class Walk:
    """The state of a backward walk: adjoint λ, totals, and the next epoch to visit.

    λ is [2Q, 1+S, P] through the epochs that hold late states: of the final queries, then of their means over late
    states. Further back it is [Q, 1+S, P], of the means alone.
    """

    def __init__(
        self, tape: Tape, adjoint: StepAdjoint, start: Tensor, plan: Plan, horizon: Horizon, late: Late,
        states: WalkedStates | None = None,
    ) -> None:  # fmt: skip
        self.tape = tape
        self._late = late
        self.plan = plan
        self.horizon = horizon
        self._adjoint = adjoint
        self.lam = _beside(start, late) if late.epochs else start
        self.active = torch.ones(len(start), dtype=torch.bool, device=start.device)
        self.totals = Totals(len(tape.rows), len(start), len(tape.epochs), start.device)
        self.next_epoch = len(tape.epochs) - 1
        self._states = WalkedStates(tape) if states is None else states

    @property
    def done(self) -> bool:
        """Whether every query has reached its horizon or the start of training."""
        walked = len(self.tape.epochs) - 1 - self.next_epoch
        return self.next_epoch < 0 or walked == self.horizon.limit or not bool(self.active.any())

    def epoch(self) -> None:
        """Walk one epoch backwards and accept or refuse it."""
        epoch, plan, n = self.next_epoch, self.plan, len(self.tape.rows)
        steps, epochs = self.tape.epochs[epoch], len(self.tape.epochs)
        queries = len(self.active)
        count, every = plan.probes(epochs - 1 - epoch, n, len(steps), epochs)
        rows = self._probe_rows(epoch, count)
        sums = EpochSums.zeros(n, len(rows), queries, self.lam.device)
        for t in reversed(steps):
            state, step = self._states.at(t), self.tape.at(t)
            self.lam, slopes, direction = self._adjoint.step(
                state, step.hyper, step.batch, self.lam, step.seed
            )
            self._inject(t, state)
            slopes = step.unweighted(slopes)
            if not plan.full:
                if len(step.rows) == 1:
                    others = self._slopes(t, step, state, direction, self._others(t, int(step.rows)))
                    slopes = torch.cat([slopes, others], 1)
                sums.add_batch(step.rows.to(slopes.device), step.centred(slopes[-queries:]))
            weight = _weight(t - steps.start, every, len(steps))
            if len(rows) and weight:
                probed = self._slopes(t, step, state, direction if plan.full else direction[:queries], rows)
                sums.add_probes(probed[:queries], self._size(t, step, weight), weight)
                if plan.full:
                    sums.add_all(probed[-queries:])
            elif not len(rows):
                sums.add_batch_variance(slopes[:queries], step.size, n)
        sums.close(n, self.tape.reshuffled)
        self.active = self.active & self.horizon.accepts(
            epoch, sums.variance, sums.variance_error, self.totals.profile
        )
        self.totals.add(epoch, sums, self.active, self._late.share(epoch))
        if epochs - epoch >= self._late.epochs:
            self.lam = self.lam[-queries:].clone()
        active = self.active.repeat(len(self.lam) // queries)
        self.lam = torch.where(active[:, None, None], self.lam, torch.zeros_like(self.lam))
        self.next_epoch = epoch - 1

    def run(self, after_epoch: Callable[[int], None]) -> None:
        """Walk until done; `after_epoch(next_epoch)` is called after each epoch."""
        while not self.done:
            self.epoch()
            after_epoch(self.next_epoch)

    def tensors(self) -> dict[str, Tensor]:
        """Return the state of the walk, for saving."""
        scalars = {"active": self.active, "next_epoch": torch.tensor([self.next_epoch])}
        return {"lam": self.lam, **scalars, **self.totals.tensors()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from `tensors()`."""
        device = self.lam.device
        self.lam = tensors["lam"].to(device)
        self.active = tensors["active"].to(device)
        self.next_epoch = int(tensors["next_epoch"])
        self.totals.restore(tensors)

    def _inject(self, t: int, state: Tensor) -> None:
        """Add the gradients of the queries where they are averaged over state t."""
        gradients = self._late.at(t, state)
        if gradients is not None:
            self.lam[-len(gradients) :, 0] += gradients

    def _slopes(self, t: int, step: Step, state: Tensor, direction: Tensor, rows: Tensor) -> Tensor:
        """Return the slopes x [Q, m] of any rows at step t, scaled as the step weighs a row."""
        theta, batch = state[: self.tape.layout.size], self.tape.batch
        parts = [
            self._adjoint.row_derivatives(theta, direction, batch(r, t), step.seed) for r in rows.split(ROWS_AT_ONCE)
        ]
        slopes = torch.cat(parts, dim=1)
        return slopes if step.total == 1.0 else slopes * step.total

    def _size(self, t: int, step: Step, weight: float) -> float:
        """Return the batch size b of the `weight` steps that the evaluation at step t stands for: w/b = Σ 1/b_s."""
        first = t - int(weight) // 2
        sizes = self.tape.sizes[first : first + int(weight)]
        return step.size if min(sizes) == max(sizes) else weight / sum(1 / size for size in sizes)

    def _others(self, t: int, row: int) -> Tensor:
        """Draw rows to compare a batch of one row with."""
        n = len(self.tape.rows)
        drawn = stream(self.plan.seed, "others", t).permutation(n - 1)[:FEWEST_PROBES]
        return torch.from_numpy(np.sort(drawn + (drawn >= row)))

    def _probe_rows(self, epoch: int, count: int) -> Tensor:
        n = len(self.tape.rows)
        drawn = stream(self.plan.seed, "probe", epoch).permutation(n)[:count] if count < n else np.arange(n)
        return torch.from_numpy(np.sort(drawn))


def _beside(start: Tensor, late: Late) -> Tensor:
    """Return λ_T of the spread and of q̄ [2Q, 1+S, P], from ∂q/∂s_T."""
    spread = start.clone()
    spread[:, 0] = late.of_spread(start[:, 0])
    return torch.cat([spread, start / len(late.steps)])


def _weight(offset: int, every: int, per_epoch: int) -> float:
    """Steps of the epoch that the evaluation at `offset` stands for; 0 where there is none."""
    first = offset - offset % every
    size = min(every, per_epoch - first)
    return float(size) if offset == first + size // 2 else 0.0
