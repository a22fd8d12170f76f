"""The main job, stage by stage; each stage leaves its outcome whole on disk before the next one starts."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from finfluence._progress import Progress, silent
from finfluence.ensemble import one_thread
from finfluence.jobs.scan._budget import planned, spent
from finfluence.jobs.scan._data import ScanData, read_data
from finfluence.jobs.scan._decisions import Decided, decide_rows, read_table, write_frame, write_table
from finfluence.jobs.scan._estimate import HELD_OUT, Estimate, estimate, main_queries, settings_of
from finfluence.jobs.scan._folder import (
    BUDGET,
    FORMAT,
    GROUPS,
    INFLUENCE,
    LOG,
    PREVIEWS,
    REPORT,
    VERSION,
    ScanFolder,
    versions,
)
from finfluence.jobs.scan._log import logged, recorded
from finfluence.jobs.scan._options import ScanOptions
from finfluence.jobs.scan._proof import automatic_runs, prove
from finfluence.jobs.scan._report_content import agreement, content, short_previews
from finfluence.jobs.scan._self_test import self_test
from finfluence.jobs.scan._training import Training, plan_training
from finfluence.jobs.scan._words import NOTHING, command, counts, proof_sentence, surer, verdict
from finfluence.report import write_report
from finfluence.result import covers_sentence, sign_sentence


@dataclass(frozen=True, eq=False)
class ScanResult:
    """A finished scan.

    Attributes
    ----------
    folder
        Where everything is: `influence.parquet`, `influence.zarr`, `report.html`, `run.yaml`, `scan.json`, `scan.log`.
    summary
        Content of `scan.json`: verdict, counts, sentences, findings, timings.
    lines
        Content of `influence.parquet`.
    """

    folder: Path
    summary: Mapping[str, Any]
    lines: pd.DataFrame

    @property
    def verdict(self) -> str:
        """The sentence that the scan ends in."""
        return str(self.summary["verdict"])

    @property
    def nothing_found(self) -> bool:
        """Whether no row was named."""
        return self.verdict.startswith(NOTHING)


def scan(
    options: ScanOptions, progress: Progress = silent, announce: Callable[[str], None] | None = None
) -> ScanResult:
    """Find the rows that make a model worse: read, train, replay, decide, prove, report.

    Parameters
    ----------
    options : ScanOptions
    progress : callable
        Called as `progress(stage, done, total)`.
    announce : callable, optional
        Called with how a budget is divided, before the first training.

    Returns
    -------
    ScanResult

    Raises
    ------
    DataError, ConfigError, TrainingError, StorageError
        With what was expected, what was found, why that usually happens and what to do.

    Notes
    -----
    Cost, in trainings of the model: `runs` trainings, each replayed at about three more (or `budget` for both), and
    three times `proof_runs` trainings for the proof (small models train side by side, at about a fifth of that).
    """
    folder = ScanFolder(options.out)
    folder.prepare(options.resume)
    with one_thread():
        progress("read", 0, 1)
        data = read_data(options)
        training = plan_training(options, data.train)
        run = _described(options, data, training)
        progress("read", 1, 1)
        folder.start(run)
        if folder.finished:
            return open_scan(folder.path)
        if options.budget is not None and announce is not None:
            announce(planned(options.budget, options.n_runs))
        with logged(folder / LOG) as log:
            return _work(options, data, training, run, folder, log, recorded(log, progress))


def open_scan(path: str | Path) -> ScanResult:
    """Return a finished scan from its folder.

    Raises
    ------
    StorageError
        The folder holds no finished scan.
    """
    folder = ScanFolder(path)
    return ScanResult(folder.path, folder.read_summary(), read_table(folder))


def read_run(path: str | Path) -> dict[str, Any]:
    """Return what `run.yaml` in a scan's folder says: options, data, training, versions."""
    return ScanFolder(path).read_run()


