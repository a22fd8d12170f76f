"""A method of one file: how far each row's loss is from the mean of all."""

from dataclasses import dataclass

import numpy as np

from finfluence.estimators import AbstractEstimator, Cost, Progress, check_whole
from finfluence.result import Influence, Provenance
from finfluence.runs import AnyQuery, Tape
from finfluence.runs.describe import Subsets, sum_over
from finfluence.runs.tape import final_losses

WHY = "a score, without an error: it is one number from one run"


@dataclass(frozen=True, kw_only=True)
class ToyOptions:
    """Options of `Toy`.

    Parameters
    ----------
    power : int
        To which the distance is raised.
    """

    power: int = 1

    def __post_init__(self) -> None:
        check_whole("power", self.power)


class Toy(AbstractEstimator[Tape, ToyOptions]):
    """Distance of each row's loss from the mean loss."""

    name = "toy"
    family = "conformance"
    paper = "none"
    yields = "score"
    needs = Tape
    Options = ToyOptions

    def _estimate(
        self, source: Tape, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        losses = final_losses(source, source.model())
        distance = np.abs(losses - losses.mean()) ** self.options.power
        return Influence.build(
            score=sum_over(subsets.positions, distance[:, None]),
            subsets=subsets.names,
            sizes=subsets.sizes,
            queries=["toy"],
            units=["score"],
            own_loss=np.array([losses[p].mean() if len(p) else np.nan for p in subsets.positions]),
            provenance=Provenance(method="toy", runs=1, covers=(), n_rows=len(losses), findings=(WHY,)),
        )

    def _cost(self, source: Tape, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        return Cost(len(source.rows) / sum(source.sizes), 8 * len(source.rows))
