"""How each column of a table would be read, before anything is trained."""

import os
from pathlib import Path

import pandas as pd

from finfluence.errors import ConfigError, explain
from finfluence.ingest._builtin import BUILTIN_NAMES
from finfluence.ingest._columns import describe
from finfluence.ingest._decisions import decision_table
from finfluence.ingest._features import most_levels
from finfluence.ingest._formats import read_sheet
from finfluence.ingest._locate import content
from finfluence.ingest._nested import flattened
from finfluence.ingest._read import read
from finfluence.ingest._reading import file_reading
from finfluence.ingest._row_names import names_rows
from finfluence.ingest._split import split


def column_decisions(
    source: str | os.PathLike[str],
    target: str | None = None,
    id_column: str | None = None,
    group_column: str | None = None,
    holdout: str | os.PathLike[str] | None = None,
) -> pd.DataFrame:
    r"""Return how each column of a table is read and what for, one line a column.

    Parameters
    ----------
    source
        A `.csv`, `.tsv`, `.parquet` or `.jsonl` file.
    target, id_column, group_column
        Columns with the label, the row ids and groups of rows; without a target every column is looked at as a feature.
    holdout
        A file with held-out rows, read beside it; needs a target.

    Returns
    -------
    DataFrame
        `column`, `read_as`, `format`, `missing`, `unreadable`, `holdout_lost` (shares of cells), `used_as`, `note`.

    Raises
    ------
    ConfigError
        The source has no columns.
    DataError
        The data cannot be used; the message says which file, column or row.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.csv"
    >>> _ = path.write_text("size;label\n" + "1,5;a\n2,5;b\n" * 20)
    >>> table = column_decisions(path, "label")
    >>> table[["column", "read_as", "format"]].values.tolist()
    [['size', 'number', 'decimal comma, decided by its own cells'], ['label', 'label', '']]
    """
    name = os.fspath(source)
    if name in BUILTIN_NAMES or Path(name).is_dir() or Path(name).suffix.lower() == ".npz":
        raise ConfigError(
            explain(
                "a table for --columns: a CSV, TSV, Parquet or JSON lines file",
                name,
                "images and arrays have no columns to be read in one way or another",
                "leave --columns out",
            )
        )
    if target is not None:
        train, _ = split(read(source, target, id_column, group_column), holdout)
        assert train.column_decisions is not None
        return train.column_decisions
    path = Path(os.path.abspath(name))
    data, format = content(path, name)
    sheet = read_sheet(path, format, data)
    frame = sheet.frame.set_axis(pd.Index([str(c) for c in sheet.frame.columns], dtype=object), axis=1)
    frame, _ = flattened(frame)
    reading = file_reading(frame, sheet.details.get("delimiter", ""))
    why = {column: names_rows(frame[column], reading) for column in frame.columns}
    left_out = {column: reason for column, reason in why.items() if reason is not None}
    most = most_levels(frame)
    columns = [describe(frame[name], most, reading) for name in frame.columns if name not in left_out]
    return decision_table(list(frame.columns), columns, {}, left_out, {}, len(frame))
