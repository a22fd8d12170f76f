"""The main job, stage by stage; each stage leaves its outcome whole on disk before the next one starts."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from finfluence._progress import Progress, silent
from finfluence.ensemble import one_thread
from finfluence.jobs._folder import RUN, versions, write_frame
from finfluence.jobs._log import logged, recorded
from finfluence.jobs.scan._budget import planned, spent
from finfluence.jobs.scan._choice import Choice, choose
from finfluence.jobs.scan._data import ScanData, read_data
from finfluence.jobs.scan._decisions import Decided, decide_rows
from finfluence.jobs.scan._estimate import (
    Asked,
    Context,
    Estimate,
    main_queries,
    make_estimate,
    settings_of,
)
from finfluence.jobs.scan._folder import (
    BUDGET,
    CHOICE,
    FORMAT,
    GROUPS,
    INFLUENCE,
    LOG,
    PREVIEWS,
    TABLE,
    VERSION,
    ScanFolder,
)
from finfluence.jobs.scan._group_lines import group_lines, with_group_columns
from finfluence.jobs.scan._group_questions import group_questions, questions_of_blocks
from finfluence.jobs.scan._labels import Judged, judge_all_labels, without_doubtful
from finfluence.jobs.scan._options import ScanOptions
from finfluence.jobs.scan._outcome import Outcome, summarise, write_page
from finfluence.jobs.scan._report_content import short_previews
from finfluence.jobs.scan._result import ScanResult, open_scan
from finfluence.jobs.scan._retraining_check import (
    automatic_runs,
    check_by_retraining,
    check_groups,
    forget_parts,
)
from finfluence.jobs.scan._self_test import self_test
from finfluence.jobs.scan._training import Training, as_trained, plan_training
from finfluence.jobs.scan._words import command


def run_scan(
    options: ScanOptions,
    progress: Progress = silent,
    announce: Callable[[str], None] | None = None,
    write_rows: Callable[[ScanFolder], None] | None = None,
    notes: Sequence[str] = (),
) -> ScanResult:
    """Find the rows that make a model worse: read, judge labels, train, replay, decide, check by retraining, report.

    Parameters
    ----------
    options : ScanOptions
    progress : callable
        Called as `progress(stage, done, total)`.
    announce : callable, optional
        Called with how a budget is divided, before the first training.
    write_rows : callable, optional
        Called with the folder before anything is read: where rows in memory are written down.
    notes : sequence of str
        What a reader must know of how the rows were handed over.

    Returns
    -------
    ScanResult

    Raises
    ------
    DataError
        The data cannot be used; the message says which file, column or row.
    ConfigError
        An option does not fit the data.
    TrainingError
        The training diverges.
    StorageError
        The folder holds something else, or cannot be written.

    Notes
    -----
    Cost: out-of-fold predictions by scikit-learn's models (seconds for 1,000 rows), and in trainings of the model:
    one or two for each network tried, `runs` trainings, each replayed at about three more (or `budget` for both), and
    three times `proof_runs` trainings for the retraining check (small models train side by side, at about a fifth of
    that).
    """
    folder = ScanFolder(options.out)
    folder.prepare(options.resume)
    if write_rows is not None:
        write_rows(folder)
    with one_thread():
        before: dict[str, float] = {}
        progress("read", 0, 1)
        with _timed(before, "read"):
            data = read_data(options).noted(notes)
        progress("read", 1, 1)
        with _timed(before, "choose a network"):
            settled, choice = _chosen(options, data, folder, progress)
        training = plan_training(settled, data.train)
        run = _described(options, data, training, choice)
        folder.start(run)
        if folder.finished:
            return open_scan(folder.path)
        if options.budget is not None and announce is not None:
            announce(planned(options.budget, options.n_runs))
        with logged(folder / LOG) as log:
            context = Context(training, data, folder, recorded(log, progress))
            return _work(options, context, run, log, before)


def _work(
    options: ScanOptions,
    context: Context,
    run: dict[str, Any],
    log: logging.Logger,
    before: Mapping[str, float],
) -> ScanResult:
    """Run the stages one after another; `before`: seconds of those that came first."""
    seconds = dict(before)
    folder = context.folder
    _log_start(log, run, context.data)
    with _timed(seconds, "judge labels", log):
        judged = judge_all_labels(
            context.data,
            folder,
            fdr=options.fdr,
            seed=options.seed,
            plant=options.proof,
            progress=context.progress,
        )
    if judged is not None:
        context = replace(context, data=without_doubtful(context.data, judged.left_out))
    with _timed(seconds, "train and replay", log):
        found = _estimate(options, context)
    run = _with_budget(options, context, run)
    with _timed(seconds, "decide", log):
        decided = _decide(context, found, options.fdr, judged, told=run.get(CHOICE, {}).get("told", True))
    check, checks, tested = None, {}, None
    lines = _groups(context, found, judged)
    if options.proof:
        with _timed(seconds, "retraining check", log):
            check = check_by_retraining(context, decided.decisions, runs=run["proof_runs"], seed=options.seed)
            if bad := [line["group"] for line in lines if line["bad"]]:
                checks = check_groups(context, bad, runs=run["proof_runs"], seed=options.seed)
                lines = _groups(context, found, judged, checks)
    if options.self_test:
        settings = run[BUDGET]["settings"] if options.budget is not None else None
        with _timed(seconds, "self-test", log):
            tested = self_test(context, decided, judged, fdr=options.fdr, seed=options.seed, budget=settings)
    context.progress("report", 0, 1)
    labels = None if judged is None else judged.summary
    outcome = Outcome(run, context.data, found, decided, labels, check, tested, lines, checks)
    summary = summarise(options, outcome, seconds)
    with _timed(seconds, "report", log):
        write_page(folder, outcome, summary)
        write_frame(folder / PREVIEWS, short_previews(context.data.train, decided.lines))
    said = (
        summary["budget"],
        summary["verdict"],
        *summary["choice_said"],
        *summary["labels_said"],
        *summary["nothing_said"],
        *summary["groups_said"],
        summary["proof"],
        summary["self_test"],
    )
    for line in said:
        if line:
            log.info("%s", line)
    folder.finish(summary)
    forget_parts(context)
    context.progress("report", 1, 1)
    return ScanResult(folder.path, summary, decided.lines)


def _log_start(log: logging.Logger, run: dict[str, Any], data: ScanData) -> None:
    log.info("scan of %s: %d training rows", run["options"]["source"], len(data.train))
    log.info("versions: %s", ", ".join(f"{k} {v}" for k, v in run["versions"].items()))
    for note in data.notes:
        log.info("note: %s", note)


def _estimate(options: ScanOptions, context: Context) -> Estimate:
    queries = main_queries(context.data, options.queries, context.training.unit)
    questions = group_questions(context.data)
    of_groups = (
        []
        if questions is None
        else questions_of_blocks(questions, context.data.query, options.queries, context.training.unit)
    )
    asked = Asked(queries, options.own, options.replay_budget, of_groups)
    found = make_estimate(context, asked, keep_tapes=options.keep_tapes)
    found.influence.save(context.folder / INFLUENCE)
    return found


def _decide(context: Context, found: Estimate, fdr: float, judged: Judged | None, *, told: bool) -> Decided:
    decided = decide_rows(found, context.data.train, fdr, None if judged is None else judged.train, told=told)
    write_frame(context.folder / TABLE, decided.lines)
    return decided


def _groups(
    context: Context, found: Estimate, judged: Judged | None, checks: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Return a line for each group, and write their table; empty without groups."""
    questions = group_questions(context.data)
    if found.groups is None or questions is None:
        return []
    of_labels = [] if judged is None else judged.summary["groups"]
    lines = group_lines(found.groups, of_labels, questions, checks)
    write_frame(context.folder / GROUPS, with_group_columns(found.groups.to_frame(), lines))
    return lines


