"""The end of a tuning on the terminal: verdict, counterfactual, sources, the top of the ranking, what to type next."""

import shlex
from functools import partial
from math import isnan
from pathlib import Path
from typing import Any

from finfluence.clean import CleanOptions
from finfluence.cli._decided import show_advice
from finfluence.cli._screen import Screen
from finfluence.cli._shown import show_chapter, show_plan, show_verification, show_verified
from finfluence.jobs.scan import DecideOptions, VerifyOptions, in_short, q_in_short
from finfluence.jobs.tune import TuneResult, clean_tune, decide_tune, open_tune, verify_tune

WORST = 10


def show_tune(screen: Screen, result: TuneResult, top: int = WORST, query: str | None = None) -> None:
    """Print what a tuning found."""
    summary = result.summary
    screen.always(summary["verdict"], "bold")
    for text in summary["proof"]:
        screen.say(text)
    show_verified(screen, summary)
    for code, text in summary["findings"]:
        if code in ("FI020", "FI030", "FI041", "FI044"):
            screen.say(f"note: {text}")
    screen.say("")
    _show_sources(screen, result)
    _show_ranking(screen, result, top, query)
    screen.say("")
    if result.decision is not None:
        show_chapter(screen, result.decision)
    screen.say(f"{summary['sign']}.")
    screen.say(f"{summary['covers'].capitalize()}.")
    screen.say(f"Report: {result.report}")
    screen.say("Next:")
    screen.command(_clean(result))


def clean_folder(screen: Screen, out: Path, to: Path, options: CleanOptions, top: float | None) -> None:
    """Write the cleaned rows, and say what was done."""
    done = clean_tune(out, to, options, top)
    screen.always(
        f"{done.path}: {done.kept:,} rows; {done.dropped:,} dropped, {done.review:,} left for review.", "bold"
    )
    screen.say(f"What was done to which row, and why: {done.audit_path}")


def show_folder(screen: Screen, out: Path, top: int, query: str | None) -> None:
    """Print what a finished tuning found."""
    result = open_tune(out)
    result.worst(1, query)
    show_tune(screen, result, top, query)


def verify_folder(screen: Screen, out: Path, options: VerifyOptions) -> None:
    """Verify a finished tuning, and print the outcome."""
    with screen.progress() as progress:
        done = verify_tune(out, options, announce=partial(show_plan, screen), progress=progress)
    show_verification(screen, done, out)


def decide_folder(screen: Screen, out: Path, options: DecideOptions) -> None:
    """Try what to do with the rows of a finished tuning, and print what is recommended."""
    with screen.progress() as progress:
        advice = decide_tune(out, options, announce=screen.say, progress=progress)
    show_advice(screen, advice)
    if advice.action == "drop":
        screen.command(_clean(open_tune(out)))


def _clean(result: TuneResult) -> str:
    """Return the command that writes the rows without what is named, or without the top of the ranking."""
    top = [] if result.summary["why"] != "ranking" else ["--top", f"{result.top:g}"]
    return shlex.join(["finfluence", "clean", str(result.folder), "--to", "cleaned.jsonl", *top])


def _show_sources(screen: Screen, result: TuneResult) -> None:
    groups = result.groups
    if groups.empty:
        return
    columns = [
        ("source", False),
        ("behaviour", False),
        ("rows", True),
        ("first order", True),
        ("measured", True),
        ("μ", True),
        ("q", True),
    ]
    rows: list[list[Any]] = [
        [
            line["group"],
            line["query"],
            int(line["rows"]),
            f"{line['effect']:+.3g}",
            "" if isnan(line["measured"]) else f"{line['measured']:+.3g}",
            in_short(line["mu"]),
            q_in_short(line["q_value"]),
            "yes" if line["flagged"] else "",
        ]
        for line in groups.sort_values("q_value", kind="stable").head(WORST).to_dict("records")
    ]
    screen.table([*columns, ("named", False)], rows)
    screen.say("")


def _show_ranking(screen: Screen, result: TuneResult, top: int, query: str | None) -> None:
    lines = result.worst(top, query)
    screen.say(f"Top of the ranking for {lines['query'].iloc[0]} (an order, without an error rate):")
    columns = [
        ("row", False),
        ("rank", True),
        ("ranking score", True),
        ("effect", True),
        ("μ", True),
        ("source", False),
    ]
    rows: list[list[Any]] = [
        [
            line["row_id"],
            int(line["rank"]),
            f"{line['ranking_score']:.3f}",
            f"{line['effect']:+.2g}",
            in_short(line["mu"]),
            line["group"],
            "drop" if line["flagged"] else "",
        ]
        for line in lines.to_dict("records")
    ]
    screen.table([*columns, ("action", False)], rows)
