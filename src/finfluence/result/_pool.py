"""Pool results of several training runs."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from finfluence.errors import DataError, explain
from finfluence.result._influence import Influence
from finfluence.result._moderate import moderate, trended
from finfluence.result._provenance import Provenance
from finfluence.result._ratio import SPREAD_ERROR, model_error, ratio_interval, two_sided, without_spread
from finfluence.result._schema import ESTIMATES, LINEAR, TWIN
from finfluence.result._twin import with_twin
from finfluence.result._views import need_mu

ALIKE = (
    "the runs show no training randomness: every step saw all rows and all runs start alike, so that there is no "
    "spread, μ, interval or p-value; effects are in the query's unit"
)


def pool(results: Sequence[Influence]) -> Influence:
    """Pool the influences of R training runs of one recipe under different seeds.

    effect = mean over runs. spread² = mean within-run variance, plus, where the initialisation was random or the loss
    drew random numbers, what the runs' query values vary beyond it: max(0, Var_r(q_r) − mean within).
    The variance of each effect is moderated: that between the runs, R − 1 degrees of freedom, is drawn towards the
    runs' own estimates of it as far as all (subset, query) pairs together support (`moderate`). Intervals and p-values
    use the t of the resulting degrees of freedom. Intervals for μ also hold what no comparison of runs can show:
    the error of linearisation and of the spread (`model_error`).

    Parameters
    ----------
    results : sequence of Influence
        From `replay`, one per run, over the same subsets and queries.

    Returns
    -------
    Influence
        `runs` is R; `covers` gains what one run does not show: "initialisation" if the runs drew their own, "dropout".

    Raises
    ------
    DataError
        Nothing to pool, different subsets, queries, methods or recipes, a pooled result, or one run twice.

    Notes
    -----
    Pool raw runs, all at once: a pooled result is refused. Their order does not matter.
    """
    _check(results)
    if len(results) == 1:
        return results[0]
    stack = {name: np.stack([r.data[name].values for r in results]) for name in ESTIMATES}
    runs, first = len(results), results[0].data
    effect = stack["effect"].mean(0)
    paired = np.logical_and.reduce([_paired(r) for r in results])
    variance, df, bent = _effect_variance(stack["effect"], stack["effect_se"], paired)
    effect_se = np.sqrt(variance / runs)
    values = np.concatenate([np.asarray(r.provenance.query_values) for r in results])
    made = results[0].provenance
    spread, relative = _spread(stack["spread"] ** 2, values, bool(made.uncovered))
    extra, measured = {}, 0.0
    if paired.any():
        linear = np.mean([r.data[LINEAR].values for r in results], axis=0)
        extra[LINEAR] = linear
        measured = _relative_distance(effect[paired], linear[paired])
    model = model_error(paired, _horizon(results, effect.shape[1]), made.epochs or 1, measured)
    with np.errstate(divide="ignore", invalid="ignore"):
        mu = effect / spread
    se, lower, upper = ratio_interval(effect, effect_se, spread, relative, made.level, df=df, model=model)
    estimates: dict[str, Any] = without_spread({
        "effect": effect, "effect_se": effect_se, "spread": spread, "mu": mu, "se": se, "lower": lower, "upper": upper,
        "p_value": two_sided(effect, effect_se, df),
    })  # fmt: skip
    twin = with_twin({**estimates, "effect_se": np.sqrt(bent / runs)})
    return Influence.build(
        **estimates, twin={name: twin[name] for name in TWIN}, extra=extra,
        provenance=_made(results, values, bool(spread.any())),
        subsets=first["subset"].values, queries=results[0].queries,
        units=first["unit"].values.tolist(), signs=first["sign"].values.tolist(), sizes=first["size"].values,
        own_loss=np.mean([r.data["own_loss"].values for r in results], axis=0),
    )  # fmt: skip


def _made(results: Sequence[Influence], values: np.ndarray, differ: bool) -> Provenance:
    """Return how the pooled result was made; what belongs to one run, or was said of one, is left out."""
    each = [r.provenance for r in results]
    findings = [f for made in each for f in made.findings if "pool" not in f]
    findings += [] if differ else [ALIKE]
    of_steps = [f for made in each for f in made.step_notes or ()]
    return replace(
        each[0],
        runs=len(results),
        seeds=tuple(seed for made in each for seed in made.seeds),
        covers=(*each[0].covers, *each[0].uncovered),
        uncovered=(),
        query_values=tuple(map(tuple, values.tolist())),
        findings=tuple(dict.fromkeys(findings)),
        step_notes=tuple(dict.fromkeys(of_steps)) or None,
        spread_profile=None,
        verification=None,
    )


def _effect_variance(
    effects: np.ndarray, errors: np.ndarray, paired: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the variance of one run's effect [S, Q], its degrees of freedom, and another variance, for shrinkage.

    Linear effects and those of paired runs are moderated apart, for their runs' own errors differ in what they see. For
    shrinkage the runs' own errors are `trended` first; intervals of the largest effects stay as wide as the runs say.

    Returns
    -------
    tuple[array, array, array]
    """
    between = effects.var(0, ddof=1)
    known = np.isfinite(errors)
    counts = known.sum(0)
    within = np.where(known, errors, 0.0) ** 2
    within = np.where(counts > 0, within.sum(0) / np.maximum(counts, 1), np.nan)
    variance, df, bent = (np.empty_like(between) for _ in range(3))
    for kind in (paired, ~paired):
        variance[kind], df[kind] = moderate(between[kind], len(effects) - 1, within[kind])
        bent[kind], _ = moderate(between[kind], len(effects) - 1, trended(between[kind], within[kind]))
    return variance, df, bent


