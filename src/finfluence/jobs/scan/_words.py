"""What a scan says: the verdict, its reasons and the command, in plain sentences."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pandas as pd

from finfluence.clean import Decisions
from finfluence.jobs._words import command_line
from finfluence.jobs.scan._options import BOUNDED, HELD_OUT, ScanOptions

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
        if set(found["by_query"]) <= {HELD_OUT, BOUNDED}
        else "loss on held-out rows or on one class of them"
    )
    harmful, doubted = found["harmful"], found["doubted"]
    worse = f"{'makes' if harmful == 1 else 'make'} the {loss} worse"
    carry = f"{'carries' if doubted == 1 else 'carry'} a label that the models contradict"
    if not doubted:
        return f"{named:,} of {n} rows {worse}; {tail}"
    if not harmful:
        return f"{named:,} of {n} rows {carry} (none can be told to make the {loss} worse); {tail}"
    return (
        f"{named:,} of {n} rows {'is' if named == 1 else 'are'} named: {harmful:,} {worse}, {doubted:,} {carry} "
        f"({found['both']:,} both); {tail}"
    )


def whole_verdict(summary: Mapping[str, Any]) -> str:
    """Return the verdict of a finished scan, with what removing the named rows does if a verification measured it.

    Parameters
    ----------
    summary
        Content of `scan.json`.

    Returns
    -------
    str

    Examples
    --------
    >>> whole_verdict({"verdict": "3 rows.", "verification": {"removal": "Removing them lowers it by 1 to 2."}})
    '3 rows. Removing them lowers it by 1 to 2.'
    """
    return f"{summary['verdict']} {(summary.get('verification') or {}).get('removal', '')}".strip()


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
            f"No label is named wrong. {REVIEW} begins with the {labels['listed']:,} most doubtful ones: "
            f"{about_wrong(low, high)}."
        )
    if labels["planted"]:
        said.append(f"{labels['planted'][:1].upper()}{labels['planted'][1:]}.")
    return said


def about_wrong(low: int, high: int) -> str:
    """Say how many of some labels are wrong, by the ends of a range.

    Returns
    -------
    str

    Examples
    --------
    >>> about_wrong(0, 0), about_wrong(1, 1), about_wrong(4, 4)
    ('none of them is wrong', 'about one of them is wrong', 'about 4 of them are wrong')
    >>> about_wrong(2, 9)
    'between 2 and 9 of them are wrong'
    """
    high = max(low, high)
    if low < high:
        return f"between {low:,} and {high:,} of them are wrong"
    few = {0: "none of them is wrong", 1: "about one of them is wrong"}
    return few.get(low, f"about {low:,} of them are wrong")


def choice_sentences(choice: Mapping[str, Any] | None) -> list[str]:
    """Say which network was trained, and how well it predicts training rows that it has not seen.

    Parameters
    ----------
    choice
        What `Choice.described` returned; None for a scan that made no choice.

    Returns
    -------
    list of str
    """
    if choice is None:
        return []
    if not choice["rows"]:
        return [
            f"Too few rows to compare networks: {choice['model']} was trained, and its influence names nothing."
        ]
    by_name = {one["model"]: one for one in choice["tried"]}
    best, constant = by_name[choice["model"]], by_name["constant"]
    how = "as asked" if choice["asked"] else "the simplest of the best in cross-validation"
    passes = f"{best['epochs']} {'epoch' if best['epochs'] == 1 else 'epochs'}"
    reached = f"{_score(best, choice['task'])}; a constant reaches {_score(constant, choice['task'])}"
    if not choice["told"]:
        who = (
            f"The network asked for ({choice['model']}) predicts rows that it has not seen no better"
            if choice["asked"]
            else "No network predicts rows that it has not seen better"
        )
        return [
            f"{who} than a constant does, by two standard errors ({choice['model']}: {reached}). What it learned is "
            "noise, and its influence names nothing."
        ]
    return [
        f"Network: {choice['model']}, {passes} ({how}). On training rows that it had not seen it reaches {reached}."
    ]


def memorised_sentence(fitted: tuple[int, int] | None) -> str:
    """Say whether the network learned doubtful labels by heart.

    Parameters
    ----------
    fitted
        Training labels that models which had not seen them contradict, and how many of these the trained network
        predicts; None where that was not asked.

    Returns
    -------
    str

    Examples
    --------
    >>> memorised_sentence((40, 36))[:88]
    'Of 40 labels that models which had not seen them contradict, the trained network predict'
    """
    if fitted is None or not fitted[0]:
        return ""
    doubtful, learned = fitted
    by_heart = (
        "it learned many of them by heart, so that its own loss tells little of them"
        if learned > 0.5 * doubtful
        else "it did not learn them by heart"
    )
    return (
        f"Of {doubtful:,} labels that models which had not seen them contradict, the trained network predicts "
        f"{learned:,} as they are given: {by_heart}."
    )


def power_sentence(effects: Mapping[str, float] | None) -> str:
    """Say how large the effect of a row would have had to be.

    Parameters
    ----------
    effects
        `needed`, `largest` (both on the held-out loss, `unit`) and `loss`, that loss itself.

    Returns
    -------
    str
        Where the largest estimate exceeds what usual rows would need, that it was not enough.

    Examples
    --------
    >>> power_sentence({"needed": 0.004, "largest": 0.001, "loss": 0.1, "unit": "nats"})[:94]
    'To be named for its influence, a row would have had to raise the held-out loss by about 0.004 '
    >>> power_sentence({"needed": 0.001, "largest": 0.004, "loss": 0.1, "unit": "nats"})[:89]
    'The largest estimate, a row that raises the held-out loss by 0.004 nats (4 % of it), does'
    """
    if effects is None:
        return ""
    needed, largest = effects["needed"], effects["largest"]
    if largest >= needed:
        return (
            f"The largest estimate, a row that raises the held-out loss by {largest:.2g} {effects['unit']} "
            f"({100 * largest / effects['loss']:.2g} % of it), does not stand out from those of the other rows, or is "
            "not sure enough, for the row to be named for its influence."
        )
    return (
        f"To be named for its influence, a row would have had to raise the held-out loss by about {needed:.2g} "
        f"{effects['unit']} ({100 * needed / effects['loss']:.2g} % of it; seen then four times in five); the largest "
        f"estimate is {largest:.2g}."
    )


def _score(one: Mapping[str, Any], task: str) -> str:
    if task != "classification":
        return f"half a mean squared error of {one['loss']:.3f} (in standard deviations)"
    return f"a log loss of {one['loss']:.3f} and an accuracy of {100 * one['accuracy']:.1f} %"


def command(run: Mapping[str, Any], out: str) -> str:
    """Return the command line that repeats the scan, with every resolved option."""
    options, training = run["options"], run["training"]
    resolved = {
        "out": out,
        "task": run["data"]["task"],
        "lr": training["optimizer"]["lr"],
        "weight_decay": training["optimizer"]["weight_decay"],
        **{name: training[name] for name in ("model", "epochs", "batch_size")},
        "proof_runs": run["proof_runs"] or None,
    }
    return command_line("scan", fields(ScanOptions), {**options, **resolved})
