"""The published single-run algorithm of f-influence on a tape, in closed form.

At recorded step t, with q_t = ∇q(θ_t) and s_j = ⟨q_t, ∇ℓ_j(θ_t)⟩, a step on a batch lowers the query by about
η·mean s. The two arms are a batch of b rows from D∖S (without) and the same with S added (with). Reconstructed from
descriptions of arXiv 2510.10510 (Algorithm, stages 1 and 2); what the paper leaves open is stated at each function.

Our sign: the statistic is a *decrease* of the query, so μ here is minus theirs: positive, removing S raises the query.
"""

from dataclasses import dataclass

import numpy as np

from finfluence._progress import Progress
from finfluence.errors import NotSupportedError, explain
from finfluence.estimators._base import AbstractEstimator, Cost, check_whole
from finfluence.estimators._one_run import (
    ROUNDING,
    activation_bytes,
    in_trainings,
    labels,
    one_run,
    own_losses,
)
from finfluence.estimators.first_order._recording import check_products, recorded_products, recorded_steps
from finfluence.result import Influence
from finfluence.runs import AnyQuery, Tape
from finfluence.runs.describe import Subsets, sum_over

LOST = 16 * np.finfo(np.float64).eps  # of the largest square: what a difference of squares rounds to


@dataclass(frozen=True, kw_only=True)
class FineOptions:
    """Options of `Fine`.

    Parameters
    ----------
    records : int
        Steps recorded, evenly spaced after a burn-in of a tenth of the run.
    rows_at_once : int
        Rows evaluated together, fewer where memory asks for it; results do not depend on it.

    Raises
    ------
    ConfigError
        A value that is no whole number of at least 1.
    """

    records: int = 100
    rows_at_once: int = 1024

    def __post_init__(self) -> None:
        check_whole("records", self.records)
        check_whole("rows_at_once", self.rows_at_once)


class Fine(AbstractEstimator[Tape, FineOptions]):
    """f-INE: the published single-run algorithm of f-influence, in closed form.

    μ(S) = −sign(Σ_t d′_t) √Σ_t d′_t² over recorded steps, d′_t as in `step_influence`. Positive: removing S raises the
    query. First-order: each step counts by itself, and nothing is known of effect, spread or error, so that the result
    holds μ alone.

    Notes
    -----
    Cost: one evaluation of every row at each recorded step.

    References
    ----------
    f-influence, arXiv 2510.10510, the single-run algorithm with its batch noise integrated out.

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Recipe, Rows, own_loss, train
    >>> recipe = Recipe(data=Rows(x=np.eye(4), y=np.arange(4.0)), model=nn.Linear(4, 1), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=8)
    >>> influence = Fine(FineOptions(records=5)).estimate(train(recipe), own_loss([3]))
    >>> sorted(influence.data.mu.dims), bool(influence.data.mu[3, 0] > 0)
    (['query', 'subset'], True)
    """

    name = "fine"
    family = "first_order"
    paper = "arXiv 2510.10510"
    yields = "mu"
    needs = Tape
    Options = FineOptions

    def _check(self, source: Tape) -> None:
        check_products(source)

    def _estimate(
        self, source: Tape, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        records, at_once = self.options.records, self.options.rows_at_once
        total = np.zeros((len(subsets), sum(len(q.names) for q in queries)))
        squared = np.zeros_like(total)
        for products in recorded_products(source, queries, records, at_once, progress):
            d = step_influence(products, subsets.positions, source.batch_size)
            total += d
            squared += d**2
        return Influence.build(
            mu=-np.sign(total) * np.sqrt(squared) + 0.0,
            own_loss=own_losses(source, subsets, at_once),
            provenance=one_run(source, self.name, records=records),
            **labels(queries, subsets),
        )

    def _cost(self, source: Tape, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        rows, columns = len(source.rows), sum(len(q.names) for q in queries)
        evaluations = rows * (1 + len(recorded_steps(source, self.options.records)))
        tangents = activation_bytes(source, self.options.rows_at_once) * (1 + columns)
        return Cost(in_trainings(source, evaluations), tangents + 8 * columns * (4 * rows + 4 * len(subsets)))


def step_influence(products: np.ndarray, where: list[np.ndarray], batch: int) -> np.ndarray:
    """Return d′_t of one step in closed form, the batch noise integrated out.

    With s̄, σ² mean and population variance of s over D∖S:  mean_Q = s̄, sd_Q = σ/√b,
    mean_P = (b·s̄ + |S|·s_S)/(b+|S|), sd_P = b/(b+|S|)·σ/√b,  d′ = (mean_Q − mean_P)/√((sd_P² + sd_Q²)/2).

    Parameters
    ----------
    products : array [n, Q]
        s_j of all rows, with S.
    where : list of int arrays
        Positions of the rows of each S.
    batch : int
        b.

    Returns
    -------
    array [S, Q]
        Zero where S lowers the query exactly as a batch without it does, up to rounding, and where S is empty.

    Raises
    ------
    NotSupportedError
        S differs from the other rows, and these do not differ from each other: batches without it have no noise.

    Examples
    --------
    >>> s = np.array([[1.0], [2.0], [3.0], [6.0]])
    >>> float(step_influence(s, [np.array([3])], 4)[0, 0].round(6))
    -2.164007
    """
    count = np.array([len(w) for w in where])[:, None]
    centred = products - products.mean(0)  # d′ does not depend on a common shift; squares lose no digits
    subset = sum_over(where, centred)
    outside = len(products) - count
    mean = (centred.sum(0) - subset) / outside
    square = ((centred**2).sum(0) - sum_over(where, centred**2)) / outside
    shift = mean - (batch * mean + subset) / (batch + count)
    ratio = batch / (batch + count)
    noise = np.maximum(square - mean**2, 0.0) / batch * (1 + ratio**2) / 2
    moved = (np.abs(shift) > ROUNDING * np.abs(products).max(0)) & (count > 0)
    if (moved & (noise <= LOST * (centred**2).max(0))).any():
        raise NotSupportedError(
            explain(
                "rows outside of each subset that act on the query in different ways, for the noise of a batch",
                "a subset without which all rows act alike",
                "a single row is left, or all others are copies of one row",
                "use method='replay', or data with more different rows",
            )
        )
    return np.where(moved, shift / np.sqrt(np.where(moved, noise, 1.0)), 0.0)
