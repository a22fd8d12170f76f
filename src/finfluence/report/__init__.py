"""The report page: a pure function from plain content to one self-contained HTML file."""

from finfluence.report._png import thumbnail
from finfluence.report._render import render, write_report
from finfluence.report._rows import MAX_ROWS
from finfluence.report._schema import (
    Agreement,
    Arm,
    Cleaning,
    Difference,
    Distribution,
    Finding,
    Measure,
    Metric,
    Origin,
    Point,
    Preview,
    QueryInfo,
    ReportContent,
    RowEntry,
    Table,
    Verification,
)

__all__ = [
    "MAX_ROWS",
    "Agreement",
    "Arm",
    "Cleaning",
    "Difference",
    "Distribution",
    "Finding",
    "Measure",
    "Metric",
    "Origin",
    "Point",
    "Preview",
    "QueryInfo",
    "ReportContent",
    "RowEntry",
    "Table",
    "Verification",
    "render",
    "thumbnail",
    "write_report",
]
