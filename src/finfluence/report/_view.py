"""From checked content to what the templates name: finished strings, charts and lists, section by section."""

import math

from finfluence.report import _text as text
from finfluence.report._charts import arm, arm_scale, histogram, mark, scatter
from finfluence.report._findings import FINDINGS
from finfluence.report._rows import TableView
from finfluence.report._schema import (
    Arm,
    Cleaning,
    Difference,
    Measure,
    Metric,
    ReportContent,
    RowEntry,
    Table,
    Verification,
)
from finfluence.report._tradeoff_chart import tradeoff
from finfluence.report._words import glossary, words_of

_SEVERITY = {"error": 0, "warning": 1, "info": 2}
View = dict[str, object]


def view(content: ReportContent) -> View:
    """Return the variables of `report.html.j2`."""
    table = TableView(content)
    queries = {query.name: query for query in content.queries}
    actions = {row.action for row in content.rows}
    contrast = content.queries[0].contrast if content.queries else "remove"
    return {
        "title": content.title,
        "verdict": content.verdict,
        "findings": sorted(content.findings, key=lambda finding: _SEVERITY[finding.severity]),
        "kinds": {k: FINDINGS[k] for k in sorted({f.code for f in content.findings} & FINDINGS.keys())},
        "meaning": content.meaning,
        "queries": content.queries,
        "level": text.percent(content.level),
        "table": table,
        "actions": [name for name in ("drop", "relabel", "review", "ambiguous", "keep") if name in actions],
        "has": _columns_in_use(content.rows),
        "payload": table.payload(content.queries),
        "closeup": _closeup(table),
        "distributions": [
            {
                "query": queries[d.query],
                "n": f"{sum(d.counts):,.0f}",
                "null": bool(d.null_x),
                "svg": histogram(d, queries[d.query]),
            }
            for d in content.distributions
        ],
        "cleaning": content.cleaning and _cleaning(content.cleaning),
        "verification": content.verification and _verification(content.verification),
        "tables": [
            {"title": t.title, "lead": t.lead, "note": t.note, "early": t.early, "number": k, **_columns(t)}
            for k, t in enumerate(content.tables, 1)
        ],
        "origin": content.origin,
        "facts": [(k, text.datum(v)) for k, v in (content.origin.facts if content.origin else {}).items()],
        "words": {**glossary(contrast), **content.glossary},
        "contrast": words_of(contrast),
    }


def _columns_in_use(rows: tuple[RowEntry, ...]) -> dict[str, bool]:
    return {
        "label": any(row.label or row.suggested_label or row.group for row in rows),
        "effect": any(math.isfinite(row.effect) for row in rows),
        "q": any(math.isfinite(row.q_value) for row in rows),
        "loss": any(math.isfinite(row.own_loss) for row in rows),
    }


def _closeup(table: TableView) -> View | None:
    row = table.first
    if row is None:
        return None
    shown = table.rows[0]
    return {"row": shown, "preview": table.preview_of(shown), "svg": tradeoff(row.mu, row.lower, row.upper)}


def _cleaning(cleaning: Cleaning) -> View:
    return {
        "sentence": cleaning.sentence,
        "metrics": [_metric(metric, cleaning.arms) for metric in cleaning.metrics],
        "differences": [_difference(d, cleaning.metrics) for d in cleaning.differences],
    }


def _metric(metric: Metric, arms: tuple[Arm, ...]) -> View:
    measured = [(a, a.values.get(metric.name) or Measure(value=math.nan)) for a in arms]
    scale = arm_scale(v for _, m in measured for v in (m.value, m.lower, m.upper))
    reference = measured[0][1].value if measured else math.nan
    lines = []
    for a, m in measured:
        shown = text.measure(m.value, m.lower, m.upper)
        svg = arm(m.value, m.lower, m.upper, scale, reference, f"{a.name}: {shown}")
        lines.append({"name": a.name, "runs": f"{a.runs:,}", "svg": svg, "text": shown})
    return {"metric": metric, "lines": lines}


def _difference(d: Difference, metrics: tuple[Metric, ...]) -> View:
    metric = next(m for m in metrics if m.name == d.metric)
    better = -1 if metric.better == "lower" else 1
    sure = d.lower * d.upper > 0
    says = ("better" if d.value * better > 0 else "worse") if sure else "not told apart"
    if math.isnan(d.lower * d.upper):
        says = text.MISSING
    return {
        "metric": d.metric,
        "name": d.name,
        "text": text.measure(d.value, d.lower, d.upper, metric.unit),
        "says": says,
    }


def _verification(verification: Verification) -> View:
    figures = [
        {
            "name": f.name,
            "text": text.measure(f.value, f.lower, f.upper),
            "best": text.fixed(f.best) if math.isfinite(f.best) else "",
            "meaning": f.meaning,
        }
        for f in verification.figures
    ]
    kinds = [
        k for k in ("top", "bottom", "middle", "random") if any(p.kind == k for p in verification.points)
    ]
    return {
        "sentence": verification.sentence,
        "verdict": verification.verdict,
        "note": verification.note,
        "figures": figures,
        "best": any(math.isfinite(f.best) for f in verification.figures),
        "svg": scatter(verification.points, verification.slope) if verification.points else "",
        "kinds": [{"name": k, "svg": mark(k, 9, 9)} for k in kinds],
        "slope": text.number(verification.slope, 2) if math.isfinite(verification.slope) else "",
        "n": f"{len(verification.points):,}",
    }


def _columns(table: Table) -> View:
    columns = [text.column([row[i] for row in table.rows]) for i in range(len(table.columns))]
    heads = [
        {"name": name, "number": numeric} for name, (_, numeric) in zip(table.columns, columns, strict=True)
    ]
    return {"heads": heads, "rows": list(zip(*(cells for cells, _ in columns), strict=True))}
