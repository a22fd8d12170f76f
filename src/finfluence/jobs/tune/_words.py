"""What a tuning says: the verdict, the counterfactual and the command, in plain sentences."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pandas as pd

from finfluence.jobs._words import command_line, signed
from finfluence.jobs.tune._decide import GROUP, HEART, RANK, Decided
from finfluence.jobs.tune._options import TuneOptions

FAR = 2.0
"""Factor between prediction and measurement beyond which they disagree."""
RANKING_SAID = (
    "The ranking score orders rows, and has neither unit nor error rate; effects, with their intervals, say what the "
    "removal of rows does to a behaviour, in its own unit."
)


def verdict(decided: Decided, fdr: float, check: Mapping[str, Any] | None) -> str:
    """Return the one sentence that a tuning ends in; what tuning again measured stands before what was predicted."""
    rows = f"{len(decided.removed):,}"
    level = f"{100 * fdr:.3g} %"
    if decided.why == RANK:
        return (
            f"No source and none of {rows} rows is named at a false-discovery rate of {level}. The "
            f"{int(decided.removed.sum()):,} rows at the top of the ranking are a guess, without an error rate."
        )
    if decided.why == GROUP:
        named = decided.groups[decided.groups["flagged"]]
        measured = measured_sources(check)
        each = "; ".join(_source(line, measured) for line in named.to_dict("records")[:4])
        more = f" and {len(named) - 4} more" if len(named) > 4 else ""
        return f"With a chance of at most {level} that any source is named wrongly: {each}{more}."
    return f"{int(decided.removed.sum()):,} of {rows} rows are named at a false-discovery rate of {level}."


def check_sentences(check: Mapping[str, Any] | None) -> list[str]:
    """Say what tuning again without the rows did to each behaviour, beside what was predicted."""
    if check is None:
        return []
    if check["runs"] < 2:
        return [
            "The trainings of the counterfactual diverged: nothing can be said about the removal of these rows."
        ]
    which = {GROUP: "the named sources", RANK: "the top of the ranking"}.get(check["why"], "the named rows")
    said = []
    for line in check["lines"]:
        effect, random = signed(line["effect"]), signed(line["random_effect"])
        judged = (
            "they are its cause"
            if line["moved"]
            else "that is less than three spreads: no cause of it is found among them"
        )
        said.append(
            f"Tuned again ({check['runs']} times) without the {check['rows']:,} rows of {which}, {line['query']!r} "
            f"moves by {effect} {line['unit']} (predicted {signed(line['predicted'])}; without random rows as long "
            f"{random}): {judged}.{_beyond(line)}"
        )
    return said


def _beyond(line: Mapping[str, Any]) -> str:
    """Say where the prediction, which is of first order, is far from what was measured."""
    share = predicted_share(line)
    if share is None:
        return ""
    return (
        f" The prediction is {share:.2g} of what was measured: first order; understates groups of near-duplicates. "
        "Believe the measurement."
    )


def predicted_share(line: Mapping[str, Any]) -> float | None:
    """Return what part of the measured effect was predicted, where that is far from all of it and not by chance.

    None where the behaviour did not move, or the prediction is within a factor of two, or the intervals meet.

    Returns
    -------
    float or None
    """
    measured, predicted = line["effect"], line["predicted"]
    apart = predicted["lower"] > measured["upper"] or predicted["upper"] < measured["lower"]
    share: float = predicted["value"] / measured["value"] if measured["value"] else 1.0
    return share if line["moved"] and apart and not 1 / FAR <= share <= FAR else None


def first_order_findings(groups: pd.DataFrame, check: Mapping[str, Any] | None) -> list[str]:
    """Say where this run shows that effects of first order are not the whole.

    Returns
    -------
    list of str
    """
    said = []
    for line in check["lines"] if check is not None and check["runs"] >= 2 else ():
        share = predicted_share(line)
        if share is not None:
            said.append(
                f"{line['query']!r}: predicted {signed(line['predicted'])}, measured {signed(line['effect'])} "
                f"{line['unit']} without the {check['rows']:,} rows. First order; understates groups of "  # type: ignore[index]
                "near-duplicates."
            )
    if groups.empty:
        return said
    learned = groups.drop_duplicates("group")
    learned = learned[learned["loss_after"] < HEART * learned["loss_before"]]
    measured = {name for name, _ in measured_sources(check)}
    open_ = learned[~learned["group"].isin(measured)]
    if len(open_):
        each = ", ".join(
            f"{line['group']!r} (loss {line['loss_before']:.2g} before, {line['loss_after']:.2g} after)"
            for line in open_.head(4).to_dict("records")
        )
        more = f" and {len(open_) - 4} more" if len(open_) > 4 else ""
        said.append(
            f"learned by heart: {each}{more}. The effects of these sources were not measured; they are of first order, "
            "which understates groups of near-duplicates."
        )
    return said


def measured_sources(check: Mapping[str, Any] | None) -> dict[tuple[str, str], Mapping[str, float]]:
    """Return the effects that tuning again without single sources measured, by source and behaviour."""
    if check is None or check["runs"] < 2:
        return {}
    return {
        (name, line["query"]): found for line in check["lines"] for name, found in line["sources"].items()
    }


def with_measured(groups: pd.DataFrame, check: Mapping[str, Any] | None) -> pd.DataFrame:
    """Return the table of sources with the effect that was measured beside that of first order; else no number."""
    measured, nothing = measured_sources(check), dict.fromkeys(("value", "lower", "upper"), float("nan"))
    keys = list(zip(groups["group"], groups["query"], strict=True))
    named = {"measured": "value", "measured_lower": "lower", "measured_upper": "upper"}
    return groups.assign(
        **{column: [measured.get(k, nothing)[part] for k in keys] for column, part in named.items()}
    )


def command(run: Mapping[str, Any], out: str) -> str:
    """Return the command line that repeats the tuning."""
    return command_line("tune", fields(TuneOptions), {**run["options"], "out": out})


def _source(line: Mapping[Any, Any], measured: Mapping[tuple[str, str], Mapping[str, float]]) -> str:
    first = {"value": line["effect"], "lower": line["effect"] - 1.96 * line["effect_se"],
             "upper": line["effect"] + 1.96 * line["effect_se"]}  # fmt: skip
    found = measured.get((line["group"], line["query"]))
    raised = "raises" if (first if found is None else found)["value"] < 0 else "lowers"
    how = (
        "to first order"
        if found is None
        else f"measured by tuning without it (to first order: {signed(_taught(first))})"
    )
    return (
        f"source {line['group']!r} ({int(line['rows']):,} rows) {raised} {line['query']!r} by "
        f"{signed(_taught(first if found is None else found))}, {how}"
    )


def _taught(removal: Mapping[str, float]) -> dict[str, float]:
    """Return what rows add to a behaviour, from the effect of their removal."""
    return {"value": -removal["value"], "lower": -removal["upper"], "upper": -removal["lower"]}


def named_sources(groups: pd.DataFrame) -> list[str]:
    """Return the sources that are named."""
    return [] if groups.empty else sorted(set(groups.loc[groups["flagged"], "group"]))
