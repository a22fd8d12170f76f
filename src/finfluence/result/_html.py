"""A result in a notebook: verdict, sign in words, the most harmful and helpful rows, findings; all of it escaped."""

import html
import math
from collections.abc import Sequence

import pandas as pd
import xarray as xr

from finfluence.report import FINDINGS, Finding, finding, fixed, interval, probability, visible
from finfluence.result._provenance import Provenance
from finfluence.result._schema import kind_of
from finfluence.result._select import decide_rows
from finfluence.result._summary import meaning, verdict, verification_findings
from finfluence.result._text import describe
from finfluence.result._views import frame, query_names, ranking, strongest

FDR = 0.1
SHOWN = 10
NO_MATHEMATICS = "tex2jax_ignore mathjax_ignore"
_LONGEST = 120
_BOX = "font-family:system-ui,sans-serif;line-height:1.4;max-width:60em"
_CELL = (
    "padding:.15em .8em .15em 0;text-align:{};border-bottom:1px solid rgba(128,128,128,.3);white-space:nowrap"
)


def notebook_html(data: xr.Dataset) -> str:
    """Return the result as a piece of HTML that needs nothing else, for its first query."""
    if not data.sizes["query"] or not data.sizes["subset"]:
        return f"<pre>{escaped(describe(data), 2_000)}</pre>"
    name, made, kind = query_names(data)[0], Provenance.from_dict(data.attrs), kind_of(data)
    value, lines = ranking(data, name), frame(data, [name])
    notes = [*verification_findings(made.verification)]
    if kind == "score":
        said = f"Scores rank {len(lines):,} rows; they carry no error rate, so nothing was decided."
    else:
        named = decide_rows(data, [name], FDR)
        said = verdict(int(named.flagged.sum()), len(lines), [name], FDR)
        lines = lines.assign(q_value=named.q_values)
        notes += [finding("FI020", text) for text in named.findings]
    notes += [finding(code, text) for code, text in made.coded()]
    ends = [(strongest(data, name, "harmful"), value > 0), (strongest(data, name, "helpful"), value < 0)]
    half = [order[side[order]][:SHOWN] for order, side in ends]
    tables = "".join(
        _table(f"Most {side}", lines.iloc[rows])
        for side, rows in zip(("harmful", "helpful"), half, strict=True)
    )
    further = data.sizes["query"] - 1
    more = f"<p>… and {further:,} more quer{'y' if further == 1 else 'ies'}.</p>" if further else ""
    return (
        f'<div class="{NO_MATHEMATICS}" style="{_BOX}"><p><b>{escaped(said)}</b></p>{_list(meaning(data, [name]))}'
        f'<div style="display:flex;flex-wrap:wrap;gap:0 3em">{tables}</div>{more}{_findings(notes)}</div>'
    )


def escaped(text: object, limit: int = 600) -> str:
    """Return any text so that it is shown as it is, hidden characters by their code point."""
    return html.escape(visible(str(text), limit))


def _table(title: str, lines: pd.DataFrame) -> str:
    columns = [
        ("row", "left", [escaped(v, _LONGEST) for v in lines["row_id"]]),
        *(
            (label, "right", [_number(v, column) for v in lines[column]])
            for column, label in (("mu", "μ"), ("score", "score"))
            if column in lines
        ),
    ]
    if "lower" in lines:
        ends = zip(lines["lower"], lines["upper"], strict=True)
        columns.append(("interval", "right", [interval(float(a), float(b)) for a, b in ends]))
    if "q_value" in lines:
        columns.append(("q-value", "right", [probability(float(v)) for v in lines["q_value"]]))
    if lines["own_loss"].notna().any():
        columns.append(("own loss", "right", [_number(v, "own_loss") for v in lines["own_loss"]]))
    heads = "".join(f'<th style="{_CELL.format(side)}">{name}</th>' for name, side, _ in columns)
    rows = "".join(
        "<tr>" + "".join(f'<td style="{_CELL.format(side)}">{v[i]}</td>' for _, side, v in columns) + "</tr>"
        for i in range(len(lines))
    )
    body = (
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody>"
        if len(lines)
        else "<tbody><tr><td>none</td></tr></tbody>"
    )
    caption = f'<caption style="text-align:left"><b>{title}</b></caption>'
    return f'<table style="border-collapse:collapse">{caption}{body}</table>'


def _number(value: float, column: str) -> str:
    return f"{value:+.3g}" if column == "score" and math.isfinite(value) else fixed(float(value))


def _list(sentences: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escaped(s)}</li>" for s in sentences) + "</ul>"


def _findings(notes: Sequence[Finding]) -> str:
    items = "".join(
        f'<li>{escaped(n.text, 2_000)} <code title="{escaped(FINDINGS[n.code].title)}">{n.code}</code></li>'
        for n in notes
    )
    return f"<p><b>What qualifies this</b></p><ul>{items}</ul>" if items else ""
