"""Replicas of one run, advanced side by side over its own batches, each with its own weights on their rows."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, vmap

from finfluence._clock import clock
from finfluence._seeds import stream
from finfluence.grads import Batch, RowLosses, Traces
from finfluence.grads.tracing import split_log_softmax
from finfluence.runs import Step, Tape, seeded
from finfluence.runs.tape import Key

NEGATIVE_CONTROLS = 4


class Replica(Protocol):
    """How a replica of the run differs from it."""

    def weights(self, t: int, step: Step) -> tuple[np.ndarray, np.ndarray | None]:
        """Return factors [B] on the weights of the step's rows, or rows [B] to take in their place."""


class Baseline:
    """The run itself: all rows of every batch."""

    def weights(self, t: int, step: Step) -> tuple[np.ndarray, np.ndarray | None]:
        """Return ones."""
        return np.ones(len(step.rows)), None


class LeaveOut:
    """Every batch without a group's rows; where it holds no others, some are drawn in their place.

    Attributes
    ----------
    noise_inflation : float
        a_S, by how much the noise of the smaller batches exceeds that of batches of the usual size, drawn from the rows
        left, in units of the variance of one row's gradient; mean over the steps taken.
    """

    def __init__(self, group: np.ndarray, rows: int, seed: int, reshuffled: bool) -> None:
        self._inside = np.zeros(rows, dtype=bool)
        self._inside[group] = True
        self._seed = seed
        self._drained = 1 / (rows - len(group)) - 1 / rows if reshuffled else 0.0
        self._inflation: dict[int, float] = {}

    @property
    def noise_inflation(self) -> float:
        """Return the mean over the steps."""
        return float(np.mean(list(self._inflation.values())))

    def weights(self, t: int, step: Step) -> tuple[np.ndarray, np.ndarray | None]:
        """Return which rows are kept, or the rows drawn."""
        keep = ~self._inside[step.rows.cpu().numpy()]
        self._inflation[t] = _inflation(step, keep) - self._drained if keep.any() else 0.0
        if keep.any():
            return keep.astype(float), None
        outside = np.flatnonzero(~self._inside)
        drawn = stream(self._seed, "stand-in", t).integers(len(outside), size=len(keep))
        return keep.astype(float), outside[drawn]


class NegativeControl:
    """Every batch without its k-th part, the parts drawn at random; together the K of them miss every row alike.

    Attributes
    ----------
    noise_inflation : float
        As for `LeaveOut`.
    """

    def __init__(self, k: int, seed: int) -> None:
        self._k, self._seed = k, seed
        self._inflation: dict[int, float] = {}

    @property
    def noise_inflation(self) -> float:
        """Return the mean over the steps."""
        return float(np.mean(list(self._inflation.values())))

    def weights(self, t: int, step: Step) -> tuple[np.ndarray, np.ndarray | None]:
        """Return which rows are kept: all where the batch is too small to be cut into parts."""
        keep = np.ones(len(step.rows), dtype=bool)
        if len(keep) >= NEGATIVE_CONTROLS:
            keep[stream(self._seed, "placebo", t).permutation(len(keep))[self._k :: NEGATIVE_CONTROLS]] = (
                False
            )
        self._inflation[t] = _inflation(step, keep)
        return keep.astype(float), None


def _inflation(step: Step, keep: np.ndarray) -> float:
    """Return Σp²_kept − Σp², p the shares of the rows in the mean."""
    shares = _shares(step)
    kept = shares * keep
    return float(((kept / kept.sum()) ** 2).sum() - (shares**2).sum())


def _shares(step: Step) -> np.ndarray:
    count = len(step.rows)
    return np.full(count, 1 / count) if step.shares is None else step.shares.double().cpu().numpy()


@dataclass(frozen=True)
class _ReplicaTraces(Key[Traces]):
    """Graphs of a step, by the shapes they were traced at; they depend on nothing but the tape."""


def _traces(tape: Tape) -> Traces:
    return Traces(tape.stochastic, split_log_softmax, tape.graphs, "replicas")


