"""A finished tuning: its verdict, its tables, and what can be done with them."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from finfluence import verification
from finfluence._progress import Progress, silent
from finfluence.clean import CleanOptions, Decisions, Written, write_clean
from finfluence.ensemble import one_thread
from finfluence.errors import ConfigError, explain
from finfluence.jobs._log import logged, recorded
from finfluence.jobs.scan import Chapter, VerifyOptions, checked_names
from finfluence.jobs.tune._folder import (
    CHECK,
    GROUPS,
    HIDDEN,
    INFLUENCE,
    LOG,
    REPORT,
    TABLE,
    TEXTS,
    VERIFICATION,
    VERIFY,
    TuneFolder,
)
from finfluence.jobs.tune._options import TuneOptions
from finfluence.jobs.tune._prepared import check_data, check_model, prepare
from finfluence.jobs.tune._report import decision
from finfluence.result import Influence, one_of
from finfluence.verification import Plan, Verification

WORST = 10


@dataclass(frozen=True, eq=False, repr=False)
class TuneResult:
    """A finished tuning.

    Attributes
    ----------
    folder : Path
        Where everything is: `influence.parquet`, `influence.zarr`, `groups.parquet`, `adapter/`, `report.html`,
        `retuning.json`, `texts.json`, `run.yaml`, `tune.json`, `tune.log`.
    summary : mapping
        Content of `tune.json`.
    lines : DataFrame
        Content of `influence.parquet`: one line per row and behaviour.
    """

    folder: Path
    summary: Mapping[str, Any]
    lines: pd.DataFrame

    @property
    def verdict(self) -> str:
        """The sentence that the tuning ends in."""
        return str(self.summary["verdict"])

    @property
    def report(self) -> Path:
        """The page that shows everything."""
        return self.folder / REPORT

    @property
    def influence(self) -> Influence:
        """The influence of every row on every behaviour."""
        return TuneFolder(self.folder).read_result(INFLUENCE)

    @property
    def groups(self) -> pd.DataFrame:
        """One line per source and behaviour; empty without sources."""
        folder = TuneFolder(self.folder)
        return folder.read_frame(GROUPS) if (folder / GROUPS).exists() else pd.DataFrame()

    @property
    def retuning(self) -> Mapping[str, Any] | None:
        """What tuning again showed, or None where it was not asked for."""
        folder = TuneFolder(self.folder)
        return folder.read_json(CHECK) if (folder / CHECK).exists() else None

    @property
    def decision(self) -> Chapter | None:
        """What `decide` found, or None where it was not asked."""
        return decision(TuneFolder(self.folder))

    @property
    def texts(self) -> Mapping[str, Any]:
        """Answers before and after, tokens that carry slopes, near-duplicates."""
        return TuneFolder(self.folder).read_json(TEXTS)

    @property
    def top(self) -> float:
        """Share of the rows, from the top of the ranking, that stands for named rows where none is."""
        return float(TuneFolder(self.folder).read_run()["options"]["top"])

    def worst(self, top: int = WORST, query: str | None = None) -> pd.DataFrame:
        """Return the rows at the top of a behaviour's ranking (default: the first behaviour).

        Returns
        -------
        DataFrame

        Raises
        ------
        ConfigError
            There is no such behaviour.
        """
        names = list(self.summary["queries"])
        name = names[0] if query is None else one_of(query, names, "query")
        lines = self.lines[self.lines["query"] == name]
        return lines.sort_values("rank", kind="stable").head(top).reset_index(drop=True)

    def clean(self, to: str | Path, *, top: float | None = None, **options: Any) -> Written:
        """Write the rows without the named ones, and the audit beside it.

        Parameters
        ----------
        to : path
            JSON lines, as the data.
        top : float, optional
            Take out this share of the rows from the top of the ranking in place of the named ones: a guess, without an
            error rate.
        options
            As of `finfluence.clean.CleanOptions`.

        Returns
        -------
        Written

        Raises
        ------
        ConfigError
            Nothing is named, and no share is given; a level or an action that a tuning does not have.
        StorageError
            A file of that name is there already.
        DataError
            The data has changed since.
        """
        return clean_tune(self.folder, to, CleanOptions(**checked_names(options, CleanOptions)), top)

    def verify(self, **options: Any) -> Verification:
        """Hold the estimates against tuning again; options as of `VerifyOptions`."""
        return verify_tune(self.folder, VerifyOptions(**checked_names(options, VerifyOptions)))

    def __repr__(self) -> str:
        lines = [f"Tuning: {self.verdict}", *(f"  {text}" for text in self.summary["proof"])]
        lines += [
            f"  folder: {self.folder}",
            "  next: .worst(), .groups, .retuning, .report, .clean('cleaned.jsonl')",
        ]
        return "\n".join(lines)


def open_tune(path: str | Path) -> TuneResult:
    """Return a finished tuning from its folder.

    Returns
    -------
    TuneResult

    Raises
    ------
    StorageError
        The folder holds none, or files of it are damaged.
    """
    folder = TuneFolder(path)
    return TuneResult(folder.path, folder.read_summary(), folder.read_frame(TABLE))


def clean_tune(
    out: str | Path, to: str | Path, options: CleanOptions | None = None, top: float | None = None
) -> Written:
    """Write the rows without the named ones, or without the top of the ranking; see `TuneResult.clean`.

    Returns
    -------
    Written

    Raises
    ------
    ConfigError
        Nothing is named, and no share is given; a level or an action that a tuning does not have.
    DataError
        The data has changed since.
    """
    options = options or CleanOptions()
    result, run = open_tune(out), TuneFolder(out).read_run()
    if options.action == "relabel" or options.fdr is not None:
        raise ConfigError(
            explain(
                "an action that a tuning has: drop, or review",
                "relabel" if options.action == "relabel" else f"--fdr {options.fdr}",
                "the options of a scan",
                "leave it out; another level takes another tuning (--fdr)",
            )
        )
    check_data(run)
    decisions = _decisions(result, top)
    given = run["options"]
    return write_clean(decisions, given["data"], to, id_column=given["id_field"], options=options)


def verify_tune(
    out: str | Path,
    options: VerifyOptions | None = None,
    announce: Callable[[Plan], None] | None = None,
    progress: Progress = silent,
) -> Verification:
    """Tune again without groups of rows, and hold the estimates against what happens.

    Finished trainings are kept in `verify/`: the same call goes on with them. Each is a whole tuning: give few subsets
    and runs, or a budget.

    Returns
    -------
    Verification

    Raises
    ------
    StorageError
        No finished tuning there, or one whose model has changed.
    DataError
        The data has changed since.
    ConfigError
        Too few subsets or runs, or an unknown behaviour.
    NotSupportedError
        A bank, where frozen parameters or buffers differ between initialisations.
    """
    options = options or VerifyOptions()
    verification.check_counts(options.subsets, options.runs, options.budget)
    folder = TuneFolder(out)
    summary, run = folder.read_summary(), folder.read_run()
    tuned = TuneOptions.of_run(run, folder.path)
    for name in options.queries:
        one_of(name, list(summary["queries"]), "query to verify")
    check_data(run)
    with one_thread(), logged(folder / LOG) as log:
        prepared = prepare(tuned, folder.path)
        check_model(run, prepared.described())

        def tell(plan: Plan) -> None:
            log.info("verification: %s", plan.sentence)
            if announce is not None:
                announce(plan)

        done = verification.verify(
            [folder.read_result(f"runs/{r:03d}/{INFLUENCE}") for r in range(tuned.runs)],
            prepared.recipe,
            [q for q in prepared.queries if not options.queries or q.name in options.queries],
            subsets=options.subsets,
            runs=options.runs,
            budget=options.budget,
            seed=options.seed,
            out=folder / VERIFY,
            bank=options.bank,
            executor="serial",
            measure=True,
            announce=tell,
            progress=recorded(log, progress),
        )
        done.save(folder / VERIFICATION)
        folder.finish({**summary, "verification": done.outcome()})
        shutil.rmtree(folder / HIDDEN, ignore_errors=True)
        log.info("verification %s: %s", done.verdict, done.sentence)
    return done


def _decisions(result: TuneResult, top: float | None) -> Decisions:
    """Return one decision per row: the named ones leave, or the top of the ranking."""
    if top is None and not bool(result.lines["flagged"].any()):
        raise ConfigError(
            explain(
                "rows or sources that are named",
                "none",
                "nothing can be told from training noise at this level, or one run cannot name rows",
                "take out the top of the ranking instead (--top 0.05), or tune with several --runs or a --group",
            )
        )
    if top is not None and not 0 < top < 1:
        raise ConfigError(
            explain(
                "--top between 0 and 1, such as 0.05 for 5 %", f"{top:g}", "a percentage", "write --top 0.05"
            )
        )
    best = result.lines.sort_values("rank", kind="stable").drop_duplicates("row_id").sort_index()
    frame = best.reset_index(drop=True)
    flagged = frame["flagged"].to_numpy()
    reason = frame["reason"].to_numpy(dtype=object)
    if top is not None:
        flagged = np.zeros(len(frame), bool)
        worst = result.lines.groupby("row_id", sort=False)["ranking_score"].max()
        score = worst.reindex(frame["row_id"]).to_numpy()
        flagged[np.argsort(-score, kind="stable")[: max(1, round(top * len(frame)))]] = True
        reason = np.where(flagged, "ranking", "")
    frame = frame.assign(
        flagged=flagged, suggested_action=np.where(flagged, "drop", "keep"), suggested_label=None, label=None,
        reason=reason,
    )  # fmt: skip
    return Decisions(frame, float(result.summary["fdr"]), 1, 1.0, "harmful")
