"""From the results of the backward passes to an Influence: estimates of each chunk of queries, and its provenance."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from finfluence.errors import DataError, explain
from finfluence.estimators.replay._chunks import ChunkResult
from finfluence.estimators.replay._context import Context
from finfluence.estimators.replay._finite_change import looked_at
from finfluence.estimators.replay._step_shares import LARGEST, step_findings
from finfluence.estimators.replay.leave_out import LARGE_SHARE, CoupledEffects
from finfluence.result import (
    SPREAD_ERROR,
    TWIN,
    WITHOUT_SPREAD,
    Provenance,
    model_error,
    ratio_interval,
    two_sided,
    with_twin,
    without_spread,
)
from finfluence.runs import Tape
from finfluence.runs.describe import Subsets, sum_over

WHOLE_BATCHES = (
    "every step of this training saw all rows, so that batches come in no order and one run shows no training "
    "randomness: effects are in the query's unit, over all epochs that were covered, without spread, μ, interval or "
    "p-value; train with smaller batches, or pool runs that start from different initialisations"
)
_EFFECTS_ALONE = (
    "effects alone were asked (spread=False): scores are effects in the query's unit, times its sign, and no μ, "
    "interval or p-value says which of them are more than chance; the truncation window was judged by the variance "
    "of independent batches"
)


@dataclass(frozen=True, eq=False)
class Estimand:
    """Whose effect is asked, and against what.

    Parameters
    ----------
    subsets : Subsets
        Of the training rows, or of the candidates.
    rows, epochs : int
        Of the training.
    adds : bool
        Whether subsets are added to the data, not removed from it.
    whole_batches : bool
        Whether every step saw all rows: nothing is known of the spread then.
    """

    subsets: Subsets
    rows: int
    epochs: int
    adds: bool
    whole_batches: bool = False

    @property
    def scale(self) -> np.ndarray:
        """What the sum of a subset's single effects is multiplied by, at fixed step count [S, 1].

        (n−1)/(n−|S|) where it is removed, (n+1)/(n+|S|) where it is added.
        """
        n, sizes = self.rows, self.subsets.sizes
        factor = (n + 1) / (n + sizes) if self.adds else (n - 1) / (n - sizes)
        return np.asarray(factor)[:, None]


def estimates(
    estimand: Estimand, chunk: ChunkResult, coupled: CoupledEffects, counts: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Return effect, spread, μ, their errors, interval and p-value [S, q] of a chunk of queries.

    Parameters
    ----------
    estimand : Estimand
    chunk : ChunkResult
    coupled : CoupledEffects
    counts : array [S, q] or None
        How many rows of each subset were in a batch; None where rows need not have been. A row in no batch adds nothing
        to this run, and so to a mean over runs; of its effect the run alone says nothing.

    Returns
    -------
    dict
    """
    known = estimand.scale * np.sqrt(sum_over(estimand.subsets.positions, chunk.effect_variance))
    effect, effect_se, extra = _effects(estimand, chunk, coupled, known)
    variance = np.zeros_like(chunk.variance) if estimand.whole_batches else chunk.variance
    spread = np.broadcast_to(np.sqrt(variance), effect.shape)
    lost, unknown = _not_known(chunk, counts, effect.shape)
    effect, spread = (np.where(lost, np.nan, v) for v in (effect, spread))
    effect_se = np.where(unknown, np.nan, effect_se)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.hypot(np.sqrt(chunk.variance_error) / (2 * chunk.variance), SPREAD_ERROR)
        mu = np.where(unknown, np.nan, effect / spread)
    df = np.broadcast_to(np.maximum(chunk.horizon - 1, 1), effect.shape)
    model = model_error(coupled.chosen, chunk.horizon, estimand.epochs)
    se, lower, upper = ratio_interval(effect, effect_se, spread, relative, df=df, model=model)
    found_values = {
        "effect": effect, "effect_se": effect_se, "spread": spread, "mu": mu, "se": se, "lower": lower, "upper": upper,
        "p_value": two_sided(effect, effect_se, df), **extra,
    }  # fmt: skip
    found_values = without_spread(found_values)
    sampled = effect_se * np.where(coupled.chosen[:, None], 1.0, np.sqrt(chunk.steady_share))
    twin = with_twin({"effect": effect, "effect_se": sampled, "spread": spread, "se": se})
    found_values |= {name: twin[name] for name in TWIN}
    return _without_empty(found_values, estimand.subsets.sizes == 0)


