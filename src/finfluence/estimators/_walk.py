"""Walk a tape backwards, epoch by epoch, and fill the running sums."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finfluence._seeds import stream
from finfluence.estimators._accumulate import EpochSums, Totals
from finfluence.estimators._adjoint import Adjoint
from finfluence.estimators._horizon import Horizon
from finfluence.runs import Tape, step_seed

ROWS_AT_ONCE = 1024
FEWEST_PROBES = 64
FEWEST_EVALUATIONS = 4


@dataclass(frozen=True)
class Plan:
    """What is evaluated along the way.

    full : all rows at every step; effects come from them.
    budget : extra row evaluations on probe rows, as a share of the rows that training saw (0: no probes).
    seed : picks the probe rows, anew in each epoch.
    """

    full: bool
    budget: float
    seed: int

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
    """The state of a backward walk: adjoint λ [Q, 1+S, P], totals, and the next epoch to visit."""

    def __init__(self, tape: Tape, adjoint: Adjoint, start: Tensor, plan: Plan, horizon: Horizon) -> None:
        self.tape = tape
        self.plan = plan
        self.horizon = horizon
        self._adjoint = adjoint
        recipe = tape.recipe
        self.lam = start
        self.active = torch.ones(len(start), dtype=torch.bool, device=start.device)
        self.totals = Totals(len(recipe.rows), len(start), recipe.epochs, start.device)
        self.next_epoch = recipe.epochs - 1
        hyper = [recipe.optimizer.hyper(t, recipe.rate(t)) for t in range(tape.steps)]
        layout = tape.stepper.layout
        self._hyper = torch.tensor(hyper, dtype=layout.dtype, device=layout.device)
        self._segment: tuple[int, Tensor] | None = None

    @property
    def done(self) -> bool:
        """Whether every query has reached its horizon or the start of training."""
        walked = self.tape.recipe.epochs - 1 - self.next_epoch
        return self.next_epoch < 0 or walked == self.horizon.epochs or not bool(self.active.any())

    def epoch(self) -> None:
        """Walk one epoch backwards and accept or refuse it."""
        epoch, recipe, plan = self.next_epoch, self.tape.recipe, self.plan
        per_epoch, n = recipe.steps_per_epoch, len(recipe.rows)
        count, every = plan.probes(recipe.epochs - 1 - epoch, n, per_epoch, recipe.epochs)
        rows = self._probe_rows(epoch, count)
        sums = EpochSums.zeros(n, len(rows), len(self.lam), self.lam.device)
        for offset in reversed(range(per_epoch)):
            t = epoch * per_epoch + offset
            state, batch_rows = self._state(t), self.tape.order[t]
            seed = step_seed(self.tape.order_seed, t) if self.tape.stepper.stochastic else None
            batch = self.tape.stepper.batch(batch_rows)
            self.lam, slopes, direction = self._adjoint.step(state, self._hyper[t], batch, self.lam, seed)
            if not plan.full:
                if len(batch_rows) == 1:
                    others = self._slopes(state, direction, self._others(t, int(batch_rows)), seed)
                    slopes = torch.cat([slopes, others], 1)
                sums.add_batch(batch_rows.to(slopes.device), slopes)
            weight = _weight(offset, every, per_epoch)
            if len(rows) and weight:
                sums.add_probes(self._slopes(state, direction, rows, seed), len(batch_rows), weight)
            elif not len(rows):
                sums.add_batch_variance(slopes, len(batch_rows), n)
        sums.close(n, recipe.sampling == "reshuffle")
        self.active = self.active & self.horizon.accepts(
            epoch, sums.variance, sums.variance_error, self.totals.profile
        )
        effects = sums.full_effects() if plan.full else sums.effects
        self.totals.add(epoch, effects, sums, self.active)
        self.lam = torch.where(self.active[:, None, None], self.lam, torch.zeros_like(self.lam))
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

    def _slopes(self, state: Tensor, direction: Tensor, rows: Tensor, seed: int | None) -> Tensor:
        """Return the slopes x [Q, m] of any rows at a step."""
        theta, batch = state[: self.tape.stepper.layout.size], self.tape.stepper.batch
        parts = [self._adjoint.slopes(theta, direction, batch(r), seed) for r in rows.split(ROWS_AT_ONCE)]
        return torch.cat(parts, dim=1)

    def _others(self, t: int, row: int) -> Tensor:
        """Draw rows to compare a batch of one row with."""
        n = len(self.tape.recipe.rows)
        drawn = stream(self.plan.seed, "others", t).permutation(n - 1)[:FEWEST_PROBES]
        return torch.from_numpy(np.sort(drawn + (drawn >= row)))

    def _probe_rows(self, epoch: int, count: int) -> Tensor:
        n = len(self.tape.recipe.rows)
        drawn = stream(self.plan.seed, "probe", epoch).permutation(n)[:count] if count < n else np.arange(n)
        return torch.from_numpy(np.sort(drawn))

    def _state(self, t: int) -> Tensor:
        index = t // self.tape.every
        if self._segment is None or not 0 <= t - self._segment[0] < len(self._segment[1]):
            first, states = self.tape.segment(index)
            self._segment = (first, states.to(self.lam.device))
        return self._segment[1][t - self._segment[0]]


def _weight(offset: int, every: int, per_epoch: int) -> float:
    """Steps of the epoch that the evaluation at `offset` stands for; 0 where there is none."""
    first = offset - offset % every
    size = min(every, per_epoch - first)
    return float(size) if offset == first + size // 2 else 0.0
