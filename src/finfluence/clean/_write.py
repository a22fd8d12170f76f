"""Write a cleaned file and its audit beside it; the source and everything else stay untouched."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finfluence._files import atomic
from finfluence.clean._decide import Decisions
from finfluence.clean._delimited import decoded, read_sheet
from finfluence.clean._formulas import neutralised
from finfluence.clean._plan import Action, make_plan
from finfluence.clean._sources import (
    ArraysSource,
    DelimitedSource,
    JsonLinesSource,
    ManifestSource,
    Opened,
    ParquetSource,
)
from finfluence.errors import ConfigError, DataError, StorageError, explain

_DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")
_PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class Written:
    """What was written, and how many rows went where.

    Attributes
    ----------
    path, audit_path
        The cleaned file and the record of what was done.
    kept, dropped, relabelled, review
        Rows in the cleaned file (relabelled ones and those for review among them), rows that left it, rows
        with a new label, rows that a person should look at.
    formula_cells
        Cells of the cleaned file that a spreadsheet may run; user data, changed only on request.
    warnings
        Sentences for the user.
    """

    path: Path
    audit_path: Path
    kept: int
    dropped: int
    relabelled: int
    review: int
    formula_cells: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CleanOptions:
    """What to do with the rows that are named.

    Parameters
    ----------
    action, fdr
        As `apply`.
    escape_formulas
        Put an apostrophe before cells of the cleaned CSV that a spreadsheet would run. By default every
        cell stays as it is, byte for byte, and `Written.warnings` counts such cells.
    force
        Replace a cleaned file and an audit that are there already. Without it nothing is ever overwritten; the
        source is not even with it.
    even_if_worse
        Of a scan: write the file although training again on the cleaned rows did worse on held-out rows.
    yes
        Of a scan: write the file although a class loses more than a fifth of its rows.
    group
        Of a scan: drop all rows of this group, held-out ones in the file included, and change nothing else.
    """

    action: Action = "suggested"
    fdr: float | None = None
    escape_formulas: bool = False
    force: bool = False
    even_if_worse: bool = False
    yes: bool = False
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a source was read, where its file does not say so itself.

    Parameters
    ----------
    ids, labels
        For a folder: paths of its images relative to it, and their labels.
    delimiter, encoding
        Of a delimited file, as found by the scan. By default comma (tab for `.tsv`), and the byte-order
        mark, UTF-8, cp1252 in that order.
    """

    ids: Sequence[Any] | np.ndarray | None = None
    labels: Sequence[Any] | np.ndarray | None = None
    delimiter: str | None = None
    encoding: str | None = None


def write_clean(
    decisions: Decisions,
    source: str | os.PathLike[str],
    to: str | os.PathLike[str],
    target: str | None = None,
    id_column: str | None = None,
    layout: Layout | None = None,
    options: CleanOptions | None = None,
) -> Written:
    r"""Write `to`, in the source's format, columns, order and spelling, and an audit beside it, atomically.

    Parameters
    ----------
    decisions
        From `decide`.
    source
        The scanned `.csv`, `.tsv`, `.jsonl`, `.parquet` or `.npz` file, or a folder of images.
    to
        File to write, of the source's format; `.csv` for a folder: a table of path and label of the kept
        images, no image is touched.
    target
        Column (array of an `.npz`, "y" by default) that holds the labels.
    id_column
        Column that held the ids in the scan. Without it, ids are 0-based row numbers of the source.
    layout
        How the source was read, where its file does not say so itself.
    options
        What to do with the named rows, and whether earlier files may be replaced.

    Returns
    -------
    Written

    Raises
    ------
    DataError
        A decided row is not in the source, or every row would leave.
    ConfigError
        `to` has another format than the source.
    StorageError
        `to` is the source, or a file is there already (or its audit) and `options.force` is not set; or nothing can
        be written there.

    Examples
    --------
    >>> import tempfile
    >>> from finfluence.clean import decide
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "train.csv").write_text("x,label\n" + "1.50,cat\n" * 999 + "-7,dog\n")
    >>> mu = np.r_[np.random.default_rng(0).laplace(size=970), np.full(30, -25.0)]
    >>> decisions = decide(np.arange(1000), mu)
    >>> done = write_clean(decisions, folder / "train.csv", folder / "cleaned.csv", target="label")
    >>> done.kept, done.dropped, done.audit_path.name
    (966, 34, 'cleaned.audit.csv')
    """
    layout, options = layout or Layout(), options or CleanOptions()
    origin, goal = Path(source), Path(to)
    _check_name(origin, goal)
    audit_path = goal.with_name(f"{goal.stem}.audit.csv")
    _check_paths(origin, goal, audit_path, options.force)
    opened = _open(origin, target, id_column, layout)
    plan = make_plan(decisions, opened.ids, options.action, options.fdr)
    content, formulas = opened.cleaned(plan, options.escape_formulas)
    audit = plan.audit.assign(line=[opened.lines[i] for i in plan.positions])
    if opened.labels is not None:
        audit["from_label"] = [opened.labels[i] for i in plan.positions]
    with atomic(audit_path) as audit_part, atomic(goal) as part:  # both whole before either takes its name
        audit_part.write_bytes(neutralised(audit).to_csv(index=False, lineterminator="\n").encode("utf-8"))
        part.write_bytes(content)
    done = Counter(plan.audit["action"])
    warnings = [*_emptied(opened.labels, plan.keep)]
    if formulas and not options.escape_formulas:
        warnings.append(
            f"{formulas} cells of {goal.name} start like a formula (= + - @ tab or carriage return) and a "
            "spreadsheet may run them; they are your data and were left as they are. "
            "--escape-formulas puts an apostrophe before them."
        )
    return Written(
        goal,
        audit_path,
        int(plan.keep.sum()),
        done["drop"],
        done["relabel"],
        done["review"],
        0 if options.escape_formulas else formulas,
        tuple(warnings),
    )


