"""Which rows are evaluated along a backward pass, and when: drawn from a seed, the same in every process."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from finfluence._seeds import stream
from finfluence.estimators.derivatives import dear
from finfluence.estimators.replay._options import ReplayOptions
from finfluence.runs import Tape

ROWS_AT_ONCE = 1024
FEWEST_SAMPLED, FEWEST_DEAR = 64, 32
FEWEST_EVALUATIONS = 4
CANDIDATE_STEPS = 4


@dataclass(frozen=True)
class RunShape:
    """The size of a training.

    Parameters
    ----------
    rows : int
        n.
    epochs : tuple of int
        Steps of each epoch.
    """

    rows: int
    epochs: tuple[int, ...]

    @classmethod
    def of(cls, rows: int, epochs: Sequence[range]) -> "RunShape":
        """Return the shape of a training of `rows` rows with these steps in each epoch."""
        return cls(rows, tuple(len(epoch) for epoch in epochs))

    @property
    def steps(self) -> int:
        """Number of steps T."""
        return sum(self.epochs)

    def last(self, epochs: int) -> int:
        """Return the number of steps of the last `epochs` epochs."""
        return sum(self.epochs[-epochs:])


@dataclass(frozen=True)
class RowSchedule:
    """What is evaluated along the way.

    Parameters
    ----------
    full : bool
        All rows at every step; effects come from them.
    budget : float
        Extra row evaluations for the variance, as a share of the rows that training saw (0: none).
    seed : int
        Picks the variance-sample rows, anew in each epoch.
    tail : tuple of int
        States over which effects are averaged, as numbers of steps before them; empty: the final one.
    finite : bool
        Whether the first steps of a run are looked at, and finite changes taken where rows are not small.
    spread : bool
        Whether the spread is followed, or effects alone.
    fewest : int
        Rows of a variance sample at least: half as many where rows are dear, as those of language models are. The
        spread is then known to about a ninth of itself instead of a twelfth.
    """

    full: bool
    budget: float
    seed: int
    tail: tuple[int, ...] = ()
    finite: bool = False
    spread: bool = True
    fewest: int = FEWEST_SAMPLED

    @classmethod
    def of(
        cls,
        tape: Tape,
        full: bool,
        budget: float,
        seed: int = 0,
        finite: bool = False,
        spread: bool = True,
    ) -> "RowSchedule":
        """Return the schedule for a tape: no variance sample for effects alone, or of batches drawn independently."""
        return cls(
            full,
            budget if tape.reshuffled and spread else 0.0,
            seed,
            finite=finite,
            spread=spread,
            fewest=FEWEST_DEAR if dear(tape) else FEWEST_SAMPLED,
        )

    @classmethod
    def asked(cls, tape: Tape, options: ReplayOptions, seed: int = 0) -> "RowSchedule":
        """Return the schedule for a tape that a replay with these options follows."""
        full, finite = options.rows == "full", options.first_steps == "finite"
        return cls.of(tape, full, options.probe_budget, seed, finite, options.spread)

    def variance_sample(self, back: int, shape: RunShape) -> tuple[int, int]:
        """Return (number of rows, steps from one evaluation to the next), `back` epochs from the end.

        Nearly all of the variance comes from the last epoch: each epoch gets half of what is left, at least
        `FEWEST_EVALUATIONS` evaluations of `fewest` rows. Only two row counts occur, so that few graphs
        are traced.

        Returns
        -------
        tuple of int
        """
        rows, steps, epochs = shape.rows, shape.epochs[-1 - back], len(shape.epochs)
        if self.full:
            return rows, 1
        if not self.budget:
            return 0, 1
        share = self.budget * rows * epochs / steps * 0.5 ** (back + 1)
        if back == 0 and share >= self.fewest:
            return int(min(rows, share)), 1
        every = int(min(max(1, self.fewest // max(share, 1e-9)), max(1, steps // FEWEST_EVALUATIONS)))
        return min(rows, self.fewest), every

    def evaluations(self, shape: RunShape, horizon: int) -> list[tuple[int, int]]:
        """Return (rows, how often they are evaluated) for each of the last `horizon` epochs, the last first."""
        found = []
        for back, steps in enumerate(reversed(shape.epochs[-horizon:])):
            count, every = self.variance_sample(back, shape)
            found.append((count, -(-steps // every) if count else 0))
        return found

    def compared_rows(self, t: int, row: int, rows: int) -> Tensor:
        """Draw rows to compare a batch of one row with, at step t."""
        drawn = stream(self.seed, "others", t).permutation(rows - 1)[:FEWEST_SAMPLED]
        return torch.from_numpy(np.sort(drawn + (drawn >= row)))

    def candidate_steps(self, epoch: int, steps: range) -> dict[int, float]:
        """Return the steps at which candidate rows are evaluated, and how many steps each stands for.

        *full*: all. *online*: `CANDIDATE_STEPS` an epoch, one drawn from each part of as many nearly equal parts.

        Returns
        -------
        dict

        Examples
        --------
        >>> drawn = RowSchedule(False, 0.25, seed=0).candidate_steps(3, range(30, 40))
        >>> [30 + 10 * k // 4 <= t < 30 + 10 * (k + 1) // 4 for k, t in enumerate(drawn)], sum(drawn.values())
        ([True, True, True, True], 10.0)
        """
        if self.full or len(steps) <= CANDIDATE_STEPS:
            return dict.fromkeys(steps, 1.0)
        draw = stream(self.seed, "candidate steps", epoch)
        ends = [len(steps) * k // CANDIDATE_STEPS for k in range(CANDIDATE_STEPS + 1)]
        return {steps.start + a + int(draw.integers(b - a)): float(b - a) for a, b in pairwise(ends)}


def steps_stood_for(offset: int, every: int, per_epoch: int) -> float:
    """Return the steps of the epoch that the evaluation at `offset` stands for; 0 where there is none."""
    first = offset - offset % every
    size = min(every, per_epoch - first)
    return float(size) if offset == first + size // 2 else 0.0
