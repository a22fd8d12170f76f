"""From a finished scan to the cleaned file."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from finfluence.clean import CleanOptions, Decisions, Layout, Written, write_clean
from finfluence.errors import ConfigError, explain
from finfluence.ingest import RawTable
from finfluence.jobs.scan._check_words import harms
from finfluence.jobs.scan._data import read_again
from finfluence.jobs.scan._decisions import from_table, read_lines
from finfluence.jobs.scan._folder import CHECK, GROUP_CHECK, GROUPS, ScanFolder
from finfluence.jobs.scan._group_lines import GONE
from finfluence.jobs.scan._options import HELD_OUT

MOST_OF_CLASS = 0.2


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
        A file of another format than the source; a plan that the retraining check shows to do harm, without
        `even_if_worse`; one that takes more than a fifth of a class, without `yes`; or a group that the scan does not
        know.
    """
    folder = ScanFolder(out)
    summary, run = folder.read_summary(), folder.read_run()
    decisions = from_table(read_lines(folder), summary, float(summary["fdr"]))
    options = options or CleanOptions()
    raw = read_again(run["data"])
    group = options.group
    if group is None:
        _check_harmless(folder, summary, options)
    else:
        decisions = _whole_group(decisions, raw, group)
        options = replace(options, action="suggested", fdr=None)
        _check_group(folder, group, options.even_if_worse)
    _check_classes(decisions, options)
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


def _whole_group(decisions: Decisions, raw: RawTable, name: str) -> Decisions:
    """Return the decision to drop every row of a group, and nothing else."""
    groups = np.array([] if raw.groups is None else [str(g) for g in raw.groups])
    if name not in groups:
        known = list(dict.fromkeys(groups.tolist()))
        raise ConfigError(
            explain(
                f"one of {len(known):,} groups" if known else "a scan with groups",
                repr(name),
                f"a misspelt group; the first ones are {known[:5]}" if known else "the scan named no groups",
                "name a group of the scan" if known else "scan again with --group COLUMN",
            )
        )
    chosen = groups == name
    ids = np.array([str(i) for i in raw.ids], dtype=object)
    rows = decisions.frame.assign(row_id=decisions.frame["row_id"].map(str)).set_index("row_id")
    rows = rows.reindex(ids).rename_axis("row_id").reset_index()
    rows["label"] = rows["label"].where(rows["label"].notna(), raw.labels)
    rows = rows.assign(
        flagged=chosen,
        suggested_action=np.where(chosen, "drop", "keep"),
        suggested_label=None,
        reason=np.where(chosen, "group", ""),
    )
    return replace(decisions, frame=rows)


def _check_group(folder: ScanFolder, name: str, even_if_worse: bool) -> None:
    """Raise if training without a group did harm, or, if that was not tried, if it is named for nothing and helps."""
    if even_if_worse:
        return
    checks = folder.read_json(GROUP_CHECK) if (folder / GROUP_CHECK).exists() else {}
    if name in checks:
        _raise_if(
            harms(checks[name], GONE),
            f"a group whose removal does not make the model worse on {checks[name]['judging_rows']:,} held-out rows of "
            "other groups",
            f"trained again, leaving out {name}",
            "the model learns from this group in spite of its faults",
            "clean its single rows instead (leave --group out)",
        )
        return
    frame = folder.read_frame(GROUPS)
    line = frame[(frame["row_id"].astype(str) == name) & (frame["query"] == HELD_OUT)]
    bad = [flag for flag in ("named", "harmful") if flag in line and line[flag].any()]
    if line.empty or bad or not line["lower"].iloc[0] > 0:
        return
    effect = float(line["effect"].iloc[0])
    raise ConfigError(
        explain(
            "a group whose removal does not make the model worse on held-out rows",
            f"removing {name} is estimated to raise the held-out loss by {effect:.3g}",
            "the group is no bad source: the model learns from it",
            "look at the groups by finfluence show, or write the file all the same by --even-if-worse",
        )
    )


def _check_harmless(folder: ScanFolder, summary: Mapping[str, Any], options: CleanOptions) -> None:
    """Raise if training again showed that the cleaned rows do worse than the original ones."""
    if options.action == "review" or options.even_if_worse or not summary["proof"]:
        return
    check = folder.read_json(CHECK)
    _raise_if(
        harms(check),
        f"a cleaning that does not make the model worse on {check['judging_rows']:,} held-out rows",
        f"trained again, cleaning {check['changed_rows']:,} rows",
        "rows are named that the model needs, or the held-out labels are wrong themselves",
        "look at the named rows by finfluence show, give checked held-out rows by --holdout",
    )


def _raise_if(harm: Sequence[str], expected: str, who: str, cause: str, remedy: str) -> None:
    if harm:
        raise ConfigError(
            explain(
                expected,
                f"{who} {'; '.join(harm)}",
                cause,
                f"{remedy}, or write the file all the same by --even-if-worse",
            )
        )


def _check_classes(decisions: Decisions, options: CleanOptions) -> None:
    """Raise if a class would lose more than a fifth of its rows."""
    frame = (decisions if options.fdr is None else decisions.at(options.fdr)).frame
    if options.yes or options.action == "review" or not frame["confidence"].notna().any():
        return
    if options.action == "drop":
        leaves = frame["flagged"]
    elif options.action == "relabel":
        leaves = frame["flagged"] & frame["suggested_label"].notna()
    else:
        leaves = frame["flagged"] & frame["suggested_action"].isin(["drop", "relabel"])
    lost = [
        f"{label} would lose {int(leaves[rows].sum()):,} of its {len(rows):,} rows"
        for label, rows in frame.groupby("label", sort=True).groups.items()
        if leaves[rows].sum() > MOST_OF_CLASS * len(rows)
    ]
    if lost:
        raise ConfigError(
            explain(
                f"every class to lose at most {100 * MOST_OF_CLASS:.0f} % of its rows",
                "; ".join(lost[:5]),
                "the class is rare or hard, and its rows are taken for wrong; or its labels are that bad",
                "look at these rows by finfluence show, lower --fdr, or confirm by --yes",
            )
        )


def _as_arrays(raw: RawTable, place: Path, to: str | os.PathLike[str]) -> Path:
    if Path(to).suffix.lower() != ".npz":
        raise ConfigError(
            explain(
                "a name that ends in .npz",
                os.fspath(to),
                f"{raw.source.name} is built in and has no file whose format could be kept",
                f"write to {Path(to).stem or 'cleaned'}.npz: the cleaned rows as arrays x and y",
            )
        )
    assert raw.pixels is not None
    path = place / "rows.npz"
    np.savez(path, x=raw.pixels, y=np.array(raw.labels.tolist()))
    return path
