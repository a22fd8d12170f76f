"""A finished scan opened again: its options, its data and its training, as long as they are what they were."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finfluence.errors import DataError, StorageError, explain
from finfluence.jobs.scan._data import ScanData, read_data
from finfluence.jobs.scan._folder import ScanFolder
from finfluence.jobs.scan._labels import read_left_out, without_doubtful
from finfluence.jobs.scan._options import ScanOptions
from finfluence.jobs.scan._training import Training, as_trained, plan_training


@dataclass(frozen=True, eq=False)
class Reopened:
    """A finished scan, its data read again and its doubtful held-out rows left out."""

    folder: ScanFolder
    summary: Mapping[str, Any]
    run: Mapping[str, Any]
    options: ScanOptions
    data: ScanData
    training: Training


def reopen(folder: ScanFolder, unlabelled: str | os.PathLike[str] | None = None) -> Reopened:
    """Return a finished scan as it was, to train again in its way, and rows without labels read beside its data.

    Returns
    -------
    Reopened

    Raises
    ------
    StorageError
        No finished scan there, or one whose model, options or preparation have changed.
    DataError
        The data has changed since, or the rows without labels cannot be read as the hold-out was.
    ConfigError
        Rows without labels for a regression.
    """
    summary, run = folder.read_summary(), folder.read_run()
    options = ScanOptions.of_run(run, folder.path)
    data = read_data(options, unlabelled)
    training = plan_training(as_trained(options, run), data.train)
    _check_unchanged(run, data, training)
    left_out = read_left_out(folder)
    if left_out is not None:
        data = without_doubtful(data, left_out)
    return Reopened(folder, summary, run, options, data, training)


def _check_unchanged(run: Mapping[str, Any], data: ScanData, training: Training) -> None:
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
        writer = run["versions"].get("finfluence", "of another version")
        raise StorageError(
            explain(
                f"the training that was scanned (recipe {run['recipe_digest']}, finfluence {writer})",
                f"another one (recipe {training.recipe.digest()})",
                "run.yaml was edited, the model's code changed, or another version of this or another library prepares "
                "the rows differently",
                "scan again into another folder, and verify that",
            )
        )
