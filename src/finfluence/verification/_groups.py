"""Estimates of groups from those of their rows, at first order, and pooled over runs."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from finfluence.result import Influence, pool, ratio_interval
from finfluence.verification._choose import Chosen


def group_estimates(
    results: Sequence[Influence], chosen: Sequence[Chosen], queries: Sequence[str]
) -> Influence:
    """Return the estimate for every chosen group, from the rows' estimates of one run, or of each of several.

    effect(S) = (n−1)/(n−|S|) · Σ_{i∈S} effect_i at a fixed number of steps (n rows in all), its variance the sum of the
    rows' variances times the same factor squared; the spread is that of the query. Several runs are summed each by
    itself and pooled then, so that the error of a group is what the runs differ by.

    Parameters
    ----------
    results
        Over all rows; one, which may be pooled, or one for each run.

    Returns
    -------
    Influence
    """
    return pool([_sum_rows(one, chosen, queries) for one in results])


def shrunken_sums(summed: Influence, rows: Influence, chosen: Sequence[Chosen]) -> Influence:
    """Return the estimates of groups as predicted: sums of shrunken effects in place of sums of effects.

    Intervals keep their width relative to the error of the group, times what shrinking left of its rows' errors. Where
    errors of a query are not known (one run of one epoch), nothing can be shrunken, and its sums stay as they are.

    Parameters
    ----------
    summed
        Over the chosen groups, as `group_estimates` gives it.
    rows
        Over all rows (or given groups), with the shrunken effects that are summed.

    Returns
    -------
    Influence
        `summed` itself where there are no effects.
    """
    if not summed.has_effect or "shrunken" not in rows.data:
        return summed
    made, data = rows.provenance, rows.data.sel(query=summed.queries)
    scale = np.array([(made.n_rows - 1) / (made.n_rows - len(c.rows)) for c in chosen])[:, None]
    effects, shrunken = data["effect"].values, data["shrunken"].values
    whole = (np.isnan(shrunken) & np.isfinite(effects)).any(0)
    effect = scale * _totals(np.where(whole, effects, shrunken), chosen)
    with np.errstate(divide="ignore", invalid="ignore"):
        mu = effect / summed.data["spread"].values
        error, left = (np.sqrt(_totals(data[k].values ** 2, chosen)) for k in ("effect_se", "shrunken_sd"))
        kept = np.where((error > 0) & ~whole, np.minimum(left / error, 1.0), 1.0)
    dims = ("subset", "query")
    old = summed.data
    found = old.assign(
        effect=(dims, effect),
        mu=(dims, mu),
        effect_se=(dims, old["effect_se"].values * kept),
        se=(dims, old["se"].values * kept),
        lower=(dims, mu - kept * (old["mu"] - old["lower"]).values),
        upper=(dims, mu + kept * (old["upper"] - old["mu"]).values),
    )
    return Influence(found)


def select_queries(influence: Influence, queries: Sequence[str]) -> Influence:
    """Return the result over these queries alone, what its attributes say of each query included."""
    at, made = [influence.queries.index(q) for q in queries], influence.provenance
    data = influence.data.sel(query=list(queries))
    data.attrs = replace(
        made,
        query_values=made.query_values and tuple(tuple(run[k] for k in at) for run in made.query_values),
        horizon=made.horizon and tuple(made.horizon[k] for k in at),
        spread_profile=None,
    ).to_dict()
    return Influence(data)


def _sum_rows(influence: Influence, chosen: Sequence[Chosen], queries: Sequence[str]) -> Influence:
    one = select_queries(influence, queries)
    data, made = one.data, one.provenance
    scale = np.array([(made.n_rows - 1) / (made.n_rows - len(c.rows)) for c in chosen])[:, None]
    labels: dict[str, Any] = {
        "subsets": [c.name for c in chosen], "queries": list(queries), "sizes": [len(c.rows) for c in chosen],
        "units": [str(u) for u in data["unit"].values], "signs": data["sign"].values.tolist(), "provenance": made,
    }  # fmt: skip
    if not one.has_effect:
        return Influence.build(mu=scale * _totals(data["mu"].values, chosen), **labels)
    rows = {name: data[name].values for name in ("effect", "effect_se", "mu", "se", "spread")}
    effect = scale * _totals(rows["effect"], chosen)
    effect_se = scale * np.sqrt(_totals(rows["effect_se"] ** 2, chosen))
    spread = np.stack([np.sqrt((rows["spread"][c.rows] ** 2).mean(0)) for c in chosen])
    relative = np.broadcast_to(_spread_error(rows), effect.shape)
    se, lower, upper = ratio_interval(effect, effect_se, spread, relative, made.level)
    return Influence.build(
        effect=effect, effect_se=effect_se, spread=spread, se=se, lower=lower, upper=upper,
        p_value=np.full(effect.shape, np.nan), **labels,
    )  # fmt: skip


def _totals(values: np.ndarray, chosen: Sequence[Chosen]) -> np.ndarray:
    return np.stack([values[c.rows].sum(0) for c in chosen])


def _spread_error(rows: dict[str, np.ndarray]) -> np.ndarray:
    """Return the relative error of the spread for each query [Q], read off the row with the largest |μ|.

    se² = (effect_se / spread)² + (μ · relative)², solved for `relative`.

    Returns
    -------
    np.ndarray
    """
    mu = np.abs(np.nan_to_num(rows["mu"]))
    at = mu.argmax(0), np.arange(mu.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = rows["se"][at] ** 2 - (rows["effect_se"][at] / rows["spread"][at]) ** 2
        return np.sqrt(np.maximum(rest, 0.0)) / mu[at]
