"""verify: a finished scan held against retraining on its own data."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from finfluence import verification
from finfluence._progress import Progress, silent
from finfluence.ensemble import one_thread
from finfluence.errors import ConfigError, explain
from finfluence.jobs._log import logged, recorded
from finfluence.jobs.scan._decisions import read_lines
from finfluence.jobs.scan._estimate import hardest, main_queries
from finfluence.jobs.scan._folder import (
    INFLUENCE,
    LOG,
    RETRAINED,
    VERIFICATION,
    ScanFolder,
)
from finfluence.jobs.scan._options import HELD_OUT, OWN, VerifyOptions
from finfluence.jobs.scan._reopened import Reopened, reopen
from finfluence.jobs.scan._rewritten import outcome_of, rewrite_page
from finfluence.result import one_of, removal_interval, verification_findings
from finfluence.runs import own_loss
from finfluence.verification import Plan, Verification


def verify_scan(
    out: str | os.PathLike[str],
    options: VerifyOptions | None = None,
    announce: Callable[[Plan], None] | None = None,
    progress: Progress = silent,
) -> Verification:
    """Retrain without groups of rows, and hold the scan's estimates against what happens.

    Of the named rows (to drop, relabel or review) it says what removing them does to the held-out loss, with an
    interval by what became of the estimates of the retrained groups. The outcome is written to `verification.json`,
    noted in `scan.json` and `influence.zarr`, and shown by the report.
    Finished trainings are kept in `verify/`: the same call goes on with them, to the same numbers.

    Parameters
    ----------
    out
        Folder of a finished scan.
    options
        How much to retrain, and for which queries.
    announce
        Called with the plan, its cost measured, before it is started.
    progress
        Called as `progress(stage, done, total)`.

    Returns
    -------
    Verification

    Raises
    ------
    StorageError
        No finished scan there, one whose model or options have changed, or damaged files.
    DataError
        The data has changed since.
    ConfigError
        Too few subsets or runs, a budget that is too small, or an unknown query.
    NotSupportedError
        A bank, where frozen parameters or buffers differ between initialisations.
    """
    options = options or VerifyOptions()
    verification.check_counts(options.subsets, options.runs, options.budget)
    folder = ScanFolder(out)
    with one_thread():
        finished = reopen(folder)
        with logged(folder / LOG) as log:
            _check_whole(finished)
            done = _with_removal(_verified(finished, options, announce, progress, log), folder)
            _note(done, finished)
            log.info("verification %s: %s", done.verdict, done.sentence)
    return done


def _verified(
    finished: Reopened,
    options: VerifyOptions,
    announce: Callable[[Plan], None] | None,
    progress: Progress,
    log: logging.Logger,
) -> Verification:
    main = main_queries(finished.data, finished.options.queries, finished.training.unit)
    names = [query.names[0] for query in main] + ([OWN] if finished.options.own else [])
    for name in options.queries:
        one_of(name, names, "query to verify")
    if OWN in options.queries and len(options.queries) > 1:
        raise ConfigError(_own_alone(options.queries))

    def tell(plan: Plan) -> None:
        log.info("verification: %s", plan.sentence)
        if announce is not None:
            announce(plan)

    folder, training = finished.folder, finished.training
    results = [folder.read_result(f"runs/{r:03d}/{INFLUENCE}") for r in range(len(training.seeds))]
    if OWN in options.queries:
        rows = hardest(results[0].data["own_loss"].values)
        return verification.verify_own_losses(
            results,
            training.recipe,
            own_loss(finished.data.train.ids[rows].tolist(), unit=training.unit),
            rows,
            verification.OwnEffort(
                options.subsets,
                options.runs,
                options.budget,
                options.seed,
                folder / RETRAINED,
                options.bank,
            ),
            tell,
            recorded(log, progress),
        )
    return verification.verify(
        results,
        training.recipe,
        [query for query in main if not options.queries or query.names[0] in options.queries],
        subsets=options.subsets,
        runs=options.runs,
        budget=options.budget,
        seed=options.seed,
        out=folder / RETRAINED,
        bank=options.bank,
        measure=True,
        announce=tell,
        progress=recorded(log, progress),
    )


def _with_removal(done: Verification, folder: ScanFolder) -> Verification:
    """Return the outcome with what removing the named rows does, by the retrained groups."""
    if HELD_OUT not in done.made["queries"]:
        return done
    lines = read_lines(folder)
    acted_on = lines["suggested_action"].isin(("drop", "relabel", "review"))
    named = lines[(lines["query"] == HELD_OUT) & acted_on]["row_id"].tolist()
    if not named:
        return done
    predicted = folder.read_result(INFLUENCE).predict(named, HELD_OUT)["effect"].iloc[0]
    told = removal_interval(done.points, HELD_OUT, float(predicted), len(named))
    made = {**done.made, "removal": told.sentence} if told.known else done.made
    return replace(done, findings=(*done.findings, told.sentence.removesuffix(".")), made=made)


def _own_alone(asked: Sequence[str]) -> str:
    return explain(
        f"--query {OWN} alone",
        ", ".join(map(repr, asked)),
        "rows are verified on their own losses by removing each of them, the other queries by removing groups",
        f"verify twice: with --query {OWN}, and with the others; finished trainings are kept",
    )


def _check_whole(finished: Reopened) -> None:
    """Raise before the first retraining, not after the last, if the page could not be drawn again."""
    outcome_of(finished)
    finished.folder.read_result(INFLUENCE)


def _note(done: Verification, finished: Reopened) -> None:
    """Write the outcome to every place where the scan's results are shown; `scan.json` comes last."""
    folder, summary = finished.folder, finished.summary
    done.save(folder / VERIFICATION)
    done.attach(folder.read_result(INFLUENCE)).save(folder / INFLUENCE)
    earlier = [finding for finding in summary["findings"] if not str(finding[0]).startswith("FI05")]
    findings = [*([f.code, f.text] for f in verification_findings(done.outcome())), *earlier]
    noted = {**summary, "findings": findings, "verification": done.outcome()}
    rewrite_page(finished, noted)
    folder.finish(noted)
