"""Distributional training data attribution: how the law of a query over trainings changes without rows."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import norm, t
from torch import Tensor

from finfluence._progress import Progress
from finfluence._seeds import torch_seed
from finfluence.curvature import Kronecker
from finfluence.ensemble import covers
from finfluence.errors import NotSupportedError, explain
from finfluence.estimators._base import AbstractEstimator, Cost, check_choice, check_whole
from finfluence.estimators._end_of_run import end_of_run, removal_effects, weight_decay
from finfluence.estimators._kronecker_fit import fit_passes
from finfluence.estimators._one_run import labels, mean_over
from finfluence.estimators.derivatives import exact_choice, query_gradients
from finfluence.result import Influence, Provenance
from finfluence.runs import AnyQuery, Recipe, Stepper, Tape, initial_model, seeded, train
from finfluence.runs.describe import Subsets, sum_over
from finfluence.runs.tape import final_losses

Response = Literal["unrolled", "ekfac"]
RESPONSES = ("unrolled", "ekfac")
SHARE = 0.1
CHECKED = 100  # evaluations of single rows by which the derivatives of a run are tried
PREDICTED = (
    "the law without the rows is predicted, run by run, by linear response: a first-order shift changes the variance "
    "only as far as it differs between runs"
)


@dataclass(frozen=True, kw_only=True)
class DistributionalOptions:
    """Options of `Distributional`.

    Parameters
    ----------
    runs : int
        Trainings, each with its own seed.
    response : {"unrolled", "ekfac"}
        How a run answers to removal: through all of its steps, or as an influence function at its end with EK-FAC,
        damped by a tenth of its mean eigenvalue.
    seed : int
        Master seed of the trainings.
    rows_at_once : int
        Rows evaluated together at the end of a run; results do not depend on it.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    """

    runs: int = 10
    response: Response = "unrolled"
    seed: int = 0
    rows_at_once: int = 256

    def __post_init__(self) -> None:
        check_whole("runs", self.runs, 2)
        check_choice("response", self.response, RESPONSES)
        check_whole("seed", self.seed, 0)
        check_whole("rows_at_once", self.rows_at_once)


class Distributional(AbstractEstimator[Recipe, DistributionalOptions]):
    """Distributional TDA: each of several trainings predicts its own query without the rows; two laws are compared.

    For runs s = 1 … R: P = {q(θˢ)} and Q = {q(θˢ) + shiftˢ(S)}. effect = mean(Q) − mean(P), positive where removing S
    raises the query; spread² = (Var P + Var Q)/2; μ = effect/spread. Beside them `variance_change` = Var Q − Var P and
    `wasserstein`, the distance W₂ of the two samples. *unrolled*: shift = Σ_t (mean_{B_t} x_t − x_{t,i})/(B − 1) over
    the steps that held the row, x_t slopes along the adjoint of the rest of training. *ekfac*: removal at the minimum.

    Notes
    -----
    Runs are paired, so the error of an effect is that of its shifts alone, sd(shift)/√R, and p is by Student's t. The
    error of the spread, from R runs, is part of `se`. Two laws of R runs each at R = 10 tell W₂ roughly.

    Cost: R trainings, each walked back once (*unrolled*), or with EK-FAC fitted at its end.

    References
    ----------
    Mlodozeniec et al., "Distributional training data attribution" (2025), definitions 1 and 2, and equation 7.

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Query, Rows
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=20)
    >>> weight = Query(lambda m: m.weight.sum(), name="weight", sign=+1)
    >>> found = Distributional(DistributionalOptions(runs=8)).estimate(recipe, weight, [3])
    >>> bool(found.data.effect.item() < -0.5), "wasserstein" in found.data
    (True, True)
    """

    name = "d-tda"
    family = "unrolling"
    paper = "arXiv 2506.12965"
    yields = "mu"
    needs = Recipe
    Options = DistributionalOptions

    def _check(self, source: Recipe) -> None:
        self._covers(source)

    def _estimate(
        self, source: Recipe, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        o = self.options
        respond = unrolled_shifts if o.response == "unrolled" else ekfac_shifts
        values, shifts, losses, seeds = [], [], [], []
        for s in range(o.runs):
            tape = train(source, seed=torch_seed(o.seed, "d-tda", s))
            at_end, shift = respond(tape, queries, subsets, o.rows_at_once)
            with seeded(0):
                losses.append(final_losses(tape, tape.model(), o.rows_at_once))
            values.append(at_end)
            shifts.append(shift)
            seeds.append(tape.identity())
            progress("runs", s + 1, o.runs)
        before = np.stack(values)
        _check_varies(before, [name for q in queries for name in q.names])
        made = Provenance(
            method=self.name, runs=o.runs, covers=tuple(self._covers(source)), n_rows=len(source.rows),
            seeds=tuple(seeds), seed=o.seed, findings=(PREDICTED,), recipe=source.describe(),
            recipe_digest=source.digest(), details={"response": o.response},
            versions={"finfluence": version("finfluence"), "torch": torch.__version__},
            query_values=tuple(map(tuple, before.tolist())),
        )  # fmt: skip
        return Influence.build(
            **contrasts(before, np.stack(shifts), made.level),
            own_loss=mean_over(subsets, np.mean(losses, 0)),
            provenance=made,
            **labels(queries, subsets),
        )

    def _cost(self, source: Recipe, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        rows, drawn = len(source.rows), source.steps * source.batch_size
        parameters = sum(p.numel() for p in initial_model(source, self.options.seed).parameters())
        columns = sum(len(q.names) for q in queries)
        fit = rows * (1 + fit_passes("gauss-newton", True))
        after = 2 * drawn + CHECKED if self.options.response == "unrolled" else fit
        held = 8 * (parameters * (6 * columns + 40) + rows * columns * (2 + self.options.runs))
        return Cost(self.options.runs * (1 + (after + rows) / drawn), held)

    def _covers(self, source: Recipe) -> list[str]:
        """Name what differs between runs, or raise if nothing does."""
        stochastic = Stepper(source, initial_model(source, self.options.seed), self.options.seed).stochastic
        return covers(source, "all", stochastic)


def unrolled_shifts(
    tape: Tape, queries: list[AnyQuery], subsets: Subsets, rows_at_once: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the queries [Q] at the end of a run, and what removing each subset from its steps does to them [S, Q].

    To first order, at a fixed number of rows a step: the place of a row is taken by the mean of the others.

    Returns
    -------
    tuple of arrays
    """
    adjoint, size = exact_choice(tape).adjoint, tape.layout.size
    with seeded(0):
        values, asked = query_gradients(queries, tape.model(), tape)
    after: Tensor = asked.new_zeros(len(asked), 1 + len(tape.optimizer.slots), size)
    after[:, 0] = asked
    found = np.zeros((len(tape.rows), len(asked)))
    for at in reversed(range(tape.steps)):
        step, state = tape.at(at), tape.state(at).to(tape.layout.device)
        after, slopes, _ = adjoint.step(state, step.hyper, step.batch, after, step.seed)
        apart = (slopes.mean(1, keepdim=True) - slopes).T.double().cpu().numpy()
        np.add.at(found, step.rows.numpy(), apart / max(len(step.rows) - 1, 1))
    return values, sum_over(subsets.positions, found)


