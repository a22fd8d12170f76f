"""The section that holds the estimate against the truth."""

import re

import pytest
from demo_content import demo_content

from finfluence.errors import ConfigError
from finfluence.report import Point, render, scatter


def section(**changes: object) -> str:
    content = demo_content(20)
    content["verification"] |= changes
    page = render(content)
    return page.partition('<section id="verification"')[2].partition("</section>")[0]


def drawn(svg: str, kind: str) -> list[list[float]]:
    return [
        [float(v) for v in re.findall(r"-?\d+\.?\d*", d)]
        for d in re.findall(rf'<path d="([^"]*)" class="{kind}"', svg)
    ]


def test_verdict_figures_ceilings_and_legend() -> None:
    html = section()
    assert '<span class="outcome passed">passed</span>' in html
    assert "0.966" not in html and "0.97 (0.94 to 0.98)" in html
    assert '<td class="n" data-label="at best">0.99</td>' in html
    assert '<td class="n" data-label="at best"></td>' in html  # a figure without a ceiling
    assert "the solid one has the slope 1.0" in html and "2,890 trainings" in html
    legend = html.partition('<span class="marks">')[2]
    assert re.findall(r"</svg>(\w+)</span>", legend) == ["top", "bottom", "middle", "random"]


def test_an_older_section_without_verdict_slope_and_ceilings() -> None:
    html = section(verdict="", slope=None, note="", figures=[{"name": "Pearson", "value": 0.9}])
    assert (
        "outcome" not in html and "solid" not in html and "At best" not in html and 'class="fit"' not in html
    )
    assert "Pearson" in html


def test_an_unknown_verdict_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"verification\.verdict to be one of 'passed'"):
        section(verdict="fine")


def test_a_failure_is_marked() -> None:
    assert '<span class="outcome failed">failed</span>' in section(verdict="failed")


def test_marks_lines_and_whiskers_stay_inside() -> None:
    points = [
        Point(label="a", estimated=2, retrained=1, estimated_lower=-50, estimated_upper=float("inf"),
              retrained_lower=0.5, retrained_upper=1.5, kind="top"),
        Point(label="b", estimated=-2, retrained=-1, kind="random"),
        Point(label="c", estimated=float("nan"), retrained=0, kind="middle"),
    ]  # fmt: skip
    svg = scatter(points, 0.5)
    assert svg.count("<title>") == 2 and svg.count('class="dot hollow"') == 1
    for kind in ("whisker", "fit", "threshold", "dot"):
        for numbers in drawn(svg, kind):
            assert all(0 <= v <= 440 for v in numbers)
    (x0, y0, x1, y1), (a0, b0, a1, b1) = drawn(svg, "fit")[0], drawn(svg, "threshold")[0]
    assert (y1 - y0) / (x1 - x0) == pytest.approx(0.5 * (b1 - b0) / (a1 - a0), abs=0.01)
    steep = drawn(scatter(points, -4.0), "fit")[0]
    assert all(0 <= v <= 440 for v in steep)


def test_nothing_finite_still_draws_axes() -> None:
    svg = scatter([Point(label="a", estimated=float("nan"), retrained=1.0)])
    assert "μ as estimated" in svg and "<circle" not in svg
