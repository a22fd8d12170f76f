"""From decisions to a cleaned table and the record of what was done to which row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from finfluence._indices import same_rows
from finfluence.clean._decide import Decisions
from finfluence.errors import ConfigError, DataError, explain

Action = Literal["suggested", "drop", "relabel", "review"]
AUDIT_COLUMNS = (
    "row_id",
    "line",
    "action",
    "from_label",
    "to_label",
    "reason",
    "mu",
    "q_value",
    "own_loss",
    "threshold",
)


@dataclass(frozen=True, eq=False)
class Plan:
    """What happens to each row of a source, in the source's order.

    Attributes
    ----------
    keep
        False for rows that leave.
    to_label
        New label by position, for the rows that get one.
    audit
        One line per flagged row; `line` is filled by the caller, who knows the source.
    positions
        Position in the source of each line of `audit`.
    """

    keep: np.ndarray
    to_label: dict[int, Any]
    audit: pd.DataFrame
    positions: np.ndarray


@dataclass(frozen=True, eq=False)
class Cleaned:
    """A cleaned frame, with the same columns in the same order, and its audit frame."""

    frame: pd.DataFrame
    audit: pd.DataFrame


def apply(
    decisions: Decisions,
    frame: pd.DataFrame,
    *,
    target: str | None = None,
    ids: ArrayLike | None = None,
    action: Action = "suggested",
    fdr: float | None = None,
) -> Cleaned:
    """Return the frame without the dropped rows and with the relabelled ones, and what was done to which row.

    Parameters
    ----------
    decisions
        From `decide`. Rows of the frame that it does not mention are kept (held-out rows, for instance).
    frame
        The rows, in any order; not changed.
    target
        Column that a new label goes into. Needed where a row is relabelled.
    ids
        Row ids of the frame, one per row; its index by default. Rows are matched by id, never by position.
    action
        "suggested": each row's own suggestion. "drop": every flagged row leaves. "relabel": flagged rows with
        a suggested label get it, the others stay, for review. "review": nothing changes but the audit.
    fdr
        Another false-discovery rate than the decisions were made at.

    Returns
    -------
    Cleaned

    Raises
    ------
    DataError
        A decision names an id that the frame does not hold, or every row would leave.

    Examples
    --------
    >>> from finfluence.clean import decide
    >>> rng = np.random.default_rng(0)
    >>> mu = np.r_[rng.laplace(size=970), np.full(30, -25.0)]
    >>> cleaned = apply(decide(np.arange(1000), mu), pd.DataFrame({"x": mu}))
    >>> len(cleaned.frame), cleaned.audit["action"].unique().tolist()
    (966, ['drop'])
    """
    same_rows(frame=frame, ids=ids)
    keys = frame.index.to_numpy() if ids is None else np.asarray(ids)
    if keys.shape != (len(frame),):
        raise DataError(
            explain(
                f"one id per row, {len(frame)} in all",
                f"{keys.size} ids",
                "ids of another part of the data",
                "pass the ids of this frame, in its order",
            )
        )
    plan = make_plan(decisions, keys, action, fdr)
    after = frame
    if plan.to_label:
        column = target_column(target, frame.columns)
        values = frame[column].astype(object).to_numpy(copy=True)
        for position, label in plan.to_label.items():
            values[position] = label
        series = pd.Series(values, index=frame.index, dtype=object)
        if isinstance(frame[column].dtype, pd.CategoricalDtype):
            known = frame[column].cat.categories
            dtype: Any = pd.CategoricalDtype(
                known.union(pd.Index(series.unique()), sort=False), frame[column].cat.ordered
            )
        else:
            dtype = frame[column].dtype
        after = frame.assign(**{column: series.astype(dtype)})
    audit = plan.audit.assign(line=plan.positions + 1)
    if target is not None and target in frame.columns:
        audit["from_label"] = frame[target].astype(object).to_numpy()[plan.positions]
    return Cleaned(after[plan.keep], audit)


def make_plan(
    decisions: Decisions, source_ids: Sequence[Any] | np.ndarray, action: Action, fdr: float | None
) -> Plan:
    """Match decisions to the rows of a source by the text of their ids, and settle what happens to each."""
    if action not in get_args(Action):
        raise ConfigError(
            explain(
                f"action to be one of {', '.join(get_args(Action))}",
                f"{action!r}",
                "a misspelt option",
                "leave it out to follow each row's own suggestion",
            )
        )
    at = decisions if fdr is None else decisions.at(fdr)
    place = _places(source_ids)
    frame = at.frame
    names = frame["row_id"].map(str)
    unknown = names[~names.isin(place)]
    if len(unknown):
        raise DataError(
            explain(
                "every decided row to be in the source, by its id",
                f"{len(unknown)} of {len(names)} ids are not, for instance {unknown.head(3).tolist()}",
                "another file than the one that was scanned, or another id column",
                "name the scanned file and its id column; to clean a new version of it, scan that first",
            )
        )
    flagged = frame[frame["flagged"]]
    done = _settled(flagged, action)
    positions = np.array([place[str(row)] for row in flagged["row_id"]], dtype=np.int64)
    keep = np.ones(len(source_ids), dtype=bool)
    keep[positions[done == "drop"]] = False
    if len(keep) and not keep.any():
        raise DataError(
            explain(
                "some rows to remain",
                f"all {len(keep)} rows would be dropped",
                "a level that flags everything",
                "choose a smaller --fdr, or --action review",
            )
        )
    labels = flagged["suggested_label"].to_numpy(dtype=object)
    to_label = {int(positions[i]): labels[i] for i in np.flatnonzero(done == "relabel")}
    audit = pd.DataFrame(
        {
            "row_id": flagged["row_id"].to_numpy(),
            "line": positions,
            "action": done,
            "from_label": flagged["label"].to_numpy(dtype=object),
            "to_label": pd.Series(labels, dtype=object).where(done == "relabel", None),
            "reason": flagged["reason"].to_numpy(),
            "mu": flagged["mu"].to_numpy(),
            "q_value": flagged["q_value"].to_numpy(),
            "own_loss": flagged["own_loss"].to_numpy(),
            "threshold": np.full(len(flagged), at.fdr),
        },
        columns=list(AUDIT_COLUMNS),
    )
    order = np.argsort(positions, kind="stable")
    return Plan(keep, to_label, audit.iloc[order].reset_index(drop=True), positions[order])


def target_column(target: str | None, columns: Any) -> str:
    """Return the target's column, or say that it is missing."""
    known = {str(name).strip(): name for name in columns}
    if target is not None and target not in columns and str(target).strip() in known:
        return str(known[str(target).strip()])
    if target is None or target not in columns:
        raise DataError(
            explain(
                "the column that holds the labels, in order to relabel",
                f"target {target!r}; the source has {[str(c) for c in columns][:20]}",
                "the target was not named, or the file is another one",
                'name the target column, or use action="drop"',
            )
        )
    return target


def _settled(flagged: pd.DataFrame, action: Action) -> np.ndarray:
    if action == "suggested":
        return flagged["suggested_action"].to_numpy(dtype=object)
    if action == "relabel":
        return np.where(flagged["suggested_label"].isna(), "review", "relabel").astype(object)
    return np.full(len(flagged), action, dtype=object)


def _places(source_ids: Sequence[Any] | np.ndarray) -> dict[str, int]:
    place = {str(value): position for position, value in enumerate(source_ids)}
    if len(place) < len(source_ids):
        raise DataError(
            explain(
                "unique ids in the source",
                f"{len(source_ids) - len(place)} ids that repeat",
                "a column that is no id",
                "name another id column, or none: rows are then counted from 0",
            )
        )
    return place
