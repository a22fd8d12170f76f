"""What a scan says: the verdict, the proof and the command, in plain sentences."""

import shlex
from collections.abc import Mapping
from typing import Any

import pandas as pd

from finfluence.clean import Decisions

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
        "actions": {a: int((named["suggested_action"] == a).sum()) for a in ("drop", "relabel", "review")},
    }


def verdict(found: Mapping[str, Any], fdr: float) -> str:
    """Return the one sentence that the scan ends in.

    Examples
    --------
    >>> verdict({"rows": 500, "named": 0, "harmful": 0, "doubted": 0, "by_query": {}}, 0.1)
    'Nothing can be told from training noise: none of 500 rows is named at a false-discovery rate of 10 %.'
    >>> verdict({"rows": 500, "named": 20, "harmful": 20, "doubted": 0, "by_query": {"held-out": 20}}, 0.1)
    '20 of 500 rows make the held-out loss worse; at a false-discovery rate of 10 % about 2 of these are named wrongly.'
    """
    n, named, level = f"{found['rows']:,}", found["named"], f"{fdr:.3g}"
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


def proof_sentence(proof: Mapping[str, Any] | None) -> str:
    """Say what cleaning did to the held-out loss and to the accuracy or error, beside random removal."""
    if proof is None:
        return ""
    if not proof["arms"]:
        return "The trainings of the proof diverged: nothing can be said about the effect of cleaning."
    found = {(d["metric"], d["name"]): d for d in proof["differences"]}
    parts = []
    for metric in proof["metrics"]:
        cleaned = found[metric["name"], "cleaned − original"]
        parts.append(_change(metric["name"], cleaned, metric["better"]))
    random = found[proof["metrics"][0]["name"], "random removals − original"]
    runs = proof["arms"][0]["runs"]
    beside = (
        "changes it by " + _signed(random)
        if random["lower"] * random["upper"] > 0
        else "does not change it measurably"
    )
    return (
        f"Trained again ({runs} times each) on the cleaned rows, {' and '.join(parts)}; removing "
        f"{proof['changed_rows']:,} random rows instead {beside} ({proof['metrics'][0]['name']})."
    )


def surer(proof: Mapping[str, Any]) -> bool:
    """Return whether cleaning surely raised the held-out loss of a classification without lowering its accuracy."""
    found = {(d["metric"], d["name"]): d for d in proof["differences"]}
    loss = found.get(("held-out loss", "cleaned − original"))
    accuracy = found.get(("held-out accuracy", "cleaned − original"))
    return loss is not None and accuracy is not None and loss["lower"] > 0 and accuracy["upper"] > 0


def command(run: Mapping[str, Any], out: str) -> str:
    """Return the command line that repeats the scan, with every resolved option."""
    options, training = run["options"], run["training"]
    parts = ["finfluence", "scan", str(options["source"])]
    for flag, value in (
        ("--target", options["target"]),
        ("--out", out),
        ("--holdout", options["holdout"]),
        ("--holdout-fraction", options["holdout_fraction"]),
        ("--id", options["id_column"]),
        ("--group", options["group_column"]),
        ("--task", run["data"]["task"]),
        ("--model", training["model"]),
        ("--epochs", training["epochs"]),
        ("--batch-size", training["batch_size"]),
        ("--lr", training["optimizer"]["lr"]),
        ("--optimizer", options["optimizer"]),
        ("--runs", options["runs"]),
        ("--budget", None if options["budget"] is None else f"{options['budget']:g}"),
        ("--seed", options["seed"]),
        ("--fdr", options["fdr"]),
        ("--proof-runs", run["proof_runs"] or None),
    ):
        if value is not None:
            parts += [flag, str(value)]
    for query in options["queries"]:
        parts += [] if query == "held-out" else ["--query", query]
    if not options["proof"]:
        parts.append("--no-proof")
    if options["self_test"]:
        parts.append("--self-test")
    return shlex.join(parts)


def _change(name: str, difference: Mapping[str, float], better: str) -> str:
    if difference["lower"] * difference["upper"] <= 0:
        return f"the {name} does not change measurably ({_signed(difference)})"
    good = (difference["value"] < 0) == (better == "lower")
    return f"the {name} {'improves' if good else 'worsens'} by {_signed(difference)}"


def _signed(difference: Mapping[str, float]) -> str:
    value, lower, upper = (
        0.0 if abs(difference[k]) < 1e-12 else difference[k] for k in ("value", "lower", "upper")
    )
    return f"{value:+.3g} [{lower:+.3g}, {upper:+.3g}]"
