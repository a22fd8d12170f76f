"""A result as report content: for results that stand alone, and as building blocks for the scan's report."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from finfluence.report import Distribution, Finding, Origin, QueryInfo, ReportContent, RowEntry
from finfluence.result._names import one_of
from finfluence.result._text import covers_sentence, sign_sentence, verification_sentence
from finfluence.stats import empirical_fdr

if TYPE_CHECKING:
    from finfluence.result._influence import Influence

SHOWN = 250
_BINS = 60


def content(influence: "Influence", query: str | None = None, fdr: float = 0.1) -> ReportContent:
    """Return what a report on `influence` shows: all queries, or the one that is named."""
    names = influence.queries if query is None else [one_of(query, influence.queries, "query")]
    rows: list[RowEntry] = []
    distributions: list[Distribution] = []
    findings: list[Finding] = []
    verdicts: list[str] = []
    for name in names:
        found = empirical_fdr(
            influence.harm(name), fdr=fdr, p_values=influence.data["p_value"].sel(query=name).values
        )
        frame = influence.to_frame(name).assign(q_value=found.q_values, flagged=found.flagged)
        rows += row_entries(frame, influence.harm(name))
        distributions += distribution(influence, name, found.threshold)
        findings += [Finding(code="FI020", severity="warning", text=f"{name}: {t}") for t in found.findings]
        n, named = len(frame), int(found.flagged.sum())
        verdicts.append(
            f"{named:,} of {n:,} rows make '{name}' worse; at a false-discovery rate of {100 * fdr:.3g} % about "
            f"{round(fdr * named)} of these {'are' if round(fdr * named) != 1 else 'is'} named wrongly."
            if named
            else f"Nothing can be told from training noise: no row of {n:,} is named on '{name}'."
        )
    attrs = influence.data.attrs
    return ReportContent(
        title=f"Influence of {len(influence.subsets):,} rows",
        verdict=verdicts[0],
        queries=query_infos(influence, names),
        rows=tuple(rows),
        findings=(
            *verification_findings(attrs),
            *findings,
            *(Finding(code="FI010", severity="info", text=str(t)) for t in attrs.get("findings", [])),
        ),
        meaning=meaning(influence, names),
        distributions=tuple(distributions),
        origin=Origin(facts=facts(attrs)),
        level=float(attrs["level"]),
    )


def row_entries(frame: pd.DataFrame, harm: np.ndarray, shown: int = SHOWN, **more: Any) -> list[RowEntry]:
    """Return the entries of one query: what is flagged, and the `shown` most harmful and most helpful rows.

    Parameters
    ----------
    frame
        As `Influence.to_frame` of one query, with `q_value` and `flagged`.
    harm
        Orientation of each line: larger is more harmful.
    **more
        Further fields of `RowEntry`, each a sequence over the lines of `frame`.
    """
    order = np.argsort(-np.nan_to_num(harm, nan=-np.inf), kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(1, len(order) + 1)
    wanted = np.asarray(frame["flagged"], dtype=bool).copy()
    wanted[order[:shown]] = True
    wanted[order[max(0, len(order) - shown) :]] = True
    names = ("mu", "lower", "upper", "se", "effect", "spread", "p_value", "q_value", "own_loss")
    columns = {name: frame[name].to_numpy(dtype=np.float64) for name in names}
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


def _at(columns: dict[str, np.ndarray], more: dict[str, Any], i: int) -> dict[str, Any]:
    return {name: float(v[i]) for name, v in columns.items()} | {name: v[i] for name, v in more.items()}


def distribution(influence: "Influence", name: str, threshold: float = float("nan")) -> list[Distribution]:
    """Return the histogram of μ on one query (none where μ does not vary), beside the mirror image of its bulk.

    The drawn null is what the flagged side would hold if it looked like the other one.
    """
    mu = influence.data["mu"].sel(query=name).values
    mu = mu[np.isfinite(mu)]
    if len(mu) < 2 or mu.min() == mu.max():
        return []
    low, high = np.quantile(mu, [0.002, 0.998])
    reach = max(high - low, 1e-12)
    edges = np.linspace(max(mu.min(), low - 0.3 * reach), min(mu.max(), high + 0.3 * reach), _BINS + 1)
    clipped = np.clip(mu, edges[0], edges[-1])
    counts = np.histogram(clipped, edges)[0]
    centre = float(np.median(mu))
    sign = int(influence.data["sign"].sel(query=name))
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


def query_infos(influence: "Influence", names: Sequence[str]) -> tuple[QueryInfo, ...]:
    """Return name, sign and unit of the queries."""
    data = influence.data
    return tuple(
        QueryInfo(name=n, sign=int(data["sign"].sel(query=n)), unit=str(data["unit"].sel(query=n).item()))
        for n in names
    )


def meaning(influence: "Influence", names: Sequence[str]) -> tuple[str, ...]:
    """Return the sentences on sign, unit, number of runs and covered randomness."""
    infos = query_infos(influence, names[:3])
    signs = [sign_sentence(q.name, q.unit, q.sign) + "." for q in infos]
    attrs = influence.data.attrs
    passed = attrs.get("verification", {}).get("verdict") == "passed"
    verified = (verification_sentence(attrs),) if passed else ()
    return (*signs, covers_sentence(attrs).capitalize() + ".", *verified)


def verification_findings(attrs: dict[str, Any]) -> tuple[Finding, ...]:
    """Return the finding of a verification that did not pass: FI050 failed, FI051 undecided."""
    verdict = attrs.get("verification", {}).get("verdict")
    if verdict == "failed":
        return (Finding(code="FI050", severity="error", text=verification_sentence(attrs)),)
    if verdict == "undecided":
        return (Finding(code="FI051", severity="warning", text=verification_sentence(attrs)),)
    return ()


def facts(attrs: dict[str, Any]) -> dict[str, Any]:
    """Return what the attributes say about the making, as plain values."""
    recipe = attrs.get("recipe", {})
    found: dict[str, Any] = {"method": attrs["method"], "runs": attrs["runs"], "rows": attrs["n_rows"]}
    if recipe:
        found["optimiser"] = ", ".join(f"{k} {v}" for k, v in recipe["optimizer"].items())
        found["batch size"], found["epochs"] = recipe["batch_size"], recipe["epochs"]
        found["data"] = recipe["data"]
    found |= {f"version of {k}": v for k, v in attrs.get("versions", {}).items()}
    return found