def _work(
    options: ScanOptions,
    data: ScanData,
    training: Training,
    run: dict[str, Any],
    folder: ScanFolder,
    log: logging.Logger,
    progress: Progress,
) -> ScanResult:
    seconds: dict[str, float] = {}
    log.info("scan of %s: %d training rows", run["options"]["source"], len(data.train))
    log.info("versions: %s", ", ".join(f"{k} {v}" for k, v in run["versions"].items()))
    for note in data.notes:
        log.info("note: %s", note)
    queries = main_queries(data, "per-class" in options.queries, training.unit)
    with _timed(seconds, "train and replay", log):
        found = estimate(
            training,
            data,
            queries,
            folder,
            own="own" in options.queries,
            keep_tapes=options.keep_tapes,
            progress=progress,
            budget=options.replay_budget,
        )
        found.influence.save(folder / INFLUENCE)
    run = _with_budget(options, training, run, folder, log)
    with _timed(seconds, "decide", log):
        decided = decide_rows(found, data.train, options.fdr)
        write_table(folder, decided.lines)
        if found.groups is not None:
            write_frame(folder / GROUPS, found.groups.to_frame())
    proof = None
    if options.proof:
        with _timed(seconds, "prove", log):
            runs = run["proof_runs"]
            proof = prove(
                training, data, decided.decisions, folder, runs=runs, seed=options.seed, progress=progress
            )
    tested = None
    if options.self_test:
        with _timed(seconds, "self-test", log):
            tested = self_test(
                training, data, decided, folder, fdr=options.fdr, seed=options.seed, progress=progress,
                budget=run[BUDGET]["settings"] if options.budget is not None else None,
            )  # fmt: skip
    progress("report", 0, 1)
    summary = _summary(options, data, found, decided, proof, tested, run, seconds)
    with _timed(seconds, "report", log):
        page = content(
            run,
            data.train,
            found,
            decided,
            summary["verdict"],
            summary["findings"],
            proof,
            tested,
            summary["command"],
        )
        write_report(page, folder / REPORT)
        write_frame(folder / PREVIEWS, short_previews(data.train, decided.lines))
    for line in (summary["budget"], summary["verdict"], summary["proof"], summary["self_test"]):
        if line:
            log.info("%s", line)
    folder.finish(summary)
    progress("report", 1, 1)
    return ScanResult(folder.path, summary, decided.lines)


def _described(options: ScanOptions, data: ScanData, training: Training) -> dict[str, Any]:
    runs = options.proof_runs or automatic_runs(len(data.train))
    run = {
        "format": FORMAT,
        "version": VERSION,
        "options": options.described(),
        "data": data.described(),
        "training": training.described(),
        "proof_runs": runs if options.proof else 0,
        "recipe_digest": training.recipe.digest(),
        "versions": versions(),
        "notes": list(data.notes),
    }
    return {**run, "command": command(run, str(options.out))}


def _with_budget(
    options: ScanOptions,
    training: Training,
    run: dict[str, Any],
    folder: ScanFolder,
    log: logging.Logger,
) -> dict[str, Any]:
    """Return the resolved configuration with what became of the budget, and add it to run.yaml."""
    if options.budget is None:
        return run
    settings = dict(settings_of(folder))
    sentence = spent(options.budget, options.n_runs, settings, training.recipe.epochs)
    became = {"asked": options.budget, "runs": options.n_runs, "settings": settings, "sentence": sentence}
    folder.note(BUDGET, became)
    return {**run, BUDGET: became}


def _summary(
    options: ScanOptions,
    data: ScanData,
    found: Estimate,
    decided: Decided,
    proof: Mapping[str, Any] | None,
    tested: Mapping[str, Any] | None,
    run: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    decisions, influence = decided.decisions, found.influence
    named = counts(decisions)
    main = influence.data.sel(query=HELD_OUT)
    made = influence.provenance
    findings = [("FI020", text) for text in decisions.findings]
    if "batch order" in made.covers and made.runs == 1:
        findings.append(
            (
                "FI021",
                "One training run: the spread covers the batch order, not the initialisation. --runs 4 covers both.",
            )
        )
    if proof is not None and not data.halved:
        findings.append(
            ("FI040", "The held-out rows that judge the cleaning also decided about it: the proof flatters.")
        )
    if proof is not None and proof["diverged_runs"]:
        findings.append(("FI041", f"{proof['diverged_runs']} runs of the proof diverged and were left out."))
    if proof is not None and surer(proof):
        findings.append(
            (
                "FI042",
                "Cleaning raises the held-out loss but not the errors: the models became surer, and held-out rows with "
                "wrong labels now cost more. Give checked held-out rows by --holdout.",
            )
        )
    if tested is not None and not tested["passed"]:
        findings.append(("FI043", str(tested["sentence"])))
    findings += [("FI010", text) for text in made.findings]
    columns = [note for note in data.notes if note.startswith("column ")]
    findings += [("FI030", note) for note in data.notes if note not in columns]
    findings += [("FI030", "; ".join(columns))] if columns else []
    return {
        "format": FORMAT,
        "version": VERSION,
        "verdict": verdict(named, options.fdr),
        "counts": named,
        "fdr": options.fdr,
        "voices": decisions.tests,
        "relabel_confidence": decisions.relabel_confidence,
        "sign": sign_sentence(HELD_OUT, str(main["unit"].item()), int(main["sign"])),
        "covers": covers_sentence(made),
        "queries": influence.queries,
        "agreement": agreement(found.each, data.train.ids),
        "findings": [list(f) for f in findings],
        "proof": proof_sentence(proof),
        "self_test": "" if tested is None else tested["sentence"],
        "budget": run[BUDGET]["sentence"] if options.budget is not None else "",
        "command": run["command"],
        "holdout_in_source": options.holdout is None and not _official(data),
        "seconds": dict(seconds),
    }


def _official(data: ScanData) -> bool:
    return data.asked.source.digest != data.train.source.digest


@contextmanager
def _timed(seconds: dict[str, float], stage: str, log: logging.Logger) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - start, 3)
    log.info("%s: %.1f s", stage, seconds[stage])
