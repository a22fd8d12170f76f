"""What a scan found, and what is said of it: the summary in `scan.json` and the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finfluence import report
from finfluence.jobs.scan._chapters import chapters
from finfluence.jobs.scan._check_words import check_sentence, harmed, surer
from finfluence.jobs.scan._data import ScanData
from finfluence.jobs.scan._decisions import Decided
from finfluence.jobs.scan._estimate import Estimate
from finfluence.jobs.scan._folder import BUDGET, CHOICE, FORMAT, REPORT, VERSION, ScanFolder
from finfluence.jobs.scan._group_lines import (
    GONE,
    check_of_group,
    groups_sentence,
    groups_tables,
    questions_sentence,
)
from finfluence.jobs.scan._group_questions import group_questions
from finfluence.jobs.scan._nothing import learned_by_heart, visible_effect
from finfluence.jobs.scan._options import HELD_OUT, ScanOptions
from finfluence.jobs.scan._report_content import agreement, content
from finfluence.jobs.scan._words import (
    choice_sentences,
    counts,
    label_sentences,
    memorised_sentence,
    power_sentence,
    verdict,
    whole_verdict,
)
from finfluence.result import LINEAR, chance_findings, covers_sentence, sign_sentence
from finfluence.verification import Verification

STEPS_NAMED = 2
WHOLE_BATCHES = (
    "Every step saw all training rows, so that batches come in no order: the estimate has no spread, and no row can be "
    "named for its influence. A smaller --batch-size gives it one."
)


@dataclass(frozen=True, eq=False)
class Outcome:
    """Everything that a scan found.

    Attributes
    ----------
    run
        Content of `run.yaml`.
    labels
        Content of `labels.json`, or None where there were too few rows to judge labels.
    check
        Content of `proof.json`: the retraining check, or None.
    tested
        Content of `self-test.json`, or None.
    groups
        A line for each group, as `group_lines` returns them.
    checks
        Content of `groups-proof.json`: training without each named group.
    """

    run: Mapping[str, Any]
    data: ScanData
    estimate: Estimate
    decided: Decided
    labels: Mapping[str, Any] | None = None
    check: Mapping[str, Any] | None = None
    tested: Mapping[str, Any] | None = None
    groups: Sequence[Mapping[str, Any]] = ()
    checks: Mapping[str, Any] = field(default_factory=dict)


def summarise(options: ScanOptions, found: Outcome, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Return the content of `scan.json`."""
    decisions, influence = found.decided.decisions, found.estimate.influence
    named = counts(decisions)
    main = influence.data.sel(query=HELD_OUT)
    nothing = _why_nothing(found, named, options.fdr)
    return {
        "format": FORMAT,
        "version": VERSION,
        "verdict": f"{_of_groups(found)} {verdict(named, options.fdr)}".strip(),
        "choice": found.run.get(CHOICE),
        "choice_said": choice_sentences(found.run.get(CHOICE)),
        "nothing_said": nothing,
        "labels_said": label_sentences(found.labels, named["doubted"]),
        "labels_told": found.labels is not None and bool(found.labels["told"]),
        "groups": [dict(line) for line in found.groups],
        "groups_said": _said_of_groups(found),
        "groups_needed": [group for group, check in found.checks.items() if harmed(check, GONE)],
        "harmed": harmed(found.check),
        "counts": named,
        "fdr": options.fdr,
        "voices": decisions.tests,
        "labels_at_the_whole_level": True,
        "relabel_confidence": decisions.relabel_confidence,
        "sign": sign_sentence(HELD_OUT, str(main["unit"].item()), int(main["sign"])),
        "covers": covers_sentence(influence.provenance),
        "queries": influence.queries,
        "agreement": agreement(found.estimate.each, found.data.train.ids),
        "findings": [
            list(finding) for finding in [*_findings(found), *(("FI028", text) for text in nothing)]
        ],
        "proof": check_sentence(found.check),
        "self_test": "" if found.tested is None else found.tested["sentence"],
        "budget": found.run[BUDGET]["sentence"] if options.budget is not None else "",
        "command": found.run["command"],
        "holdout_in_source": options.holdout is None and not _official(found.data),
        "seconds": dict(seconds),
    }


def write_page(
    folder: ScanFolder, found: Outcome, summary: Mapping[str, Any], verification: Verification | None = None
) -> None:
    """Write `report.html`, with a chapter for each command that was run after the verdict."""
    asked = chapters(folder)
    findings = [*summary["findings"], *dict.fromkeys(f for chapter in asked for f in chapter.findings)]
    page = content(
        found.run,
        found.data.train,
        found.estimate,
        found.decided,
        whole_verdict(summary),
        [(str(code), str(text)) for code, text in findings],
        found.check,
        found.tested,
        summary["command"],
        verification,
        found.labels,
        [*(table for chapter in asked for table in chapter.tables), *_tables_of_groups(found)],
    )
    report.write_report(page, folder / REPORT)