def _chosen(
    options: ScanOptions, data: ScanData, folder: ScanFolder, progress: Progress
) -> tuple[ScanOptions, Choice | None]:
    """Return the options with a network settled on: as an interrupted scan in the folder did, or chosen now."""
    if (folder / RUN).exists():
        run = folder.read_run()
        if all(run["options"].get(name) == value for name, value in options.described().items()):
            made = run.get(CHOICE)
            return as_trained(options, run), None if made is None else Choice.of_run(made)
    return choose(options, data.train, progress)


def _described(
    options: ScanOptions, data: ScanData, training: Training, choice: Choice | None
) -> dict[str, Any]:
    runs = options.proof_runs or automatic_runs(len(data.train), training.model.name, options.n_runs)
    run = {
        "format": FORMAT,
        "version": VERSION,
        "options": options.described(),
        "data": data.described(),
        "training": training.described(),
        **({} if choice is None else {CHOICE: choice.described()}),
        "proof_runs": runs if options.proof else 0,
        "recipe_digest": training.recipe.digest(),
        "versions": versions(),
        "notes": list(data.notes),
    }
    return {**run, "command": command(run, str(options.out))}


def _with_budget(options: ScanOptions, context: Context, run: dict[str, Any]) -> dict[str, Any]:
    """Return the resolved configuration with what became of the budget, and add it to run.yaml."""
    if options.budget is None:
        return run
    settings = dict(settings_of(context.folder))
    sentence = spent(options.budget, options.n_runs, settings, context.training.recipe.epochs)
    became = {"asked": options.budget, "runs": options.n_runs, "settings": settings, "sentence": sentence}
    context.folder.note(BUDGET, became)
    return {**run, BUDGET: became}


@contextmanager
def _timed(seconds: dict[str, float], stage: str, log: logging.Logger | None = None) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - start, 3)
    if log is not None:
        log.info("%s: %.1f s", stage, seconds[stage])
