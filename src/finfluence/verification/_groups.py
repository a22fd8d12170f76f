"""Estimates of groups from those of their rows, at first order, and pooled over runs."""

from collections.abc import Sequence

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
    """
    return pool([_summed(one, chosen, queries) for one in results])


def narrowed(influence: Influence, queries: Sequence[str]) -> Influence:
    """Return the result over these queries alone, what its attributes say of each query included."""
    attrs = dict(influence.data.attrs)
    at = [influence.queries.index(q) for q in queries]
    if "query_values" in attrs:
        attrs["query_values"] = [[run[k] for k in at] for run in attrs["query_values"]]
    if "horizon" in attrs:
        attrs["horizon"] = [attrs["horizon"][k] for k in at]
    attrs.pop("spread_profile", None)
    data = influence.data.sel(query=list(queries))
    data.attrs = attrs
    return Influence(data)


def _summed(influence: Influence, chosen: Sequence[Chosen], queries: Sequence[str]) -> Influence:
    data = narrowed(influence, queries).data
    attrs, level = dict(data.attrs), float(data.attrs["level"])
    n = int(attrs["n_rows"])
    scale = np.array([(n - 1) / (n - len(c.rows)) for c in chosen])[:, None]
    names = ("effect", "effect_se", "mu", "se", "spread")
    rows = {name: data[name].values for name in names}
    effect = scale * _totals(rows["effect"], chosen)
    effect_se = scale * np.sqrt(_totals(rows["effect_se"] ** 2, chosen))
    spread = np.stack([np.sqrt((rows["spread"][c.rows] ** 2).mean(0)) for c in chosen])
    only_mu = np.isnan(rows["effect"]).all(0)
    mu = np.where(only_mu, scale * _totals(rows["mu"], chosen), effect / spread)
    relative = np.broadcast_to(_spread_error(rows), effect.shape)
    se, lower, upper = ratio_interval(effect, effect_se, spread, relative, level)
    return Influence.build(
        effect=effect, effect_se=effect_se, spread=spread, mu=mu, se=se, lower=lower, upper=upper,
        p_value=np.full(effect.shape, np.nan), subsets=[c.name for c in chosen], queries=list(queries),
        sizes=[len(c.rows) for c in chosen], attrs=attrs, units=[str(u) for u in data["unit"].values],
        signs=data["sign"].values.tolist(), level=level,
    )  # fmt: skip


def _totals(values: np.ndarray, chosen: Sequence[Chosen]) -> np.ndarray:
    return np.stack([values[c.rows].sum(0) for c in chosen])


def _spread_error(rows: dict[str, np.ndarray]) -> np.ndarray:
    """Return the relative error of the spread for each query [Q], read off the row with the largest |μ|.

    se² = (effect_se / spread)² + (μ · relative)², solved for `relative`.
    """
    mu = np.abs(np.nan_to_num(rows["mu"]))
    at = mu.argmax(0), np.arange(mu.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = rows["se"][at] ** 2 - (rows["effect_se"][at] / rows["spread"][at]) ** 2
        return np.sqrt(np.maximum(rest, 0.0)) / mu[at]
