"""What a scan says: the verdict, the retraining check and the command, in plain sentences."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pandas as pd

from finfluence.clean import Decisions
from finfluence.jobs._words import change, command_line, signed
from finfluence.jobs.scan._options import ScanOptions

REVIEW = "The list for review"
NOTHING = "Nothing can be told from training noise"


def counts(decisions: Decisions) -> dict[str, Any]:
    """Return how many rows are named, by whom, and what is suggested for them."""
    frame = decisions.frame
    named = frame[frame["flagged"]]
    by_query: pd.Series = named.loc[named["reason"].isin(("influence", "both")), "decided_by"].value_counts()
    return {
        "rows": len(frame),
        "named": len(named),
        "harmful": int(named["reason"].isin(("influence", "both")).sum()),
        "doubted": int(named["reason"].isin(("loss", "both")).sum()),
        "both": int((named["reason"] == "both").sum()),
        "by_query": {
            str(k): int(v) for k, v in sorted(by_query.items(), key=lambda item: (-item[1], str(item[0])))
        },
        "ambiguous": int((frame["suggested_action"] == "ambiguous").sum()),
        "actions": {a: int((named["suggested_action"] == a).sum()) for a in ("drop", "relabel", "review")},
    }


def verdict(found: Mapping[str, Any], fdr: float) -> str:
    """Return the one sentence that the scan ends in.

    Returns
    -------
    str

    Examples
    --------
    >>> verdict({"rows": 500, "named": 0, "harmful": 0, "doubted": 0, "by_query": {}}, 0.1)
    'Nothing can be told from training noise: none of 500 rows is named at a false-discovery rate of 10 %.'
    >>> verdict({"rows": 500, "named": 20, "harmful": 20, "doubted": 0, "by_query": {"held-out": 20}}, 0.1)
    '20 of 500 rows make the held-out loss worse; at a false-discovery rate of 10 % about 2 of these are named wrongly.'
    """
    n, named = f"{found['rows']:,}", found["named"]
    level = f"{100 * fdr:.3g} %"
    if not named:
        return f"{NOTHING}: none of {n} rows is named at a false-discovery rate of {level}."
    false = fdr * named
    wrongly = f"about {round(false)}" if false >= 1 else "less than one"
    verb = "are" if round(false) > 1 else "is"
    tail = f"at a false-discovery rate of {level} {wrongly} of these {verb} named wrongly."
    loss = (
        "held-out loss"
        if set(found["by_query"]) <= {"held-out"}
        else "loss on held-out rows or on one class of them"
    )
    harmful, doubted = found["harmful"], found["doubted"]
    if not doubted:
        return f"{named:,} of {n} rows make the {loss} worse; {tail}"
    if not harmful:
        return (
            f"{named:,} of {n} rows carry a label that the models contradict (none can be told to make the {loss} "
            f"worse); {tail}"
        )
    return (
        f"{named:,} of {n} rows are named: {harmful:,} make the {loss} worse, {doubted:,} carry a label that the "
        f"models contradict ({found['both']:,} both); {tail}"
    )


def label_sentences(labels: Mapping[str, Any] | None, doubted: int) -> list[str]:
    """Say how well models predict rows that they have not seen, and what the list for review is likely to hold.

    Parameters
    ----------
    labels
        Content of `labels.json`; None where there were too few rows to judge labels.
    doubted
        How many labels are named wrong.

    Returns
    -------
    list of str
    """
    if labels is None:
        return []
    best, constant = labels["scores"][0], next(s for s in labels["scores"] if s["name"] == "constant")
    if labels["held_out_accuracy"] is not None:
        models, without = (f"{100 * v:.1f} %" for v in labels["held_out_accuracy"])
        reached = f"an accuracy of {models} (a constant: {without})"
    else:
        reached = (
            f"a mean error of {best['loss']:.3g} standard deviations (a constant: {constant['loss']:.3g})"
        )
    if not labels["told"]:
        return [
            f"No model predicts rows that it has not seen better than a constant does: together they reach {reached}. "
            "So no label can be told right or wrong, and none is named."
        ]
    said = [f"On rows that they had not seen the best models reach {reached}."]
    if not doubted:
        low, high = (round(v) for v in labels["expected_wrong"])
        said.append(
            f"No label is named wrong. {REVIEW} begins with the {labels['listed']:,} most doubtful ones: between "
            f"{low:,} and {max(low, high):,} of them are wrong."
        )
    if labels["planted"]:
        said.append(f"{labels['planted'][:1].upper()}{labels['planted'][1:]}.")
    return said


def check_sentence(check: Mapping[str, Any] | None) -> str:
    """Say what cleaning did to the held-out loss and to the accuracy or error, beside random removal."""
    if check is None:
        return ""
    if not check["arms"]:
        return "The trainings of the retraining check diverged: nothing can be said about the effect of cleaning."
    found = {(d["metric"], d["name"]): d for d in check["differences"]}
    parts = []
    for metric in check["metrics"]:
        cleaned = found[metric["name"], "cleaned − original"]
        parts.append(change(metric["name"], cleaned, metric["better"]))
    random = found[check["metrics"][0]["name"], "random removals − original"]
    runs = check["arms"][0]["runs"]
    beside = (
        "changes it by " + signed(random)
        if random["lower"] * random["upper"] > 0
        else "does not change it measurably"
    )
    return (
        f"Trained again ({runs} times each) on the cleaned rows, {' and '.join(parts)}; removing "
        f"{check['changed_rows']:,} random rows instead {beside} ({check['metrics'][0]['name']})."
    )


def surer(check: Mapping[str, Any]) -> bool:
    """Return whether cleaning surely raised the held-out loss of a classification without lowering its accuracy."""
    found = {(d["metric"], d["name"]): d for d in check["differences"]}
    loss = found.get(("held-out loss", "cleaned − original"))
    accuracy = found.get(("held-out accuracy", "cleaned − original"))
    return loss is not None and accuracy is not None and loss["lower"] > 0 and accuracy["upper"] > 0


def harmed(check: Mapping[str, Any] | None) -> bool:
    """Return whether the retraining check shows harm: the held-out loss surely up, the accuracy not surely up.

    Returns
    -------
    bool

    Examples
    --------
    >>> up, down = {"lower": 0.1, "upper": 0.2}, {"lower": -0.2, "upper": -0.1}
    >>> loss, accuracy = ({"metric": f"held-out {m}", "name": "cleaned − original"} for m in ("loss", "accuracy"))
    >>> harmed({"differences": [{**loss, **up}, {**accuracy, **down}]})
    True
    >>> harmed({"differences": [{**loss, **up}, {**accuracy, **up}]}), harmed(None)
    (False, False)
    """
    if check is None:
        return False
    found = {d["metric"]: d for d in check["differences"] if d["name"] == "cleaned − original"}
    loss, accuracy = found.get("held-out loss"), found.get("held-out accuracy")
    return loss is not None and loss["lower"] > 0 and not (accuracy is not None and accuracy["lower"] > 0)


def command(run: Mapping[str, Any], out: str) -> str:
    """Return the command line that repeats the scan, with every resolved option."""
    options, training = run["options"], run["training"]
    resolved = {
        "out": out,
        "task": run["data"]["task"],
        "lr": training["optimizer"]["lr"],
        **{name: training[name] for name in ("model", "epochs", "batch_size")},
        "proof_runs": run["proof_runs"] or None,
    }
    return command_line("scan", fields(ScanOptions), {**options, **resolved})