def ekfac_shifts(
    tape: Tape, queries: list[AnyQuery], subsets: Subsets, rows_at_once: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the queries [Q] at the end of a run, and what removing each subset does to them at a minimum [S, Q].

    Returns
    -------
    tuple of arrays
    """
    objective = end_of_run(tape, rows_at_once)
    with seeded(0):
        values, asked = query_gradients(queries, tape.model(), tape)
        fitted = Kronecker([objective], "gauss-newton", True, tape.seed)
        solver = fitted.damped(SHARE * fitted.mean_eigenvalue + weight_decay(tape)[0])
        products = objective.row_derivatives(solver.inverse(asked)).T.double().cpu().numpy()
    return values, removal_effects(products, subsets.positions)


def contrasts(before: np.ndarray, shifts: np.ndarray, level: float) -> dict[str, Any]:
    """Compare the law of queries [R, Q] with the same runs shifted [R, S, Q], as `Influence.build` takes it.

    Returns
    -------
    dict
        effect, effect_se, spread, se, p_value, lower, upper [S, Q], and variance_change and wasserstein as `extra`.
    """
    runs = len(before)
    after = before[:, None] + shifts
    effect, effect_se = shifts.mean(0), shifts.std(0, ddof=1) / np.sqrt(runs)
    variance_p, variance_q = before.var(0, ddof=1), after.var(0, ddof=1)
    spread = np.sqrt((variance_p + variance_q) / 2)
    mu = effect / spread
    se = np.sqrt((effect_se / spread) ** 2 + mu**2 / (2 * (runs - 1)))
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(effect == 0, 1.0, 2 * t.sf(np.abs(effect / effect_se), runs - 1))
    half = norm.ppf((1 + level) / 2) * se
    return {
        "effect": effect, "effect_se": effect_se, "spread": spread, "mu": mu, "se": se, "p_value": p,
        "lower": mu - half, "upper": mu + half,
        "extra": {"variance_change": variance_q - variance_p, "wasserstein": wasserstein(before[:, None], after)},
    }  # fmt: skip


def wasserstein(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the distance W₂ of two samples of one size along the first axis: sorted, and paired.

    Returns
    -------
    array

    Examples
    --------
    >>> float(wasserstein(np.array([0.0, 1.0]), np.array([3.0, 2.0])))
    2.0
    """
    found: np.ndarray = np.sqrt(((np.sort(x, 0) - np.sort(y, 0)) ** 2).mean(0))
    return found


def _check_varies(values: np.ndarray, names: list[str]) -> None:
    still = values.std(0) == 0
    if still.any():
        raise NotSupportedError(
            explain(
                "queries that differ between trainings",
                f"'{names[int(np.argmax(still))]}', the same in all {len(values)}",
                "batches of all rows from a fixed start, or a query that does not look at the model",
                "use method='source', which needs one run",
            )
        )
