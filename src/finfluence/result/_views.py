"""Views of a result's dataset: what it ranks by, which side is harmful, its lines as a frame; and what it cannot do."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from finfluence.errors import NotSupportedError, explain
from finfluence.result._provenance import Provenance
from finfluence.result._schema import COLUMNS, kind_of
from finfluence.stats import Direction, towards

WITHOUT_SPREAD = "without_spread"
SCORES_ONLY = "scores only: they rank, they carry no unit and no error rate"
EFFECTS_ONLY = (
    "effects only, in the query's unit and times its sign: they rank, without spread, μ and error rate"
)


def query_names(data: xr.Dataset) -> list[str]:
    """Return the names of the queries."""
    return [str(q) for q in data["query"].values]


def scores_sentence(data: xr.Dataset) -> str:
    """Say what a result without μ holds, and lacks."""
    return EFFECTS_ONLY if data.attrs.get(WITHOUT_SPREAD) else SCORES_ONLY


def need_mu(data: xr.Dataset, what: str) -> None:
    """Refuse `what` for a result that holds scores only.

    Raises
    ------
    NotSupportedError
        There is no μ.
    """
    if kind_of(data) == "score":
        method = data.attrs.get("method")
        if data.attrs.get(WITHOUT_SPREAD):
            raise NotSupportedError(
                explain(
                    f"an influence with mu for {what}",
                    f"{EFFECTS_ONLY} (method: {method})",
                    "they were asked for with spread=False, without what would tell an effect from chance",
                    "fi.replay(…) without spread=False, or rank by .top()",
                )
            )
        raise NotSupportedError(
            explain(
                f"an influence with mu for {what}",
                f"{SCORES_ONLY} (method: {method})",
                f"the method '{method}' compares rows with one another, not with the randomness of training",
                "rank by .top(), or estimate with a method that gives mu, such as fi.replay(…) or fi.retrain(…)",
            )
        )


def need_effect(data: xr.Dataset, what: str) -> None:
    """Refuse `what` for a result without effects.

    Raises
    ------
    NotSupportedError
        There is no effect in the query's unit, and so no error of it.
    """
    need_mu(data, what)
    if kind_of(data) == "mu":
        method = data.attrs.get("method")
        raise NotSupportedError(
            explain(
                f"an influence with effects for {what}",
                f"mu alone (method: {method})",
                f"the method '{method}' estimates mu directly, without an effect in the query's unit",
                "estimate with a method that gives effects, such as fi.replay(…) or fi.retrain(…)",
            )
        )


def ranking(data: xr.Dataset, query: str) -> np.ndarray:
    """Return what subsets are ranked by on one query, larger is more harmful: the score, or μ oriented.

    Where there is no spread at all, so that no μ is known, by the effect.

    Returns
    -------
    array [S]
    """
    if kind_of(data) == "score":
        score: np.ndarray = data["score"].sel(query=query).values
        return score
    side = Provenance.from_dict(data.attrs).harmful_side
    part = data.sel(query=query)
    value: np.ndarray = part["mu"].values
    if kind_of(data) == "effect" and not part["spread"].values.any():
        value = part["effect"].values
    return value * side * int(part["sign"])


def strongest(data: xr.Dataset, query: str, direction: Direction = "harmful") -> np.ndarray:
    """Return the positions of all subsets, the strongest in a direction first; what is unknown comes last.

    Where there are effects with errors by the shrunken effect over the spread, so that the ends are not those whose
    error is largest; what ties there, and all else, by μ or score.

    Returns
    -------
    array of int [S]
    """
    value = ranking(data, query)
    if kind_of(data) != "effect" or "shrunken" not in data:
        return order_by(value, value, direction)
    part = data.sel(query=query)
    side = Provenance.from_dict(data.attrs).harmful_side * int(part["sign"])
    return order_by(
        value, shrunken_mu(part["shrunken"].values, part["spread"].values, value) * side, direction
    )


def shrunken_mu(shrunken: np.ndarray, spread: np.ndarray, mu: np.ndarray) -> np.ndarray:
    """Return shrunken effects over their spread, if there is one; NaN where μ is; where none is known, zeros."""
    value = shrunken / np.where(spread == 0, 1.0, spread)
    return np.zeros(len(mu)) if np.isnan(value).all() else np.where(np.isfinite(mu), value, np.nan)


def order_by(value: np.ndarray, shrunken: np.ndarray, direction: Direction = "harmful") -> np.ndarray:
    """Return positions by the shrunken value first, then by the value itself; NaN last."""
    keys = [-np.nan_to_num(towards(v, direction), nan=-np.inf) for v in (value, shrunken)]
    return np.lexsort(keys)


def frame(data: xr.Dataset, names: Sequence[str]) -> pd.DataFrame:
    """Return one line per (subset, query): row_id, query, the estimates or the score, what else there is."""
    first = [v for v in COLUMNS if v in data]
    columns = [*first, *(str(v) for v in data.data_vars if v not in first)]
    parts = []
    for name in names:
        part = data.sel(query=name)
        values = {v: part[v].values for v in columns}
        parts.append(pd.DataFrame({"row_id": data["subset"].values, "query": name, **values}))
    return pd.concat(parts, ignore_index=True)
