"""Data-OOB: what learners that never drew a row think of it."""

from dataclasses import dataclass

import numpy as np

from finfluence._progress import Progress
from finfluence._seeds import stream, torch_seed
from finfluence.ensemble import Executor, RunSpec, Workers, train_many
from finfluence.errors import ConfigError, TrainingError, explain
from finfluence.estimators._base import AbstractEstimator, Cost, check_choice, check_whole
from finfluence.estimators._one_run import mean_over
from finfluence.result import Influence, Provenance
from finfluence.runs import AnyQuery, Recipe, own_loss
from finfluence.runs.describe import Subsets, sum_over

BY_ITSELF = (
    "a score, without an error: it is a mean over learners for each row by itself, not a comparison of training with "
    "and without the row, and does not depend on the queries; for that, method='retrain' with design='half-subsets'"
)


@dataclass(frozen=True, kw_only=True)
class DataOobOptions:
    """Options of `DataOob`.

    Parameters
    ----------
    learners : int
        Trainings, each on a bootstrap of the rows.
    seed : int
        Of the bootstraps and trainings.
    executor : {None, "serial", "joblib", "ray"}
        Where to train.
    n_jobs : int, optional
        Processes.
    max_bytes : int
        Memory for the copies trained at once.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    """

    learners: int = 100
    seed: int = 0
    executor: Executor | None = None
    n_jobs: int | None = None
    max_bytes: int = 2**30

    def __post_init__(self) -> None:
        check_whole("learners", self.learners)
        check_whole("seed", self.seed, 0)
        check_whole("max_bytes", self.max_bytes)
        if self.executor is not None:
            check_choice("executor", self.executor, ("serial", "joblib", "ray"))
        if self.n_jobs is not None:
            check_whole("n_jobs", self.n_jobs)


class DataOob(AbstractEstimator[Recipe, DataOobOptions]):
    """Data-OOB: loss of each row under the learners whose bootstrap missed it.

    Learner b trains on n rows drawn with replacement: score(S) = Σ_{i∈S} mean_{b: i∉b} ℓ_i(θ_b), in evaluation mode;
    larger is more suspect. Published as value −ℓ for squared errors, and with accuracy for classes, where the loss says
    more than right or wrong. No held-out rows are needed.

    Notes
    -----
    A learner misses a row with chance (1 − 1/n)ⁿ ≈ .368. Rows drawn several times are trained on as often.

    Cost: `learners` trainings, and an evaluation of every row by each.

    References
    ----------
    Kwon and Zou, "Data-OOB: out-of-bag estimate as a simple and efficient data value" (2023), equation 2.

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Rows
    >>> y = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((6, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=9)
    >>> DataOob(DataOobOptions(learners=20)).estimate(recipe, own_loss([5])).top(1).row_id.item()
    5
    """

    name = "data-oob"
    family = "resampling"
    paper = "arXiv 2304.07718"
    yields = "score"
    needs = Recipe
    Options = DataOobOptions

    def _estimate(
        self, source: Recipe, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        o = self.options
        bags = bootstraps(source.rows.ids, o.learners, o.seed)
        runs = [
            RunSpec(torch_seed(o.seed, "bag init", b), torch_seed(o.seed, "bag order", b), bag)
            for b, bag in enumerate(bags)
        ]
        every = own_loss(source.rows.ids.tolist())
        workers = Workers(o.executor, o.n_jobs, o.max_bytes)
        trained = train_many(source, runs, [every], workers, progress=progress)
        finite = np.isfinite(trained.values).all(1)
        if not finite.any():
            raise TrainingError(_all_diverged(source))
        losses = trained.values[finite]
        inside = np.stack([np.isin(np.arange(len(source.rows)), bag) for bag in bags])[finite]
        out = outside_mean(losses, inside)
        held = np.where(inside, losses, 0.0).sum(0) / np.maximum(inside.sum(0), 1)
        left = int((~finite).sum())
        return Influence.build(
            score=sum_over(subsets.positions, out[:, None]),
            subsets=subsets.names,
            sizes=subsets.sizes,
            queries=[self.name],
            units=["score"],
            own_loss=mean_over(subsets, held),
            provenance=Provenance(
                method=self.name, runs=int(finite.sum()), covers=(), n_rows=len(source.rows), seed=o.seed,
                recipe=source.describe(), recipe_digest=source.digest(), engine=trained.how,
                findings=(BY_ITSELF, *([f"{left} learners diverged and were left out"] if left else [])),
            ),
        )  # fmt: skip

    def _cost(self, source: Recipe, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        rows, drawn = len(source.rows), source.steps * source.batch_size
        memory = 16 * rows * self.options.learners + 2**20
        return Cost(self.options.learners * (1 + rows / drawn), memory)


def bootstraps(ids: np.ndarray, learners: int, seed: int) -> list[np.ndarray]:
    """Return the row positions of each learner [n], drawn with replacement in the order of the rows' ids.

    Returns
    -------
    list of int arrays
    """
    order = np.argsort(ids, kind="stable")
    n = len(order)
    return [order[stream(seed, "bootstrap", b).integers(n, size=n)] for b in range(learners)]


def outside_mean(losses: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return each row's mean loss over the learners that did not draw it [n].

    Parameters
    ----------
    losses : array [B, n]
        Of every row under every learner.
    inside : array of bool [B, n]
        Whether the learner drew the row.

    Returns
    -------
    array [n]

    Raises
    ------
    ConfigError
        A row that every learner drew.

    Examples
    --------
    >>> outside_mean(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[False, True], [False, False]])).tolist()
    [2.0, 4.0]
    """
    count = (~inside).sum(0)
    if (count == 0).any():
        raise ConfigError(
            explain(
                "every row to be missed by a learner",
                f"{int((count == 0).sum())} rows that all of {len(losses)} learners drew",
                "few learners: each misses a row with chance .37",
                f"pass learners={max(30, 3 * len(losses))}, or another seed",
            )
        )
    found: np.ndarray = np.where(inside, 0.0, losses).sum(0) / count
    return found


def _all_diverged(source: Recipe) -> str:
    return explain(
        "a learner whose losses are finite",
        "none",
        f"the learning rate ({source.optimizer.lr:g}) is too high",
        "lower it, and try the recipe by fi.train",
    )
