"""One line per group: its labels, its losses, what removing it does on other groups' rows, and the verdict."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from finfluence.jobs._words import change, counted
from finfluence.jobs.scan._check_words import measured
from finfluence.jobs.scan._group_labels import GROUP_LEVEL, holm
from finfluence.jobs.scan._group_questions import GroupQuestions
from finfluence.jobs.scan._options import HELD_OUT
from finfluence.report import Table
from finfluence.result import Influence

OF_LABELS = ("contradicted", "expected", "z_label", "p_label", "p_label_adjusted", "named", "oof_loss")
OF_INFLUENCE = ("p_value_adjusted", "harmful", "asked_rows")
GONE, INSTEAD = "without − original", "random removals − original"
_FLAGS = ("named", "harmful")
MOST_LINES = 200


def group_lines(
    found: Influence,
    judged: Sequence[Mapping[str, Any]],
    questions: GroupQuestions,
    checks: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Return what is known of every group of training rows, the worst first.

    Parameters
    ----------
    found
        Influence of the groups, each on held-out rows of other groups.
    judged
        What `judge_groups` found of their labels; empty where no label was judged.
    checks
        Content of `groups-proof.json`, once groups were retrained without.

    Returns
    -------
    list of dict
        `group`, `rows` (held-out ones included, where labels were judged), what `judge_groups` lists, `training_rows`,
        `own_loss`, `effect` on the held-out loss, `mu`, `lower`, `upper`, `p_value`, `p_value_adjusted` (Holm over the
        groups), `harmful` (removal is estimated to lower the loss, at 5 % over all groups; never of a group
        `of_own_class`, as `GroupQuestions` tells them), `confirmed` (whether
        training without it surely lowers the loss on other held-out rows; None where that was not tried), `asked_rows`,
        `bad` (a bad source of labels, or harmful: where groups were retrained without, confirmed to be so). Unknown
        numbers are None.

    Notes
    -----
    The p-value of an effect knows the chance of training, not that of the held-out rows asked; the retraining check,
    on other held-out rows, knows both. So a group that is only harmful is believed as far as that check goes.
    """
    labels = {line["group"]: line for line in judged}
    order = {line["group"]: k for k, line in enumerate(judged)}
    data = found.data.sel(query=HELD_OUT)
    adjusted, harm = holm(data["p_value"].values), found.harm(HELD_OUT)
    tried = any(check["differences"] for check in (checks or {}).values())
    lines = []
    for k, group in enumerate(map(str, found.subsets.tolist())):
        known = labels.get(group, {})
        alone = group in questions.of_own_class
        harmful = bool(harm[k] > 0 and adjusted[k] <= GROUP_LEVEL) and not alone
        named = bool(known.get("named", False))
        confirmed = _confirmed((checks or {}).get(group))
        size = int(data["size"].values[k])
        lines.append(
            {
                "group": group,
                "rows": known.get("rows", size),
                **{name: known.get(name) for name in OF_LABELS},
                "named": named,
                "training_rows": size,
                "own_loss": _known(data["own_loss"].values[k]),
                **{v: _known(data[v].values[k]) for v in ("effect", "mu", "lower", "upper", "p_value")},
                "p_value_adjusted": _known(adjusted[k]),
                "harmful": harmful,
                "of_own_class": alone,
                "confirmed": confirmed,
                "asked_rows": questions.asked_rows(group),
                "bad": named or (harmful and (confirmed is True or not tried)),
            }
        )
    far = [-harm[k] if np.isfinite(harm[k]) else math.inf for k in range(len(lines))]
    places = sorted(
        range(len(lines)),
        key=lambda k: (
            not lines[k]["bad"],
            not lines[k]["named"],
            far[k] if lines[k]["bad"] and not lines[k]["named"] else order.get(lines[k]["group"], len(order)),
            far[k],
        ),
    )
    return [lines[k] for k in places]