def _findings(found: Outcome) -> list[tuple[str, str]]:
    """Return what qualifies the outcome, each with its code."""
    made, shown = found.estimate.influence.provenance, found.data.train.warnings
    notes = [note for note in found.data.notes if note not in shown]
    findings = [("FI026", text) for text in [_of_groups(found)] if text]
    if not found.run.get(CHOICE, {}).get("told", True):
        findings += [("FI027", text) for text in choice_sentences(found.run[CHOICE])]
    findings += [("FI020", text) for text in found.decided.decisions.findings]
    findings += [("FI029", text) for text in chance_findings(found.estimate.influence.data, [HELD_OUT])]
    findings += _findings_of_labels(found.labels)
    if "batch order" in made.covers and made.runs == 1:
        text = "One training run: the spread covers the batch order, not the initialisation. --runs 4 covers both."
        findings.append(("FI021", text))
    if found.estimate.influence.has_effect and not made.covers:
        findings.append(("FI021", WHOLE_BATCHES))
    if found.check is not None:
        findings += _findings_of_check(found.check, found.data.halved)
    if found.tested is not None and not found.tested["passed"]:
        findings.append(("FI043", str(found.tested["sentence"])))
    findings += [("FI022", text) for text in shown]
    findings += _few_of_steps(made.coded(), made.runs)
    columns = [note for note in notes if note.startswith("column ")]
    findings += [("FI030", note) for note in notes if note not in columns]
    return findings + ([("FI030", "; ".join(columns))] if columns else [])


def _few_of_steps(coded: list[tuple[str, str]], runs: int) -> list[tuple[str, str]]:
    """Return the findings with two single steps named (FI011), and how many more there are.

    Returns
    -------
    list of tuple

    Examples
    --------
    >>> several = [("FI011", f"step {t} holds 30 %") for t in range(5)] + [("FI010", "a window")]
    >>> [text for _, text in _few_of_steps(several, 4)][2].split(":")[0]
    "3 more steps of the 4 runs hold over a fifth of the slopes' variance"
    """
    steps = [finding for finding in coded if finding[0] == "FI011"]
    more = len(steps) - STEPS_NAMED
    if more <= 0:
        return coded
    told = f"{more} more steps of the {runs} runs hold over a fifth of the slopes' variance"
    where = "fi.load(…/runs/000/influence.zarr) and its likes name them"
    others = [finding for finding in coded if finding[0] != "FI011"]
    return [*steps[:STEPS_NAMED], ("FI011", f"{told}: {where}"), *others]


def _why_nothing(found: Outcome, named: Mapping[str, Any], fdr: float) -> list[str]:
    """Return what stands beside "none is named for its influence": memorising, and the effect that could be seen."""
    if named["harmful"]:
        return []
    told = found.run.get(CHOICE, {}).get("told", True)
    effects = visible_effect(found.estimate, found.decided, fdr) if told else None
    by_heart = learned_by_heart(found.estimate, found.decided, found.data.train)
    return [text for text in (memorised_sentence(by_heart), power_sentence(effects)) if text]


def _of_groups(found: Outcome) -> str:
    return groups_sentence(found.groups, found.checks)


def _said_of_groups(found: Outcome) -> list[str]:
    """Return what was measured of each named group, and on which rows groups were asked."""
    questions = group_questions(found.data)
    if questions is None or not found.groups:
        return []
    each = [f"{group}: {check_of_group(check)}." for group, check in found.checks.items() if check["arms"]]
    return [*each, questions_sentence(found.groups, questions)]


def _tables_of_groups(found: Outcome) -> list[report.Table]:
    of_groups = found.estimate.groups
    paired = of_groups is not None and LINEAR in of_groups.data
    return groups_tables(found.groups, found.checks, group_questions(found.data), paired)


def _findings_of_labels(labels: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if labels is None:
        return [("FI025", "Too few rows, or one class only: no label was judged, and none is named.")]
    findings = [("FI023" if labels["told"] else "FI025", text) for text in labels["findings"]]
    if labels["left_out"]:
        one = labels["left_out"] == 1
        text = (
            f"{labels['left_out']:,} of {labels['holdout_rows']:,} held-out rows {'is' if one else 'are'} left out of "
            f"the query and of the evaluation: {'its label is' if one else 'their labels are'} named wrong, or more "
            "likely wrong than right (holdout_labels.parquet)."
        )
        findings.append(("FI024", text))
    return findings


def _findings_of_check(check: Mapping[str, Any], halved: bool) -> list[tuple[str, str]]:
    findings = []
    if not halved:
        text = (
            "The held-out rows that judge the cleaning also decided about it: the retraining check flatters."
        )
        findings.append(("FI040", text))
    if check["diverged_runs"]:
        text = f"{check['diverged_runs']} runs of the retraining check diverged and were left out."
        findings.append(("FI041", text))
    if surer(check):
        text = (
            "Cleaning raises the held-out loss but not the errors: the models became surer, and held-out rows with "
            "wrong labels now cost more. Give checked held-out rows by --holdout."
        )
        findings.append(("FI042", text))
    return findings


def _official(data: ScanData) -> bool:
    return data.query.source.digest != data.train.source.digest
