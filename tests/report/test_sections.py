"""Tables with charts: the page, the Markdown, the pictures."""

import math
import re

import pytest

from finfluence.report import Level, Line, Section, levels, lines, markdown, render_sections

HOSTILE = "<img src=x onerror=alert(1)>|\u202e"


def test_nothing_hostile_reaches_the_page():
    chart = lines([Line(HOSTILE, [0, 1], [0, 1])], HOSTILE, HOSTILE, HOSTILE)
    section = Section(HOSTILE, [HOSTILE], [[HOSTILE]], [HOSTILE], chart)
    page = render_sections(HOSTILE, HOSTILE, [section], [HOSTILE])
    assert "<img" not in page and "\u202e" not in page and "<script" not in page
    assert page.count("&lt;img") == 13 and "default-src" in page
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", page)


def test_the_same_content_gives_the_same_page():
    section = Section("a", ["x"], [["1"]])
    assert render_sections("t", "v", [section]) == render_sections("t", "v", [section])
    assert render_sections("t", "v", [section]) != render_sections("t", "w", [section])


def test_a_section_without_a_table_has_none():
    assert "<table" not in render_sections("t", "v", [Section("a", text=["said"])])
    assert markdown(Section("a", text=["said"])) == "## a\n\nsaid\n"


def test_cells_with_line_breaks_stay_one_row():
    assert "| a b | 1 |" in markdown(Section("a", ["x", "y"], [["a\nb", "1"]]))


@pytest.mark.parametrize("y", [[0.5, 0.5], [math.nan, 1.0], [math.nan, math.nan]])
def test_lines_survive_what_cannot_be_drawn(y):
    chart = lines([Line("a", [0, 1], y)], "x", "y", "t")
    assert "nan" not in chart and chart.startswith("<svg")


def test_every_line_is_named_and_further_ones_are_grey():
    chart = lines([Line(f"line {k}", [0, 1], [0, k]) for k in range(10)], "x", "y", "t")
    assert all(f">line {k}<" in chart for k in range(10)) and chart.count("#1c5a96") == 2


def test_levels_show_value_and_interval_where_they_are_known():
    chart = levels([Level("a", 0.5, 0.2, 0.9), Level("b", 0.1), Level("c", math.nan)], "x", "t", 1.0)
    assert chart.count("<circle") == 2 and chart.count("stroke-dasharray") == 1 and "nan" not in chart
