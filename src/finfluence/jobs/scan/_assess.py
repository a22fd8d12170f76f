"""assess: how right the model will be on rows without labels, before and after cleaning."""

import os
from dataclasses import dataclass
from typing import Any

from finfluence._files import write_json
from finfluence._progress import Progress, silent
from finfluence.assess import THRESHOLDED
from finfluence.ensemble import one_thread
from finfluence.jobs._log import logged, recorded
from finfluence.jobs._words import between, counted, size
from finfluence.jobs.scan._chapters import Chapter, assessment_chapter
from finfluence.jobs.scan._decisions import from_table, read_lines
from finfluence.jobs.scan._estimate import Context
from finfluence.jobs.scan._folder import ASSESSMENT, LOG, ScanFolder
from finfluence.jobs.scan._no_labels import deployed_with, signs, without_labels
from finfluence.jobs.scan._options import AssessOptions
from finfluence.jobs.scan._reopened import reopen
from finfluence.jobs.scan._retraining_check import automatic_runs
from finfluence.jobs.scan._rewritten import rewrite_page
from finfluence.jobs.scan._versions import CLEANED, answers, cleaned, original, run_seeds


@dataclass(frozen=True, eq=False)
class Assessment:
    """Accuracy on rows without labels, before and after cleaning.

    Attributes
    ----------
    sentence : str
        The estimate, and what cleaning does to it.
    found : dict
        `versions` ("original" and, if something is to be cleaned, "cleaned"): accuracy and difference by method, each
        with its interval; source and numbers of rows; shares of classes; `findings` (code, text).
    """

    sentence: str
    found: dict[str, Any]

    @property
    def chapter(self) -> Chapter:
        """The same as a chapter of the report: sentence, tables, findings."""
        return assessment_chapter(vars(self))


def assess_scan(
    out: str | os.PathLike[str], options: AssessOptions, progress: Progress = silent
) -> Assessment:
    """Estimate how right the scan's model is on rows without labels, trained on the rows as they are and cleaned.

    Both versions are trained several times under shared seeds. The threshold of average thresholded confidence is
    placed on held-out rows that took no part in the decision; mean confidence, difference of confidences, importance
    weights and the labelled rows' own accuracy stand beside it.

    Parameters
    ----------
    out
        Folder of a finished scan.
    options
        The rows, how often to train, and the score.
    progress
        Called as `progress("assess", done, total)` in trainings.

    Returns
    -------
    Assessment
        Also in `assessment.json`. Finished trainings stay in the folder; the same call goes on with them.

    Raises
    ------
    StorageError
        No finished scan there, or damaged files of it.
    ConfigError
        The scan is of a regression.
    DataError
        The scanned data has changed since, the unlabelled file cannot be read as the hold-out was, or fewer than ten
        held-out rows can place a threshold.
    TrainingError
        Every training diverges.
    """
    folder = ScanFolder(out)
    with one_thread():
        scan = reopen(folder, options.unlabelled)
        deployed = deployed_with(scan)
        with logged(folder / LOG) as log:
            context = Context(scan.training, scan.data, folder, recorded(log, progress))
            frame = from_table(read_lines(folder), dict(scan.summary), scan.options.fdr).frame
            by_default = automatic_runs(len(frame), scan.training.model.name, len(scan.training.seeds))
            seeds = run_seeds(scan.options.seed, options.runs or scan.run["proof_runs"] or by_default)
            after = cleaned(context, frame, seeds)
            versions = [original(context, seeds), *([] if after is None else [after])]
            chances = answers(context, versions, [deployed.asked], "assess")[0]
            found = without_labels(chances, deployed, score=options.score, seed=scan.options.seed)
            assessment = Assessment(_sentence(found), found)
            write_json(folder / ASSESSMENT, vars(assessment))
            rewrite_page(scan)
            log.info("assessment: %s", assessment.sentence)
    return assessment


def _sentence(found: dict[str, Any]) -> str:
    versions = {v["name"]: v for v in found["versions"]}

    def percent(name: str) -> str:
        return f"{size(versions[name]['accuracy'][THRESHOLDED], scale=100)} %"

    on = (
        f"On {counted(found['unlabelled_rows'], 'row')} without labels the model is right on an estimated "
        f"{percent('original')}"
    )
    if CLEANED not in versions:
        text = f"{on}. No row is to be cleaned: there is nothing to compare."
    else:
        difference = versions[CLEANED]["difference"][THRESHOLDED]
        does = (
            f"cleaning does not measurably change that ({between(difference, 100, 'points')})"
            if difference["lower"] * difference["upper"] <= 0
            else f"cleaning {'raises' if difference['value'] > 0 else 'lowers'} that by "
            f"{size(difference, scale=100)} points"
        )
        text = f"{on}, trained on the cleaned rows on {percent(CLEANED)}: {does}."
    against = len(signs(found))
    if against:
        text += f" {against} {'sign speaks' if against == 1 else 'signs speak'} against the estimate: it may not hold."
    return text
