"""Pool results of several training runs."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from finfluence.errors import DataError, explain
from finfluence.result._influence import Influence
from finfluence.result._ratio import ratio_interval
from finfluence.result._schema import ESTIMATES

PRIOR_RUNS = 4.0


def pool(results: Sequence[Influence]) -> Influence:
    """Pool the influences of R training runs of one recipe under different seeds.

    effect = mean over runs. spread² = mean within-run variance, plus, where the initialisation was random or the loss
    drew random numbers, what the runs' query values vary beyond it: max(0, Var_r(q_r) − mean within).
    The variance of each effect is moderated, v = (d₀·v₀ + (R−1)·s²)/(d₀ + R−1), v₀ the mean of the runs' own
    estimates where they have one (else d₀ = 0), s² the variance between runs, d₀ = 4.

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
    """
    _check(results)
    if len(results) == 1:
        return results[0]
    stack = {name: np.stack([r.data[name].values for r in results]) for name in ESTIMATES}
    runs = len(results)
    effect = stack["effect"].mean(0)
    between = stack["effect"].var(0, ddof=1)
    known = np.isfinite(stack["effect_se"])
    within = np.where(known, stack["effect_se"], 0.0) ** 2
    prior = np.where(known.any(0), PRIOR_RUNS, 0.0)
    within = within.sum(0) / np.maximum(known.sum(0), 1)
    effect_se = np.sqrt((prior * within + (runs - 1) * between) / (prior + runs - 1) / runs)
    variances = stack["spread"] ** 2
    variance = variances.mean(0)
    variance_error = variances.var(0, ddof=1) / runs
    first = results[0].data
    values = np.concatenate([r.data.attrs["query_values"] for r in results])
    covers = list(first.attrs["covers"])
    if uncovered := first.attrs.get("uncovered", []):
        covers += uncovered
        beyond = np.maximum(0.0, values.var(0, ddof=1) - variance)
        variance_error = variance_error + np.where(beyond > 0, 2 * (variance + beyond) ** 2 / (runs - 1), 0.0)
        variance = variance + beyond
    spread = np.sqrt(variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.sqrt(variance_error) / (2 * variance)
        p_value = 2 * norm.sf(np.abs(effect) / effect_se)
    se, lower, upper = ratio_interval(effect, effect_se, spread, relative, first.attrs["level"])
    findings = [f for r in results for f in r.data.attrs.get("findings", []) if "pool" not in f]
    attrs = {
        **first.attrs,
        "runs": runs,
        "seeds": [s for r in results for s in r.data.attrs["seeds"]],
        "covers": covers,
        "uncovered": [],
        "query_values": values.tolist(),
        "findings": list(dict.fromkeys(findings)),
    }
    attrs.pop("spread_profile", None)
    attrs.pop("verification", None)
    return Influence.build(
        effect=effect, effect_se=effect_se, spread=spread, se=se, lower=lower, upper=upper, p_value=p_value,
        subsets=first["subset"].values, queries=results[0].queries, attrs=attrs,
        units=first["unit"].values.tolist(), signs=first["sign"].values.tolist(), sizes=first["size"].values,
        own_loss=np.mean([r.data["own_loss"].values for r in results], axis=0), level=first.attrs["level"],
    )  # fmt: skip


def _check(results: Sequence[Influence]) -> None:
    problem = None
    if not results:
        problem = "no result"
    else:
        first = results[0].data
        for other in (r.data for r in results[1:]):
            for axis in ("subset", "query"):
                if not np.array_equal(first[axis].values, other[axis].values):
                    problem = f"results over different {axis} axes"
            if first.attrs["method"] != other.attrs["method"]:
                problem = "results of different methods"
            if first.attrs.get("recipe_digest") != other.attrs.get("recipe_digest"):
                problem = "results of different recipes"
        if problem is None and len(results) > 1 and any(r.data.attrs["runs"] != 1 for r in results):
            problem = "a result that is pooled already"
        seeds = [repr(s) for r in results for s in r.data.attrs.get("seeds", [])]
        if problem is None and len(set(seeds)) < len(seeds):
            problem = "one run more than once"
        if problem is None and any("query_values" not in r.data.attrs for r in results):
            problem = f"results of method '{first.attrs['method']}', which has no effects to average"
    if problem is not None:
        raise DataError(
            explain(
                "replayed results of one recipe, the same subsets and queries, each from another seed",
                problem,
                "results were collected from different experiments",
                "replay every run with the same queries, and train each with its own seed",
            )
        )
