"""The end of a scan on the terminal: verdict, worst rows, what to type next."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finfluence.cli._screen import Screen
from finfluence.jobs.scan import (
    Chapter,
    ScanResult,
    in_short,
    label_cells,
    network_columns,
    network_rows,
    q_in_short,
    row_cells,
    shows_labels,
    verdict_of,
)
from finfluence.result import verification_sentence
from finfluence.verification import Plan, Verification

WORST = 10


def show_result(screen: Screen, result: ScanResult, top: int = WORST, query: str = "held-out") -> None:
    """Print the verdict, what it means, the worst rows and the next command."""
    summary = result.summary
    screen.always(result.verdict, "bold")
    for name in ("choice_said", "labels_said", "nothing_said"):
        for text in summary.get(name, ()):
            screen.say(text)
    if summary["proof"]:
        screen.say(summary["proof"])
    if summary.get("budget"):
        screen.say(summary["budget"])
    if summary.get("self_test"):
        screen.say(summary["self_test"])
    show_verified(screen, summary)
    for text in result.notes:
        screen.say(f"note: {text}")
    screen.say("")
    show_groups(screen, summary)
    show_networks(screen, summary)
    show_rows(screen, result, top, query)
    screen.say("")
    show_chapters(screen, result)
    screen.say(f"{summary['sign']}.")
    screen.say(f"{summary['covers'].capitalize()}.")
    screen.say(f"Report: {result.folder / 'report.html'}")


def show_chapters(screen: Screen, result: ScanResult) -> None:
    """Print what the commands after the verdict found, one chapter each."""
    for chapter in result.chapters:
        show_chapter(screen, chapter)


def show_chapter(screen: Screen, chapter: Chapter, strong: bool = False) -> None:
    """Print the sentence of a chapter, what it was made of, and what qualifies it."""
    (screen.always if strong else screen.say)(f"{chapter.title}: {chapter.sentence}", "bold")
    for table in chapter.tables:
        cells = [[*(_plain_cell(cell) for cell in row)] for row in table.rows]
        numbers = [k for k in range(len(table.columns)) if any(not isinstance(r[k], str) for r in table.rows)]
        screen.table([(name, k in numbers) for k, name in enumerate(table.columns)], cells)
    for code, text in chapter.findings:
        if code != "FI030":
            screen.say(f"note: {text} ({code})")
    screen.say("")


def _plain_cell(cell: object) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) else f"{cell:,}" if isinstance(cell, int) else str(cell)


def show_verified(screen: Screen, summary: Mapping[str, Any]) -> None:
    """Print how the scan stood against retraining, if that was tried; a failure even when quiet."""
    failed = summary.get("verification", {}).get("verdict") == "failed"
    if text := verification_sentence(summary.get("verification")):
        (screen.always if failed else screen.say)(text, "bold red" if failed else "")


def show_plan(screen: Screen, plan: Plan) -> None:
    """Print what a verification is going to train, and how long that takes."""
    screen.say(plan.sentence)
    for note in plan.notes:
        screen.say(f"note: {note}")


def show_verification(screen: Screen, done: Verification, folder: Path) -> None:
    """Print verdict and figures of a verification."""
    screen.always(verification_sentence(done.outcome()), "bold red" if done.verdict == "failed" else "bold")
    screen.say(f"Order: {done.made['order']}. Size: {done.made['size']}.")
    screen.say("")
    level = f"{100 * done.made['level']:.0f} % interval"
    columns = [("figure", False), ("value", True), (level, True), ("at best", True), ("meaning", False)]
    rows = [
        [
            f.name,
            in_short(f.value),
            f"[{in_short(f.lower)}, {in_short(f.upper)}]",
            in_short(f.best),
            f.meaning,
        ]
        for f in done.figures
    ]
    screen.table(columns, rows)
    screen.say(
        "At best: what a perfect estimate would reach, since the retrained values are noisy themselves."
    )
    for finding in done.findings:
        screen.say(f"note: {finding}")
    screen.say("")
    screen.say(f"Report: {folder / 'report.html'}")


def show_networks(screen: Screen, summary: Mapping[str, Any]) -> None:
    """Print the networks that were tried and the constant, the best first, if there was a choice."""
    choice = summary.get("choice") or {}
    if len(choice.get("tried", ())) < 2:
        return
    columns = [(name, place > 0) for place, name in enumerate(network_columns(choice["task"]))]
    screen.table([*columns[:-1], (columns[-1][0], False)], network_rows(choice))
    screen.say("")


def show_groups(screen: Screen, summary: Mapping[str, Any]) -> None:
    """Print the groups, the worst first: labels, losses and what removing them does, if there are groups."""
    lines = summary.get("groups", [])
    if not lines:
        return
    for text in summary.get("groups_said", ()):
        screen.say(text)
    columns = [
        ("group", False),
        ("verdict", False),
        ("removal", True),
        ("its p", True),
        ("contradicted", True),
        ("expected", True),
        ("its p", True),
        ("rows", True),
        ("own loss", True),
        ("out-of-fold loss", True),
    ]
    rows = [
        [
            line["group"],
            verdict_of(line),
            _number(line.get("effect"), "+.4f"),
            q_in_short(line.get("p_value_adjusted")),
            _number(line["contradicted"], ",d"),
            _number(line["expected"], ".0f"),
            q_in_short(line["p_label_adjusted"]),
            f"{line['rows']:,}",
            in_short(line.get("own_loss")),
            in_short(line["oof_loss"]),
        ]
        for line in lines[:WORST]
    ]
    screen.table(columns, rows)
    if len(lines) > WORST:
        screen.say(f"{len(lines) - WORST:,} more groups stand in the report and in groups.parquet.")
    screen.say(
        "Removal: what it does to the loss on held-out rows of other groups (+: the group helps). Contradicted: labels "
        "that models which have not seen them contradict; expected: by their own doubts. Each p is adjusted over the "
        "groups."
    )
    screen.say("")


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def show_review(screen: Screen, result: ScanResult, top: int) -> None:
    """Print the rows with the most doubtful labels."""
    for text in result.summary.get("labels_said", ()):
        screen.say(text)
    screen.say("")
    previews = short_previews(result)
    columns = [
        ("row", False),
        ("p wrong", True),
        ("out-of-fold loss", True),
        ("label", False),
        ("models say", False),
        ("action", False),
        ("row in short", False),
    ]
    rows = [
        [
            line["row_id"],
            in_short(line["p_wrong"]),
            in_short(line["oof_loss"]),
            *label_cells({**line, "confidence": math.nan}),
            line["suggested_action"],
            previews.get(str(line["row_id"]), ""),
        ]
        for line in result.review(top).to_dict("records")
    ]
    screen.table(columns, rows)


def show_rows(screen: Screen, result: ScanResult, top: int, query: str) -> None:
    """Print the worst rows of a query: named ones first, then by μ."""
    lines = result.worst(top, query)
    previews = short_previews(result)
    labelled = shows_labels(lines)
    columns = [
        ("row", False),
        ("μ", True),
        ("95 % interval", True),
        ("q", True),
        ("own loss", True),
        ("action", False),
    ]
    columns += [("label", False), ("models say", False)] if labelled else []
    columns += [("why", False), ("row in short", False)]
    rows = [
        [*row_cells(line, labelled), previews.get(str(line["row_id"]), "")]
        for line in lines.to_dict("records")
    ]
    if query not in ("held-out", "own"):
        screen.say(f"Worst rows for {query}:")
    screen.table(columns, rows)


def next_commands(screen: Screen, result: ScanResult, run: Mapping[str, Any]) -> None:
    """Print what to type next."""
    source, name = Path(str(run["data"]["source"]["name"])), run["data"]["source"]["format"]
    suffix = {"folder": ".csv", "builtin": ".npz"}.get(name, source.suffix)
    screen.say("Next:")
    for line in result.summary.get("groups", []):
        if line.get("bad") and line["group"] not in result.summary.get("groups_needed", ()):
            to = f"without-{_plain(line['group'])}{suffix}"
            asked = ["clean", _relative(result.folder), "--to", to, "--group", line["group"]]
            screen.command(shlex.join(["finfluence", *asked]))
            break
    told = result.summary.get("labels_told", True)
    if result.nothing_found and not told and name != "builtin":
        target = run["options"]["target"]
        asked = ["--target", str(target)] if target else []
        screen.command(shlex.join(["finfluence", "scan", str(run["options"]["source"]), *asked, "--columns"]))
        return
    if result.nothing_found or result.summary.get("harmed"):
        screen.command(
            shlex.join(["finfluence", "show", _relative(result.folder), "--review", "--top", "100"])
        )
        return
    if not result.summary.get("verification"):
        screen.command(shlex.join(["finfluence", "verify", _relative(result.folder)]))
    screen.command(shlex.join(["finfluence", "clean", _relative(result.folder), "--to", f"cleaned{suffix}"]))


def short_previews(result: ScanResult) -> dict[str, str]:
    """Return a few words on each row that the scan wrote one for."""
    frame = result.previews
    return dict(zip(frame["row_id"].astype(str), frame["preview"], strict=True))


def _plain(name: str) -> str:
    """Return a name that may stand in a file's."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)[:40]


def _relative(folder: Path) -> str:
    try:
        return str(folder.relative_to(Path.cwd()))
    except ValueError:
        return str(folder)
