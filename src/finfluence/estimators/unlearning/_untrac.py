"""UnTrac and UnTrac-Inv: what unlearning rows does to queries, and unlearning queries to rows."""

from dataclasses import dataclass

import numpy as np

from finfluence._progress import Progress
from finfluence.estimators._base import AbstractEstimator, Cost
from finfluence.estimators._one_run import (
    activation_bytes,
    against_controls,
    forward_values,
    in_trainings,
    labels,
    mean_over,
    one_run,
)
from finfluence.estimators.derivatives import query_gradients
from finfluence.estimators.unlearning._ascent import Ascent, AscentOptions
from finfluence.result import Influence
from finfluence.runs import AnyQuery, Tape, own_loss, seeded
from finfluence.runs.describe import Subsets, sum_over
from finfluence.runs.tape import final_losses

FROM_THE_END = (
    "a score, without an error: ascents from the end of one run; 'against_controls' tells how many standard deviations "
    "it is from what unlearning as many random rows does, which tells influence from what any ascent does"
)


@dataclass(frozen=True, eq=False)
class _Found:
    """Changes of queries or rows [S, Q], beside their controls, losses of rows [n], and the rate of the ascents."""

    changes: np.ndarray
    beside: np.ndarray
    losses: np.ndarray
    rate: float


class _Unlearning(AbstractEstimator[Tape, AscentOptions]):
    family = "unlearning"
    paper = "arXiv 2401.15241"
    yields = "score"
    needs = Tape
    Options = AscentOptions

    def _losses(self, source: Tape) -> np.ndarray:
        with seeded(0):
            return final_losses(source, source.model(), self.options.rows_at_once)

    def _result(self, source: Tape, queries: list[AnyQuery], subsets: Subsets, found: _Found) -> Influence:
        signs = np.array([q.sign for q in queries for _ in q.names])
        return Influence.build(
            score=found.changes * signs,
            extra={"change": found.changes, "against_controls": found.beside},
            own_loss=mean_over(subsets, found.losses),
            provenance=one_run(
                source,
                self.name,
                covers=(),
                findings=(FROM_THE_END,),
                seed=self.options.seed,
                details={"rate": found.rate},
            ),
            **labels(queries, subsets),
        )

    def _memory(self, source: Tape, queries: list[AnyQuery], subsets: Subsets) -> int:
        columns = sum(len(q.names) for q in queries)
        held = source.layout.size * source.layout.dtype.itemsize * 6
        held += 8 * columns * (len(source.rows) + 3 * len(subsets))
        return activation_bytes(source, source.batch_size) + held


class UnTrac(_Unlearning):
    """UnTrac: each subset is unlearnt by gradient ascent, and the queries are measured again.

    From θ_T, K steps up the mean loss of the subset, one pass over its rows unless told otherwise:
    score(S) = σ (q(θ_S) − q(θ_T)), σ the query's sign: larger is more harmful. `change` is q(θ_S) − q(θ_T), positive
    where unlearning S raises the query; `against_controls` is (change − mean)/sd over sets of as many random rows.

    Notes
    -----
    Made for few large subsets: the score of a subset is *not* the sum over its rows. A loss has no upper bound: take
    steps that are short enough for its change to be small. Queries may be anything that can be evaluated.

    Cost: K batches and one evaluation of the queries, for each subset and each control.

    References
    ----------
    Isonuma and Titov, "Unlearning traces the influential training data of language models" (2024), section 3.

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Recipe, Rows, mean_loss, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=40)
    >>> zero = mean_loss(np.ones((1, 1)), np.zeros(1), name="at zero")
    >>> UnTrac(AscentOptions(steps=2)).estimate(train(recipe), zero, [0, 3]).top(1).row_id.item()
    3
    """

    name = "untrac"

    def _estimate(
        self, source: Tape, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        ascent = Ascent(source, self.options)
        before = forward_values(queries, ascent.model, source)
        losses = self._losses(source)

        def change(rows: np.ndarray) -> np.ndarray:
            return forward_values(queries, ascent.unlearn(rows), source) - before

        changes, beside = np.zeros((len(subsets), len(before))), np.zeros((len(subsets), len(before)))
        controls: dict[int, np.ndarray] = {}
        for k, rows in enumerate(subsets.positions):
            if len(rows):
                changes[k] = change(rows)
                if len(rows) not in controls:
                    controls[len(rows)] = np.stack([change(c) for c in ascent.control_rows(len(rows))])
                beside[k] = against_controls(changes[k], controls[len(rows)])
            progress("subsets", k + 1, len(subsets))
        return self._result(source, queries, subsets, _Found(changes, beside, losses, ascent.rate))

    def _cost(self, source: Tape, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        batch, sizes = source.batch_size, subsets.sizes[subsets.sizes > 0]
        ascents = np.concatenate([sizes, np.repeat(np.unique(sizes), self.options.controls)])
        steps = -(-ascents // batch) if self.options.steps is None else self.options.steps
        evaluations = (steps * np.minimum(ascents, batch)).sum() + len(source.rows)
        return Cost(in_trainings(source, float(evaluations)), self._memory(source, queries, subsets))


class UnTracInv(_Unlearning):
    """UnTrac-Inv: each query is raised by gradient ascent, and the losses of the rows are measured again.

    From θ_T, K steps up the query: score(S) = σ Σ_{i∈S} (ℓ_i(θ_q) − ℓ_i(θ_T)), σ the query's sign: larger is more
    harmful. `change` is that sum, positive where unlearning the query raises the losses of S; `against_controls` is
    (change − mean)/sd over ascents on the losses of random rows.

    Notes
    -----
    One ascent answers for all rows at once. One step of SGD agrees with UnTrac's to first order, η⟨∇q, ∇ℓ_i⟩.

    Cost: K gradients of each query and control, and an evaluation of every row after each ascent.

    References
    ----------
    Isonuma and Titov, "Unlearning traces the influential training data of language models" (2024), section 3.3.

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Recipe, Rows, mean_loss, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=40)
    >>> zero = mean_loss(np.ones((1, 1)), np.zeros(1), name="at zero")
    >>> UnTracInv(AscentOptions(steps=2)).estimate(train(recipe), zero).top(1).row_id.item()
    3
    """

    name = "untrac-inv"

    def _estimate(
        self, source: Tape, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        ascent, at_once = Ascent(source, self.options), self.options.rows_at_once
        columns = sum(len(q.names) for q in queries)
        asked: list[AnyQuery] = [*queries, own_loss(ascent.control_ids())]
        losses = self._losses(source)
        total = sum(len(q.names) for q in asked)
        raised = np.empty((len(losses), total))
        for k in range(total):
            model = ascent.climb(
                lambda _, k=k: query_gradients(asked, ascent.model, source, range(k, k + 1))[1][0],  # type: ignore[misc]
                self.options.steps or 1,
            )
            with seeded(0):
                raised[:, k] = final_losses(source, model, at_once) - losses
            progress("queries", k + 1, total)
        changes, controls = (
            sum_over(subsets.positions, part) for part in np.split(raised, [columns], axis=1)
        )
        beside = against_controls(changes, controls.T[:, :, None])
        return self._result(source, queries, subsets, _Found(changes, beside, losses, ascent.rate))

    def _cost(self, source: Tape, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        o, rows, columns = self.options, len(source.rows), sum(len(q.names) for q in queries)
        evaluations = rows * (1 + columns + o.controls) + (o.steps or 1) * o.controls
        return Cost(in_trainings(source, evaluations), self._memory(source, queries, subsets))