def with_group_columns(frame: pd.DataFrame, lines: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the table of the groups' influence with what is known beside it, the worst group first.

    Adjusted p-values and verdicts are of the held-out loss; other queries have their own lines of influence.

    Returns
    -------
    pd.DataFrame
    """
    place = {line["group"]: k for k, line in enumerate(lines)}
    at = np.array([place[str(name)] for name in frame["row_id"]])
    columns: dict[str, np.ndarray] = {
        name: np.array([lines[k][name] for k in at], dtype=bool if name in _FLAGS else float)
        for name in (*OF_LABELS, *OF_INFLUENCE)
    }
    elsewhere = (frame["query"] != HELD_OUT).to_numpy()
    columns["p_value_adjusted"][elsewhere] = np.nan
    order = np.argsort(at, kind="stable")
    return frame.assign(**columns).iloc[order].reset_index(drop=True)


def groups_sentence(lines: Sequence[Mapping[str, Any]], checks: Mapping[str, Any] | None = None) -> str:
    """Say which groups are bad sources of labels, which do harm, and what training without them does; or nothing.

    Parameters
    ----------
    lines
        As `group_lines` returns them.
    checks
        Content of `groups-proof.json`: the retraining without each, by name.

    Returns
    -------
    str

    Examples
    --------
    >>> line = {"group": "s3", "rows": 300, "contradicted": 110, "expected": 52.3, "p_label_adjusted": 1e-9,
    ...         "named": True, "bad": True}
    >>> groups_sentence([line])
    'Bad source s3: the models contradict 110 of its 300 labels, where 52 were expected (adjusted p < 0.001).'
    """
    said = []
    for line in lines:
        if line["bad"]:
            text = _of_labels(line) if line["named"] else _of_influence(line)
            check = (checks or {}).get(line["group"])
            said.append(text + (f"; {_retrained(check)}" if check and check["arms"] else "") + ".")
    return " ".join(said)


def questions_sentence(lines: Sequence[Mapping[str, Any]], questions: GroupQuestions) -> str:
    """Say on which held-out rows groups were asked."""
    if not questions.apart:
        return (
            "The held-out rows name no groups: every group is asked on all of them, and one whose faults they share "
            "may seem to help."
        )
    low, high = (f(line["asked_rows"] for line in lines) for f in (min, max))
    counts = f"{low:,} to {high:,}" if low < high else f"{low:,}"
    none = "" if low else "; where there are none, it is not asked"
    asked = f"Each group is asked on held-out rows of other groups alone ({counts} rows{none})"
    alone = [line["group"] for line in lines if line.get("of_own_class")]
    cannot = (
        f" What removing {' or '.join(map(repr, alone[:5]))} does cannot be told: other groups hardly have rows of the "
        "classes in it, and a model that no longer knows these does better on all others."
        if alone
        else ""
    )
    return f"{asked}: its own may share its faults.{cannot}"


def groups_tables(
    lines: Sequence[Mapping[str, Any]],
    checks: Mapping[str, Any] | None,
    questions: GroupQuestions | None,
    paired: bool,
) -> list[Table]:
    """Return the tables of the page, which stand before the rows: the groups, and the retraining without them."""
    if not lines or questions is None:
        return []
    how = "each measured by a run without it, paired with the recorded one" if paired else "to first order"
    rows = tuple(
        (
            line["group"], verdict_of(line), line["training_rows"], line["contradicted"], line["expected"],
            line["p_label_adjusted"], line["own_loss"], line["oof_loss"], line["effect"], line["p_value_adjusted"],
            line["mu"], line["lower"], line["upper"],
        )
        for line in lines[:MOST_LINES]
    )  # fmt: skip
    note = (
        "Contradicted: labels, held-out rows included, that models which have not seen them contradict; expected: by "
        "the models' own doubts. Own loss: of its training rows at the end of training; out-of-fold loss: by models "
        f"that have not seen them. Effect: what removing the whole group does to the held-out loss, {how}; positive: "
        "removal raises the loss, so the group helps. Both p-values are adjusted over the groups (Holm), and each "
        "names groups at 5 %; a harm that training without the group does not show on other held-out rows is not "
        "confirmed, and where the worst were trained without, only they are called harmful. "
        f"{questions_sentence(lines, questions)}"
    )
    columns = (
        "group", "verdict", "training rows", "contradicted labels", "expected", "adjusted p (labels)", "own loss",
        "out-of-fold loss", "effect", "adjusted p (effect)", "μ", "lower", "upper",
    )  # fmt: skip
    title = "Groups of rows, the worst first"
    return [Table(title=title, columns=columns, rows=rows, note=note, early=True), *_of_checks(checks)]


def verdict_of(line: Mapping[str, Any]) -> str:
    """Return the verdict about a group in a few words, or nothing.

    Returns
    -------
    str

    Examples
    --------
    >>> verdict_of({"named": True, "harmful": True, "confirmed": False})
    'bad source, harm not confirmed'
    >>> verdict_of({"named": False, "harmful": True, "confirmed": None, "bad": False})
    'harm not checked'
    """
    unchecked = line.get("confirmed") is None and not line.get("bad", True)
    harm = (
        "harm not confirmed"
        if line.get("confirmed") is False
        else "harm not checked"
        if unchecked
        else "harmful"
    )
    words = (
        ("bad source", line["named"]), (harm, line.get("harmful", False)),
        ("its classes are its own", line.get("of_own_class", False)),
    )  # fmt: skip
    return ", ".join(word for word, is_so in words if is_so)


def _of_checks(checks: Mapping[str, Any] | None) -> list[Table]:
    rows = [
        (group, check["changed_rows"], d["metric"], d["name"], d["value"], d["lower"], d["upper"])
        for group, check in (checks or {}).items()
        for d in check["differences"]
    ]
    if not rows:
        return []
    return [
        Table(
            title="Trained again without the named groups",
            columns=("group", "rows left out", "measured by", "comparison", "difference", "lower", "upper"),
            rows=tuple(rows),
            note="Measured on held-out rows of the other groups; runs are compared under the same seeds, and as many "
            "random rows are left out beside. 95 % intervals over trainings and held-out rows.",
            early=True,
        )
    ]


def _of_labels(line: Mapping[str, Any]) -> str:
    labels, expected = counted(line["rows"], "label"), f"{line['expected']:,.0f}"
    return (
        f"Bad source {line['group']}: the models contradict {line['contradicted']:,} of its {labels}, where {expected} "
        f"were expected ({_adjusted(line['p_label_adjusted'])})"
    )


def _of_influence(line: Mapping[str, Any]) -> str:
    rows = counted(line["training_rows"], "row")
    return (
        f"Harmful group {line['group']}: removing its {rows} is estimated to lower the loss on held-out "
        f"rows of other groups by {abs(line['effect']):.3g} ({_adjusted(line['p_value_adjusted'])})"
    )


def _retrained(check: Mapping[str, Any]) -> str:
    """Say what training without the group did to the loss, beside random removals."""
    loss = check["metrics"][0]["name"]
    found = {d["name"]: d for d in check["differences"] if d["metric"] == loss}
    return (
        f"trained again, leaving it out {change(loss, found[GONE])} on rows of other groups, where leaving out "
        f"{counted(check['changed_rows'], 'random row')} {change(loss, found[INSTEAD])}"
    )


def check_of_group(check: Mapping[str, Any]) -> str:
    """Say all that training without a group did on held-out rows of the others.

    Returns
    -------
    str
    """
    return (
        f"trained again {check['arms'][0]['runs']} times without its {counted(check['changed_rows'], 'training row')}, "
        f"on held-out rows of other groups: leaving it out {measured(check, GONE)}"
    )


def _confirmed(check: Mapping[str, Any] | None) -> bool | None:
    if check is None or not check["differences"]:
        return None
    loss = check["metrics"][0]["name"]
    return any(d["upper"] < 0 for d in check["differences"] if d["metric"] == loss and d["name"] == GONE)


def _adjusted(p: float) -> str:
    return "adjusted p < 0.001" if p < 0.001 else f"adjusted p = {p:.3f}"


def _known(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
