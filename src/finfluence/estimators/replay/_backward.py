"""The backward pass over a tape, epoch by epoch, filling the accumulators."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finfluence.estimators.derivatives import Known, StepAdjoint
from finfluence.estimators.replay._accumulate import HELD, Accumulators, EpochSums
from finfluence.estimators.replay._candidates import Candidates
from finfluence.estimators.replay._finite_change import (
    FOLLOWED,
    FURTHER,
    FiniteChanges,
    FiniteSlopes,
    Place,
    looked_at,
)
from finfluence.estimators.replay._recomputed_states import RecomputedStates
from finfluence.estimators.replay._row_sample import RowSample, draw_rows
from finfluence.estimators.replay._schedule import ROWS_AT_ONCE, RowSchedule, RunShape, steps_stood_for
from finfluence.estimators.replay._step_shares import StepShares, StepVariance
from finfluence.estimators.replay._tail import TailAverage
from finfluence.estimators.replay._truncation import TruncationRule
from finfluence.grads import Batch
from finfluence.runs import Step, Tape
from finfluence.runs.describe import like_sizes

LITTLE, FURTHEST = 0.02, 3


@dataclass(frozen=True, eq=False)
class PassRules:
    """What a backward pass evaluates, how far back it goes, and over which states queries are averaged.

    Parameters
    ----------
    schedule : RowSchedule
    truncation : TruncationRule
    tail : TailAverage
    losses : array [n]
        Of the training rows at the end of training: by them rows are drawn for the variance.
    candidates : Candidates or None
        Rows whose addition is asked about; None: the removal of the training rows is.
    rows_at_once : int
        Evaluated beside the step's own rows.
    memory_bytes : float
        Of the replay: finite changes of rows are held in a quarter of it.
    """

    schedule: RowSchedule
    truncation: TruncationRule
    tail: TailAverage
    losses: np.ndarray
    candidates: Candidates | None = None
    rows_at_once: int = ROWS_AT_ONCE
    memory_bytes: float = 2**30


@dataclass(frozen=True, eq=False)
class _Visit:
    """One step on the way back: the state before it, and the directions u_t [Q, P] along which rows are evaluated.

    finite : the changes that rows make, where the step is not linear on the scale of one.
    """

    t: int
    step: Step
    theta: Tensor
    direction: Tensor
    finite: FiniteSlopes | None = None


class BackwardPass:
    """The state of a backward pass: adjoint λ, accumulators, and the next epoch to visit.

    λ is [2Q, 1+S, P] through the epochs that hold averaged states, and beyond: of the final queries, whose spread is
    asked, then of their means over the tail. A mean over the tail is nearer to the noise of earlier epochs than the
    final state, and would show too much of it. Further back, where that is little, and throughout where no spread is
    asked, λ is [Q, 1+S, P], of the means.
    """

    def __init__(
        self, tape: Tape, adjoint: StepAdjoint, start: Tensor, rules: PassRules, states: RecomputedStates | None = None
    ) -> None:  # fmt: skip
        self.tape = tape
        self.rules = rules
        self.shape = RunShape.of(len(tape.rows), tape.epochs)
        self._adjoint, adjoint.moves = adjoint, None
        self._after: Tensor | None = None
        self.lam = start
        self._curved = torch.zeros(2, len(start), dtype=torch.float64, device=start.device)
        twice = rules.tail.epochs > 0 and rules.schedule.spread
        if twice:
            self._curved = torch.stack(rules.tail.curved(start[:, 0]))
            self.lam = _with_mean(start, rules.tail)
        elif rules.tail.epochs:
            self.lam = start / len(rules.tail.steps)
        self.apart = torch.full((len(start),), twice, device=start.device)
        self.active = torch.ones(len(start), dtype=torch.bool, device=start.device)
        self._targets = self.shape.rows if rules.candidates is None else len(rules.candidates)
        self.totals = Accumulators(self._targets, len(start), len(tape.epochs), start.device)
        self.steps = StepShares(len(start), looked_at(tape.steps), start.device)
        self.next_epoch = len(tape.epochs) - 1
        self._finite = FiniteChanges(tape, rules.memory_bytes)
        self._ahead: deque[Tensor] = deque(maxlen=1 + FURTHER)
        self._gradients: deque[Tensor | None] = deque(maxlen=1 + FURTHER)
        self._of_steps: list[StepVariance] = []
        self._tangents: list[tuple[int, float, Tensor]] = []
        self._states = RecomputedStates(tape) if states is None else states

    @property
    def done(self) -> bool:
        """Whether every query has reached the end of its truncation window, or the start of training."""
        covered = len(self.shape.epochs) - 1 - self.next_epoch
        return (
            self.next_epoch < 0
            or covered == self.rules.truncation.limit
            or not bool(self.active.any())
        )  # fmt: skip

    def run(self, after_epoch: Callable[[int], None]) -> None:
        """Go back until done; `after_epoch(next_epoch)` is called after each epoch."""
        while not self.done:
            self.epoch()
            after_epoch(self.next_epoch)

    def epoch(self) -> None:
        """Go back over one epoch and accept or refuse it."""
        epoch, queries = self.next_epoch, len(self.active)
        sums = self._sums_of(epoch)
        self.active = self.active & self.rules.truncation.accepts(
            epoch, sums.variance, sums.variance_error, self.totals.profile
        )
        self.totals.add(epoch, sums, self.active, self.rules.tail.share(epoch))
        self._take_tangents()
        self.steps.add(sorted(self._of_steps, key=lambda step: -step.t), self.active)
        self._of_steps = []
        self._ahead.clear()
        self._gradients.clear()
        self._join(len(self.shape.epochs) - epoch)
        active = self.active.repeat(len(self.lam) // queries)
        self.lam = torch.where(active[:, None, None], self.lam, torch.zeros_like(self.lam))
        self.next_epoch = epoch - 1

    def _join(self, covered: int) -> None:
        """Follow the means alone, of the queries whose spread the last epoch adds little to."""
        queries, tail = len(self.active), self.rules.tail.epochs
        if len(self.lam) == queries or covered <= tail:
            return
        share = self.totals.profile[-covered] / self.totals.variance()
        self.apart = self.apart & self.active & (share > LITTLE) & (covered < FURTHEST * tail)
        joined = torch.where(self.apart[:, None, None], self.lam[:queries], self.lam[-queries:])
        self.lam = torch.cat([joined, self.lam[-queries:]]) if bool(self.apart.any()) else joined

    def tensors(self) -> dict[str, Tensor]:
        """Return the state of the pass, for saving."""
        scalars = {"active": self.active, "apart": self.apart, "next_epoch": torch.tensor([self.next_epoch])}
        moves = {} if self._adjoint.moves is None else {"moves": self._adjoint.moves}
        return {
            "lam": self.lam,
            **scalars,
            **moves,
            **self.totals.tensors(),
            **self.steps.tensors(),
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from `tensors()`."""
        device = self.lam.device
        self.lam = tensors["lam"].to(device, copy=True)  # aligned: products of it are the same bit for bit
        self._adjoint.moves = tensors.get("moves")
        self.active, self.apart = tensors["active"].to(device), tensors["apart"].to(device)
        self.next_epoch = int(tensors["next_epoch"])
        self.totals.restore(tensors)
        self.steps.restore(tensors)

    def _sums_of(self, epoch: int) -> EpochSums:
        """Step back over one epoch and return its sums."""
        schedule, shape, steps = self.rules.schedule, self.shape, self.tape.epochs[epoch]
        count, every = schedule.variance_sample(len(shape.epochs) - 1 - epoch, shape)
        sample = draw_rows(schedule.seed, epoch, count, self.rules.losses)
        sums = EpochSums.zeros(self._targets, len(sample), len(self.active), self.lam.device)
        sums.chances = sample.chances.to(self.lam.device)
        candidate_steps = {} if self.rules.candidates is None else schedule.candidate_steps(epoch, steps)
        for t in reversed(steps):
            visit, slopes = self._step_back(t)
            slopes = self._add_batch(sums, visit, slopes)
            if len(sample):
                self._add_sample(sums, visit, sample, steps_stood_for(t - steps.start, every, len(steps)))
            else:
                sums.add_batch_variance(slopes[: len(self.active)], visit.step.size, shape.rows)
            if t in candidate_steps:
                self._add_candidates(sums, visit, candidate_steps[t])
        sums.close(shape.rows, self.tape.reshuffled)
        if epoch == len(shape.epochs) - 1:
            sums.variance += self._curved[0]
            sums.variance_error += self._curved[1]
        return sums

    def _step_back(self, t: int) -> tuple[_Visit, Tensor]:
        """Take λ one step back; return where that was, and the slopes [Q, B] of the step's own rows."""
        state, step = self._states.at(t), self.tape.at(t)
        known, after = Known(self._state_after(t), self.tape.row_losses(t), t=t), self.lam
        if self.rules.schedule.finite and t < FOLLOWED + FURTHER:
            known = known.read(self.tape.optimizer, state, step.hyper)
            self._ahead.appendleft(after)
            self._gradients.appendleft(known.gradient)
        self.lam, slopes, direction = self._adjoint.step(
            state, step.hyper, step.batch, self.lam, step.seed, known
        )
        self._after = state
        gradients = self.rules.tail.at(t, state)
        if gradients is not None:
            self.lam[-len(gradients) :, 0] += gradients
        slopes = step.unweighted(slopes)
        part = slice(-len(self.active), None)
        tangent, finite = slopes[part], None
        if self.rules.schedule.finite and self._finite.looks_at(t):
            place = Place(t, step, state, self._ahead_of(t) or [after], list(self._gradients))
            finite = self._finite.at(place, slopes, self._row_scale().repeat(len(slopes) // len(self.active)))
        if finite is not None:
            slopes = finite.of_batch(slopes)
            variance = StepVariance.of_tangent(t, step.size, tangent)
            self._of_steps.append(
                variance.replaced(step.size, slopes[part], finite.taken[part], finite.doubtful[part])
            )
        else:
            self._tangents.append((t, step.size, tangent))
            if len(self._tangents) * tangent.numel() >= HELD:
                self._take_tangents()
        return _Visit(t, step, state[: self.tape.layout.size], direction, finite), slopes

    def _row_scale(self) -> Tensor:
        """Return by how much effects of rows differ so far [Q]: Σ_t Var(x_t)/B is that of their sum, over n one's."""
        self._take_tangents()
        so_far = self.steps.used + sum(step.used for step in self._of_steps)
        return (so_far / self.shape.rows).sqrt()

    def _take_tangents(self) -> None:
        """Find the variances of the slopes that are kept."""
        self._of_steps += StepVariance.of_tangents(self._tangents)
        self._tangents = []

    def _ahead_of(self, t: int) -> list[Tensor]:
        """Return λ_{t+1} and the next ones, of the same epoch and beyond no averaged state; none of a later step."""
        averaged = [k for k in self.rules.tail.steps if t < k]
        return list(self._ahead)[: max(1, min(averaged, default=self.tape.steps) - t)]

    def _state_after(self, t: int) -> Tensor:
        """Return the state after step t: the one visited last, if there was one."""
        if self._after is not None:
            return self._after
        return self.tape.state(t + 1).to(self.tape.layout.device)

    def _add_batch(self, sums: EpochSums, visit: _Visit, slopes: Tensor) -> Tensor:
        """Add what the step's own rows tell; return their slopes, with those that a batch of one is compared with."""
        step, queries = visit.step, len(self.active)
        if self.rules.schedule.full:
            return slopes
        if self.rules.candidates is not None:
            mean = _batch_mean(step, slopes[-queries:])
            sums.add_mean_against_candidates(mean, self.shape.rows)
        if len(step.rows) == 1:
            rows = self.rules.schedule.compared_rows(visit.t, int(step.rows), self.shape.rows)
            slopes = torch.cat([slopes, self._slopes(visit, rows)], 1)
        if self.rules.candidates is None:
            sums.add_batch(step.rows.to(slopes.device), step.centred(slopes[-queries:]))
        return slopes

    def _add_sample(self, sums: EpochSums, visit: _Visit, sample: RowSample, weight: float) -> None:
        """Add the slopes of the variance sample, if the step is one of those at which it is evaluated."""
        if not weight:
            return
        queries, full = len(self.active), self.rules.schedule.full
        slopes = self._slopes(visit, sample.rows, None if full else queries)
        sums.add_sample(slopes[:queries], self._size(visit, weight), weight)
        if full and self.rules.candidates is None:
            sums.add_all(slopes[-queries:])
        elif full:
            sums.add_mean_against_candidates(slopes[-queries:].double().mean(1), self.shape.rows)

    def _add_candidates(self, sums: EpochSums, visit: _Visit, weight: float) -> None:
        """Add the slopes of the candidate rows at one step, for `weight` steps."""
        assert self.rules.candidates is not None
        part = slice(-len(self.active), None)
        batches = self.rules.candidates.batches(self.tape, visit.t)
        slopes = torch.cat([self._slopes_of(visit, batch, part) for batch in batches], dim=1)
        sums.add_candidates(slopes, weight, self.shape.rows)

    def _slopes(self, visit: _Visit, rows: Tensor, queries: int | None = None) -> Tensor:
        """Return the slopes x [Q, m] of any rows at a step, scaled as the step weighs a row; of the first queries."""
        parts = like_sizes(self.tape.rows, rows, self.rules.rows_at_once)
        batches = (self.tape.batch(rows[part], visit.t) for part in parts)
        found = torch.cat([self._slopes_of(visit, batch, slice(queries)) for batch in batches], dim=1)
        return found[:, torch.cat(parts).argsort().to(found.device)]

    def _slopes_of(self, visit: _Visit, batch: Batch, part: slice) -> Tensor:
        """Return the slopes [q, m] of the rows of a batch for a part of the queries, or what their changes come to."""
        slopes = self._adjoint.row_derivatives(visit.theta, visit.direction[part], batch, visit.step.seed)
        slopes = slopes if visit.step.total == 1.0 else slopes * visit.step.total
        return slopes if visit.finite is None else visit.finite.of_others(batch, slopes, part)

    def _size(self, visit: _Visit, weight: float) -> float:
        """Return the batch size b of the `weight` steps that an evaluation stands for: w/b = Σ 1/b_s."""
        first = visit.t - int(weight) // 2
        sizes = self.tape.sizes[first : first + int(weight)]
        return visit.step.size if min(sizes) == max(sizes) else weight / sum(1 / size for size in sizes)


def _with_mean(start: Tensor, tail: TailAverage) -> Tensor:
    """Return λ_T of the spread and of q̄ [2Q, 1+S, P], from ∂q/∂s_T."""
    both = start.new_empty(2, *start.shape)
    both[0] = start
    both[0, :, 0] = tail.of_spread(start[:, 0])
    torch.div(start, len(tail.steps), out=both[1])
    return both.flatten(0, 1)


def _batch_mean(step: Step, slopes: Tensor) -> Tensor:
    """Return Σ_i p_i x_i [Q], p the shares of the step's rows in its mean, from their slopes [Q, B]."""
    x = slopes.double()
    return x.mean(1) if step.shares is None else (x * step.shares.to(x)).sum(1)
