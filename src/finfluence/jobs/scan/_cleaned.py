"""From a finished scan to the cleaned file."""

import os
import tempfile
from pathlib import Path

import numpy as np

from finfluence.clean import CleanOptions, Layout, Written, write_clean
from finfluence.errors import ConfigError, explain
from finfluence.ingest import RawTable
from finfluence.jobs.scan._data import read_again
from finfluence.jobs.scan._decisions import from_table
from finfluence.jobs.scan._folder import TABLE, ScanFolder


def clean_scan(
    out: str | os.PathLike[str], to: str | os.PathLike[str], options: CleanOptions | None = None
) -> Written:
    """Write the scanned file without the rows to drop and with the new labels, and its audit beside it.

    Parameters
    ----------
    out
        Folder of a finished scan.
    to
        File to write, in the format of the scanned one: `.csv` (a list of paths) for a folder of images, `.npz` for a
        built-in data set.
    options
        What to do with the named rows, at which level, and whether earlier files may be replaced.

    Returns
    -------
    Written

    Raises
    ------
    StorageError
        No finished scan there, damaged files of it, or a file that may not be written.
    DataError
        The source has changed since.
    ConfigError
        A file of another format than the source.
    """
    folder = ScanFolder(out)
    summary, run = folder.read_summary(), folder.read_run()
    decisions = from_table(folder.read_frame(TABLE), summary, float(summary["fdr"]))
    raw = read_again(run["data"])
    source, id_column = run["data"]["source"], run["options"]["id_column"]
    if source["format"] == "builtin":
        with tempfile.TemporaryDirectory() as place:
            return write_clean(decisions, _as_arrays(raw, Path(place), to), to, target="y", options=options)
    if source["format"] == "folder":
        layout = Layout(ids=raw.ids.tolist(), labels=raw.labels.tolist())
        return write_clean(decisions, source["name"], to, layout=layout, options=options)
    details = source["details"]
    layout = Layout(delimiter=details.get("delimiter"), encoding=details.get("encoding"))
    return write_clean(decisions, source["name"], to, raw.target_name, id_column, layout, options)


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
