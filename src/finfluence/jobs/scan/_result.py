"""A finished scan: its verdict, its decisions and what can be done with them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from finfluence.clean import CleanOptions, Decisions, Written
from finfluence.jobs.scan._chapters import Chapter, chapters
from finfluence.jobs.scan._cleaned import clean_scan
from finfluence.jobs.scan._decisions import from_table, read_lines
from finfluence.jobs.scan._folder import INFLUENCE, PREVIEWS, REPORT, ScanFolder
from finfluence.jobs.scan._options import HELD_OUT, OWN, VerifyOptions, checked_names
from finfluence.jobs.scan._report_content import review_list
from finfluence.jobs.scan._verify import verify_scan
from finfluence.jobs.scan._words import whole_verdict
from finfluence.result import Influence, one_of, verification_sentence
from finfluence.verification import Verification

WORST = 10
_SAID = ("FI026", "FI027", "FI028")
"""Findings that are sentences of the verdict already."""


@dataclass(frozen=True, eq=False, repr=False)
class ScanResult:
    """A finished scan.

    Attributes
    ----------
    folder
        Where everything is: `influence.parquet`, `influence.zarr`, `report.html`, `run.yaml`, `scan.json`, `scan.log`.
    summary
        Content of `scan.json`: verdict, counts, sentences, findings, timings.
    lines
        Content of `influence.parquet`: one line per row and query.
    names
        For rows that came from memory: the id of each in its frame, by the text of it.
    labels
        For rows that came from memory: the labels of the frame, by the text of each.
    temporary
        Whether the folder is removed with the result, since none was asked for.
    """

    folder: Path
    summary: Mapping[str, Any]
    lines: pd.DataFrame
    names: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, Any] = field(default_factory=dict)
    temporary: bool = False

    @property
    def verdict(self) -> str:
        """The sentence that the scan ends in, and what removing the named rows does if a verification measured it."""
        return whole_verdict(self.summary)

    @property
    def nothing_found(self) -> bool:
        """Whether no row was named."""
        return not self.summary["counts"]["named"]

    @property
    def notes(self) -> list[str]:
        """What qualifies the verdict and is not among its sentences: how the data were read, labels and the check."""
        return [
            text
            for code, text in self.summary["findings"]
            if code.startswith(("FI02", "FI04")) and code not in _SAID
        ]

    @property
    def report(self) -> Path:
        """The page that shows everything."""
        return self.folder / REPORT

    @property
    def decisions(self) -> pd.DataFrame:
        """One line per training row, by its id: μ on its worst query, own loss, q-value, action and reason.

        Ids and labels are those of the frame that was scanned. Held-out rows are not among them: nothing is measured
        on them.
        """
        frame = self.decide().frame
        for column in ("label", "predicted", "suggested_label") if self.labels else ():
            own = [self.labels.get(v, v) if isinstance(v, str) else v for v in frame[column].tolist()]
            values = pd.Series(own, frame.index, dtype=object)
            frame = frame.assign(
                **{column: values if column == "suggested_label" else values.infer_objects()}
            )
        ids = [self.names.get(str(i), i) for i in frame["row_id"].tolist()]
        return frame.drop(columns="row_id").set_axis(pd.Index(ids, name="row_id"))

    @property
    def influence(self) -> Influence:
        """The influence of every row on every query."""
        return ScanFolder(self.folder).read_result(INFLUENCE)

    @property
    def previews(self) -> pd.DataFrame:
        """A few words on the named rows and the most harmful and helpful ones: row_id, preview."""
        return ScanFolder(self.folder).read_frame(PREVIEWS)

    @property
    def chapters(self) -> list[Chapter]:
        """What `decide` and `assess` found, where they were run."""
        return chapters(ScanFolder(self.folder))

    def decide(self, fdr: float | None = None) -> Decisions:
        """Return the decisions, at the scan's false-discovery rate or another one.

        Returns
        -------
        Decisions

        Raises
        ------
        ConfigError
            A rate that is not between 0 and 1.
        """
        decisions = from_table(self.lines, dict(self.summary), float(self.summary["fdr"]))
        return decisions if fdr is None else decisions.at(fdr)

    def worst(self, top: int = WORST, query: str = HELD_OUT) -> pd.DataFrame:
        """Return the worst rows of a query: named ones first, then by their shrunken effect, then by μ.

        Returns
        -------
        pd.DataFrame

        Raises
        ------
        ConfigError
            There is no such query.
        """
        lines = self.lines[self.lines["query"] == one_of(query, list(self.summary["queries"]), "query")]
        sign = 1.0 if query == OWN else -1.0
        order = lines.assign(
            _left=sign * lines["shrunken"] / lines["spread"], _harm=sign * lines["mu"]
        ).sort_values(["flagged", "_left", "_harm"], ascending=False, kind="stable")
        return order.drop(columns=["_left", "_harm"]).head(top).reset_index(drop=True)

    def review(self, top: int = 100) -> pd.DataFrame:
        """Return the rows with the most doubtful labels: by `p_wrong`, then by `oof_loss`."""
        return review_list(self.lines, top)

    def clean(self, to: str | Path, **options: Any) -> Written:
        """Write the cleaned file and its audit; options as of `finfluence.clean.CleanOptions`.

        Returns
        -------
        Written

        Raises
        ------
        StorageError
            A file of that name is there already, or nothing can be written.
        DataError
            The data has changed since.
        ConfigError
            An unknown option, a file of another format than the source, a plan that the retraining check shows to do
            harm (unless `even_if_worse=True`), or one that takes more than a fifth of a class (unless `yes=True`).
        """
        return clean_scan(self.folder, to, CleanOptions(**checked_names(options, CleanOptions)))

    def verify(self, **options: Any) -> Verification:
        """Hold the estimates against retraining; options as of `VerifyOptions`.

        Returns
        -------
        Verification

        Raises
        ------
        ConfigError
            An unknown option, too few subsets or runs, or a budget that is too small.
        DataError
            The data has changed since.
        StorageError
            The folder was changed or removed.
        """
        return verify_scan(self.folder, VerifyOptions(**checked_names(options, VerifyOptions)))

    def __repr__(self) -> str:
        lines = [f"Scan: {self.verdict}"]
        lines += [f"  {text}" for text in self._sentences()]
        where = str(self.folder)
        if self.temporary:
            where += " (temporary: removed with this result; pass out= to keep it)"
        lines.append(f"  folder: {where}")
        lines.append(
            "  next: .decisions, .worst(), .review(), .report, .influence, .verify(budget='10m'), .clean('cleaned.csv')"
        )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        worst = self.worst()
        labelled = shows_labels(worst)
        columns = ["row", "μ", "95 % interval", "q", "own loss", "action"]
        columns += ["label", "models say"] if labelled else []
        columns.append("why")
        head = "".join(f"<th>{escape(name)}</th>" for name in columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row_cells(line, labelled)) + "</tr>"
            for line in worst.to_dict("records")
        )
        sentences = "".join(f"<p>{escape(text)}</p>" for text in self._sentences())
        return (
            f"<div><p><b>{escape(self.verdict)}</b></p>{sentences}"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<p>Report: {escape(str(self.report))}</p></div>"
        )

    def _sentences(self) -> list[str]:
        said = (
            *self.summary.get("groups_said", ()),
            *self.summary.get("choice_said", ()),
            *self.summary.get("labels_said", ()),
            *self.summary.get("nothing_said", ()),
            self.summary["proof"],
            verification_sentence(self.summary.get("verification")),
            *(f"note: {text}" for text in self.notes),
            f"{self.summary['sign']}.",
        )
        return [text for text in said if text]


def open_scan(path: str | Path) -> ScanResult:
    """Return a finished scan from its folder.

    Returns
    -------
    ScanResult

    Raises
    ------
    StorageError
        The folder holds no finished scan, or files of it are damaged.
    """
    folder = ScanFolder(path)
    summary = folder.read_summary()
    return ScanResult(folder.path, summary, read_lines(folder))


def read_run(path: str | Path) -> dict[str, Any]:
    """Return what `run.yaml` in a scan's folder says: options, data, training, versions.

    Returns
    -------
    dict[str, Any]

    Raises
    ------
    StorageError
        The folder is no scan's, or the file is damaged.
    """
    return ScanFolder(path).read_run()


def row_cells(line: Mapping[Any, Any], labelled: bool) -> list[Any]:
    """Return one line of the table as a person reads it: row, μ, interval, q, own loss, action, labels, why."""
    action = str(line["suggested_action"])
    if action == "relabel":
        action += f" to {line['suggested_label']}"
    cells = [
        line["row_id"],
        in_short(line["mu"]),
        f"[{in_short(line['lower'])}, {in_short(line['upper'])}]",
        q_in_short(line["q_value"]),
        in_short(line["own_loss"]),
        action,
    ]
    cells += label_cells(line) if labelled else []
    return [*cells, line["reason"]]


def shows_labels(lines: pd.DataFrame) -> bool:
    """Tell whether rows have something to show beside their label: a class and how sure it is, or a number."""
    numbers = pd.api.types.is_numeric_dtype(lines["predicted"])
    return bool(lines["predicted" if numbers else "confidence"].notna().any())


def label_cells(line: Mapping[Any, Any]) -> list[str]:
    """Return a row's label, and what models say: a class with its probability, or a number.

    Returns
    -------
    list of str

    Examples
    --------
    >>> label_cells({"label": "cat", "predicted": "dog", "confidence": 0.934})
    ['cat', 'dog (0.93)']
    >>> label_cells({"label": 1250.0, "predicted": 126.5431, "confidence": float("nan")})
    ['1250', '126.5']
    """
    label, said = line["label"], line["predicted"]
    shown = f"{label:.9g}" if isinstance(label, float) else str(label)
    if isinstance(said, float):
        return [shown, "–" if math.isnan(said) else f"{said:.4g}"]
    sure = line["confidence"]
    return [shown, str(said) if math.isnan(sure) else f"{said} ({sure:.2f})"]


def in_short(value: float | None) -> str:
    """Return a number with two digits, or a dash.

    Returns
    -------
    str

    Examples
    --------
    >>> in_short(-3.14159), in_short(float("nan"))
    ('-3.14', '–')
    """
    return "–" if value is None or math.isnan(value) else f"{value:.2f}"


def q_in_short(value: float | None) -> str:
    """Return a q-value with three digits.

    Returns
    -------
    str

    Examples
    --------
    >>> q_in_short(0.0001), q_in_short(0.05)
    ('<0.001', '0.050')
    """
    return "–" if value is None or math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"
