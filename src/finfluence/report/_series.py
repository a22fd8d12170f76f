"""Charts that stand alone, in a page or as a file: several lines on common axes, and named values with intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from finfluence.report._svg import Scale, Svg, path, tag, ticks
from finfluence.report._text import number, tick

COLOURS = ("#1c5a96", "#a8410c", "#3d7a3a", "#7a4b94", "#8a6d00", "#00777a", "#b03060", "#5d5b55")
"""Of the first lines, told apart on white and on black; further ones are drawn grey."""
_GREY = "#8a877f"


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes
    ----------
    name : str
        As the legend says.
    x, y : sequence of float
        Its points, of one length; points that are not finite are left out.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Level:
    """A named value with its interval: one row of a chart of levels."""

    name: str
    value: float
    lower: float = math.nan
    upper: float = math.nan


def lines(drawn: Sequence[Line], x_label: str, y_label: str, title: str) -> Svg:
    """Return lines on common axes, each named beside the chart, the first ones in colours of their own.

    Parameters
    ----------
    drawn : sequence of Line
        What is drawn, in the order of the legend.
    x_label, y_label : str
        What the axes show.
    title : str
        What the chart shows, for those who cannot see it.

    Returns
    -------
    Svg
        With its colours in itself, so that it is the same picture in a page and as a file.

    Examples
    --------
    >>> chart = lines([Line("a < b", [0, 1], [0, 2])], "x", "y", "an example")
    >>> "a &lt; b" in chart, chart.count("<path")
    (True, 13)
    """
    left, right, top, bottom, width = 56, 190, 12, 48, 720
    height = max(340, top + bottom + 17 * len(drawn))
    points = [
        [(a, b) for a, b in zip(one.x, one.y, strict=True) if math.isfinite(a) and math.isfinite(b)]
        for one in drawn
    ]
    x = Scale(*_reach([a for one in points for a, _ in one]), left, width - right)
    y = Scale(*_reach([b for one in points for _, b in one]), height - bottom, top)
    parts = [*_grid(x, y, (left, width - right, top, height - bottom)), *_labels(x_label, y_label, x, y)]
    for place, (one, pairs) in reversed(list(enumerate(zip(drawn, points, strict=True)))):
        colour = COLOURS[place] if place < len(COLOURS) else _GREY
        if len(pairs) > 1:
            data = path([(x(a), y(b)) for a, b in pairs])
            parts.append(tag("path", d=data, fill="none", stroke=colour, stroke_width="1.6"))
        at = top + 12 + 17 * place
        parts.append(
            tag("path", d=f"M{width - right + 12} {at - 4}h18", stroke=colour, stroke_width="3", fill="none")
        )
        parts.append(tag("text", one.name, x=width - right + 36, y=at, fill="currentColor"))
    return _alone(width, height, title, parts)


def levels(drawn: Sequence[Level], x_label: str, title: str, reference: float = math.nan) -> Svg:
    """Return named values with their intervals, one below the other; a dashed line marks the reference.

    Returns
    -------
    Svg

    Examples
    --------
    >>> chart = levels([Level("one", 0.5, 0.4, 0.6), Level("unknown", math.nan)], "value", "an example", 1.0)
    >>> chart.count("<circle"), "stroke-dasharray" in chart, ">unknown<" in chart
    (1, True, True)
    """
    left, right, top, bottom, width, line = 190, 70, 10, 46, 720, 22
    height = top + bottom + line * len(drawn)
    ends = [v for one in drawn for v in (one.value, one.lower, one.upper)] + [reference, 0.0]
    x = Scale(*_reach([v for v in ends if math.isfinite(v)]), left, width - right)
    floor = height - bottom
    parts = []
    for value in ticks(x.low, x.high, 8):
        parts.append(tag("path", d=f"M{x(value):.2f} {top}V{floor}", stroke=_GREY, stroke_opacity="0.3"))
        parts.append(
            tag("text", tick(value), x=x(value), y=floor + 18, text_anchor="middle", fill="currentColor")
        )
    if math.isfinite(reference):
        mark = f"M{x(reference):.2f} {top}V{floor}"
        parts.append(tag("path", d=mark, stroke=_GREY, stroke_dasharray="4 3", stroke_width="1.5"))
    for place, one in enumerate(drawn):
        at = top + line * (place + 0.5)
        parts.append(tag("text", one.name, x=left - 10, y=at + 4, text_anchor="end", fill="currentColor"))
        if math.isfinite(one.lower) and math.isfinite(one.upper):
            data = f"M{x(one.lower):.2f} {at:.2f}H{x(one.upper):.2f}"
            parts.append(tag("path", d=data, stroke=COLOURS[0], stroke_width="1.6"))
        if math.isfinite(one.value):
            shown = tag("title", f"{one.name}: {number(one.value)}")
            parts.append(tag("circle", shown, cx=x(one.value), cy=at, r=4, fill=COLOURS[0]))
    parts.append(
        tag(
            "text",
            x_label,
            x=(left + width - right) / 2,
            y=height - 8,
            text_anchor="middle",
            fill="currentColor",
        )
    )
    return _alone(width, height, title, parts)


def _reach(values: Sequence[float]) -> tuple[float, float]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    pad = 0.04 * (high - low) or 0.5
    return low - pad, high + pad


def _grid(x: Scale, y: Scale, box: tuple[float, float, float, float]) -> list[Svg]:
    left, right, top, bottom = box
    parts = []
    for value in ticks(x.low, x.high, 6):
        parts.append(tag("path", d=f"M{x(value):.2f} {top}V{bottom}", stroke=_GREY, stroke_opacity="0.3"))
        parts.append(
            tag("text", tick(value), x=x(value), y=bottom + 18, text_anchor="middle", fill="currentColor")
        )
    for value in ticks(y.low, y.high, 6):
        parts.append(tag("path", d=f"M{left} {y(value):.2f}H{right}", stroke=_GREY, stroke_opacity="0.3"))
        parts.append(
            tag("text", tick(value), x=left - 8, y=y(value) + 4, text_anchor="end", fill="currentColor")
        )
    return parts


def _labels(x_label: str, y_label: str, x: Scale, y: Scale) -> list[Svg]:
    middle = (y.start + y.end) / 2
    turned = f"rotate(-90 14 {middle:.2f})"
    return [
        tag(
            "text",
            x_label,
            x=(x.start + x.end) / 2,
            y=y.start + 40,
            text_anchor="middle",
            fill="currentColor",
        ),
        tag("text", y_label, x=14, y=middle, text_anchor="middle", transform=turned, fill="currentColor"),
    ]


def _alone(width: float, height: float, title: str, parts: Sequence[str]) -> Svg:
    return tag(
        "svg", Svg("".join(parts)), xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width:g} {height:g}",
        class_="chart", role="img", aria_label=title, font_family="sans-serif", font_size="13",
    )  # fmt: skip
