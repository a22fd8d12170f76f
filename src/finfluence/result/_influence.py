"""Influence: the labelled result every estimator returns."""

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import norm

from finfluence.errors import DataError, explain
from finfluence.report import write_report
from finfluence.result._compare import Comparison, compare
from finfluence.result._extremes import as_line, removed
from finfluence.result._grid import Grid, grid, items_of
from finfluence.result._html import notebook_html
from finfluence.result._io import save
from finfluence.result._names import one_of
from finfluence.result._plot import plot
from finfluence.result._provenance import Provenance
from finfluence.result._schema import COLUMNS, TWIN, kind_of
from finfluence.result._select import removals, select
from finfluence.result._summary import report_content
from finfluence.result._text import describe
from finfluence.result._together import interaction
from finfluence.result._twin import with_twin
from finfluence.result._views import frame, need_effect, need_mu, query_names, ranking, strongest
from finfluence.stats import Direction
from finfluence.tradeoff import Gaussian

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Influence:
    """What removing each subset of training rows does to each query, over training randomness.

    μ = effect / spread, effect = E[q without S] − E[q with S], spread = sd of q over training randomness.
    **Positive: removing the subset raises the query.** For a loss that means the subset helps. Where
    `provenance.contrast` is "add", all of it is said of *adding* the subset.

    A result holds one of three: effects with their spread and errors; μ alone; or scores alone, which rank the subsets
    and carry neither unit nor error rate. Whatever needs what is not there raises NotSupportedError.

    Attributes
    ----------
    data : xarray.Dataset
        Over (subset, query): effect, effect_se; shrunken, shrunken_sd, sign_error; spread, mu, se, lower, upper,
        p_value; or mu; or score. Over subset: own_loss, size; over query: unit, sign. Its attributes are `provenance`
        in plain values.

    Examples
    --------
    >>> made = Provenance(method="example", runs=1, covers=("batch order",), n_rows=2)
    >>> influence = Influence.build(
    ...     effect=[[0.2], [-0.1]], spread=[[0.1], [0.1]], se=[[0.3], [0.3]], p_value=[[1e-6, ], [0.4]],
    ...     subsets=["a", "b"], queries=["held-out"], provenance=made)
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
        subsets: Sequence[Any] | np.ndarray,
        queries: Sequence[str],
        provenance: Provenance | Mapping[str, Any],
        effect: Any = None,
        effect_se: Any = None,
        spread: Any = None,
        mu: Any = None,
        se: Any = None,
        lower: Any = None,
        upper: Any = None,
        p_value: Any = None,
        score: Any = None,
        units: Sequence[str] | None = None,
        signs: Sequence[int] | None = None,
        sizes: Sequence[int] | np.ndarray | None = None,
        own_loss: Any = None,
        twin: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> "Influence":
        """Assemble a result from arrays [subsets, queries] of one of three kinds.

        Parameters
        ----------
        subsets, queries : sequence
            Names along the two axes.
        provenance : Provenance or mapping
            How it was made.
        effect, spread, se, p_value : array, optional
            All four together. `mu` = effect / spread and `lower`, `upper` = mu ∓ Φ⁻¹((1+level)/2)·se follow unless
            given; `effect_se` is NaN unless given.
        mu : array, optional
            Alone, where nothing else is known.
        score : array, optional
            Alone: larger is more harmful or more suspect, and no more than that.
        effect_se, lower, upper : array, optional
            Beside effects, see there.
        units, signs : sequence, optional
            Of each query: "nats" and −1 (larger is worse) unless given.
        sizes : sequence of int, optional
            Rows in each subset; 1 unless given.
        own_loss : array [subsets], optional
            Mean final loss of the subset's own rows.
        twin : mapping, optional
            `shrunken`, `shrunken_sd`, `sign_error` of the effects; computed from all subsets of a query unless given.
        extra : mapping, optional
            Further arrays [subsets, queries], by name.

        Returns
        -------
        Influence

        Raises
        ------
        DataError
            An array has another shape, what is given is of no kind or of several, or `provenance` lacks something.
        """
        made = provenance if isinstance(provenance, Provenance) else Provenance.from_dict(provenance)
        shape = (len(subsets), len(queries))
        given = {
            "effect": effect, "effect_se": effect_se, "spread": spread, "mu": mu, "se": se, "lower": lower,
            "upper": upper, "p_value": p_value, "score": score,
        }  # fmt: skip
        present = {name: np.asarray(v, dtype=np.float64) for name, v in given.items() if v is not None}
        further = {name: np.asarray(v, dtype=np.float64) for name, v in (extra or {}).items()}
        twins = {name: np.asarray((twin or {})[name], dtype=np.float64) for name in (TWIN if twin else ())}
        _check_parts(present, {**twins, **further}, shape)
        if kind_of(present) == "effect":
            present = with_twin({**_completed(present, made.level), **twins})
        own = np.full(shape[0], np.nan) if own_loss is None else np.asarray(own_loss, dtype=np.float64)
        arrays = {**{name: present[name] for name in COLUMNS if name in present}, **further}
        data = xr.Dataset(
            {**{name: (("subset", "query"), a) for name, a in arrays.items()}, "own_loss": ("subset", own)},
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
            attrs=made.to_dict(),
        )
        return cls(data)

    def __repr__(self) -> str:
        return describe(self.data)

    def _repr_html_(self) -> str:
        return notebook_html(self.data)

    def __len__(self) -> int:
        return int(self.data.sizes["subset"])

    def __iter__(self) -> Iterator[Any]:
        return iter(self.subsets.tolist())

    def __bool__(self) -> bool:
        return True  # a result is one, however many rows it has

    def __getitem__(self, subset: Any) -> pd.DataFrame:
        """Return what is known of one subset, by its id: a line per query.

        Parameters
        ----------
        subset
            Id of a row, or name of a group.

        Returns
        -------
        pandas.DataFrame
            Indexed by query.

        Raises
        ------
        DataError
            There is no such subset.
        """
        at = pd.Index(self.subsets.tolist()).get_indexer([subset])[0]
        if at < 0:
            raise DataError(_unknown_subset(subset, self.subsets))
        lines = frame(self.data.isel(subset=[int(at)]), self.queries)
        return lines.set_index("query")

    @property
    def subsets(self) -> np.ndarray:
        """Names of the subsets (row ids, or group names)."""
        return self.data["subset"].values

    @property
    def queries(self) -> list[str]:
        """Names of the queries."""
        return query_names(self.data)

    @property
    def provenance(self) -> Provenance:
        """How the result was made."""
        return Provenance.from_dict(self.data.attrs)

    @property
    def has_mu(self) -> bool:
        """Whether there is a μ; otherwise there are scores only."""
        return kind_of(self.data) != "score"

    @property
    def has_effect(self) -> bool:
        """Whether there are effects in the query's unit, with spread and errors."""
        return kind_of(self.data) == "effect"

    def with_provenance(self, provenance: Provenance) -> "Influence":
        """Return the same numbers with another record of how they were made."""
        data = self.data.copy()
        data.attrs = provenance.to_dict()
        return Influence(data)

    def power(self, alpha: float = 0.05) -> xr.DataArray:
        """Return the chance to notice the removal from one trained model: Φ(|μ| − Φ⁻¹(1−α)).

        Parameters
        ----------
        alpha : float
            Rate of false alarms.

        Returns
        -------
        xarray.DataArray [subset, query]

        References
        ----------
        f-influence (arXiv 2510.10510), Definition 2.5.
        """
        need_mu(self.data, "power")
        mu = self.data["mu"]
        return mu.copy(data=norm.cdf(np.abs(mu.values) - norm.ppf(1 - alpha))).rename("power")

    def tradeoff(self, subset: Any, query: str | None = None) -> Gaussian:
        """Return the trade-off function G_μ of one subset on one query."""
        need_mu(self.data, "a trade-off function")
        return Gaussian(float(self.data["mu"].sel(subset=subset, query=self._query(query))))

    def to_frame(self, query: str | None = None) -> pd.DataFrame:
        """Return one row per (subset, query): row_id, query, the estimates or the score, own_loss."""
        return frame(self.data, self.queries if query is None else [self._query(query)])

    def harm(self, query: str | None = None) -> np.ndarray:
        """Return μ oriented so that positive means harmful: sign(query)·μ, and the opposite for rows to be added."""
        need_mu(self.data, "harm")
        return ranking(self.data, self._query(query))

    def top(self, n: int = 10, query: str | None = None, direction: Direction = "harmful") -> pd.DataFrame:
        """Return the n strongest subsets in a direction, strongest first: by `shrunken`/`spread`, else by μ or score.

        Parameters
        ----------
        n : int
            How many.
        query : str, optional
            The first one unless named.
        direction : {"harmful", "helpful", "both"}
            Harmful: removal betters the query (lowers a loss, raises an accuracy), or adding worsens it.

        Returns
        -------
        pandas.DataFrame
            As `to_frame`.
        """
        one_of(direction, ("harmful", "helpful", "both"), "direction")
        order = strongest(self.data, self._query(query), direction)[:n]
        return self.to_frame(self._query(query)).iloc[order].reset_index(drop=True)

    def predict(
        self, subsets: Sequence[Any], query: str | None = None, *, together: "Influence | None" = None
    ) -> pd.DataFrame:
        r"""Return what removing subsets together (adding them, if that was asked) is predicted to do to each query.

        .. math:: \widehat{\text{effect}}(S) = \frac{n-1}{n-|S|} \sum_{i \in S} \text{shrunken}_i

        Subsets that were chosen for being extreme are the ones whose errors are extreme: the sum of their effects as
        estimated exaggerates. That of the shrunken ones does not, whichever way they were chosen by the estimate.

        Parameters
        ----------
        subsets : sequence
            Ids of rows, or names of groups that share no row.
        query : str, optional
            All of them unless named.
        together : Influence, optional
            Of the same rows replayed as one subset, paired: `fi.replay(tape, queries, subsets={"list": rows})`; of
            several tapes, pooled.

        Returns
        -------
        pandas.DataFrame
            Indexed by query: `rows`, `effect` and its `sd` (errors of rows taken as independent), `unshrunken`, the sum
            as estimated, and `sign_error`, the share of subsets expected to have no effect or the opposite one; with
            `together` also `interaction`, the factor that is in `effect` and `sd`, NaN where effects cancel.

        Raises
        ------
        DataError
            There is no such subset, or `together` is of other rows, queries or another training.
        NotSupportedError
            There are no effects, or those of `together` are of first order.

        Examples
        --------
        >>> made = Provenance(method="example", runs=1, covers=("batch order",), n_rows=40)
        >>> effect = np.where(np.arange(40) < 4, 9.0, np.random.default_rng(0).normal(size=40))[:, None]
        >>> influence = Influence.build(effect=effect, effect_se=np.ones((40, 1)), spread=np.ones((40, 1)),
        ...     se=np.ones((40, 1)), p_value=np.ones((40, 1)), subsets=range(40), queries=["q"], provenance=made)
        >>> influence.predict([0, 1, 2, 3])[["rows", "effect", "sd", "unshrunken"]].round(0).values.tolist()
        [[4.0, 38.0, 2.0, 39.0]]
        """
        need_effect(self.data, "a prediction")
        at = pd.Index(self.subsets.tolist()).get_indexer(list(subsets))
        if (at < 0).any():
            raise DataError(_unknown_subset(list(subsets)[int(np.argmin(at))], self.subsets))
        names = self.queries if query is None else [self._query(query)]
        found = {name: removed(self.data, name, np.unique(at)) for name in names}
        told = pd.DataFrame([as_line(one, query=name) for name, one in found.items()]).set_index("query")
        if together is not None:
            told["interaction"] = [
                interaction(self.data, together.data, k, one.count) for k, one in found.items()
            ]
            told[["effect", "sd"]] = told[["effect", "sd"]].mul(told["interaction"], axis=0)
        return told

    def select(
        self,
        fdr: float = 0.1,
        query: str | Sequence[str] | None = None,
        direction: Direction = "harmful",
        *,
        interval: Literal["feedback"] | None = None,
        pairs: pd.DataFrame | None = None,
    ) -> pd.DataFrame:
        """Return the subsets that can be told from the bulk at a false-discovery rate.

        The rule is that of `finfluence.stats.name_rows`, which reports, scans and cleaning follow, too. The null is
        empirical: it is fitted to the middle of all subsets' μ, so that an error common to all of them does not count
        as a discovery. Fewer than 50 subsets are held against their own p-values. An empty frame means that nothing
        can be told from training noise.

        Parameters
        ----------
        fdr : float
            Expected share of false names among the subsets returned.
        query : str or sequence of str, optional
            The first one unless named. Of several, each is one test, all of them together keep the rate, and a line is
            that of the query which tells the subset best.
        direction : {"harmful", "helpful", "both"}
            The side that is named.
        interval : {"feedback"}, optional
            Say what removing all named subsets together does, with an interval that allows for their having been chosen
            by their own estimates: `removal_interval`, from groups that were retrained without.
        pairs : pandas.DataFrame, optional
            Those groups with estimate and retrained effect, as `Verification.points`. A verified result carries its
            own.

        Returns
        -------
        pandas.DataFrame
            As `to_frame`, with `q_value`, strongest first; `attrs["findings"]` qualifies it. With an interval
            `attrs["removal"]` holds a `Removal` for each query that was asked (none if nothing is named).

        Raises
        ------
        ConfigError
            `fdr` is not between 0 and 1, a query, the direction or the interval is unknown, an interval is asked of
            both directions at once, or without retrained groups.
        NotSupportedError
            There are scores only, or (for an interval) no effects.

        Examples
        --------
        >>> made = Provenance(method="example", runs=1, covers=("batch order",), n_rows=200)
        >>> effect = np.where(np.arange(200) < 4, -9.0, np.random.default_rng(0).normal(size=200))[:, None]
        >>> influence = Influence.build(effect=effect, effect_se=np.ones((200, 1)), spread=np.ones((200, 1)),
        ...     se=np.ones((200, 1)), p_value=np.ones((200, 1)), subsets=range(200), queries=["loss"],
        ...     provenance=made)
        >>> groups = pd.DataFrame({"kind": ["top"] * 9, "query": "loss", "size": 5, "effect": -10.0,
        ...                        "true_effect": -np.arange(4.0, 13.0)})
        >>> chosen = influence.select(query="loss", interval="feedback", pairs=groups)
        >>> print(chosen.attrs["removal"]["loss"].sentence)  # doctest: +NORMALIZE_WHITESPACE
        Removing the 12 named rows is predicted to change loss by -38.1 [-45.7, -15.2] (80 %, by what became of the
        estimates of 9 groups from the ends of the list, of which none had more than 5 rows).
        """
        need_mu(self.data, "select")
        one_of(direction, ("harmful", "helpful", "both"), "direction")
        asked = [query] if query is None or isinstance(query, str) else query
        names = [self._query(name) for name in asked]
        chosen = select(self.data, names, fdr, direction)
        if interval is None:
            return chosen
        one_of(interval, ("feedback",), "interval")
        need_effect(self.data, "an interval")
        chosen.attrs["removal"] = removals(self.data, chosen["row_id"].tolist(), names, direction, pairs)
        return chosen

    def compare(self, other: "Influence", k: int | None = None) -> Comparison:
        """Return how far another result agrees with this one: two seeds, or two methods.

        Parameters
        ----------
        other : Influence
            With some rows and queries in common; values are compared as they rank rows, harmful on top.
        k : int, optional
            Size of the tops that are compared; a tenth of the shared rows, at most 100, unless given.

        Returns
        -------
        Comparison
            For each shared query Pearson and Spearman correlation, and the overlap of the k most harmful rows beside
            that of two random choices.

        Raises
        ------
        DataError
            Nothing is shared.
        ConfigError
            `k` is not between 1 and the number of shared rows.
        """
        return compare(self.data, other.data, k)

    def plot(
        self,
        kind: Literal["intervals", "distribution", "tradeoff"] = "intervals",
        query: str | None = None,
        *,
        n: int = 20,
        subset: Any = None,
        fdr: float = 0.1,
        ax: Any = None,
    ) -> "Axes":
        """Draw the result by matplotlib.

        Parameters
        ----------
        kind : {"intervals", "distribution", "tradeoff"}
            *intervals*: μ of the n rows of largest |μ|. *distribution*: μ of all rows beside its empirical null.
            *tradeoff*: misses against false alarms for one subset.
        query : str, optional
            The first one unless named.
        n : int
            Rows of *intervals*.
        subset : optional
            Of *tradeoff*: the most harmful one unless named.
        fdr : float
            Of *distribution*: rate at which rows are named.
        ax : matplotlib.axes.Axes, optional
            Where to draw.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ConfigError
            The kind or the query is unknown, or matplotlib is not installed.
        DataError
            The subset is unknown.
        NotSupportedError
            The result lacks what the plot shows.
        """
        if subset is not None and subset not in self.subsets.tolist():
            raise DataError(_unknown_subset(subset, self.subsets))
        return plot(self.data, kind, self._query(query), n=n, subset=subset, fdr=fdr, ax=ax)

    def grid(
        self,
        data: Any,
        rows: Sequence[Any] | None = None,
        *,
        n: int = 12,
        query: str | None = None,
        direction: Direction = "harmful",
    ) -> Grid:
        """Return images or texts of rows beside each other, for a notebook.

        Parameters
        ----------
        data : mapping or sequence
            What each row looks like: an image array (height × width, channels last or first; uint8, or floats from 0 to
            1), or a text. By id, or in the order of `subsets`.
        rows : sequence, optional
            Ids of the rows to show; else the `n` strongest.
        n : int
            How many, if `rows` is not given.
        query : str, optional
            The first one unless named.
        direction : {"harmful", "helpful", "both"}
            As in `top`.

        Returns
        -------
        Grid

        Raises
        ------
        DataError
            A row is unknown, or the data does not hold it.
        ConfigError
            The direction or query is unknown, or an item is no image.
        """
        every = self.subsets.tolist()
        lines = self.top(n, query, direction) if rows is None else self.to_frame(self._query(query))
        if rows is not None:
            at = pd.Index(every).get_indexer(list(rows))
            if (at < 0).any():
                raise DataError(_unknown_subset(list(rows)[int(np.argmin(at))], self.subsets))
            lines = lines.iloc[at]
        ids, symbol = lines["row_id"].tolist(), "μ" if self.has_mu else "score"
        values = lines["mu" if self.has_mu else "score"].tolist()
        return grid(ids, values, symbol, items_of(data, ids, every))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save as a Zarr folder, atomically. No pickle."""
        save(self.data, path)

    def report(self, path: str | os.PathLike[str], query: str | None = None, fdr: float = 0.1) -> None:
        """Write the result as one self-contained HTML page."""
        write_report(report_content(self.data, query=query, fdr=fdr), path)

    def _query(self, name: str | None) -> str:
        return self.queries[0] if name is None else one_of(name, self.queries, "query")


def _unknown_subset(subset: Any, known: np.ndarray) -> str:
    some = [str(v) for v in known[:20_000].tolist()]
    near = difflib.get_close_matches(str(subset), some, n=3)
    other = f", a {type(subset).__name__} where ids are {type(known[0].item()).__name__}"
    return explain(
        f"the id of one of the {len(known):,} subsets, such as {', '.join(map(repr, known[:3].tolist()))}",
        f"{subset!r}{other if str(subset) in some else ''}",
        "a mistyped id, or the position of a row instead of its id",
        f"did you mean {' or '.join(map(repr, near))}?" if near else "see .subsets for the ids",
    )


def _check_parts(
    present: Mapping[str, np.ndarray], further: Mapping[str, np.ndarray], shape: tuple[int, int]
) -> None:
    """Refuse arrays of another shape, and what is none of the three kinds of result."""
    wrong = {name: a.shape for name, a in {**present, **further}.items() if a.shape != shape}
    if wrong:
        raise DataError(
            explain(
                f"arrays of shape {shape}, one value for each (subset, query)",
                str(wrong),
                "an estimator built its result from mismatched parts",
                "pass arrays [subsets, queries]",
            )
        )
    whole = {"effect", "spread", "se", "p_value"} <= present.keys() and "score" not in present
    if not whole and set(present) not in ({"mu"}, {"score"}):
        raise DataError(
            explain(
                "one of three: effect, spread, se and p_value together; mu alone; score alone",
                ", ".join(present) or "none of them",
                "an estimator built its result from mismatched parts",
                "pass what the method knows, and leave out the rest: nothing is filled in by NaN",
            )
        )


def _completed(present: Mapping[str, np.ndarray], level: float) -> dict[str, np.ndarray]:
    """Return effects with what follows from them: μ, its interval, and an unknown error of the effect."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mu = present.get("mu", present["effect"] / present["spread"])
    done = {"effect_se": np.full(mu.shape, np.nan), **present, "mu": mu}
    if "lower" not in done or "upper" not in done:
        half = norm.ppf((1 + level) / 2) * present["se"]
        done = {"lower": mu - half, "upper": mu + half, **done}
    return done