def _spread(variances: np.ndarray, values: np.ndarray, beyond_theory: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the spread [S, Q] and its relative error from variances [R, S, Q] and query values [R, Q]."""
    runs = len(variances)
    variance, error = variances.mean(0), variances.var(0, ddof=1) / runs
    if beyond_theory:
        beyond = np.maximum(0.0, values.var(0, ddof=1) - variance)
        error = error + np.where(beyond > 0, 2 * (variance + beyond) ** 2 / (runs - 1), 0.0)
        variance = variance + beyond
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.hypot(np.sqrt(error) / (2 * variance), SPREAD_ERROR)
    return np.sqrt(variance), relative


def _paired(result: Influence) -> np.ndarray:
    """Return which subsets [S] were also trained without, under the run's own order."""
    if LINEAR not in result.data:
        return np.zeros(result.data.sizes["subset"], dtype=bool)
    found: np.ndarray = np.isfinite(result.data[LINEAR].values).any(1)
    return found


def _horizon(results: Sequence[Influence], queries: int) -> np.ndarray:
    """Return the mean number of epochs walked for each query [Q]."""
    return np.mean([r.provenance.horizon or [1] * queries for r in results], axis=0)


def _relative_distance(effect: np.ndarray, linear: np.ndarray) -> float:
    """Return ‖effect − linear‖/‖linear‖ over the pairs known."""
    known = np.isfinite(effect) & np.isfinite(linear)
    size = float((linear[known] ** 2).sum())
    return float(np.sqrt(((effect - linear)[known] ** 2).sum() / size)) if size > 0 else 0.0


def _check(results: Sequence[Influence]) -> None:
    for result in results:
        need_mu(result.data, "pooling")
    problem = _problem(results)
    if problem is not None:
        raise DataError(
            explain(
                "replayed results of one recipe, the same subsets and queries, each from another seed",
                problem,
                "results were collected from different experiments",
                "replay every run with the same queries, and train each with its own seed",
            )
        )


_NAMED_ALIKE = {
    "size": "subsets of the same names with other numbers of rows",
    "sign": "queries of the same names with another sign",
    "unit": "queries of the same names in another unit",
}


def _problem(results: Sequence[Influence]) -> str | None:
    if not results:
        return "no result"
    problem = None
    first, made = results[0].data, [r.provenance for r in results]
    for result, other in zip(results, made, strict=True):
        for axis in ("subset", "query"):
            if not np.array_equal(first[axis].values, result.data[axis].values):
                problem = f"results over different {axis} axes"
        for name, differ in _NAMED_ALIKE.items():
            if problem is None and not np.array_equal(first[name].values, result.data[name].values):
                problem = differ
        if made[0].method != other.method:
            problem = "results of different methods"
        if made[0].recipe_digest != other.recipe_digest:
            problem = "results of different recipes"
        if made[0].contrast != other.contrast:
            problem = "results of removing rows and of adding rows"
    if problem is not None:
        return problem
    if len(results) > 1 and any(m.runs != 1 for m in made):
        return "a result that is pooled already"
    seeds = [repr(s) for m in made for s in m.seeds]
    if len(set(seeds)) < len(seeds):
        return "one run more than once"
    without = [not r.has_effect or m.query_values is None for r, m in zip(results, made, strict=True)]
    if len(results) > 1 and any(without):
        return f"results of method '{made[0].method}', which has no effects to average"
    return None
