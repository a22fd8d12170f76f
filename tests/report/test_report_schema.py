"""Every way the content can contradict the schema has a message that names the place and the remedy."""

import dataclasses
import math

import numpy as np
import pytest
from demo_content import demo_content

from finfluence.errors import ConfigError
from finfluence.report import Finding, QueryInfo, ReportContent, RowEntry, render, validated

BARE = {"title": "t", "verdict": "Nothing can be told from training noise."}
QUERY = {"name": "q", "sign": -1}
ROW = {"row_id": "a", "query": "q", "rank": 1, "mu": 1.0}


def message(**content: object) -> str:
    with pytest.raises(ConfigError) as caught:
        validated({**BARE, **content})
    return str(caught.value)


def test_unknown_field_names_the_near_one() -> None:
    text = message(finding=[])
    assert text.startswith("expected content to have only fields of ReportContent: title, verdict,")
    assert "got: the field 'finding'" in text
    assert text.endswith("next step: rename it to 'findings'")


def test_missing_field_says_what_was_there() -> None:
    text = message(queries=[{"name": "q"}])
    assert text.startswith(
        "expected content.queries[0] to have the field 'sign' (QueryInfo)\n  got: only 'name'\n"
    )
    assert "next step: add 'sign'; finfluence.report.QueryInfo lists every field" in text


def test_wrong_type_shows_value_and_place() -> None:
    text = message(queries=[QUERY], rows=[ROW, {**ROW, "mu": "high"}])
    assert text.startswith(
        "expected content.rows[1].mu to be a number (or None where it is unknown)\n  got: 'high' (str)\n"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"level": 95}, "content.level to be between 0 and 1\n  got: 95.0 (float)"),
        ({"verdict": " "}, "content.verdict to be one sentence\n  got: ' ' (str)"),
        ({"queries": "q"}, "content.queries to be a sequence\n  got: 'q' (str)"),
        ({"queries": [3]}, "content.queries[0] to be a mapping with the fields of QueryInfo\n  got: 3 (int)"),
        (
            {"queries": [{"name": "q", "sign": 0}]},
            "content.queries[0].sign to be +1 (larger is better) or -1",
        ),
        ({"queries": [QUERY, QUERY]}, "content.queries[1].name to be named once only\n  got: 'q' (str)"),
        (
            {"queries": [QUERY], "rows": [{**ROW, "query": "r"}]},
            "content.rows[0].query to name one of the queries: 'q'",
        ),
        (
            {"queries": [QUERY], "rows": [{**ROW, "rank": True}]},
            "content.rows[0].rank to be a whole number\n  got: True",
        ),
        (
            {"queries": [QUERY], "rows": [{**ROW, "flagged": 1}]},
            "content.rows[0].flagged to be True or False",
        ),
        (
            {"queries": [QUERY], "rows": [{**ROW, "action": "delete"}]},
            "content.rows[0].action to be one of 'keep', 'ambiguous', 'drop', 'relabel', 'review'\n  got: 'delete' (str)",
        ),
        (
            {"queries": [QUERY], "rows": [{**ROW, "preview": {"text": "a", "cells": {}}}]},
            "content.rows[0].preview to be exactly one of cells, image_png, text\n  got: ['cells', 'text']",
        ),
        (
            {"queries": [QUERY], "rows": [{**ROW, "preview": {"image_png": b"GIF89a"}}]},
            "content.rows[0].preview.image_png to be the bytes of a PNG file (see finfluence.report.",
        ),
        (
            {"queries": [QUERY], "rows": [{**ROW, "preview": {"cells": {"a": b"x"}}}]},
            "content.rows[0].preview.cells['a'] to be str or int or float or bool or None\n  got: b'x'",
        ),
        (
            {"queries": [QUERY], "distributions": [{"query": "q", "edges": [0, 1], "counts": [1, 2]}]},
            "content.distributions[0].edges to be one longer than counts (2)\n  got: 2 (int)",
        ),
        (
            {"queries": [QUERY], "distributions": [{"query": "q", "edges": [0, 0], "counts": [1]}]},
            "content.distributions[0].edges to be finite and increasing\n  got: (0.0, 0.0) (tuple)",
        ),
        (
            {"queries": [QUERY], "distributions": [{"query": "q", "edges": [0, 1], "counts": [-1]}]},
            "content.distributions[0].counts to be finite and not negative",
        ),
        (
            {
                "queries": [QUERY],
                "distributions": [{"query": "q", "edges": [0, 1], "counts": [1], "null_x": [1]}],
            },
            "content.distributions[0].null_y to be as long as null_x (1)\n  got: 0 (int)",
        ),
        (
            {
                "cleaning": {
                    "sentence": "s",
                    "metrics": [],
                    "arms": [{"name": "a", "runs": 1, "values": {"m": {"value": 1}}}],
                }
            },
            "content.cleaning.arms[0].values to name one of the metrics: none are given\n  got: 'm'",
        ),
        (
            {"tables": [{"title": "t", "columns": ["a"], "rows": [[1, 2]]}]},
            "content.tables[0].rows[0] to be as long as columns (1)\n  got: (1, 2) (tuple)",
        ),
        (
            {"findings": [{"code": "FI001", "severity": "bad", "text": ""}]},
            "content.findings[0].severity to be one of",
        ),
    ],
)
def test_message(content: dict, words: str) -> None:
    assert message(**content).startswith(f"expected {words}")


def test_long_values_are_cut_in_messages() -> None:
    assert len(message(level="x" * 1_000_000)) < 500


def test_dictionary_and_dataclasses_are_the_same_content() -> None:
    plain = {
        **BARE,
        "queries": [QUERY],
        "rows": [ROW],
        "findings": [{"code": "FI001", "severity": "info", "text": "x"}],
    }
    typed = ReportContent(
        **BARE,
        queries=(QueryInfo(**QUERY),),
        rows=(RowEntry(**ROW),),
        findings=(Finding(code="FI001", severity="info", text="x"),),
    )
    assert render(plain) == render(typed)


def test_dataclasses_built_with_wrong_types_are_caught_too() -> None:
    wrong = dataclasses.replace(ReportContent(**BARE), level="0.95")
    with pytest.raises(ConfigError, match=r"content\.level to be a number"):
        render(wrong)


def test_numpy_values_and_none_are_taken() -> None:
    row = {
        **ROW,
        "row_id": np.int64(7),
        "mu": np.float32(0.5),
        "rank": np.int64(2),
        "q_value": None,
        "flagged": np.True_,
    }
    entry = validated({**BARE, "queries": [QUERY], "rows": [row]}).rows[0]
    assert (entry.row_id, entry.mu, entry.rank, entry.flagged) == ("7", 0.5, 2, True)
    assert math.isnan(entry.q_value)


def test_the_demo_is_valid() -> None:
    assert len(validated(demo_content()).rows) == 200
