"""The few pieces every chart is made of: escaped SVG elements, linear scales and round ticks."""

import html
import math
from dataclasses import dataclass

from finfluence.report._text import visible


class Svg(str):
    """Finished markup: templates put it in as it is."""

    def __html__(self) -> str:
        """Tell a template engine that this text is already escaped."""
        return self


def tag(name: str, *children: str, **attributes: str | float) -> Svg:
    """Return one element. `class_` becomes class, and a float is written with at most two decimals.

    Returns
    -------
    Svg

    Examples
    --------
    >>> tag("text", "a < b", x=1.25, class_="tick")
    '<text x="1.25" class="tick">a &lt; b</text>'
    """
    inside = "".join(child if isinstance(child, Svg) else html.escape(visible(child)) for child in children)
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{_value(v)}"' for key, v in attributes.items())
    return Svg(f"<{name}{given}>{inside}</{name}>")


def path(points: list[tuple[float, float]], closed: bool = False) -> str:
    """Return path data through the points."""
    steps = "L".join(f"{short(x)} {short(y)}" for x, y in points)
    return f"M{steps}{'Z' if closed else ''}"


def short(value: float) -> str:
    """Return a coordinate with at most two decimals."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


@dataclass(frozen=True)
class Scale:
    """The linear map from [low, high] to [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def clipped(self, value: float) -> float:
        """Return the place of `value`, moved to the nearer end where it lies outside."""
        return self(min(max(value, self.low), self.high))


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers (steps of 1, 2 or 5) inside [low, high], about as many as asked.

    Returns
    -------
    list[float]

    Examples
    --------
    >>> ticks(-3.2, 7.9)
    [-2.0, 0.0, 2.0, 4.0, 6.0]
    """
    raw = (high - low) / about
    base = 10.0 ** math.floor(math.log10(raw))
    step = base * min((1, 2, 5, 10), key=lambda m: abs(math.log(m * base / raw)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) + 0.0 for i in range(first, last + 1)]


def _value(value: str | float) -> str:
    return html.escape(visible(value, len(value))) if isinstance(value, str) else short(float(value))
