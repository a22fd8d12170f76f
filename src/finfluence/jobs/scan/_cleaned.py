"""From a finished scan to the cleaned file."""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from finfluence.clean import Action, Written, write_clean
from finfluence.errors import ConfigError, explain
from finfluence.ingest import RawTable
from finfluence.jobs.scan._data import read_again
from finfluence.jobs.scan._decisions import from_table, read_table
from finfluence.jobs.scan._folder import ScanFolder


def clean_scan(
    out: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    fdr: float | None = None,
    action: Action = "suggested",
    escape_formulas: bool = False,
) -> Written:
    """Write the scanned file without the rows to drop and with the new labels, and its audit beside it.

    Parameters
    ----------
    out
        Folder of a finished scan.
    to
        File to write, in the format of the scanned one: `.csv` (a list of paths) for a folder of images, `.npz` for a
        built-in data set.
    fdr
        Another false-discovery rate than the scan's.
    action, escape_formulas
        As `finfluence.clean.write_clean`.

    Returns
    -------
    Written

    Raises
    ------
    StorageError, DataError, ConfigError
        No finished scan there, a source that has changed since, or a file that may not be written.
    """
    folder = ScanFolder(out)
    summary, run = folder.read_summary(), folder.read_run()
    decisions = from_table(read_table(folder), summary, float(summary["fdr"]))
    if fdr is not None:
        decisions = decisions.at(fdr)
    raw = read_again(run["data"])
    source = run["data"]["source"]
    options = run["options"]
    details = source["details"]
    shared: dict[str, Any] = {"action": action, "escape_formulas": escape_formulas}
    if source["format"] == "builtin":
        with tempfile.TemporaryDirectory() as place:
            return write_clean(decisions, _as_arrays(raw, Path(place), to), to, target="y", **shared)
    folder_source = source["format"] == "folder"
    return write_clean(
        decisions,
        source["name"],
        to,
        target=None if folder_source else raw.target_name,
        id_column=options["id_column"],
        ids=raw.ids.tolist() if folder_source else None,
        labels=raw.labels.tolist() if folder_source else None,
        delimiter=details.get("delimiter"),
        encoding=details.get("encoding"),
        **shared,
    )


def _as_arrays(raw: RawTable, place: Path, to: str | os.PathLike[str]) -> Path:
    if Path(to).suffix.lower() != ".npz":
        raise ConfigError(
            explain(
                "a name that ends in .npz",
                os.fspath(to),
                f"{raw.source.name} is built in and has no file whose format could be kept",
                f"write to {Path(to).with_suffix('.npz')}: the cleaned rows as arrays x and y",
            )
        )
    assert raw.pixels is not None
    path = place / "rows.npz"
    np.savez(path, x=raw.pixels, y=np.array(raw.labels.tolist()))
    return path
