"""The charts of the page as SVG: distribution of μ, intervals, estimate against truth."""

import math
from collections.abc import Iterable

from finfluence.report._schema import Distribution, Point, QueryInfo, RowEntry
from finfluence.report._svg import Scale, Svg, path, short, tag, ticks
from finfluence.report._text import number, tick

MINI_WIDTH = 132
_MINI_EDGE = 6


def mini_span(rows: Iterable[RowEntry]) -> float:
    """Return the half-width of the small plots' axis: all intervals, unless a few reach absurdly far."""
    ends = (abs(v) for row in rows for v in (row.mu, row.lower, row.upper))
    reach = sorted(v for v in ends if math.isfinite(v))
    most = reach[int(0.95 * (len(reach) - 1))] if reach else 0.0
    return 1.05 * min(reach[-1], 3 * most) if most else 1.0


def mini(row: RowEntry, span: float) -> tuple[str, str]:
    """Return the whisker's path data and the dot's x for the small plot of one row; empty where unknown."""
    if math.isnan(row.mu):
        return "", ""
    x = Scale(-span, span, _MINI_EDGE, MINI_WIDTH - _MINI_EDGE)
    low, high = (row.mu if math.isnan(end) else end for end in (row.lower, row.upper))
    whisker = f"M{short(x.clipped(low))} 9H{short(x.clipped(high))}"
    for end in (low, high) if low != high else ():
        at = x.clipped(end)
        if abs(end) > span:  # an arrow head: the interval goes on beyond the axis
            back = short(at + math.copysign(3, -end))
            whisker += f"M{back} 6L{short(at)} 9L{back} 12"
        else:
            whisker += f"M{short(at)} 6V12"
    return whisker, short(x.clipped(row.mu))


def histogram(d: Distribution, query: QueryInfo) -> Svg:
    """Return the distribution of μ over all rows, with the empirical null and the thresholds."""
    width, height, left, right, top, bottom = 480, 250, 44, 12, 30, 52
    floor = height - bottom
    x = Scale(d.edges[0], d.edges[-1], left, width - right)
    peak = max([*d.counts, *(v for v in d.null_y if math.isfinite(v)), 1.0])
    y = Scale(0, math.sqrt(peak), floor, top)
    parts = [_count_axis(peak, y, left, width - right), _bars(d, query, x, y, floor)]
    curve = [
        (x(a), y(math.sqrt(b)))
        for a, b in zip(d.null_x, d.null_y, strict=True)
        if math.isfinite(a) and math.isfinite(b) and b >= 0 and d.edges[0] <= a <= d.edges[-1]
    ]
    if curve:
        parts.append(tag("path", d=path(curve), class_="null"))
    for value in d.thresholds:
        if d.edges[0] <= value <= d.edges[-1]:
            parts.append(tag("path", d=f"M{short(x(value))} {top - 6}V{floor}", class_="threshold"))
            side = "start" if x(value) < width / 2 else "end"
            shift = 5 if side == "start" else -5
            parts.append(
                tag(
                    "text",
                    f"named beyond {number(value, 2)}",
                    x=x(value) + shift,
                    y=top - 10,
                    text_anchor=side,
                )
            )
    parts.append(tag("path", d=f"M{left} {floor}H{width - right}", class_="axis"))
    for value in ticks(d.edges[0], d.edges[-1], 6):
        parts.append(tag("text", tick(value), x=x(value), y=floor + 18, text_anchor="middle", class_="tick"))
    low, high = ("harmful", "helpful") if query.harmful < 0 else ("helpful", "harmful")
    parts.append(tag("text", f"← {low}", x=left, y=height - 8, class_=low))
    parts.append(tag("text", "μ", x=(left + width - right) / 2, y=height - 8, text_anchor="middle"))
    parts.append(tag("text", f"{high} →", x=width - right, y=height - 8, text_anchor="end", class_=high))
    return _figure(width, height, f"Distribution of μ over all rows for the query {query.name}", parts)


