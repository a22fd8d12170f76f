"""Pictures of a result by matplotlib: intervals, distribution, trade-off curve; the numbers are those of `to_frame`."""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from finfluence._extras import require
from finfluence.report import curve, magnitude, visible
from finfluence.result._names import one_of
from finfluence.result._provenance import Provenance
from finfluence.result._select import decide_rows
from finfluence.result._summary import distribution
from finfluence.result._views import frame, need_effect, need_mu, ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = ("intervals", "distribution", "tradeoff")
_LONGEST = 40


def plot(data: xr.Dataset, kind: str, query: str, *, n: int, subset: Any, fdr: float, ax: Any) -> "Axes":
    """Draw one picture of one query and return its axes."""
    one_of(kind, KINDS, "kind of plot")
    (need_effect if kind == "intervals" else need_mu)(data, f"a plot of the {kind}")
    axes = _axes(ax)
    if kind == "intervals":
        _intervals(data, query, n, axes)
    elif kind == "distribution":
        _distribution(data, query, fdr, axes)
    else:
        _tradeoff(data, query, subset, axes)
    return axes


def _axes(ax: Any) -> "Axes":
    """Return the axes given, or new ones.

    Returns
    -------
    Axes

    Raises
    ------
    ConfigError
        matplotlib is not installed.
    """
    if ax is not None:
        given: Axes = ax
        return given
    pyplot = require(
        "matplotlib.pyplot", "draws the plots", "plot", "use .report(…), which draws the same without it"
    )
    made: Axes = pyplot.subplots(layout="constrained")[1]
    return made


def _intervals(data: xr.Dataset, query: str, n: int, axes: "Axes") -> None:
    lines = frame(data, [query])
    strength = np.nan_to_num(np.abs(lines["mu"].to_numpy()), nan=-1.0)
    shown = np.argsort(-strength, kind="stable")[:n]
    lines = lines.iloc[shown[np.argsort(-ranking(data, query)[shown], kind="stable")]]
    mu, place = lines["mu"].to_numpy(), np.arange(len(lines))[::-1]
    ends = np.stack([mu - lines["lower"], lines["upper"] - mu])
    axes.errorbar(mu, place, xerr=np.nan_to_num(np.abs(ends)), fmt="o", color="C0", capsize=2)
    axes.axvline(0.0, color="0.6", linewidth=0.8)
    axes.set_yticks(place, [_label(i) for i in lines["row_id"]])
    level = Provenance.from_dict(data.attrs).level
    axes.set_xlabel(f"μ on {_label(query)}, {100 * level:g} % intervals")
    axes.set_title(f"The {len(lines)} rows of largest |μ|, most harmful on top")


def _distribution(data: xr.Dataset, query: str, fdr: float, axes: "Axes") -> None:
    named = decide_rows(data, [query], fdr)
    axes.set_xlabel(f"μ on {_label(query)}")
    axes.set_ylabel("rows")
    axes.set_title(f"{int(named.flagged.sum()):,} of {data.sizes['subset']:,} rows named at {100 * fdr:g} %")
    for drawn in distribution(data, query, named.thresholds[0]):
        axes.stairs(drawn.counts, drawn.edges, fill=True, color="C0", alpha=0.5, label="rows")
        axes.plot(drawn.null_x, drawn.null_y, color="0.3", label="empirical null")
        for threshold in drawn.thresholds:
            axes.axvline(threshold, color="C3", linestyle="--", label="named beyond")
        axes.set_yscale("symlog")
        axes.legend()


def _tradeoff(data: xr.Dataset, query: str, subset: Any, axes: "Axes") -> None:
    if subset is None:
        value = np.nan_to_num(ranking(data, query), nan=-np.inf)
        subset = data["subset"].values[int(value.argmax())]
    part = data.sel(query=query, subset=subset)
    mu = float(part["mu"])
    alpha, beta = np.array(curve(mu)).T
    axes.plot(alpha, beta, color="C0", label=f"μ = {mu:+.2f}")
    if "lower" in part:
        near, far = magnitude(float(part["lower"]), float(part["upper"]))
        if np.isfinite([near, far]).all():
            for end in (near, far):
                axes.plot(*np.array(curve(end)).T, color="C0", alpha=0.4, linewidth=0.8)
    axes.plot([0, 1], [1, 0], color="0.6", linewidth=0.8, label="guessing")
    axes.set_xlabel("false alarms α")
    axes.set_ylabel("misses β")
    axes.set_title(f"Row {_label(subset)} on {_label(query)}")
    axes.legend()


def _label(text: object) -> str:
    """Return a text that matplotlib shows as it is: no mathematics, no hidden characters, not too long."""
    return visible(str(text), _LONGEST).replace("\n", " ").replace("$", r"\$")
