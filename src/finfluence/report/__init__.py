"""The report page: a pure function from plain content to one self-contained HTML file."""

from finfluence.report._charts import scatter
from finfluence.report._findings import FINDINGS, FindingKind, finding, findings_page
from finfluence.report._png import thumbnail
from finfluence.report._render import render, write_report
from finfluence.report._rows import MAX_ROWS, TableView, embeddable
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
from finfluence.report._sections import Section, markdown, render_sections
from finfluence.report._series import Level, Line, levels, lines
from finfluence.report._svg import Svg
from finfluence.report._text import column, fixed, interval, measure, number, probability, visible
from finfluence.report._tradeoff_chart import curve, tradeoff
from finfluence.report._validate import validated
from finfluence.report._words import effect_sentence, magnitude, power, power_sentence

__all__ = [
    "FINDINGS",
    "MAX_ROWS",
    "Agreement",
    "Arm",
    "Cleaning",
    "Difference",
    "Distribution",
    "Finding",
    "FindingKind",
    "Level",
    "Line",
    "Measure",
    "Metric",
    "Origin",
    "Point",
    "Preview",
    "QueryInfo",
    "ReportContent",
    "RowEntry",
    "Section",
    "Svg",
    "Table",
    "TableView",
    "Verification",
    "column",
    "curve",
    "effect_sentence",
    "embeddable",
    "finding",
    "findings_page",
    "fixed",
    "interval",
    "levels",
    "lines",
    "magnitude",
    "markdown",
    "measure",
    "number",
    "power",
    "power_sentence",
    "probability",
    "render",
    "render_sections",
    "scatter",
    "thumbnail",
    "tradeoff",
    "validated",
    "visible",
    "write_report",
]
