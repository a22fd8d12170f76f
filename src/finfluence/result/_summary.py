"""A result as report content: for results that stand alone, and as building blocks for the scan's report."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
import xarray as xr

from finfluence.report import (
    Distribution,
    Finding,
    Origin,
    QueryInfo,
    ReportContent,
    RowEntry,
    Table,
    finding,
)
from finfluence.result._extremes import chance_findings, extremes, extremes_sentence, removed
from finfluence.result._names import one_of
from finfluence.result._provenance import Provenance
from finfluence.result._schema import TWIN, kind_of
from finfluence.result._select import decide_rows, pairs_of, removals
from finfluence.result._text import DOING, covers_sentence, sign_sentence, verification_sentence
from finfluence.result._views import frame, order_by, query_names, ranking, scores_sentence, shrunken_mu

SHOWN = 250
_BINS = 60


def report_content(data: xr.Dataset, query: str | None = None, fdr: float = 0.1) -> ReportContent:
    """Return what a report on a result shows: all queries, or the one that is named.

    Parameters
    ----------
    data : xarray.Dataset
        `Influence.data`.
    query : str, optional
        One query. Else each of them is one test of every row, and all of them together keep the rate.
    fdr : float
        Expected share of false names among the named rows.

    Returns
    -------
    ReportContent
        For scores alone a ranking, and the statement that nothing was decided.
    """
    names = query_names(data) if query is None else [one_of(query, query_names(data), "query")]
    made, kind = Provenance.from_dict(data.attrs), kind_of(data)
    n = data.sizes["subset"]
    common: dict[str, Any] = {
        "title": f"Influence of {n:,} rows",
        "queries": query_infos(data, names),
        "meaning": meaning(data, names),
        "origin": Origin(facts=_facts(made)),
        "level": made.level,
    }
    noted = tuple(finding(code, text) for code, text in made.coded())
    if kind == "score":
        return ReportContent(
            **common,
            verdict=f"Scores rank {n:,} rows; they carry no error rate, so nothing was decided.",
            findings=(*verification_findings(made.verification), *noted),
            tables=tuple(_ranking(data, name) for name in names),
        )
    rows: list[RowEntry] = []
    distributions: list[Distribution] = []
    named = decide_rows(data, names, fdr)
    for k, name in enumerate(names):
        q_values = np.minimum(named.tests * named.q_each[k], 1.0)
        lines = frame(data, [name]).assign(q_value=q_values, flagged=named.flagged_by[k])
        rows += row_entries(lines, ranking(data, name))
        distributions += distribution(data, name, named.thresholds[k])
    findings = [finding("FI020", t) for t in named.findings]
    findings += [finding("FI029", f"{t[:1].upper()}{t[1:]}.") for t in chance_findings(data, names)]
    removal = _removal(data, names, named.flagged)
    predicted = () if removal else _predicted(data, names, named.flagged)
    said = (*common.pop("meaning"), *_extremes(data, names[:3]), *predicted)
    return ReportContent(
        **common,
        meaning=said,
        verdict=f"{verdict(int(named.flagged.sum()), n, names, fdr)} {removal}".strip(),
        rows=tuple(rows),
        findings=(*verification_findings(made.verification), *findings, *noted),
        distributions=tuple(distributions),
    )


def verdict(named: int, rows: int, queries: Sequence[str], fdr: float) -> str:
    """Return the sentence that a decision over some queries ends in.

    Returns
    -------
    str

    Examples
    --------
    >>> verdict(1, 30, ["held-out"], 0.1)
    "1 of 30 rows makes 'held-out' worse; at a false-discovery rate of 10 % about 0 of these are named wrongly."
    """
    asked = f"'{queries[0]}'" if len(queries) == 1 else f"one of {len(queries)} queries"
    if not named:
        return f"Nothing can be told from training noise: no row of {rows:,} is named on {asked}."
    false = round(fdr * named)
    return (
        f"{named:,} of {rows:,} rows make{'s' if named == 1 else ''} {asked} worse; at a false-discovery rate of "
        f"{100 * fdr:.3g} % about {false} of these {'is' if false == 1 else 'are'} named wrongly."
    )


def _extremes(data: xr.Dataset, names: Sequence[str]) -> list[str]:
    """Say what the strongest rows of some queries add up to."""
    found = [one for name in names if (one := extremes(data, name)) is not None]
    return [f"{text[:1].upper()}{text[1:]}." for text in map(extremes_sentence, found)]


def _predicted(data: xr.Dataset, names: Sequence[str], flagged: np.ndarray) -> tuple[str, ...]:
    """Say what removing all named rows together is predicted to do to the first query, if any are named."""
    if kind_of(data) != "effect" or TWIN[0] not in data or not flagged.any():
        return ()
    found, unit = (
        removed(data, names[0], np.flatnonzero(flagged)),
        str(data["unit"].sel(query=names[0]).item()),
    )
    doing = DOING[Provenance.from_dict(data.attrs).contrast].capitalize()
    by = f"{found.effect:+.2g} ± {found.sd:.2g} {unit}".rstrip()
    return (f"{doing} all named rows together is predicted to change '{names[0]}' by {by}.",)


def _removal(data: xr.Dataset, names: Sequence[str], flagged: np.ndarray) -> str:
    """Say what removing the named rows does to the first query, where groups retrained without give it an interval."""
    made = Provenance.from_dict(data.attrs)
    if kind_of(data) != "effect" or TWIN[0] not in data or not flagged.any() or made.contrast != "remove":
        return ""
    if pairs_of(made.verification) is None:
        return ""
    found = removals(data, data["subset"].values[flagged].tolist(), names[:1], "harmful")[names[0]]
    return found.sentence if found.known else ""


def _ranking(data: xr.Dataset, name: str) -> Table:
    """Return the most harmful and the most helpful rows by score on one query, the most harmful first."""
    value = ranking(data, name)
    order = np.argsort(-np.nan_to_num(value, nan=-np.inf), kind="stable")
    shown = order if len(order) <= 2 * SHOWN else np.concatenate([order[:SHOWN], order[-SHOWN:]])
    place = {int(i): k for k, i in enumerate(order, start=1)}
    ids, score = data["subset"].values.tolist(), data["score"].sel(query=name).values
    left = len(order) - len(shown)
    return Table(
        title=f"Ranking by score on “{name}”, most harmful first",
        columns=("rank", "row", "score"),
        rows=tuple((place[int(i)], str(ids[int(i)]), float(score[i])) for i in shown),
        note=f"{left:,} rows between these are left out." if left else "",
    )


def row_entries(frame: pd.DataFrame, harm: np.ndarray, shown: int = SHOWN, **more: Any) -> list[RowEntry]:
    """Return the entries of one query: what is flagged, and the `shown` most harmful and most helpful rows.

    Parameters
    ----------
    frame
        As `Influence.to_frame` of one query, with `q_value` and `flagged`.
    harm
        μ of each line, turned so that larger is more harmful. Lines are ranked by their shrunken effect where it is
        known, else by this.
    **more
        Further fields of `RowEntry`, each a sequence over the lines of `frame`.

    Returns
    -------
    list[RowEntry]
    """
    order = _strongest_lines(frame, harm)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(1, len(order) + 1)
    wanted = np.asarray(frame["flagged"], dtype=bool).copy()
    wanted[order[:shown]] = True
    wanted[order[max(0, len(order) - shown) :]] = True
    names = ("mu", "lower", "upper", "se", "effect", *TWIN, "spread", "p_value", "q_value", "own_loss")
    columns = {name: frame[name].to_numpy(dtype=np.float64) for name in names if name in frame}
    ids, queries, flagged = frame["row_id"].tolist(), frame["query"].tolist(), frame["flagged"].tolist()
    return [
        RowEntry(
            row_id=str(ids[i]),
            query=str(queries[i]),
            rank=int(rank[i]),
            flagged=bool(flagged[i]),
            **cast(Any, {name: float(values[i]) for name, values in columns.items()}),
            **{name: values[i] for name, values in more.items()},
        )
        for i in order[wanted[order]]
    ]


def _strongest_lines(lines: pd.DataFrame, harm: np.ndarray) -> np.ndarray:
    if not {"shrunken", "spread", "mu"} <= set(lines):
        return order_by(harm, harm)
    mu, shrunken, spread = (lines[name].to_numpy(dtype=np.float64) for name in ("mu", "shrunken", "spread"))
    side = -1.0 if np.nansum(harm * mu) < 0 else 1.0
    return order_by(harm, shrunken_mu(shrunken, spread, mu) * side)


def distribution(data: xr.Dataset, name: str, threshold: float = float("nan")) -> list[Distribution]:
    """Return the histogram of μ on one query (none where μ does not vary), beside the mirror image of its bulk.

    The drawn null is what the flagged side would hold if it looked like the other one.

    Returns
    -------
    list[Distribution]
    """
    mu = data["mu"].sel(query=name).values
    mu = mu[np.isfinite(mu)]
    if len(mu) < 2 or mu.min() == mu.max():
        return []
    low, high = np.quantile(mu, [0.002, 0.998])
    reach = max(high - low, 1e-12)
    edges = np.linspace(max(mu.min(), low - 0.3 * reach), min(mu.max(), high + 0.3 * reach), _BINS + 1)
    clipped = np.clip(mu, edges[0], edges[-1])
    counts = np.histogram(clipped, edges)[0]
    centre = float(np.median(mu))
    sign = int(data["sign"].sel(query=name)) * Provenance.from_dict(data.attrs).harmful_side
    helpful = clipped[(clipped - centre) * sign <= 0]
    mirrored = np.histogram(np.concatenate([helpful, 2 * centre - helpful]), edges)[0]
    middles = 0.5 * (edges[1:] + edges[:-1])
    return [
        Distribution(
            query=name,
            edges=tuple(edges.tolist()),
            counts=tuple(counts.astype(float).tolist()),
            thresholds=(sign * float(threshold),) if np.isfinite(threshold) else (),
            null_x=tuple(middles.tolist()),
            null_y=tuple(mirrored.astype(float).tolist()),
        )
    ]


def query_infos(data: xr.Dataset, names: Sequence[str]) -> tuple[QueryInfo, ...]:
    """Return name, sign and unit of the queries, and what is done to the rows."""
    contrast = Provenance.from_dict(data.attrs).contrast
    return tuple(
        QueryInfo(
            name=n,
            sign=int(data["sign"].sel(query=n)),
            unit=str(data["unit"].sel(query=n).item()),
            contrast=contrast,
        )
        for n in names
    )


def meaning(data: xr.Dataset, names: Sequence[str]) -> tuple[str, ...]:
    """Return the sentences on sign, unit, number of runs and covered randomness."""
    infos, made, kind = query_infos(data, names[:3]), Provenance.from_dict(data.attrs), kind_of(data)
    signs = [sign_sentence(q.name, q.unit, q.sign, made.contrast, kind) + "." for q in infos]
    said = scores_sentence(data)
    only = (f"{said[:1].upper()}{said[1:]}.",) if kind == "score" else ()
    covers = covers_sentence(made, kind)
    passed = (made.verification or {}).get("verdict") == "passed"
    verified = (verification_sentence(made.verification),) if passed else ()
    return (*only, *signs, f"{covers[:1].upper()}{covers[1:]}.", *verified)


def verification_findings(outcome: Mapping[str, Any] | None) -> tuple[Finding, ...]:
    """Return the finding of a verification that did not pass: FI050 failed, FI051 undecided, FI052 only in order."""
    code = {"failed": "FI050", "undecided": "FI051", "order-only": "FI052"}.get(
        (outcome or {}).get("verdict", "")
    )
    return () if code is None else (finding(code, verification_sentence(outcome)),)


def _facts(made: Provenance) -> dict[str, Any]:
    """Return what is known of the making, as plain values."""
    found: dict[str, Any] = {"method": made.method, "runs": made.runs, "rows": made.n_rows}
    if made.recipe:
        found["optimiser"] = ", ".join(f"{k} {v}" for k, v in made.recipe["optimizer"].items())
        found["batch size"], found["epochs"] = made.recipe["batch_size"], made.recipe["epochs"]
        found["data"] = made.recipe["data"]
    return found | {f"version of {k}": v for k, v in made.versions.items()}
