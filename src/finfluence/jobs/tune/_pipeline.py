"""The tuning, stage by stage; each leaves its outcome whole on disk before the next one starts."""

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from finfluence._files import write_json
from finfluence._progress import Progress, silent
from finfluence.ensemble import one_thread
from finfluence.errors import TrainingError, explain
from finfluence.jobs._folder import versions, write_frame
from finfluence.jobs._log import logged, recorded
from finfluence.jobs.tune._decide import Decided, decide
from finfluence.jobs.tune._estimate import Estimate, make_estimate, remove_states, tuned
from finfluence.jobs.tune._folder import (
    FORMAT,
    GROUPS,
    HIDDEN,
    INFLUENCE,
    LOG,
    REPORT,
    TABLE,
    TEXTS,
    VERSION,
    TuneFolder,
)
from finfluence.jobs.tune._options import TuneOptions
from finfluence.jobs.tune._prepared import Prepared, prepare
from finfluence.jobs.tune._report import page, write
from finfluence.jobs.tune._result import TuneResult, open_tune
from finfluence.jobs.tune._retune import retune
from finfluence.jobs.tune._texts import answers, near_duplicates, slope_tokens, top_rows
from finfluence.jobs.tune._words import (
    check_sentences,
    command,
    first_order_findings,
    named_sources,
    verdict,
    with_measured,
)
from finfluence.result import covers_sentence, sign_sentence
from finfluence.runs import Tape

EXPLAINED = 5
"""Rows of each behaviour whose tokens are shown."""


def run_tune(options: TuneOptions, progress: Progress = silent) -> TuneResult:
    """Tune a language model, and find the rows that made it behave as it does.

    Parameters
    ----------
    options : TuneOptions
    progress : callable
        Called as `progress(stage, done, total)`.

    Returns
    -------
    TuneResult

    Raises
    ------
    DataError, ConfigError, NotSupportedError
        Rows, behaviours or model cannot be used; the message says which and why.
    TrainingError
        The loss became no number, or there is no memory for a step.
    StorageError
        The folder holds something else, or cannot be written.

    Notes
    -----
    Cost, in trainings: `runs`, each replayed at two to three more for a first behaviour; `checkpoints` / `epochs` for
    the ranking; three times `retune` for the counterfactual.
    """
    folder = TuneFolder(options.out)
    folder.prepare(options.resume)
    with _enough_memory(), one_thread():
        progress("read", 0, 1)
        prepared = prepare(options, folder.path)
        run: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "options": options.described(),
            "data": prepared.described(),
            "versions": versions(),
            "notes": prepared.texts.notes,
        }
        run["command"] = command(run, str(options.out))
        progress("read", 1, 1)
        folder.start(run)
        if folder.finished:
            return open_tune(folder.path)
        with logged(folder / LOG) as log:
            return _work(prepared, options, folder, run, (log, recorded(log, progress)))


def _work(
    prepared: Prepared,
    options: TuneOptions,
    folder: TuneFolder,
    run: dict[str, Any],
    told: tuple[logging.Logger, Progress],
) -> TuneResult:
    log, progress = told
    seconds: dict[str, float] = {}
    log.info("tuning of %s on %d rows", options.model, len(prepared.rows))
    log.info("versions: %s", ", ".join(f"{k} {v}" for k, v in run["versions"].items()))
    for note in prepared.texts.notes:
        log.info("note: %s", note)
    with _timed(seconds, "tune and replay", log):
        estimate = make_estimate(prepared, options, folder, progress)
        estimate.influence.save(folder / INFLUENCE)
    with _timed(seconds, "decide", log):
        decided = decide(estimate, prepared, options.fdr, options.top)
        write_frame(folder / TABLE, decided.lines)
        if not decided.groups.empty:
            write_frame(folder / GROUPS, decided.groups)
    check = None
    if options.retune:
        with _timed(seconds, "retune", log):
            check = retune(
                prepared, estimate, decided, folder, runs=options.retune, seed=options.seed, progress=progress
            )
    if not decided.groups.empty:
        decided = replace(decided, groups=with_measured(decided.groups, check))
        write_frame(folder / GROUPS, decided.groups)
    with _timed(seconds, "texts", log):
        texts = _texts(prepared, options, folder, decided)
        write_json(folder / TEXTS, texts)
    summary = _summary(prepared, options, estimate, decided, check)
    summary["seconds"] = seconds
    progress("report", 0, 1)
    write(
        page(prepared.texts.texts, estimate, decided, {**summary, "texts": texts, "check": check}, run),
        folder / REPORT,
    )
    for line in (summary["verdict"], *summary["proof"]):
        log.info("%s", line)
    folder.finish(summary)
    shutil.rmtree(folder / HIDDEN, ignore_errors=True)
    if not options.keep_tapes:
        remove_states(folder.run_folder(0))
    progress("report", 1, 1)
    return open_tune(folder.path)