class Replicas:
    """Advances states [L, 1+S, P] by the tape's own steps: g_l = Σ_i w_{l,i} ∇ℓ_i(θ_l), Σw as in the run."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._losses = RowLosses(tape.working, tape.step_loss, tape.layout)
        self._traces = tape.cache.get(_ReplicaTraces(), lambda: _traces(tape))

    def step_seconds(self, count: int, repeats: int = 3) -> float:
        """Return the median time of one step of `count` replicas of the run."""
        start = self._tape.state(0).to(self._tape.layout.device).view(1 + len(self._tape.optimizer.slots), -1)
        state, replicas = start.expand(count, *start.shape).contiguous(), [Baseline()] * count
        seconds = []
        with seeded(0):
            for _ in range(1 + repeats):
                began = clock(self._tape.layout.device)
                self._advance(state, 0, replicas)
                seconds.append(clock(self._tape.layout.device) - began)
        return median(seconds[1:])

    def final(self, replicas: Sequence[Replica]) -> Tensor:
        """Return the final parameters [L, P], NaN where a replica diverged."""
        (last,) = self.at(replicas, (self._tape.steps,))
        return last

    def at(self, replicas: Sequence[Replica], steps: Collection[int]) -> Iterator[Tensor]:
        """Yield the parameters [L, P] after each of some numbers of steps, in order; NaN where a replica diverged."""
        tape, slots = self._tape, len(self._tape.optimizer.slots)
        start = tape.state(0).to(tape.layout.device).view(1 + slots, -1)
        state = start.expand(len(replicas), *start.shape).contiguous()
        for t in range(tape.steps):
            with seeded(0):
                state = self._advance(state, t, replicas)
            if t + 1 in steps:
                finite = torch.isfinite(state).all(2).all(1)
                yield state[:, 0].masked_fill(~finite[:, None], torch.nan)

    def _advance(self, state: Tensor, t: int, replicas: Sequence[Replica]) -> Tensor:
        step, tape = self._tape.at(t), self._tape
        given = [replica.weights(t, step) for replica in replicas]
        batch, weights = step.batch, self._weights(step, np.stack([factor for factor, _ in given]))
        drawn = [rows for _, rows in given if rows is not None]
        others = tape.batch(torch.from_numpy(np.concatenate(drawn)), t) if drawn else {}
        instead = self._drawn(step, given).to(weights)
        keys, more = sorted(batch), sorted(others)

        def function(
            state: Tensor, weights: Tensor, instead: Tensor, hyper: Tensor, *fields: Tensor
        ) -> Tensor:
            named = dict(zip(keys, fields[: len(keys)], strict=True))
            other = dict(zip(more, fields[len(keys) :], strict=True))
            return self._step(state, weights, instead, hyper, named, other, step.seed)

        fields = [*(batch[k] for k in keys), *(others[k] for k in more)]
        advanced: Tensor = self._traces.run("step", function, state, weights, instead, step.hyper, *fields)
        return advanced

    def _weights(self, step: Step, factors: np.ndarray) -> Tensor:
        """Return weights [L, B] on the rows' `step_loss`, whose plain mean the run descends."""
        count = len(step.rows)
        kept = (factors * _shares(step)).sum(1, keepdims=True)
        scaled = np.divide(factors, count * kept, out=np.zeros_like(factors), where=kept > 0)
        return torch.from_numpy(scaled).to(step.hyper.device, self._tape.layout.dtype)

    @staticmethod
    def _drawn(step: Step, given: Sequence[tuple[np.ndarray, np.ndarray | None]]) -> Tensor:
        """Return the weights [L, X] of rows drawn for single replicas: a replica's own count alike, the others' not."""
        blocks = [replica for replica, (_, rows) in enumerate(given) if rows is not None]
        count = len(step.rows)
        weights = torch.zeros(len(given), len(blocks) * count, dtype=torch.float64)
        for block, replica in enumerate(blocks):
            weights[replica, block * count : (block + 1) * count] = step.total / count
        return weights

    def _step(
        self, state: Tensor, weights: Tensor, instead: Tensor, hyper: Tensor, batch: Batch, others: Batch,
        seed: int | None,
    ) -> Tensor:  # fmt: skip
        numbers = hyper.unbind()

        def one(state: Tensor, weight: Tensor, other: Tensor) -> Tensor:
            theta, *slots = state.unbind()

            def weighed(point: Tensor) -> Tensor:
                total = (self._losses(point, batch, seed) * weight).sum()
                return total + (self._losses(point, others, seed) * other).sum() if others else total

            new, kept = self._tape.optimizer.update(theta, tuple(slots), grad(weighed)(theta), numbers)
            return torch.stack([new, *kept])

        if len(state) == 1:
            return one(state[0], weights[0], instead[0]).unsqueeze(0)
        advanced: Tensor = vmap(one, randomness="same")(state, weights, instead)
        return advanced