def arm_scale(values: Iterable[float]) -> Scale | None:
    """Return the common axis for the interval plots of one metric, or None where nothing is finite."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return None
    low, high = min(finite), max(finite)
    pad = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    return Scale(low - pad, high + pad, 4, 196)


def arm(value: float, lower: float, upper: float, scale: Scale | None, reference: float, label: str) -> Svg:
    """Return one dot with its interval on the common axis; a thin line marks the reference value."""
    parts = []
    if scale is not None:
        if math.isfinite(reference):
            parts.append(tag("path", d=f"M{short(scale(reference))} 0V22", class_="zero"))
        if math.isfinite(lower) and math.isfinite(upper):
            a, b = short(scale(lower)), short(scale(upper))
            parts.append(tag("path", d=f"M{a} 11H{b}M{a} 7V15M{b} 7V15", class_="whisker"))
        if math.isfinite(value):
            parts.append(tag("circle", cx=scale(value), cy=11, r=4, class_="dot"))
    return _figure(200, 22, label, parts, "arm")


def scatter(points: Iterable[Point], slope: float = math.nan) -> Svg:
    """Return estimated against retrained μ with both intervals, the line on which they agree, and the fitted one."""
    size, left, bottom, edge = 440, 52, 46, 14
    shown = [p for p in points if math.isfinite(p.estimated) and math.isfinite(p.retrained)]
    low, high = _span(shown)
    x = Scale(low, high, left, size - edge)
    y = Scale(low, high, size - bottom, edge)
    parts = []
    for value in ticks(x.low, x.high, 8):
        parts.append(tag("path", d=f"M{left} {short(y(value))}H{size - edge}", class_="grid"))
        parts.append(tag("path", d=f"M{short(x(value))} {edge}V{size - bottom}", class_="grid"))
        parts.append(
            tag("text", tick(value), x=x(value), y=size - bottom + 18, text_anchor="middle", class_="tick")
        )
        parts.append(tag("text", tick(value), x=left - 8, y=y(value) + 4, text_anchor="end", class_="tick"))
    ends = [(x(x.low), y(x.low)), (x(x.high), y(x.high))]
    parts.append(tag("path", d=path(ends), class_="threshold"))
    if math.isfinite(slope):
        ends = [(x(v), y(slope * v)) for v in _inside(slope, x.low, x.high)]
        parts.append(tag("path", d=path(ends), class_="fit"))
    for p in shown:
        parts.append(tag("path", d=_cross(p, x, y), class_="whisker"))
    for p in shown:
        title = tag("title", f"{p.label}: estimated {number(p.estimated)}, retrained {number(p.retrained)}")
        parts.append(mark(p.kind, x(p.estimated), y(p.retrained), title))
    parts.append(tag("text", "μ as estimated", x=(left + size - edge) / 2, y=size - 6, text_anchor="middle"))
    middle = (size - bottom + edge) / 2
    turn = f"rotate(-90 12 {short(middle)})"
    parts.append(tag("text", "μ by retraining", x=12, y=middle, text_anchor="middle", transform=turn))
    return _figure(size, size, "Estimated μ against μ by retraining", parts, "square")


def mark(kind: str, cx: float, cy: float, *inside: Svg) -> Svg:
    """Return the mark of a point: a triangle for the top and the bottom, hollow for random, else a dot."""
    if kind in ("top", "bottom"):
        up = -1 if kind == "top" else 1
        corners = [(cx, cy + 5 * up), (cx + 4.6, cy - 3.6 * up), (cx - 4.6, cy - 3.6 * up)]
        return tag("path", *inside, d=path(corners, closed=True), class_="dot")
    return tag("circle", *inside, cx=cx, cy=cy, r=3.6, class_="dot hollow" if kind == "random" else "dot")


def _span(points: list[Point]) -> tuple[float, float]:
    """Return the ends of both axes: all points and true intervals; estimated ones as far as a quarter beyond."""
    core = [v for p in points for v in (p.estimated, p.retrained, p.retrained_lower, p.retrained_upper)]
    core = [v for v in core if math.isfinite(v)] or [-1.0, 1.0]
    low, high = min(core), max(core)
    reach = 0.25 * (high - low)
    wide = [v for p in points for v in (p.estimated_lower, p.estimated_upper) if math.isfinite(v)]
    low, high = max(low - reach, min([low, *wide])), min(high + reach, max([high, *wide]))
    pad = (high - low) * 0.05 or 1.0
    return low - pad, high + pad


def _inside(slope: float, low: float, high: float) -> tuple[float, float]:
    """Return the ends between low and high where slope · v lies between them too."""
    if not slope:
        return low, high
    first, last = sorted((low / slope, high / slope))
    return max(low, first), min(high, last)


def _bars(d: Distribution, query: QueryInfo, x: Scale, y: Scale, floor: float) -> Svg:
    gap = 0.5 if len(d.counts) <= 120 else 0.0
    drawn: dict[str, list[str]] = {"bar": [], "bar harmful": [], "bar helpful": []}
    for low, high, count in zip(d.edges, d.edges[1:], d.counts, strict=False):
        if count > 0:
            named = _named(low, high, d.thresholds)
            kind = "bar" if not named else "bar harmful" if named * query.harmful > 0 else "bar helpful"
            top = min(y(math.sqrt(count)), floor - 1.5)
            corners = (
                f"M{short(x(low) + gap)} {short(floor)}V{short(top)}H{short(x(high) - gap)}V{short(floor)}Z"
            )
            drawn[kind].append(corners)
    return Svg("".join(tag("path", d="".join(bars), class_=kind) for kind, bars in drawn.items() if bars))


def _named(low: float, high: float, thresholds: tuple[float, ...]) -> int:
    """Return -1 or +1 where the middle of the bin lies beyond a threshold on that side of zero, else 0."""
    middle = (low + high) / 2
    for value in thresholds:
        if value < 0 and middle < value:
            return -1
        if value > 0 and middle > value:
            return 1
    return 0


def _count_axis(peak: float, y: Scale, left: float, right: float) -> Svg:
    parts, step = [], 10.0 ** math.floor(math.log10(peak))
    marks = sorted(
        {0.0, *(v for v in (step / 100, step / 10, step / 4, step, peak // step * step) if v >= 1)}
    )
    last = math.inf
    for value in marks:
        at = y(math.sqrt(value))
        if last - at >= 16:
            parts.append(tag("path", d=f"M{short(left)} {short(at)}H{short(right)}", class_="grid"))
            parts.append(tag("text", tick(value), x=left - 7, y=at + 4, text_anchor="end", class_="tick"))
            last = at
    return Svg("".join(parts))


def _cross(p: Point, x: Scale, y: Scale) -> str:
    cx, cy = short(x(p.estimated)), short(y(p.retrained))
    across = down = ""
    if not (math.isnan(p.estimated_lower) or math.isnan(p.estimated_upper)):
        across = f"M{short(x.clipped(p.estimated_lower))} {cy}H{short(x.clipped(p.estimated_upper))}"
    if not (math.isnan(p.retrained_lower) or math.isnan(p.retrained_upper)):
        down = f"M{cx} {short(y.clipped(p.retrained_lower))}V{short(y.clipped(p.retrained_upper))}"
    return across + down or f"M{cx} {cy}"


def _figure(width: float, height: float, label: str, parts: Iterable[str], kind: str = "chart") -> Svg:
    box = f"0 0 {short(width)} {short(height)}"
    return tag("svg", Svg("".join(parts)), viewBox=box, class_=kind, role="img", aria_label=label)
