"""verify: a finished scan held against retraining on its own data."""

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from finfluence._progress import Progress, silent
from finfluence.ensemble import one_thread
from finfluence.errors import DataError, StorageError, explain
from finfluence.jobs.scan._data import ScanData, read_data
from finfluence.jobs.scan._decisions import decide_rows
from finfluence.jobs.scan._estimate import OWN, estimate, main_queries
from finfluence.jobs.scan._folder import INFLUENCE, LOG, PROOF, REPORT, SELF_TEST, ScanFolder
from finfluence.jobs.scan._log import logged, recorded
from finfluence.jobs.scan._options import ScanOptions
from finfluence.jobs.scan._report_content import content
from finfluence.jobs.scan._training import Training, plan_training
from finfluence.report import write_report
from finfluence.result import load, one_of, verification_findings
from finfluence.verification import Plan, Verification, verify

VERIFICATION, RETRAINED = "verification.json", "verify"


def verify_scan(
    out: str | os.PathLike[str],
    *,
    subsets: int = 24,
    runs: int = 100,
    budget: float | str | None = None,
    seed: int = 0,
    queries: Sequence[str] = (),
    announce: Callable[[Plan], None] | None = None,
    progress: Progress = silent,
) -> Verification:
    """Retrain without groups of rows, and hold the scan's estimates against what happens.

    The outcome is written to `verification.json`, noted in `scan.json` and `influence.zarr`, and shown by the report.
    Finished trainings are kept in `verify/`: the same call goes on with them, to the same numbers.

    Parameters
    ----------
    out
        Folder of a finished scan.
    subsets, runs, budget, seed
        As `finfluence.verification.verify`.
    queries
        Names of the queries to verify; all that decide by default.
    announce
        Called with the plan, its cost measured, before it is started.

    Returns
    -------
    Verification

    Raises
    ------
    StorageError
        No finished scan there, or one whose model or options have changed.
    DataError
        The data has changed since.
    ConfigError
        Too few subsets or runs, a budget that is too small, or an unknown query.
    """
    folder = ScanFolder(out)
    summary, run = folder.read_summary(), folder.read_run()
    options = _options(run, folder)
    with one_thread(), logged(folder / LOG) as log:
        data = read_data(options)
        training = plan_training(options, data.train)
        _check_unchanged(run, data, training)
        main = main_queries(data, "per-class" in options.queries, training.unit)
        names = [query.names[0] for query in main]
        for name in queries:
            one_of(name, names, "query to verify")
        asked = [query for query in main if not queries or query.names[0] in queries]

        def tell(plan: Plan) -> None:
            log.info("verification: %s", plan.sentence)
            if announce is not None:
                announce(plan)

        done = verify(
            [load(folder.run_folder(r) / INFLUENCE) for r in range(len(training.seeds))],
            training.recipe,
            asked,
            subsets=subsets,
            runs=runs,
            budget=budget,
            seed=seed,
            out=folder / RETRAINED,
            measure=True,
            announce=tell,
            progress=recorded(log, progress),
        )
        _note(done, folder, options, run, summary, data, training)
        log.info("verification %s: %s", done.verdict, done.sentence)
    return done


def _note(
    done: Verification,
    folder: ScanFolder,
    options: ScanOptions,
    run: dict[str, Any],
    summary: dict[str, Any],
    data: ScanData,
    training: Training,
) -> None:
    """Write the outcome to every place where the scan's results are shown; `scan.json` comes last."""
    done.save(folder / VERIFICATION)
    done.attach(load(folder / INFLUENCE)).save(folder / INFLUENCE)
    queries = main_queries(data, "per-class" in options.queries, training.unit)
    own = OWN in options.queries
    found = estimate(training, data, queries, folder, own=own, keep_tapes=True, progress=silent)
    findings = [
        (str(code), str(text)) for code, text in summary["findings"] if not str(code).startswith("FI05")
    ]
    findings = [*((f.code, f.text) for f in verification_findings(done.outcome())), *findings]
    page = content(
        run,
        data.train,
        found,
        decide_rows(found, data.train, options.fdr),
        summary["verdict"],
        findings,
        _json(folder, PROOF) if summary["proof"] else None,
        _json(folder, SELF_TEST) if summary.get("self_test") else None,
        summary["command"],
        done,
    )
    write_report(page, folder / REPORT)
    folder.finish({**summary, "findings": [list(f) for f in findings], "verification": done.outcome()})


def _json(folder: ScanFolder, name: str) -> dict[str, Any] | None:
    path = folder / name
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def _options(run: dict[str, Any], folder: ScanFolder) -> ScanOptions:
    given = {**run["options"], "queries": tuple(run["options"]["queries"])}
    try:
        return ScanOptions(**given, out=folder.path)
    except TypeError as error:
        raise StorageError(
            explain(
                f"the options of a scan in {folder / 'run.yaml'}",
                str(error),
                "another version of finfluence made it, or the file was edited",
                "scan again with this version into another folder",
            )
        ) from error


def _check_unchanged(run: dict[str, Any], data: ScanData, training: Training) -> None:
    now = data.described()
    for key in ("source", "holdout_source"):
        then = run["data"][key]
        if now[key]["digest"] != then["digest"]:
            raise DataError(
                explain(
                    f"{then['name']} with the content that was scanned (SHA-256 {then['digest'][:12]})",
                    f"SHA-256 {now[key]['digest'][:12]}",
                    "the data was changed since",
                    "restore the file, or scan it again into another folder",
                )
            )
    if training.recipe.digest() != run["recipe_digest"]:
        raise StorageError(
            explain(
                f"the training that was scanned (recipe {run['recipe_digest']})",
                f"another one (recipe {training.recipe.digest()})",
                "run.yaml was edited, the model's code changed, or another version of a library prepares the rows "
                "differently",
                "scan again into another folder, and verify that",
            )
        )