def _open(origin: Path, target: str | None, id_column: str | None, layout: Layout) -> Opened:
    kind = origin.suffix.lower()
    if origin.is_dir():
        if layout.ids is None:
            raise ConfigError(
                explain(
                    "ids, the relative paths of the folder's images",
                    "none",
                    "a folder has no rows of its own",
                    "pass the ids and labels of the scanned table",
                )
            )
        missing = [str(i) for i in layout.ids if not (origin / str(i)).is_file()]
        if missing:
            raise DataError(
                explain(
                    f"every scanned image in {origin}",
                    f"{len(missing)} are gone, for instance {missing[:3]}",
                    "files moved or renamed since the scan",
                    "restore them, or scan the folder again",
                )
            )
        labels = None if layout.labels is None else list(layout.labels)
        return ManifestSource(list(layout.ids), labels)
    try:
        if kind in _JSON_LINES:
            return JsonLinesSource(*decoded(origin.read_bytes()), target, id_column)
        if kind in _PARQUET:
            return ParquetSource(pq.read_table(pa.BufferReader(origin.read_bytes())), target, id_column)
        if kind == ".npz":
            with np.load(origin, allow_pickle=False) as file:
                return ArraysSource({name: file[name] for name in file.files}, target, id_column)
        sheet = read_sheet(origin, layout.delimiter or _DELIMITERS.get(kind, ","), layout.encoding)
        return DelimitedSource(sheet, target, id_column)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(
            explain(
                f"{origin} as it was when it was scanned",
                f"{type(error).__name__}: {error}",
                "the file was moved, changed or cut off since",
                "restore the scanned file, or scan the new one",
            )
        ) from error


def _check_name(origin: Path, goal: Path) -> None:
    if goal.name in ("", "..") or (goal.is_dir() and not goal.suffix):
        usual = "cleaned.csv" if origin.is_dir() else f"cleaned{origin.suffix}"
        raise ConfigError(
            explain(
                "the name of a new file",
                f"the folder {os.fspath(goal)!r}",
                "a folder was named in which the file should lie",
                f"write to {goal / usual}",
            )
        )


def _check_paths(origin: Path, goal: Path, audit_path: Path, force: bool) -> None:
    kinds = [_DELIMITERS.keys(), _JSON_LINES, _PARQUET, (".npz",)]
    own = {".csv"} if origin.is_dir() else {origin.suffix.lower()}
    allowed = own.union(*(kind for kind in kinds if own & set(kind)))
    if goal.suffix.lower() not in allowed:
        raise ConfigError(
            explain(
                f"a name that ends in {' or '.join(sorted(allowed))}, the source's format",
                f"{goal}",
                "cleaning keeps the format: converting would change cells that nobody asked to change",
                f"write to {goal.with_suffix(sorted(own)[0])}",
            )
        )
    for path in (goal, audit_path):
        if path.exists() and origin.exists() and path.samefile(origin):
            raise StorageError(
                explain(
                    "another file than the source",
                    f"{path}",
                    "the source is never overwritten",
                    "choose another name for the cleaned file",
                )
            )
    existing = [path for path in (goal, audit_path) if path.exists()]
    folders = [path for path in existing if path.is_dir()]
    if folders or (existing and not force):
        raise StorageError(
            explain(
                f"a new file at {goal}, and none at {audit_path.name} beside it",
                " and ".join(
                    f"{path.name} is {'a folder' if path in folders else 'there already'}"
                    for path in existing
                ),
                "an earlier cleaning, or a file of yours of that name; nothing was changed",
                "choose another name"
                if folders
                else "choose another name, move what is there away, or replace it with --force (in Python force=True)",
            )
        )


def _emptied(labels: Sequence[Any] | None, keep: np.ndarray) -> list[str]:
    if labels is None or len(set(map(str, labels))) > max(2.0, len(keep) ** 0.5):
        return []
    gone = set(map(str, labels)) - {str(label) for label, kept in zip(labels, keep, strict=True) if kept}
    return [f"No row of class {name!r} is left." for name in sorted(gone)]
