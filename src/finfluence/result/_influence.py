"""Influence: the labelled result every estimator returns."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import norm

from finfluence.errors import ConfigError, DataError, explain
from finfluence.result._names import one_of
from finfluence.result._schema import ESTIMATES, REQUIRED_ATTRS
from finfluence.result._text import describe
from finfluence.tradeoff import Gaussian

Direction = Literal["harmful", "helpful", "both"]


class Influence:
    """What removing each subset of training rows does to each query, over training randomness.

    μ = effect / spread, effect = E[q without S] − E[q with S], spread = sd of q over training randomness.
    **Positive: removing the subset raises the query.** For a loss that means the subset helps.

    Attributes
    ----------
    data : xarray.Dataset
        Over (subset, query): effect, spread, mu, se, lower, upper, p_value; over subset: own_loss, size; over
        query: unit, sign. Attributes say how it was made: method, runs, seeds, covers (which randomness the spread
        contains), level of the intervals, n_rows.

    Examples
    --------
    >>> influence = Influence.build(
    ...     effect=[[0.2], [-0.1]], spread=[[0.1], [0.1]], se=[[0.3], [0.3]], p_value=[[1e-6, ], [0.4]],
    ...     subsets=["a", "b"], queries=["held-out"], attrs=dict(method="example", runs=1, covers=["batch order"],
    ...     n_rows=2))
    >>> influence.data.mu.values.ravel().tolist()
    [2.0, -1.0]
    >>> influence.top(1, query="held-out").row_id.tolist()
    ['b']
    """

    def __init__(self, data: xr.Dataset) -> None:
        self.data = data

    @classmethod
    def build(
        cls,
        *,
        effect: Any,
        spread: Any,
        se: Any,
        p_value: Any,
        effect_se: Any = None,
        subsets: Sequence[Any] | np.ndarray,
        queries: Sequence[str],
        attrs: Mapping[str, Any],
        units: Sequence[str] | None = None,
        signs: Sequence[int] | None = None,
        sizes: Sequence[int] | np.ndarray | None = None,
        own_loss: Any = None,
        mu: Any = None,
        lower: Any = None,
        upper: Any = None,
        level: float = 0.95,
        extra: Mapping[str, Any] | None = None,
    ) -> "Influence":
        """Assemble a result from arrays [subsets, queries]; mu, lower and upper follow unless given.

        lower, upper = mu ∓ Φ⁻¹((1+level)/2)·se.

        Raises
        ------
        DataError
            An array has another shape, or an attribute is missing.
        """
        shape = (len(subsets), len(queries))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.asarray(effect, dtype=np.float64) / np.asarray(spread, dtype=np.float64)
        mu = ratio if mu is None else np.asarray(mu, dtype=np.float64)
        half = norm.ppf((1 + level) / 2) * np.asarray(se, dtype=np.float64)
        values = {
            "effect": effect,
            "effect_se": np.full(shape, np.nan) if effect_se is None else effect_se,
            "spread": spread, "mu": mu, "se": se, "p_value": p_value,
            "lower": mu - half if lower is None else lower, "upper": mu + half if upper is None else upper,
            **(extra or {}),
        }  # fmt: skip
        arrays = {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}
        wrong = {name: a.shape for name, a in arrays.items() if a.shape != shape}
        missing = [name for name in REQUIRED_ATTRS if name not in attrs and name != "level"]
        if wrong or missing:
            raise DataError(
                explain(
                    f"arrays of shape {shape} and the attributes {', '.join(REQUIRED_ATTRS)}",
                    f"{wrong or ''} {'missing ' + ', '.join(missing) if missing else ''}".strip(),
                    "an estimator built its result from mismatched parts",
                    "pass one value for each (subset, query) and say how the result was made",
                )
            )
        own = np.full(shape[0], np.nan) if own_loss is None else np.asarray(own_loss, dtype=np.float64)
        order = [name for name in ESTIMATES if name in arrays] + [n for n in arrays if n not in ESTIMATES]
        data = xr.Dataset(
            {**{name: (("subset", "query"), arrays[name]) for name in order}, "own_loss": ("subset", own)},
            coords={
                "subset": np.asarray(subsets),
                "query": np.asarray(list(queries), dtype=str),
                "size": ("subset", np.ones(shape[0], dtype=np.int64) if sizes is None else np.asarray(sizes)),
                "unit": (
                    "query",
                    np.asarray(["nats"] * shape[1] if units is None else list(units), dtype=str),
                ),
                "sign": (
                    "query",
                    np.asarray([-1] * shape[1] if signs is None else list(signs), dtype=np.int64),
                ),
            },
            attrs={**attrs, "level": float(level)},
        )
        return cls(data)

    def __repr__(self) -> str:
        return describe(self.data)

    @property
    def subsets(self) -> np.ndarray:
        """Names of the subsets (row ids, or group names)."""
        return self.data["subset"].values

    @property
    def queries(self) -> list[str]:
        """Names of the queries."""
        return [str(q) for q in self.data["query"].values]

    def power(self, alpha: float = 0.05) -> xr.DataArray:
        """Chance to notice the removal from one trained model at false-alarm rate `alpha`: Φ(|μ| − Φ⁻¹(1−α)).

        Source: f-influence (arXiv 2510.10510), Definition 2.5.
        """
        mu = self.data["mu"]
        return mu.copy(data=norm.cdf(np.abs(mu.values) - norm.ppf(1 - alpha))).rename("power")

    def tradeoff(self, subset: Any, query: str | None = None) -> Gaussian:
        """Return the trade-off function G_μ of one subset on one query."""
        return Gaussian(float(self.data["mu"].sel(subset=subset, query=self._query(query))))

    def to_frame(self, query: str | None = None) -> pd.DataFrame:
        """Return one row per (subset, query): row_id, query, the estimates, own_loss."""
        names = self.queries if query is None else [self._query(query)]
        frames = []
        for name in names:
            part = self.data.sel(query=name)
            estimates = [v for v in ESTIMATES if v in part] + [
                v for v in part.data_vars if v not in ESTIMATES
            ]
            columns = {v: part[v].values for v in estimates}
            frames.append(pd.DataFrame({"row_id": self.subsets, "query": name, **columns}))
        return pd.concat(frames, ignore_index=True)

    def harm(self, query: str | None = None) -> np.ndarray:
        """Return μ oriented so that positive means harmful: sign(query)·μ, for every subset."""
        name = self._query(query)
        return (self.data["mu"] * self.data["sign"]).sel(query=name).values

    def top(self, n: int = 10, query: str | None = None, direction: Direction = "harmful") -> pd.DataFrame:
        """Return the n subsets with the strongest μ in a direction, strongest first.

        Parameters
        ----------
        direction : {"harmful", "helpful", "both"}
            Harmful: removal betters the query (lowers a loss, raises an accuracy).
        """
        score = _oriented(self.harm(query), direction)
        order = np.argsort(-np.nan_to_num(score, nan=-np.inf), kind="stable")[:n]
        return self.to_frame(self._query(query)).iloc[order].reset_index(drop=True)

    def select(
        self, fdr: float = 0.1, query: str | None = None, direction: Direction = "harmful"
    ) -> pd.DataFrame:
        """Return the subsets that can be told from the bulk at a false-discovery rate.

        The null is empirical: it is fitted to the middle of all subsets' μ, so that an error common to all of
        them does not count as a discovery. An empty frame means that nothing can be told from training noise.

        Returns
        -------
        pandas.DataFrame
            As `to_frame`, with `q_value`, strongest first; `attrs` holds the fitted null.
        """
        from finfluence.stats import empirical_fdr

        if not 0 < fdr < 1:
            raise ConfigError(
                explain(
                    "fdr between 0 and 1", repr(fdr), "a percentage was passed", "pass 0.1 for ten percent"
                )
            )
        result = empirical_fdr(self.harm(query), direction=direction)
        frame = self.to_frame(self._query(query)).assign(q_value=result.q_values)
        chosen = frame[frame["q_value"] <= fdr]
        order = np.argsort(-_oriented(self.harm(query)[chosen.index], direction), kind="stable")
        return chosen.iloc[order].reset_index(drop=True)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save as a Zarr folder, atomically. No pickle."""
        from finfluence.result._io import save

        save(self.data, path)

    def report(self, path: str | os.PathLike[str], query: str | None = None, fdr: float = 0.1) -> None:
        """Write the result as one self-contained HTML page."""
        from finfluence.report import write_report
        from finfluence.result._summary import content

        write_report(content(self, query=query, fdr=fdr), path)

    def _query(self, name: str | None) -> str:
        return self.queries[0] if name is None else one_of(name, self.queries, "query")


def _oriented(harm: np.ndarray, direction: str) -> np.ndarray:
    factors = {"harmful": 1.0, "helpful": -1.0}
    if direction == "both":
        return np.abs(harm)
    return factors[one_of(direction, [*factors, "both"], "direction")] * harm
