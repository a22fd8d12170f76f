"""How far two results agree: two seeds, or two methods."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import rankdata

from finfluence.errors import ConfigError, DataError, explain
from finfluence.result._views import query_names, ranking


@dataclass(frozen=True)
class QueryAgreement:
    """How far two results agree on one query.

    Parameters
    ----------
    query : str
        The query.
    shared : int
        Rows that both results have, with a finite value in both.
    pearson, spearman : float
        Correlation of the values and of the ranks; NaN where one side is constant.
    k : int
        Size of the tops that are compared.
    jaccard : float
        Rows among the k most harmful of both, over those among the k most harmful of either.
    chance : float
        The same for two random tops: k / (2n − k).
    """

    query: str
    shared: int
    pearson: float
    spearman: float
    k: int
    jaccard: float
    chance: float


@dataclass(frozen=True)
class Comparison:
    """Agreement of two results, query by query.

    Parameters
    ----------
    queries : tuple of QueryAgreement
        One for each query that both results have.
    """

    queries: tuple[QueryAgreement, ...]

    def frame(self) -> pd.DataFrame:
        """Return one line per query."""
        return pd.DataFrame([vars(one) for one in self.queries])

    def __repr__(self) -> str:
        lines = [f"Agreement on {len(self.queries)} quer{'y' if len(self.queries) == 1 else 'ies'}"]
        lines += [
            f"  '{q.query}', {q.shared:,} shared rows: Pearson {q.pearson:.3f}, Spearman {q.spearman:.3f}; "
            f"of the {q.k} most harmful a share of {q.jaccard:.3f} is common (Jaccard), by chance {q.chance:.3f}"
            for q in self.queries
        ]
        lines.append("  agreement alone does not prove that a ranking is right; next: .frame(), fi.verify(…)")
        return "\n".join(lines)


def compare(first: xr.Dataset, second: xr.Dataset, k: int | None = None) -> Comparison:
    """Return how far two results agree on the queries and rows that both have.

    Returns
    -------
    Comparison

    Raises
    ------
    DataError
        They share no query, or fewer than two rows with finite values.
    ConfigError
        `k` is not between 1 and the number of shared rows.
    """
    names = [name for name in query_names(first) if name in query_names(second)]
    if not names:
        raise DataError(
            explain(
                "two results with a query in common",
                f"{', '.join(map(repr, query_names(first)[:4]))} and {', '.join(map(repr, query_names(second)[:4]))}",
                "the queries were named differently",
                "estimate both with the same queries, or give these the same name=",
            )
        )
    ids = [pd.Index(data["subset"].values.tolist()) for data in (first, second)]
    at = ids[1].get_indexer(ids[0])
    return Comparison(tuple(_agreement(first, second, at, name, k) for name in names))


def _agreement(
    first: xr.Dataset, second: xr.Dataset, at: np.ndarray, name: str, k: int | None
) -> QueryAgreement:
    a, b = ranking(first, name)[at >= 0], ranking(second, name)[at[at >= 0]]
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    n = len(a)
    if n < 2:
        raise DataError(
            explain(
                f"two results with rows in common on '{name}'",
                f"{n} shared rows with finite values",
                "results of different data, or row ids of another type",
                "estimate both for the same rows, and give the rows ids= that both know",
            )
        )
    k = max(1, min(100, n // 10)) if k is None else k
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= n:
        raise ConfigError(
            explain(
                f"k to be a whole number from 1 to the {n:,} shared rows",
                repr(k),
                "a share was passed, or k counted on other data",
                f"leave k out, or pass one up to {n}",
            )
        )
    tops = [set(np.argsort(-value, kind="stable")[:k].tolist()) for value in (a, b)]
    return QueryAgreement(
        query=name,
        shared=n,
        pearson=_correlation(a, b),
        spearman=_correlation(rankdata(a), rankdata(b)),
        k=int(k),
        jaccard=len(tops[0] & tops[1]) / len(tops[0] | tops[1]),
        chance=k / (2 * n - k),
    )


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
