"""What scores of rows by themselves have in common.

Larger is more suspect. A row's score does not depend on any query, so the result has one column, named after the
method, whatever is asked. The score of a subset is the sum over its rows.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from finfluence._progress import Progress
from finfluence.estimators._base import AbstractEstimator, Cost, check_whole
from finfluence.estimators._one_run import activation_bytes, in_trainings, mean_over, one_run
from finfluence.result import Influence
from finfluence.runs import AnyQuery, Tape, seeded
from finfluence.runs.describe import Subsets, sum_over
from finfluence.runs.tape import final_losses

BY_ITSELF = (
    "a score, without an error: it is one number for each row by itself, and does not depend on the queries or on what "
    "training without the row would do"
)
RowOptionsT = TypeVar("RowOptionsT", bound="RowScoreOptions")


@dataclass(frozen=True, kw_only=True)
class RowScoreOptions:
    """Options of a score of rows by themselves.

    Parameters
    ----------
    rows_at_once : int
        Rows evaluated together, fewer where memory asks for it; results do not depend on it.

    Raises
    ------
    ConfigError
        A value that is no whole number of at least 1.
    """

    rows_at_once: int = 1024

    def __post_init__(self) -> None:
        check_whole("rows_at_once", self.rows_at_once)


class RowScore(AbstractEstimator[Tape, RowOptionsT]):
    """A score of each row by itself in one run; larger is more suspect."""

    family = "baselines"
    yields = "score"
    needs = Tape

    @abstractmethod
    def scores(self, tape: Tape) -> np.ndarray:
        """Return the score of every row [n]."""

    def _estimate(
        self, source: Tape, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        with seeded(0):
            losses = final_losses(source, source.model(), self.options.rows_at_once)
            scores = self.scores(source)
        progress(self.name, 1, 1)
        return Influence.build(
            score=sum_over(subsets.positions, scores[:, None]),
            subsets=subsets.names,
            sizes=subsets.sizes,
            queries=[self.name],
            units=["score"],
            signs=[-1],
            own_loss=mean_over(subsets, losses),
            provenance=one_run(
                source,
                self.name,
                covers=(),
                findings=(BY_ITSELF,),
            ),
        )

    def _cost(self, source: Tape, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        rows = len(source.rows)
        memory = activation_bytes(source, self.options.rows_at_once) + 8 * (4 * rows + 2 * len(subsets))
        return Cost(in_trainings(source, rows * (1 + self._evaluations(source))), memory)

    def _evaluations(self, source: Tape) -> float:
        """Return the evaluations of each row that the score itself takes, beside that of the row's own loss."""
        return 1.0
