"""The report as data: what a page may hold. Plain values only, so any layer can build it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["error", "warning", "info"]
Action = Literal["keep", "ambiguous", "drop", "relabel", "review"]
Reason = Literal["influence", "loss", "both", ""]
Contrast = Literal["remove", "add"]
Cell = str | int | float | bool | None

NAN = float("nan")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One remark that qualifies the verdict, with the code of its help page."""

    code: str
    severity: Severity
    text: str


@dataclass(frozen=True, kw_only=True)
class QueryInfo:
    """A measured behaviour, and what is done to the rows: `contrast` "remove" or "add".

    `sign`: +1 where a larger value is better (accuracy), -1 where worse (loss).
    """

    name: str
    sign: int
    unit: str = ""
    contrast: Contrast = "remove"

    @property
    def harmful(self) -> int:
        """Sign of the μ of harmful rows: those whose removal makes the query better, or whose addition worse."""
        return self.sign if self.contrast == "remove" else -self.sign


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What a row looks like: exactly one of table cells, a small PNG image, or text."""

    cells: Mapping[str, Cell] | None = None
    image_png: bytes | None = None
    text: str | None = None


@dataclass(frozen=True, kw_only=True)
class RowEntry:
    """One row of the training data (or one group) against one query.

    `mu` is signed: positive means that removing the row raises the query. `rank` 1 is the most harmful row of its
    query. `shrunken` is the effect with chance taken out, `sign_error` the chance that its sign is wrong. Numbers that
    are unknown are NaN or None and are shown as "not available".
    """

    row_id: str
    query: str
    rank: int
    mu: float
    lower: float = NAN
    upper: float = NAN
    se: float = NAN
    effect: float = NAN
    shrunken: float = NAN
    shrunken_sd: float = NAN
    sign_error: float = NAN
    spread: float = NAN
    p_value: float = NAN
    q_value: float = NAN
    own_loss: float = NAN
    flagged: bool = False
    action: Action = "keep"
    reason: Reason = ""
    label: str = ""
    suggested_label: str = ""
    group: str = ""
    preview: Preview | None = None


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Histogram of μ over all rows for one query. `null_y` is in rows per bin, like `counts`."""

    query: str
    edges: tuple[float, ...]
    counts: tuple[float, ...]
    thresholds: tuple[float, ...] = ()
    null_x: tuple[float, ...] = ()
    null_y: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A value with its interval at the level of the report."""

    value: float
    lower: float = NAN
    upper: float = NAN


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What the arms of a comparison are measured by."""

    name: str
    better: Literal["lower", "higher"]
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One version of the training data (original, cleaned, random removals), a measure per metric name."""

    name: str
    runs: int
    values: Mapping[str, Measure]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A paired difference between two arms, named in words: "cleaned − original"."""

    metric: str
    name: str
    value: float
    lower: float = NAN
    upper: float = NAN


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """Before and after cleaning, measured by retraining."""

    sentence: str
    metrics: tuple[Metric, ...]
    arms: tuple[Arm, ...]
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Point:
    """One (subset, query): μ as estimated and μ by retraining, each with its interval; `kind` picks its mark."""

    label: str
    estimated: float
    retrained: float
    estimated_lower: float = NAN
    estimated_upper: float = NAN
    retrained_lower: float = NAN
    retrained_upper: float = NAN
    kind: Literal["top", "bottom", "middle", "random", "given", ""] = ""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """One figure of agreement (slope, Pearson, ...), with its interval and what it means.

    `best` is what a perfect estimate would reach against this truth, which is noisy itself.
    """

    name: str
    value: float
    lower: float = NAN
    upper: float = NAN
    best: float = NAN
    meaning: str = ""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The estimate against retraining. `slope` (truth over estimate) draws the line that was fitted."""

    sentence: str
    points: tuple[Point, ...]
    figures: tuple[Agreement, ...] = ()
    verdict: Literal["passed", "order-only", "failed", "undecided", ""] = ""
    slope: float = NAN
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Any further table: baselines, agreement between seeds, the self-test.

    `early`: it stands before the rows. `lead`: a sentence above it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    early: bool = False
    lead: str = ""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """How the result was made: facts in the order given, and the command that replays it."""

    facts: Mapping[str, Cell] = field(default_factory=dict)
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """Everything a report page shows.

    Parameters
    ----------
    title
        What was examined, e.g. "digits.csv".
    verdict
        One sentence. "Nothing can be told from training noise." is a verdict too.
    queries
        The measured behaviours, the first one shown first.
    rows
        The table. Many thousands are cut to the first `finfluence.report.MAX_ROWS`, and the page says so.
    findings
        What qualifies the verdict; shown worst first, in the order given among equals.
    meaning
        Sentences on sign, unit, number of runs and which randomness the spread covers.
    distributions, cleaning, verification, tables, origin
        Sections that vanish when absent.
    glossary
        Terms beside the built-in ones, or in place of them where the term is the same.
    level
        Level of every interval on the page.

    Examples
    --------
    >>> content = ReportContent(
    ...     title="toy", verdict="Nothing can be told from training noise.",
    ...     queries=(QueryInfo(name="held-out loss", unit="nats", sign=-1),),
    ...     rows=(RowEntry(row_id="7", query="held-out loss", rank=1, mu=-1.2),))
    >>> content.rows[0].action
    'keep'
    """

    title: str
    verdict: str
    queries: tuple[QueryInfo, ...] = ()
    rows: tuple[RowEntry, ...] = ()
    findings: tuple[Finding, ...] = ()
    meaning: tuple[str, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    cleaning: Cleaning | None = None
    verification: Verification | None = None
    tables: tuple[Table, ...] = ()
    origin: Origin | None = None
    glossary: Mapping[str, str] = field(default_factory=dict)
    level: float = 0.95
