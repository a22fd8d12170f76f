"""LESS: cosines of projected gradients along a run, the rows' as Adam would step on them."""

from dataclasses import dataclass

import numpy as np
from torch.nn.functional import normalize

from finfluence._progress import Progress
from finfluence.estimators._base import AbstractEstimator, Cost, check_whole
from finfluence.estimators._one_run import (
    in_trainings,
    scored,
)
from finfluence.estimators._recorded_states import recorded_states, spaced_steps
from finfluence.estimators.first_order._tracin import ONE_PATH, products
from finfluence.estimators.gradient_products import gradient_bytes
from finfluence.grads import Projection
from finfluence.result import Influence
from finfluence.runs import AnyQuery, Tape
from finfluence.runs.describe import Subsets, sum_over

UNSCALED = (
    "the optimiser keeps no second moments: the rows' gradients are taken as they are, as a step of SGD would"
)


@dataclass(frozen=True, kw_only=True)
class LessOptions:
    """Options of `Less`.

    Parameters
    ----------
    checkpoints : int
        States of the run, at the ends of as many stretches of equal length; published with one an epoch.
    dimensions : int
        Of the random projection of gradients; as many as parameters, or more, leave them as they are.
    rows_at_once : int
        Rows evaluated together, fewer where memory asks for it; results do not depend on it.
    seed : int
        Of the projections.

    Raises
    ------
    ConfigError
        A value that is no whole number, or below 1 (below 0 for the seed).
    """

    checkpoints: int = 4
    dimensions: int = 8192
    rows_at_once: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("checkpoints", self.checkpoints)
        check_whole("dimensions", self.dimensions)
        check_whole("rows_at_once", self.rows_at_once)
        check_whole("seed", self.seed, 0)


class Less(AbstractEstimator[Tape, LessOptions]):
    """LESS: cosine of Adam's step on each row with the query's gradient, over states of the run.

    score(S) = σ Σ_{i∈S} Σ_c η̄_c cos(RΓ_c(∇ℓ_i), R∇q), σ the query's sign: larger is more harmful; of one row between −1
    and 1. Γ_c is Adam's direction m′/√(v′ + 10⁻⁸) from its moments at state c, η̄_c the learning rates there divided by
    their sum, R a random projection of signs.

    Notes
    -----
    The queries are scored one by one; the published selection takes the largest over subtasks, one query each. Rows of
    few tokens have larger gradients: the cosine takes that out. Of an optimiser without second moments, Γ(g) = g, and
    the result says so.

    Cost: the gradient of every row at each state.

    References
    ----------
    Xia et al., "LESS: selecting influential data for targeted instruction tuning" (2024), sections 3 and 4.

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.runs import AdamW, Recipe, Rows, mean_loss, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=AdamW(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=40)
    >>> zero = mean_loss(np.ones((1, 1)), np.zeros(1), name="at zero")
    >>> Less().estimate(train(recipe), zero).top(1).row_id.item()
    3
    """

    name = "less"
    family = "first_order"
    paper = "arXiv 2402.04333"
    yields = "score"
    needs = Tape
    Options = LessOptions

    def _estimate(
        self, source: Tape, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        o = self.options
        steps = spaced_steps(source, o.checkpoints)
        total = np.zeros((len(source.rows), sum(len(q.names) for q in queries)))
        rates, scaled = 0.0, True
        projection = Projection(source.layout.size, o.dimensions, o.seed)
        for done, state in enumerate(recorded_states(source, queries, steps, o.rows_at_once), start=1):
            asked = normalize(projection(state.asked).double(), dim=1)
            found = []
            for gradients in state.objective.row_gradients():
                taken = gradients if state.moments is None else state.moments.directions(gradients)
                found.append(products(normalize(projection(taken).double(), dim=1), asked))
            total += state.rate * np.concatenate(found)
            rates, scaled = rates + state.rate, state.moments is not None
            progress("checkpoints", done, len(steps))
        return scored(
            source,
            self.name,
            queries,
            subsets,
            sum_over(subsets.positions, total) / (rates or 1.0),
            findings=(ONE_PATH,) if scaled else (ONE_PATH, UNSCALED),
            details={"checkpoints": steps, "dimensions": min(o.dimensions, source.layout.size)},
        )

    def _cost(self, source: Tape, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        rows, columns = len(source.rows), sum(len(q.names) for q in queries)
        states = len(spaced_steps(source, self.options.checkpoints))
        memory = gradient_bytes(source, columns, self.options.rows_at_once)
        projected = (
            8 * min(self.options.dimensions, source.layout.size) * min(self.options.rows_at_once, rows)
        )
        return Cost(in_trainings(source, rows * (1 + states)), memory + 2 * projected)
