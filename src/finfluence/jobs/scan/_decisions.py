"""From influence to one decision per row, and to the table that is written: one line per row and query."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from finfluence.clean import DecisionOptions, Decisions, Predictions, decide_influence
from finfluence.ingest import Table
from finfluence.jobs.scan._estimate import Estimate
from finfluence.jobs.scan._folder import TABLE, ScanFolder
from finfluence.jobs.scan._labels import RowLabels
from finfluence.jobs.scan._options import HELD_OUT, OWN
from finfluence.stats import RowTest, name_rows

COLUMNS = (
    "row_id", "query", "effect", "spread", "mu", "se", "lower", "upper", "p_value", "q_value", "flagged",
    "suggested_action", "suggested_label", "own_loss", "reason", "decided_by", "loo_loss", "oof_loss", "p_wrong",
    "label", "predicted", "confidence", "group", "effect_se", "q_influence", "q_opposite", "q_loss",
    "shrunken", "shrunken_sd", "sign_error",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Decided:
    """One decision per row, and the lines of `influence.parquet`."""

    decisions: Decisions
    lines: pd.DataFrame


def decide_rows(
    estimate: Estimate, train: Table, fdr: float, judged: RowLabels | None = None, *, told: bool = True
) -> Decided:
    """Decide about every row by its worst query and by what models that have not seen it say of its label.

    Of V tests (the queries, and the label) each query is held against fdr / V by `name_rows`, and the label, which
    alone changes rows, against fdr: what it names keeps the level, and so does what the queries name together. Whether
    a row is *helpful* is asked of the held-out loss alone.

    Parameters
    ----------
    judged
        Of the training rows, in their order; None where there are too few rows to judge labels: then the queries alone
        decide, and `predicted` is what the finished models say.
    told
        Whether the network predicts rows that it has not seen better than a constant does: otherwise its influence
        names nothing.

    Returns
    -------
    Decided
    """
    influence = estimate.influence
    queries = [q for q in influence.queries if q != OWN]
    said = _said(estimate, train, judged)
    data = influence.data
    first = decide_influence(
        influence,
        HELD_OUT,
        predictions=said,
        options=DecisionOptions(fdr),
    )
    q_each, findings = {HELD_OUT: first.frame["q_influence"].to_numpy()}, list(first.findings)
    for name in queries[1:]:
        p_values = data["p_value"].sel(query=name).values
        found = name_rows([RowTest(name, influence.harm(name), p_values)], fdr)
        q_each[name] = found.q_each[0]
        findings += [f"{name}: {text}" for text in found.findings]
    frame = first.frame.copy()
    if not told:
        q_each = {name: np.ones(len(frame)) for name in q_each}
        findings, frame["q_opposite"] = [], 1.0
    frame["own_loss"] = data["own_loss"].values
    tests = len(queries) + (0 if judged is None else 1)
    lines = _lines(influence.to_frame(), q_each, frame, train)
    decisions = worst_of(
        lines, replace(first, frame=frame, tests=tests, findings=tuple(dict.fromkeys(findings)))
    )
    return Decided(decisions, _judged(lines, decisions))


def _said(estimate: Estimate, train: Table, judged: RowLabels | None) -> Predictions:
    """Return labels and predictions: out of fold, or else of the finished models."""
    classes = train.target.classes
    labels = plain_labels(train.labels)
    if judged is None:
        said = estimate.predicted.argmax(1) if classes else estimate.predicted[:, 0]
        confidence = estimate.predicted.max(1) if classes else np.full(len(train), np.nan)
        return Predictions(labels, plain_labels(train.target.decode(said)), confidence)
    return Predictions(
        labels,
        plain_labels(train.target.decode(judged.predicted)),
        judged.sure,
        judged.q_wrong,
        judged.p_wrong,
        judged.oof_loss,
    )


def worst_of(lines: pd.DataFrame, like: Decisions) -> Decisions:
    """Return the decisions by each row's worst query, at the level of `like`."""
    asked = lines[lines["query"] != OWN]
    order = asked.assign(_place=np.arange(len(asked))).sort_values(["q_influence", "_place"], kind="stable")
    worst = order.drop_duplicates("row_id").sort_values("_place", kind="stable").set_index("row_id")
    ids = like.frame["row_id"]
    frame = like.frame.assign(
        mu=worst["mu"].reindex(ids).to_numpy(), q_influence=worst["q_influence"].reindex(ids).to_numpy()
    )
    decided = replace(like, frame=frame).at(like.fdr)
    by = np.where(
        decided.frame["reason"].isin(("influence", "both")), worst["query"].reindex(ids).to_numpy(), ""
    )
    return replace(decided, frame=decided.frame.assign(decided_by=by))