def _summary(
    prepared: Prepared, options: TuneOptions, estimate: Estimate, decided: Decided, check: Any
) -> dict[str, Any]:
    first = prepared.queries[0]
    findings = [("FI020", text) for text in decided.findings]
    findings += estimate.influence.provenance.coded()
    findings += [("FI030", note) for note in prepared.texts.notes]
    findings += [("FI044", text) for text in first_order_findings(decided.groups, check)]
    if check is not None and check["diverged"]:
        findings.append(
            ("FI041", f"{check['diverged']} trainings of the counterfactual diverged and were left out.")
        )
    return {
        "format": FORMAT,
        "version": VERSION,
        "verdict": verdict(decided, options.fdr, check),
        "proof": check_sentences(check),
        "why": decided.why,
        "removed": int(decided.removed.sum()),
        "sources": named_sources(decided.groups),
        "rows": len(prepared.rows),
        "fdr": options.fdr,
        "queries": [q.name for q in prepared.queries],
        "sign": sign_sentence(first.name, first.unit, first.sign),
        "covers": covers_sentence(estimate.influence.provenance),
        "findings": [list(f) for f in findings],
        "command": command({"options": options.described()}, str(options.out)),
    }


def _texts(prepared: Prepared, options: TuneOptions, folder: TuneFolder, decided: Decided) -> dict[str, Any]:
    names = [q.name for q in prepared.queries]
    top = top_rows(decided, names)
    place = {row: k for k, row in enumerate(prepared.rows.ids.tolist())}
    tape = Tape.open(folder.run_folder(0), prepared.recipe)
    tokens = {}
    for column, name in enumerate(names):
        rows = top[name][:EXPLAINED]
        found = slope_tokens(prepared, tape, [place[r] for r in rows], column)
        tokens[name] = [[r, t] for r, t in zip(rows, found, strict=True)]
    every = list(dict.fromkeys(r for rows in top.values() for r in rows))
    alike = near_duplicates(prepared, [place[r] for r in every])
    before = answers(prepared, options.answers)
    with tuned(prepared, tape):
        after = answers(prepared, options.answers)
    return {
        "tokens": tokens,
        "duplicates": [[r, d] for r, d in zip(every, alike, strict=True)],
        "before": before,
        "after": after,
    }


@contextmanager
def _enough_memory() -> Iterator[None]:
    """Say which option to lower where memory runs out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        full = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)
        if not full:
            raise
        raise TrainingError(
            explain(
                "enough memory for the model and one step",
                str(error).splitlines()[0][:200] if str(error) else type(error).__name__,
                "a large batch, long rows, or adapters on all layers",
                "lower --batch-size, then --max-length, or train the upper layers only (--layers last:4); --dtype "
                "bfloat16 halves the model; what is finished is kept, but another training needs another --out",
            )
        ) from error


@contextmanager
def _timed(seconds: dict[str, float], stage: str, log: logging.Logger) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - start, 3)
    log.info("%s: %.1f s", stage, seconds[stage])
