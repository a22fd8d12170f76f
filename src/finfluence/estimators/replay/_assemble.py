"""From the sums of the walks to a result: estimates of each chunk of queries, and what is said of all of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version

import numpy as np
import torch

from finfluence.errors import DataError, explain
from finfluence.estimators.replay._chunks import Prepared, Sums
from finfluence.estimators.replay._draws import draw_findings, drawn
from finfluence.estimators.replay.leave_out import Pairs
from finfluence.result import SPREAD_ERROR, Provenance, model_error, ratio_interval, two_sided
from finfluence.runs import Tape
from finfluence.runs.describe import sum_over


def estimates(
    tape: Tape, where: list[np.ndarray], sums: Sums, pairs: Pairs, full: bool = False
) -> dict[str, np.ndarray]:
    """Return effect, spread, μ, their errors, interval and p-value [S, q] of a chunk of queries."""
    n, columns = len(tape.rows), sums.columns
    scale = np.array([(n - 1) / (n - len(w)) for w in where])[:, None]
    effect = scale * sum_over(where, sums.effects)
    effect_se = scale * np.sqrt(sum_over(where, sums.effect_variance))
    spread = np.broadcast_to(np.sqrt(sums.variance), effect.shape)
    found = None if pairs.effects is None else pairs.effects[:, columns.start : columns.stop]
    effect, effect_se, extra = replace(pairs, effects=found).correct(effect, effect_se)
    lost = np.broadcast_to(sums.horizon == 0, effect.shape)
    # A row in no batch adds nothing to this run, and so to a mean over runs; of its effect the run alone says nothing.
    unknown = lost if full else lost | (drawn(tape, where, sums.horizon) == 0)
    effect, spread = (np.where(lost, np.nan, v) for v in (effect, spread))
    effect_se = np.where(unknown, np.nan, effect_se)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.hypot(np.sqrt(sums.variance_error) / (2 * sums.variance), SPREAD_ERROR)
        mu = np.where(unknown, np.nan, effect / spread)
    df = np.broadcast_to(np.maximum(sums.horizon - 1, 1), effect.shape)
    model = model_error(pairs.chosen, sums.horizon, len(tape.epochs))
    se, lower, upper = ratio_interval(effect, effect_se, spread, relative, df=df, model=model)
    p_value = two_sided(effect, effect_se, df)
    return {
        "effect": effect, "effect_se": effect_se, "spread": spread, "mu": mu, "se": se, "lower": lower, "upper": upper,
        "p_value": p_value, **extra,
    }  # fmt: skip


@dataclass(eq=False)
class Story:
    """What is kept of the walks beside the estimates: few numbers for each query."""

    horizon: np.ndarray
    profile: np.ndarray

    @classmethod
    def empty(cls, queries: int, epochs: int) -> "Story":
        """Return one to be filled."""
        return cls(np.zeros(queries, dtype=np.int64), np.full((epochs, queries), np.nan))

    def add(self, sums: Sums) -> None:
        """Take what is kept of some queries."""
        chosen = slice(sums.columns.start, sums.columns.stop)
        self.horizon[chosen], self.profile[:, chosen] = sums.horizon, sums.profile

    def provenance(
        self, prepared: Prepared, method: str, queries: Sequence[str], pairs: Pairs, where: list[np.ndarray]
    ) -> Provenance:
        """Return how the result was made."""
        tape, choice, settings = prepared.tape, prepared.choice, prepared.settings
        epochs, lost = len(tape.epochs), self.horizon == 0
        short = [f"'{q}' {int(h)}" for q, h in zip(queries, self.horizon, strict=True) if h < epochs]
        findings = [
            *_findings(tape, choice.adjoint.engine),
            *choice.findings,
            *pairs.findings,
            *prepared.notes,
        ]
        if not prepared.plan.full:
            findings += draw_findings(where, drawn(tape, where, self.horizon))
        findings += [settings.sentence] if settings is not None else []
        if lost.any():
            named = [repr(q) for q, gone in zip(queries, lost, strict=True) if gone]
            findings.append(
                f"nothing can be said of {', '.join(named[:4])}: the response is not finite in the last epoch already"
            )
        if short:
            findings.append(
                f"the walk covers fewer than the {epochs} epochs of training for {', '.join(short[:4])}"
                f"{' …' if len(short) > 4 else ''}; effects of earlier epochs are left out"
            )
        return replace(
            provenance_of(tape, method),
            horizon=tuple(int(h) for h in self.horizon),
            epochs=epochs,
            probe_budget=prepared.plan.budget,
            late_states=tuple(prepared.plan.late),
            engine=choice.adjoint.engine,
            differentiation=choice.name,
            differentiation_reason=choice.reason,
            budget=None if settings is None else asdict(settings),
            query_values=(tuple(prepared.values.tolist()),),
            spread_profile=tuple(map(tuple, self.profile.T.tolist())),
            findings=tuple(findings),
        )


def provenance_of(tape: Tape, method: str) -> Provenance:
    """Return what is known of the making of any result from a tape."""
    return Provenance(
        method=method,
        runs=1,
        seeds=(tape.identity(),),
        covers=("batch order",),
        uncovered=tuple(tape.uncovered()),
        n_rows=len(tape.rows),
        recipe=tape.describe(),
        recipe_digest=tape.digest(),
        versions={"finfluence": version("finfluence"), "torch": torch.__version__},
    )


def check_left(tape: Tape, names: np.ndarray, where: list[np.ndarray]) -> None:
    """Refuse a subset of all rows."""
    n = len(tape.rows)
    for name, rows in zip(names, where, strict=True):
        if len(rows) == n:
            raise DataError(
                explain(
                    f"at least one row to be left without subset '{name}'",
                    f"all {n} rows in it",
                    "the subset is the whole data set",
                    "take a smaller subset",
                )
            )


def _findings(tape: Tape, engine: str) -> list[str]:
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
    if engine.startswith("eager") and not tape.stochastic:
        found.append(f"the model could not be traced and was replayed step by step, more slowly ({engine})")
    return found


def group_means(where: list[np.ndarray], losses: np.ndarray) -> np.ndarray:
    """Return the mean of the losses [n] over each subset."""
    return sum_over(where, losses[:, None])[:, 0] / np.array([len(w) for w in where])
