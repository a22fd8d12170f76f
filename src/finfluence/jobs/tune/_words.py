"""What a tuning says: the verdict, the counterfactual and the command, in plain sentences."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pandas as pd

from finfluence.jobs._words import command_line, signed, size
from finfluence.jobs.tune._decide import GROUP, RANK, Decided
from finfluence.jobs.tune._options import TuneOptions

RANKING_SAID = (
    "The ranking score orders rows, and has neither unit nor error rate; effects, with their intervals, say what the "
    "removal of rows does to a behaviour, in its own unit."
)


def verdict(decided: Decided, fdr: float) -> str:
    """Return the one sentence that a tuning ends in."""
    rows = f"{len(decided.removed):,}"
    level = f"{100 * fdr:.3g} %"
    if decided.why == RANK:
        return (
            f"No source and none of {rows} rows is named at a false-discovery rate of {level}. The "
            f"{int(decided.removed.sum()):,} rows at the top of the ranking are a guess, without an error rate."
        )
    if decided.why == GROUP:
        named = decided.groups[decided.groups["flagged"]]
        each = "; ".join(_source(line) for line in named.to_dict("records")[:4])
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
    measured, predicted = line["effect"]["value"], line["predicted"]["value"]
    if not line["moved"] or 0.5 <= predicted / measured <= 2:
        return ""
    return (
        f" The prediction is {predicted / measured:.2g} of what was measured: it is of first order, and so many rows, "
        "or rows that say the same, are beyond it. Believe the measurement."
    )


def command(run: Mapping[str, Any], out: str) -> str:
    """Return the command line that repeats the tuning."""
    return command_line("tune", fields(TuneOptions), {**run["options"], "out": out})


def _source(line: Mapping[Any, Any]) -> str:
    raised = "raises" if line["effect"] < 0 else "lowers"
    sure = {"value": -line["effect"], "lower": -line["effect"] - 1.96 * line["effect_se"],
            "upper": -line["effect"] + 1.96 * line["effect_se"]}  # fmt: skip
    return f"source {line['group']!r} ({int(line['rows']):,} rows) {raised} {line['query']!r} by {size(sure)}"


def named_sources(groups: pd.DataFrame) -> list[str]:
    """Return the sources that are named."""
    return [] if groups.empty else sorted(set(groups.loc[groups["flagged"], "group"]))
