"""From what a user has (a table, arrays, images) to rows a model can learn from."""

from finfluence.ingest._builtin import BUILTIN_NAMES, digits_frame
from finfluence.ingest._planted import plant_label_errors
from finfluence.ingest._raw import RawTable
from finfluence.ingest._read import from_frame, read, reread
from finfluence.ingest._split import split
from finfluence.ingest._table import Source, Table, Target

__all__ = [
    "BUILTIN_NAMES",
    "RawTable",
    "Source",
    "Table",
    "Target",
    "digits_frame",
    "from_frame",
    "plant_label_errors",
    "read",
    "reread",
    "split",
]
