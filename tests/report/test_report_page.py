"""The page as a whole: sections come and go, unknown numbers are called so, size and bytes are bounded."""

import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
from demo_content import KINDS, demo_content

from finfluence.errors import ConfigError, StorageError
from finfluence.report import MAX_ROWS, TableView, render, validated, write_report

BARE = {"title": "t", "verdict": "Nothing can be told from training noise."}
NUMBERS = ("mu", "lower", "upper", "se", "effect", "spread", "p_value", "q_value", "own_loss")
SECTIONS = {
    "findings": "findings",
    "meaning": "meaning",
    "rows": "rows",
    "distributions": "distribution",
    "cleaning": "cleaning",
    "verification": "verification",
    "tables": "table-1",
    "origin": "origin",
}


def test_bare_content_is_a_page_with_a_verdict_and_the_words() -> None:
    page = render(BARE)
    assert "<h1>Nothing can be told from training noise.</h1>" in page
    assert page.count("<section") == 1
    assert '<section id="words"' in page
    assert 'id="data"' not in page


@pytest.mark.parametrize(("field", "section"), SECTIONS.items())
def test_a_section_vanishes_with_its_content(field: str, section: str) -> None:
    content = demo_content(20)
    assert f'<section id="{section}"' in render(content)
    del content[field]
    page = render(content)
    assert f'<section id="{section}"' not in page
    assert f'href="#{section}"' not in page


def test_order_of_sections_and_findings() -> None:
    page = render(demo_content(20))
    places = [page.index(f'<section id="{s}"') for s in (*SECTIONS.values(), "words")]
    assert places == sorted(places)
    assert page.index("FI007") < page.index("FI003") < page.index("FI012")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_unknown_numbers_are_not_available(value: float | None) -> None:
    content = demo_content(4, n_queries=1)
    for row in content["rows"]:
        row.update(dict.fromkeys(NUMBERS, value))
    for arm in content["cleaning"]["arms"]:
        arm["values"] = {"held-out loss": {"value": value}}
    page = render(content)
    assert page.count("not available") > 20
    body = page.partition("</style>")[2].partition("<script>")[0].lower()
    assert ">nan" not in body and "inf " not in body and ":nan" not in body and "infinity" not in body


def test_columns_without_any_value_are_left_out() -> None:
    content = {
        **BARE,
        "queries": [{"name": "q", "sign": -1}],
        "rows": [{"row_id": "a", "query": "q", "rank": 1, "mu": 1.0}],
    }
    page = render(content)
    for key, shown in {"label": 0, "effect": 0, "q": 0, "loss": 0, "mu": 1, "rank": 1}.items():
        assert page.count(f'data-sort="{key}"') == shown


@pytest.mark.parametrize("kind", KINDS)
def test_same_content_same_bytes(kind: str) -> None:
    assert render(demo_content(40, kind)) == render(demo_content(40, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_two_thousand_rows_make_a_small_page(kind: str) -> None:
    assert len(render(demo_content(2_000, kind)).encode()) < 6_000_000


@pytest.mark.bench
@pytest.mark.parametrize("kind", KINDS)
def test_two_thousand_rows_are_quick(kind: str) -> None:
    content = demo_content(2_000, kind)
    start = time.perf_counter()
    render(content)
    assert time.perf_counter() - start < 4.0  # about 0.5 s on one free core


def test_previews_stay_below_their_budget() -> None:
    content = demo_content(400, "none", n_queries=1)
    for i, row in enumerate(content["rows"]):
        row["preview"] = {"image_png": b"\x89PNG\r\n\x1a\n" + i.to_bytes(4, "big") * 9_000}
    page = render(content)
    assert len(page) < 6_000_000
    assert "left out to keep the page small" in page
    content["rows"][0]["preview"] = {"image_png": b"\x89PNG\r\n\x1a\n" + bytes(50_000)}
    assert "image left out: too large for this page" in render(content)


def test_a_row_seen_by_several_queries_brings_its_preview_once() -> None:
    content = demo_content(20, "text")
    for row in content["rows"]:
        row["preview"] = {"text": "the same words"}
    assert len(TableView(validated(content)).previews) == 1


def test_too_many_rows_are_cut_and_the_page_says_so() -> None:
    row = demo_content(2, "none", n_queries=1)["rows"][0]
    content = {**demo_content(2, "none", 1), "rows": [{**row, "rank": i + 1} for i in range(MAX_ROWS + 7)]}
    assert "The first 5,000 of 5,007 entries are in this page" in render(content)


def test_fifty_rows_of_the_first_query_stand_without_a_script() -> None:
    page = render(demo_content(200))
    assert page.count('<tr role="row" class="line') == 50 + 1  # and the mould
    assert "Rows 1 to 50 of 100 for the query “held-out loss”" in page


def test_writing_is_atomic_and_utf8(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.html"
    write_report(BARE, path)
    assert path.read_text(encoding="utf-8") == render(BARE)
    with pytest.raises(ConfigError):
        write_report({**BARE, "level": 2}, path)
    assert path.read_text(encoding="utf-8") == render(BARE)
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_a_folder_in_the_way_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(StorageError, match=r"expected to write .*report\.html"):
        write_report(BARE, tmp_path / "report.html")


def test_no_heavy_import() -> None:
    check = "import sys, finfluence.report; print({'torch', 'pandas', 'xarray', 'jinja2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_without_jinja2_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ConfigError, match=r"pip install 'finfluence\[report\]'"):
        render(BARE)
