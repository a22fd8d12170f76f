"""TracIn: products of gradients at several states of a run, weighed by the learning rate there."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from finfluence._progress import Progress
from finfluence.estimators._base import AbstractEstimator, Cost, check_whole
from finfluence.estimators._one_run import in_trainings, scored
from finfluence.estimators._recorded_states import spaced_steps
from finfluence.estimators.gradient_products import gradient_bytes, row_products
from finfluence.result import Influence
from finfluence.runs import AnyQuery, Tape
from finfluence.runs.describe import Subsets, sum_over

ONE_PATH = (
    "a score, without an error: its terms are states of one run on one path, which say nothing of what another "
    "order of the rows would have given"
)


@dataclass(frozen=True, kw_only=True)
class TracInOptions:
    """Options of `TracIn`.

    Parameters
    ----------
    checkpoints : int
        States of the run, at the ends of as many stretches of equal length.
    rows_at_once : int
        Rows evaluated together, fewer where memory asks for it; results do not depend on it.

    Raises
    ------
    ConfigError
        A value that is no whole number of at least 1.
    """

    checkpoints: int = 10
    rows_at_once: int = 256

    def __post_init__(self) -> None:
        check_whole("checkpoints", self.checkpoints)
        check_whole("rows_at_once", self.rows_at_once)


class TracIn(AbstractEstimator[Tape, TracInOptions]):
    """TracIn: gradient products summed over states of the run, each weighed by its learning rate.

    score(S) = σ Σ_{i∈S} Σ_c η_c ⟨∇q(θ_c), ∇ℓ_i(θ_c)⟩, σ the query's sign: larger is more harmful. In the unit of the
    query, up to how often a row is drawn between two states. Gradients of all tensors, exact: nothing is projected. Of
    an optimiser with groups of parameters, each has the rate of its own group.

    Notes
    -----
    Cost: a forward and backward pass of the rows at each state, and their products with the queries: in factors for
    linear, convolution, embedding and normalisation layers, so that no row's gradient is formed; written out for other
    parameters.

    References
    ----------
    Pruthi et al., "Estimating training data influence by tracing gradient descent" (2020), equation 4 (TracInCP).

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Recipe, Rows, mean_loss, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=40)
    >>> zero = mean_loss(np.ones((1, 1)), np.zeros(1), name="at zero")
    >>> TracIn(TracInOptions(checkpoints=4)).estimate(train(recipe), zero).top(1).row_id.item()
    3
    """

    name = "tracin"
    family = "first_order"
    paper = "arXiv 2002.08484"
    yields = "score"
    needs = Tape
    Options = TracInOptions

    def _estimate(
        self, source: Tape, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        steps = spaced_steps(source, self.options.checkpoints)
        total = np.zeros((len(source.rows), sum(len(q.names) for q in queries)))
        for done, step in enumerate(steps, start=1):
            rates = source.rates_at(max(step - 1, 0))
            total += row_products(source, queries, self.options.rows_at_once, step, rates=rates)
            progress("checkpoints", done, len(steps))
        return scored(
            source,
            self.name,
            queries,
            subsets,
            sum_over(subsets.positions, total),
            findings=(ONE_PATH,),
            details={"checkpoints": steps},
        )

    def _cost(self, source: Tape, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        rows, columns = len(source.rows), sum(len(q.names) for q in queries)
        states = len(spaced_steps(source, self.options.checkpoints))
        return Cost(
            in_trainings(source, rows * (1 + states)),
            gradient_bytes(source, columns, self.options.rows_at_once),
        )


def products(rows: Tensor, asked: Tensor) -> np.ndarray:
    """Return inner products [B, Q] of vectors [B, P] with those of the queries [Q, P], in double precision."""
    found: np.ndarray = (rows.double() @ asked.double().T).cpu().numpy()
    return found
