"""Which sources and rows are named, and which rows a retuning takes out: one place for all."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from finfluence.jobs.tune._estimate import Estimate
from finfluence.jobs.tune._prepared import Prepared
from finfluence.stats import RowTest, name_rows

GROUP, ROW, RANK = "group", "row", "ranking"
HEART = 0.25
"""Share of its loss before tuning below which a source counts as learned by heart."""
COLUMNS = (
    "row_id", "query", "ranking_score", "rank", "effect", "effect_se", "spread", "mu", "se", "lower", "upper",
    "p_value", "q_value", "loss_before", "own_loss", "group", "flagged", "suggested_action", "reason",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Decided:
    """Lines of the tables, and the rows that are taken out.

    Attributes
    ----------
    lines, groups : DataFrame
        Of `influence.parquet` and of `groups.parquet` (empty without groups).
    removed : array [n] of bool
        Rows that are named, by their source or by themselves; if none is, the top of the ranking.
    why : str
        "group", "row", or "ranking": the last carries no error rate.
    findings : tuple of str
    """

    lines: pd.DataFrame
    groups: pd.DataFrame
    removed: np.ndarray
    why: str
    findings: tuple[str, ...]


def decide(estimate: Estimate, prepared: Prepared, fdr: float, top: float) -> Decided:
    """Name sources, and rows where there are several runs, at the level; rank the rows.

    Sources are named by Holm's rule over all of them and all behaviours, so that with a chance of `fdr` at most any is
    named wrongly; rows at a false-discovery rate of `fdr`. One run tells of a single row only in
    what order it stands: its rows are ranked, not named.

    Returns
    -------
    Decided
    """
    influence = estimate.influence
    names = influence.queries
    sources = _sources(estimate, prepared, fdr)
    named_groups = set() if sources.empty else set(sources.loc[sources["flagged"], "group"])
    of_row = (
        np.full(len(influence.subsets), "", dtype=object)
        if prepared.texts.groups is None
        else prepared.texts.groups
    )
    by_group = (
        np.isin(of_row.astype(str), sorted(named_groups)) if named_groups else np.zeros(len(of_row), bool)
    )
    by_row, q_values, more = _rows(estimate, fdr)
    removed, why = by_group | by_row, GROUP if by_group.any() else ROW
    if not removed.any():
        count = max(1, round(top * len(of_row)))
        worst = estimate.ranking.max(1) if len(names) > 1 else estimate.ranking[:, 0]
        removed = np.zeros(len(of_row), bool)
        removed[np.argsort(-worst, kind="stable")[:count]] = True
        why = RANK
    lines = influence.to_frame()
    place = {row: k for k, row in enumerate(influence.subsets.tolist())}
    at = lines["row_id"].map(place).to_numpy()
    column = lines["query"].map({name: k for k, name in enumerate(names)}).to_numpy()
    ranks = np.argsort(np.argsort(-estimate.ranking, 0, kind="stable"), 0, kind="stable") + 1
    flagged = (by_group | by_row)[at]
    lines = lines.assign(
        ranking_score=estimate.ranking[at, column],
        rank=ranks[at, column],
        q_value=q_values[at, column],
        group=of_row[at].astype(str),
        loss_before=estimate.loss_before[at],
        own_loss=influence.data["own_loss"].values[at],
        flagged=flagged,
        suggested_action=np.where(flagged, "drop", "keep"),
        reason=np.where(by_group[at], GROUP, np.where(by_row[at], ROW, "")),
    )
    return Decided(lines[list(COLUMNS)], sources, removed, why, more)


def _sources(estimate: Estimate, prepared: Prepared, fdr: float) -> pd.DataFrame:
    """Return the effects of sources, and which are named: few as they are, by Holm's rule over all behaviours."""
    if estimate.groups is None:
        return pd.DataFrame()
    data, names = estimate.groups.data, estimate.groups.queries
    harm = np.stack([estimate.groups.harm(name) for name in names], 1)
    p_values = np.nan_to_num(data["p_value"].sel(query=names).values, nan=1.0)
    one_sided = np.where(harm > 0, p_values / 2, 1 - p_values / 2)
    _, adjusted, *_ = multipletests(one_sided.ravel(), method="holm")
    q_values = adjusted.reshape(harm.shape)
    frame = estimate.groups.to_frame().rename(columns={"row_id": "group"})
    place = {str(g): k for k, g in enumerate(estimate.groups.subsets.tolist())}
    at = frame["group"].astype(str).map(place).to_numpy()
    column = frame["query"].map({name: k for k, name in enumerate(names)}).to_numpy()
    before = {
        name: float(estimate.loss_before[np.asarray(prepared.texts.groups).astype(str) == name].mean())
        for name in place
    }
    after = dict(zip(place, data["own_loss"].values.tolist(), strict=True))
    sized = frame.assign(
        group=frame["group"].astype(str),
        rows=data["size"].values[at],
        loss_before=frame["group"].astype(str).map(before),
        loss_after=frame["group"].astype(str).map(after),
        q_value=q_values[at, column],
        flagged=q_values[at, column] <= fdr,
    )
    return sized


def _rows(estimate: Estimate, fdr: float) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return which rows are named, their q-values by behaviour, and what qualifies it."""
    influence = estimate.influence
    n, names = len(influence.subsets), influence.queries
    if len(estimate.each) == 1:
        text = (
            "One run: its rows are ranked, and sources decided about; to name rows at an error rate takes several "
            "(--runs 4)."
        )
        return np.zeros(n, bool), np.full((n, len(names)), np.nan), (text,)
    data = influence.data
    tests = [RowTest(name, influence.harm(name), data["p_value"].sel(query=name).values) for name in names]
    found = name_rows(tests, fdr)
    q: Any = np.minimum(1.0, np.stack(list(found.q_each)) * len(names)).T
    return found.flagged, q, found.findings
