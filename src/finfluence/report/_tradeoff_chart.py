"""The trade-off curve of one row; the page's script redraws the same elements for any other row."""

import math

import numpy as np
from scipy.special import ndtr, ndtri

from finfluence.report._svg import Scale, Svg, path, short, tag
from finfluence.report._text import tick
from finfluence.report._words import ALPHA, magnitude, power
from finfluence.tradeoff import Gaussian

_LEFT, _TOP, _SIDE = 50.0, 12.0, 236.0
_LARGEST = 8.0
_POINTS = 96


def curve(mu: float) -> list[tuple[float, float]]:
    """Return points (α, β) of G_μ(α) = Φ(Φ⁻¹(1−α) − |μ|), evenly spaced in Φ⁻¹(1−α).

    Returns
    -------
    list[tuple[float, float]]

    Examples
    --------
    >>> alpha, beta = curve(0.0)[48]
    >>> round(alpha + beta, 12)
    1.0
    """
    size = min(abs(mu), _LARGEST)
    alpha = ndtr(-np.linspace(-4, 4 + size, _POINTS + 1))
    beta = np.asarray(Gaussian(size)(alpha))
    return [(1.0, 0.0), *zip(alpha.tolist(), beta.tolist(), strict=True), (0.0, 1.0)]


def tradeoff(mu: float, lower: float, upper: float) -> Svg:
    """Return the chart: guessing (diagonal), the curve of μ, its band, and the point at 5 % false alarms."""
    x, y = Scale(0, 1, _LEFT, _LEFT + _SIDE), Scale(0, 1, _TOP + _SIDE, _TOP)
    width, height = _LEFT + _SIDE + 14, _TOP + _SIDE + 48
    parts = [_grid(x, y, height), tag("path", d=path([(x(0), y(1)), (x(1), y(0))]), class_="guess")]
    parts.append(tag("text", "guessing", x=x(0.62) + 6, y=y(0.38) - 6, class_="soft"))
    near, far = magnitude(lower, upper)
    band = "" if math.isnan(near) else _drawn([*curve(near), *reversed(curve(far))], x, y, closed=True)
    line = "" if math.isnan(mu) else _drawn(curve(mu), x, y)
    parts.append(tag("path", d=band, class_="band"))
    parts.append(tag("path", d=line, class_="curve"))
    known = not math.isnan(mu)
    missed = 1 - power(mu) if known else 0.0
    mark = f"translate({short(x(ALPHA))} {short(y(missed))})"
    label = (">0.99 noticed" if missed < 0.005 else f"{1 - missed:.2f} noticed") if known else ""
    parts.append(
        tag(
            "g",
            tag("circle", r=4.5, class_="dot"),
            tag("text", label, x=10, y=-8, class_="mark-label"),
            class_="mark" if known else "mark unknown",
            transform=mark,
        )
    )
    return tag(
        "svg",
        Svg("".join(parts)),
        viewBox=f"0 0 {short(width)} {short(height)}",
        class_="tradeoff",
        role="img",
        aria_label="Trade-off curve: miss rate against false-alarm rate",
        data_left=_LEFT,
        data_top=_TOP,
        data_side=_SIDE,
        data_quantile=repr(float(ndtri(1 - ALPHA))),
    )


def _grid(x: Scale, y: Scale, height: float) -> Svg:
    parts = []
    for value in (0, 0.25, 0.5, 0.75, 1):
        parts.append(tag("path", d=path([(x(0), y(value)), (x(1), y(value))]), class_="grid"))
        parts.append(tag("path", d=path([(x(value), y(0)), (x(value), y(1))]), class_="grid"))
    for value in (0, 0.5, 1):
        text = tick(value)
        parts.append(tag("text", text, x=x(value), y=y(0) + 18, text_anchor="middle", class_="tick"))
        parts.append(tag("text", text, x=x(0) - 8, y=y(value) + 4, text_anchor="end", class_="tick"))
    parts.append(tag("text", "false alarms α", x=x(0.5), y=height - 8, text_anchor="middle"))
    turn = f"rotate(-90 12 {short(y(0.5))})"
    parts.append(tag("text", "missed β", x=12, y=y(0.5), text_anchor="middle", transform=turn))
    return Svg("".join(parts))


def _drawn(points: list[tuple[float, float]], x: Scale, y: Scale, closed: bool = False) -> str:
    return path([(x(a), y(b)) for a, b in points], closed)
