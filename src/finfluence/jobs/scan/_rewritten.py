"""A finished scan's page, written again from what stands on disk."""

from collections.abc import Mapping
from typing import Any

from finfluence.jobs.scan._decisions import Decided, from_table, read_lines
from finfluence.jobs.scan._estimate import load_estimate, main_queries
from finfluence.jobs.scan._folder import CHECK, GROUP_CHECK, LABELS, SELF_TEST, VERIFICATION
from finfluence.jobs.scan._group_lines import group_lines
from finfluence.jobs.scan._group_questions import group_questions
from finfluence.jobs.scan._outcome import Outcome, write_page
from finfluence.jobs.scan._reopened import Reopened
from finfluence.verification import Verification


def outcome_of(finished: Reopened) -> Outcome:
    """Return what the scan found, as it stands on disk."""
    folder, summary, options = finished.folder, finished.summary, finished.options
    lines = read_lines(folder)
    main = main_queries(finished.data, options.queries, finished.training.unit)
    questions = group_questions(finished.data)
    estimate = load_estimate(
        folder,
        len(finished.training.seeds),
        [query.names[0] for query in main],
        own=options.own,
        groups=questions,
    )
    labels = folder.read_json(LABELS) if summary.get("labels_said") else None
    checks = folder.read_json(GROUP_CHECK) if (folder / GROUP_CHECK).exists() else {}
    of_groups: list[dict[str, Any]] = []
    if estimate.groups is not None and questions is not None:
        of_groups = group_lines(estimate.groups, labels["groups"] if labels else [], questions, checks)
    return Outcome(
        finished.run,
        finished.data,
        estimate,
        Decided(from_table(lines, dict(summary), options.fdr), lines),
        labels,
        folder.read_json(CHECK) if summary["proof"] else None,
        folder.read_json(SELF_TEST) if summary.get("self_test") else None,
        of_groups,
        checks,
    )


def rewrite_page(finished: Reopened, summary: Mapping[str, Any] | None = None) -> None:
    """Write the report again, with every chapter that the folder holds; `summary`: the new one, if it changed."""
    folder, summary = finished.folder, summary or finished.summary
    verification = None
    if summary.get("verification"):
        with folder.reading(VERIFICATION):
            verification = Verification.load(folder / VERIFICATION)
    write_page(folder, outcome_of(finished), summary, verification)