def scores(
    estimand: Estimand,
    chunk: ChunkResult,
    coupled: CoupledEffects,
    counts: np.ndarray | None,
    signs: Sequence[int],
) -> dict[str, np.ndarray]:
    """Return effects alone [S, q], times the signs of the queries so that larger is more harmful; as `estimates`.

    Parameters
    ----------
    estimand : Estimand
    chunk : ChunkResult
    coupled : CoupledEffects
    counts : array [S, q] or None
    signs : sequence of int
        Of all queries.

    Returns
    -------
    dict
    """
    columns = chunk.columns
    effect, _, _ = _effects(estimand, chunk, coupled, None)
    _, unknown = _not_known(chunk, counts, effect.shape)
    oriented = np.where(unknown, np.nan, effect) * np.array(signs[columns.start : columns.stop])
    return {"score": np.where((estimand.subsets.sizes == 0)[:, None], 0.0, oriented)}


def _effects(
    estimand: Estimand, chunk: ChunkResult, coupled: CoupledEffects, effect_se: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Return effect, error and what else is known [S, q], with the effects that were coupled in their places."""
    columns = chunk.columns
    effect = estimand.scale * sum_over(estimand.subsets.positions, chunk.effects)
    found = None if coupled.effects is None else coupled.effects[:, columns.start : columns.stop]
    error = np.zeros_like(effect) if effect_se is None else effect_se
    return replace(coupled, effects=found).correct(effect, error)


def _not_known(
    chunk: ChunkResult, counts: np.ndarray | None, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return which effects [S, q] no epoch was followed for, and of which this run alone says nothing."""
    lost = np.broadcast_to(chunk.horizon == 0, shape)
    return lost, lost if counts is None else lost | (counts == 0)


def _without_empty(values: dict[str, np.ndarray], empty: np.ndarray) -> dict[str, np.ndarray]:
    """Say of empty subsets [S] that they change nothing: zero, exactly, with p = 1; their spread is that of the run."""
    if not empty.any():
        return values
    nothing: dict[str, Any] = {"spread": values["spread"], "p_value": 1.0}
    return {name: np.where(empty[:, None], nothing.get(name, 0.0), value) for name, value in values.items()}


@dataclass(eq=False)
class QueryRecord:
    """What is kept of the backward passes beside the estimates: few numbers for each query.

    Parameters
    ----------
    horizon : array [Q]
        Epochs covered.
    profile : array [E, Q]
        What each epoch adds to the variance.
    step_share, step_number, finite_share : array [..., Q]
        As of `ChunkResult`.
    """

    horizon: np.ndarray
    profile: np.ndarray
    step_share: np.ndarray
    step_number: np.ndarray
    finite_share: np.ndarray

    @classmethod
    def empty(cls, queries: int, tape: Tape) -> "QueryRecord":
        """Return one to be filled."""
        looked = len(looked_at(tape.steps))
        return cls(
            np.zeros(queries, dtype=np.int64),
            np.full((len(tape.epochs), queries), np.nan),
            np.zeros((LARGEST, queries)),
            np.full((LARGEST, queries), -1),
            np.full((looked, 3, queries), np.nan),
        )

    def add(self, chunk: ChunkResult) -> None:
        """Take what is kept of some queries."""
        columns = slice(chunk.columns.start, chunk.columns.stop)
        for name in ("horizon", "profile", "step_share", "step_number", "finite_share"):
            getattr(self, name)[..., columns] = getattr(chunk, name)


def provenance(
    context: Context, record: QueryRecord, queries: Sequence[str], findings: Sequence[str]
) -> Provenance:
    """Return how the result was made; `findings`: what the coupled runs tell."""
    tape, derivative, allocation = context.tape, context.derivative, context.allocation
    spread = context.schedule.spread
    return Provenance(
        method="full" if context.schedule.full else "online",
        contrast="remove" if context.candidates is None else "add",
        runs=1,
        seeds=(tape.identity(),),
        covers=("batch order",) if spread and not tape.whole_batches else (),
        uncovered=tuple(tape.uncovered()),
        n_rows=len(tape.rows),
        recipe=tape.describe(),
        recipe_digest=tape.digest(),
        versions={"finfluence": version("finfluence"), "torch": torch.__version__},
        horizon=tuple(int(h) for h in record.horizon),
        epochs=len(tape.epochs),
        probe_budget=context.schedule.budget,
        late_states=tuple(context.schedule.tail),
        engine=derivative.adjoint.engine,
        differentiation=derivative.name,
        differentiation_reason=derivative.reason,
        budget=None if allocation is None else asdict(allocation),
        query_values=(tuple(context.asked.values.tolist()),),
        step_notes=tuple(
            step_findings(
                queries,
                (record.step_share, record.finite_share),
                record.step_number,
                looked_at(tape.steps),
            )
        )
        or None,
        spread_profile=tuple(map(tuple, record.profile.T.tolist())) if spread else None,
        details={} if spread else {WITHOUT_SPREAD: True},
        findings=(
            *_tape_findings(tape, derivative.adjoint.engine),
            *([WHOLE_BATCHES] if spread and tape.whole_batches else []),
            *derivative.findings,
            *findings,
            *context.asked.findings,
            *context.notes,
            *([] if allocation is None else [allocation.sentence]),
            *([] if spread else [_EFFECTS_ALONE]),
            *_truncation_findings(record.horizon, len(tape.epochs), queries),
        ),
    )


def check_rows_left(subsets: Subsets, rows: int) -> None:
    """Refuse a subset of all rows.

    Raises
    ------
    DataError
    """
    for name, size in zip(subsets.names, subsets.sizes, strict=True):
        if size == rows:
            raise DataError(
                explain(
                    f"at least one row to be left without subset '{name}'",
                    f"all {rows} rows in it",
                    "the subset is the whole data set",
                    "take a smaller subset",
                )
            )


def added_findings(subsets: Subsets, rows: int) -> list[str]:
    """Name the groups of candidates that are large beside the training data."""
    large = [
        str(name)
        for name, size in zip(subsets.names, subsets.sizes, strict=True)
        if size > 1 and size >= LARGE_SHARE * rows
    ]
    if not large:
        return []
    return [
        f"the effects of adding {len(large)} subsets as large as {LARGE_SHARE:.0%} of the training rows or more are "
        f"linear, and leave out what their rows change together: {', '.join(repr(n) for n in large[:3])}"
        f"{' …' if len(large) > 3 else ''}"
    ]


def group_means(where: list[np.ndarray], losses: np.ndarray) -> np.ndarray:
    """Return the mean of the losses [n] over each subset; NaN of an empty one."""
    sizes = np.array([len(w) for w in where])
    totals = sum_over(where, losses[:, None])[:, 0]
    return np.divide(totals, sizes, out=np.full(len(where), np.nan), where=sizes > 0)


def _tape_findings(tape: Tape, engine: str) -> list[str]:
    found, uncovered = list(tape.notes), tape.uncovered()
    if "initialisation" in uncovered:
        found.append(
            "one run shows one initialisation: if yours is random, the spread leaves that out; pool several runs"
            if tape.recorded
            else "the initialisation is random and one run sees no other: the spread leaves it out; pool several runs"
        )
    if "dropout" in uncovered:
        found.append("the loss draws random numbers (dropout): the spread leaves them out; pool several runs")
    if "augmentation" in uncovered:
        found.append("batches were augmented: the spread leaves that out; pool several runs")
    if tape.same_places:
        found.append(
            "rows come at about the same steps of every epoch: the loader does not shuffle. The spread is that of a "
            "training which shuffles; this one has none from batch order"
        )
    if engine.startswith("eager") and not tape.stochastic:
        found.append(f"the model could not be traced and was replayed step by step, more slowly ({engine})")
    return found


def _truncation_findings(horizon: np.ndarray, epochs: int, queries: Sequence[str]) -> list[str]:
    """Say of which queries nothing, or not all epochs, could be used."""
    found, lost = [], horizon == 0
    if lost.any():
        named = [repr(q) for q, gone in zip(queries, lost, strict=True) if gone]
        found.append(
            f"nothing can be said of {', '.join(named[:4])}: the response is not finite in the last epoch already"
        )
    short = [f"'{q}' {int(h)}" for q, h in zip(queries, horizon, strict=True) if h < epochs]
    if short:
        found.append(
            f"the truncation window covers fewer than the {epochs} epochs of training for {', '.join(short[:4])}"
            f"{' …' if len(short) > 4 else ''}; effects of earlier epochs are left out"
        )
    return found
