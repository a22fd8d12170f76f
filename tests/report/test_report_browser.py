"""The page's script, run for real."""

import re
from collections.abc import Callable
from urllib.parse import urlencode

import pytest
from demo_content import demo_content

from finfluence.report import render, tradeoff

Browse = Callable[..., str]


def shown_ids(dom: str) -> list[str]:
    body = dom.partition('id="lines">')[2].partition("</tbody>")[0]
    return re.findall(r'<bdi data-f="id">([^<]*)</bdi>', body)


def closeup(dom: str) -> str:
    return dom.partition('<aside id="closeup"')[2].partition("</aside>")[0]


def coordinates(svg: str, kind: str) -> list[float]:
    data = re.search(rf'<path d="([^"]*)" class="{kind}"', svg)
    assert data is not None
    return [float(v) for v in re.findall(r"-?\d+\.?\d*", data[1])]


def test_choosing_a_row_draws_its_curve_as_the_server_would(browse: Browse) -> None:
    content = demo_content(200)
    row = content["rows"][130]  # the second query, off the first page of the first
    dom = browse(render(content), urlencode({"row": row["row_id"], "query": row["query"]}))
    panel = closeup(dom)
    expected = tradeoff(row["mu"], row["lower"], row["upper"])
    assert f'<bdi data-f="id">{row["row_id"]}</bdi>' in panel
    assert "query <bdi" in panel and row["query"] in panel
    for kind in ("curve", "band"):
        assert coordinates(panel, kind) == pytest.approx(coordinates(expected, kind), abs=0.011)
    label = re.search(r'class="mark-label">([^<]*)<', expected)
    assert label is not None and label[0] in panel
    assert re.findall(r'aria-pressed="true"', dom) == ['aria-pressed="true"']


def test_sort_search_and_filter(browse: Browse) -> None:
    content = demo_content(300, "text", n_queries=1)
    content["rows"][200]["preview"] = {"text": "A needle in the hay"}
    content["rows"][7]["own_loss"] = None
    page = render(content)
    losses = sorted((r["own_loss"], r["row_id"]) for r in content["rows"] if r["own_loss"] is not None)
    assert shown_ids(browse(page, "sort=-loss"))[:5] == [name for _, name in losses[::-1]][:5]
    found = browse(page, "find=NEEDLE+hay")
    assert shown_ids(found) == [content["rows"][200]["row_id"]]
    assert "1 of 300 rows" in found
    flagged = [r["row_id"] for r in content["rows"] if r["flagged"] and r["action"] == "relabel"]
    assert shown_ids(browse(page, "show=relabel")) == flagged


def test_hostile_data_runs_nothing_and_the_script_survives(browse: Browse) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>"
    content = demo_content(120, "cells", n_queries=1)
    for row in content["rows"]:
        row.update(row_id=evil + row["row_id"], label=evil, preview={"cells": {evil: evil}})
    dom = browse(render(content), urlencode({"find": evil, "row": evil, "sort": evil}))
    assert "<title>digits.csv, label column “digit” · finfluence</title>" in dom
    assert "120 of 120 rows" in dom
    assert "<img src=" not in dom