def read_lines(folder: ScanFolder) -> pd.DataFrame:
    """Return the table of a finished scan; columns that earlier versions did not write are empty."""
    lines = folder.read_frame(TABLE)
    later = ("loo_loss", "oof_loss", "p_wrong", "shrunken", "shrunken_sd", "sign_error")
    return lines.assign(**{c: np.nan for c in later if c not in lines})


def from_table(lines: pd.DataFrame, summary: dict[str, Any], fdr: float) -> Decisions:
    """Return the decisions of a finished scan, from its table, at any level.

    A scan of an earlier version held labels against the level divided by the number of tests, and is decided so again.

    Returns
    -------
    Decisions
    """
    rows = lines[lines["query"] == HELD_OUT].reset_index(drop=True)
    if not summary.get("labels_at_the_whole_level", False):
        rows = rows.assign(q_loss=np.minimum(1.0, int(summary["voices"]) * rows["q_loss"]))
    like = Decisions(
        frame=rows,
        fdr=fdr,
        tests=int(summary["voices"]),
        relabel_confidence=float(summary["relabel_confidence"]),
        direction="harmful",
    )
    return worst_of(lines, like)


def line_tests(lines: pd.DataFrame) -> list[RowTest]:
    """Return the two tests that a line of the table holds: influence on its query, and the row's label."""
    return [
        RowTest("influence", q_values=lines["q_influence"].to_numpy()),
        RowTest("loss", q_values=lines["q_loss"].to_numpy(), own_level=True),
    ]


def plain_labels(values: np.ndarray) -> np.ndarray:
    """Return labels of one type: as they are if they all are of one, else as texts."""
    items = values.tolist()
    kinds = {type(v) for v in items}
    result = np.empty(len(items), dtype=object)
    if kinds == {float}:
        items = [float(f"{v:.6g}") for v in items]
    result[:] = items if len(kinds) == 1 and kinds <= {str, int, float, bool} else [str(v) for v in items]
    return result


def _lines(
    lines: pd.DataFrame, q_each: dict[str, np.ndarray], frame: pd.DataFrame, train: Table
) -> pd.DataFrame:
    names = lines["query"].to_numpy()
    lines = lines[(names != OWN) | lines["mu"].notna().to_numpy()].reset_index(drop=True)
    at = pd.Index(frame["row_id"]).get_indexer(lines["row_id"])
    q = np.ones(len(lines))
    for name, values in q_each.items():
        here = (lines["query"] == name).to_numpy()
        q[here] = values[at[here]]
    groups = (
        np.full(len(frame), "", dtype=object)
        if train.groups is None
        else train.groups.astype(str).astype(object)
    )
    extra = {
        c: frame[c].to_numpy()[at]
        for c in (
            "label",
            "predicted",
            "confidence",
            "q_opposite",
            "q_loss",
            "own_loss",
            "oof_loss",
            "p_wrong",
        )
    }
    apart = lines.loc[lines["query"] == OWN].set_index("row_id")["effect"].reindex(lines["row_id"]).to_numpy()
    return lines.assign(q_influence=q, group=groups[at], loo_loss=extra["own_loss"] + apart, **extra)


def _judged(lines: pd.DataFrame, decisions: Decisions) -> pd.DataFrame:
    """Add what was decided: q-value and flag of the line's own query, action of the row."""
    rows = decisions.frame
    at = pd.Index(rows["row_id"]).get_indexer(lines["row_id"])
    own = (lines["query"] == OWN).to_numpy()
    named = name_rows(line_tests(lines), decisions.fdr, paid=decisions.tests)
    judged = lines.assign(
        q_value=np.where(own, np.nan, named.q_values),
        flagged=np.where(own, False, named.flagged).astype(bool),
        **{
            c: rows[c].to_numpy()[at] for c in ("suggested_action", "suggested_label", "reason", "decided_by")
        },
    )
    return judged[list(COLUMNS)]
