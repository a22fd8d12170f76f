"""From what a user has (a table, arrays, images) to rows a model can learn from."""

from finfluence.ingest._builtin import BUILTIN_NAMES, digits_frame
from finfluence.ingest._csv import sniff
from finfluence.ingest._features import TableEncoder
from finfluence.ingest._look import column_decisions
from finfluence.ingest._nested import flattened
from finfluence.ingest._planted import plant_label_errors
from finfluence.ingest._preface import before_header, blank_before_quote, marked_encoding, with_row_names
from finfluence.ingest._raw import RawTable
from finfluence.ingest._read import from_frame, read, reread
from finfluence.ingest._split import split
from finfluence.ingest._table import Source, Table, Target
from finfluence.ingest._target import choose_task
from finfluence.ingest._text import BUCKETS, TextEncoder
from finfluence.ingest._unlabelled import Unlabelled, split_beside

__all__ = [
    "BUCKETS",
    "BUILTIN_NAMES",
    "RawTable",
    "Source",
    "Table",
    "TableEncoder",
    "Target",
    "TextEncoder",
    "Unlabelled",
    "before_header",
    "blank_before_quote",
    "choose_task",
    "column_decisions",
    "digits_frame",
    "flattened",
    "from_frame",
    "marked_encoding",
    "plant_label_errors",
    "read",
    "reread",
    "sniff",
    "split",
    "split_beside",
    "with_row_names",
]
