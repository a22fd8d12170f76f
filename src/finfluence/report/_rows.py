"""The table: every row as the strings and places that the page shows, for the HTML and for the script."""

import base64
import json
import math
from collections.abc import Iterable

from finfluence.report import _text as text
from finfluence.report._charts import mini, mini_span
from finfluence.report._schema import Preview, QueryInfo, ReportContent, RowEntry
from finfluence.report._words import direction, effect_sentence, power_sentence

MAX_ROWS = 5_000
ROWS_PER_PAGE = 50
MAX_PREVIEW_CHARS = 3_000_000
_MAX_IMAGE_BYTES = 48_000
_MAX_CELLS, _MAX_CELL, _MAX_KEY, _MAX_TEXT, _MAX_ID = 60, 300, 80, 1_500, 120
_SUMMARY = 90

REASONS = {"influence": "influence", "loss": "label", "both": "influence and label", "": ""}

RowView = dict[str, object]
PreviewView = dict[str, object]


class TableView:
    """The rows of a report, ready to show: `rows`, their `previews`, and what had to be left out."""

    def __init__(self, content: ReportContent):
        queries = {query.name: (i, query) for i, query in enumerate(content.queries)}
        entries = sorted(content.rows[:MAX_ROWS], key=lambda row: (queries[row.query][0], row.rank))
        spans = {name: mini_span(row for row in entries if row.query == name) for name in queries}
        self._decimals = {n: text.aligned(row.effect for row in entries if row.query == n) for n in queries}
        self._previews = _Previews()
        self.rows = [self._view(row, *queries[row.query], spans[row.query], content.level) for row in entries]
        self.previews = self._previews.kept
        self.first = entries[0] if entries else None
        self.n_given = len(content.rows)

    @property
    def n_first_query(self) -> int:
        """Return how many rows belong to the query that is shown first."""
        return sum(row["query"] == self.rows[0]["query"] for row in self.rows)

    def first_page(self) -> list[RowView]:
        """Return the rows that stand in the page without a script: the worst of the first query."""
        return self.rows[: min(ROWS_PER_PAGE, self.n_first_query)]

    def blank(self) -> RowView:
        """Return a row with nothing in it: the mould that the script fills."""
        return dict.fromkeys(self.rows[0], "")

    def preview_of(self, row: RowView) -> PreviewView | None:
        """Return what the row looks like, or None where that is unknown."""
        index = row["preview"]
        return self.previews[index] if isinstance(index, int) and index >= 0 else None

    def payload(self, queries: Iterable[QueryInfo]) -> str:
        """Return the data for the script as JSON that cannot end a script element."""
        columns = {key: [row[key] for row in self.rows] for key in self.rows[0]} if self.rows else {}
        names = [text.visible(query.name) for query in queries]
        return embeddable(
            {"queries": names, "perPage": ROWS_PER_PAGE, "previews": self.previews, "rows": columns}
        )

    def _view(self, row: RowEntry, index: int, query: QueryInfo, span: float, level: float) -> RowView:
        whisker, at = mini(row, span)
        numbers = {name: _finite(getattr(row, name)) for name in ("mu", "lower", "upper", "effect")}
        return {
            "id": text.visible(row.row_id, _MAX_ID),
            "query": index,
            "rank": row.rank,
            "preview": self._previews.index_of(row),
            "label": text.visible(row.label, _MAX_KEY),
            "suggested": text.visible(row.suggested_label, _MAX_KEY),
            "group": text.visible(row.group, _MAX_KEY),
            **numbers,
            "q": _finite(row.q_value),
            "loss": _finite(row.own_loss),
            "flagged": row.flagged,
            "action": row.action,
            "reason": REASONS[row.reason],
            "direction": direction(row.mu, query),
            "sure": row.lower > 0 or row.upper < 0,
            "whisker": whisker,
            "at": at,
            "mu_text": text.fixed(row.mu),
            "interval_text": text.interval(row.lower, row.upper),
            "se_text": text.fixed(row.se),
            "effect_cell": self._effect(row),
            "unit": text.visible(query.unit, _MAX_KEY) if math.isfinite(row.effect) else "",
            "effect_text": _with_unit(text.number(row.effect), query.unit),
            "shrunken_text": _with_unit(_plus_minus(row.shrunken, row.shrunken_sd), query.unit),
            "sign_text": text.probability(row.sign_error),
            "spread_text": _with_unit(text.number(row.spread), query.unit),
            "p_text": text.probability(row.p_value),
            "q_text": text.probability(row.q_value),
            "loss_text": text.fixed(row.own_loss),
            "says_effect": text.visible(effect_sentence(row, query)),
            "says_power": power_sentence(row, level, query.contrast),
        }

    def _effect(self, row: RowEntry) -> str:
        decimals = self._decimals[row.query]
        return text.number(row.effect) if decimals is None else text.fixed(row.effect, decimals)


class _Previews:
    """Previews, each kept once (a row stands in the table once per query), up to a size for all together."""

    def __init__(self) -> None:
        self.kept: list[PreviewView] = []
        self._index: dict[str, int] = {}
        self._room = MAX_PREVIEW_CHARS

    def index_of(self, row: RowEntry) -> int:
        if row.preview is None:
            return -1
        view = _preview(row.preview)
        key = json.dumps(view)
        if key not in self._index:
            if len(key) > self._room:
                view = _omitted("left out to keep the page small")
                key = json.dumps(view)
            if key not in self._index:
                self._room -= len(key)
                self._index[key] = len(self.kept)
                self.kept.append(view)
        return self._index[key]


def embeddable(value: object) -> str:
    r"""Return `value` as JSON in which no character can end or open an HTML element.

    Returns
    -------
    str

    Examples
    --------
    >>> embeddable("</script>")
    '"\\u003c/script\\u003e"'
    """
    raw = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        raw = raw.replace(char, f"\\u{ord(char):04x}")
    return raw


def _preview(preview: Preview) -> PreviewView:
    if preview.image_png is not None:
        if len(preview.image_png) > _MAX_IMAGE_BYTES:
            return _omitted("image left out: too large for this page")
        return _look("image", image=base64.b64encode(preview.image_png).decode("ascii"))
    if preview.text is not None:
        shown = text.visible(preview.text, _MAX_TEXT)
        return _look("text", _brief(shown), text=shown)
    cells = list((preview.cells or {}).items())
    pairs = [
        [text.visible(key, _MAX_KEY), text.visible(text.datum(value), _MAX_CELL)]
        for key, value in cells[:_MAX_CELLS]
    ]
    if len(cells) > _MAX_CELLS:
        pairs.append(["…", f"{len(cells) - _MAX_CELLS} more columns"])
    return _look("cells", _brief(" · ".join(f"{k} {v}" for k, v in pairs[:4])), cells=pairs)


def _omitted(why: str) -> PreviewView:
    return _look("text", why, text=why)


def _look(kind: str, summary: str = "", **content: object) -> PreviewView:
    return {"kind": kind, "summary": summary, "image": "", "text": "", "cells": [], **content}


def _brief(shown: str) -> str:
    flat = " ".join(shown[: 4 * _SUMMARY].split())
    return flat if len(flat) <= _SUMMARY else f"{flat[: _SUMMARY - 1]}…"


def _plus_minus(value: float, sd: float) -> str:
    return (
        f"{text.number(value)} ± {text.number(sd)}"
        if math.isfinite(value) and math.isfinite(sd)
        else text.MISSING
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _with_unit(shown: str, unit: str) -> str:
    return shown if shown == text.MISSING or not unit else f"{shown} {text.visible(unit, _MAX_KEY)}"
