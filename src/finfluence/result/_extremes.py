"""What the strongest subsets add up to by their shrunken effects, and whether they can be told from chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from finfluence.result._provenance import Provenance
from finfluence.result._schema import TWIN, kind_of
from finfluence.result._views import strongest
from finfluence.stats import FEWEST_SHRUNKEN as FEWEST

LISTED, LISTED_SHARE = 20, 10
MOST_WRONG = 0.25


@dataclass(frozen=True)
class Removed:
    """What removing (or adding) some subsets together is predicted to do to one query, in its unit.

    Attributes
    ----------
    count : int
        Training rows in them.
    effect, sd : float
        Sum of the shrunken effects, times (n−1)/(n−k) for k of n rows removed, and its standard deviation.
    unshrunken : float
        The same of the effects as estimated: exaggerated, where the subsets were chosen for being extreme.
    sign_error : float
        Share of the subsets that are expected to have no effect or the opposite one.
    """

    count: int
    effect: float
    sd: float
    unshrunken: float
    sign_error: float


def removed(data: xr.Dataset, query: str, at: Sequence[int] | np.ndarray) -> Removed:
    """Return what removing the subsets at positions `at` together does to a query; NaN among them are left out."""
    made, part = (
        Provenance.from_dict(data.attrs),
        data.sel(query=query).isel(subset=np.asarray(at, dtype=int)),
    )
    size = int(part["size"].sum())
    n = made.n_rows
    scale = (n - 1) / max(n - size, 1) if made.contrast == "remove" else (n + 1) / (n + size)
    values = {name: part[name].values for name in ("effect", *TWIN)}
    wrong = values["sign_error"][np.isfinite(values["sign_error"])]
    return Removed(
        count=size,
        effect=float(scale * np.nansum(values["shrunken"])),
        sd=float(scale * np.sqrt(np.nansum(values["shrunken_sd"] ** 2))),
        unshrunken=float(scale * np.nansum(values["effect"])),
        sign_error=float(wrong.mean()) if len(wrong) else float("nan"),
    )


@dataclass(frozen=True)
class Extremes:
    """The strongest subsets of one query: the most harmful and the most helpful, as `Removed`."""

    query: str
    unit: str
    harmful: Removed
    helpful: Removed

    @property
    def listed(self) -> tuple[tuple[str, Removed], ...]:
        """Both, by name."""
        return ("harmful", self.harmful), ("helpful", self.helpful)

    @property
    def by_chance(self) -> tuple[str, ...]:
        """Which of them cannot be told from chance: more than a quarter of them is expected to have no such effect."""
        return tuple(name for name, one in self.listed if not one.sign_error <= MOST_WRONG)


def extremes(data: xr.Dataset, query: str) -> Extremes | None:
    """Return what the strongest subsets of a query add up to: 20 at each end, at most a tenth of all.

    Returns
    -------
    Extremes or None
        None where there are no effects with errors, or fewer than ten of them.
    """
    if kind_of(data) != "effect" or TWIN[0] not in data:
        return None
    known = np.isfinite(data["shrunken"].sel(query=query).values)
    count = min(LISTED, int(known.sum()) // LISTED_SHARE)
    if count < 1:
        return None
    ends = [strongest(data, query, side)[:count] for side in ("harmful", "helpful")]
    unit = str(data["unit"].sel(query=query).item())
    return Extremes(query, unit, *(removed(data, query, at) for at in ends))


def extremes_sentence(found: Extremes) -> str:
    """Say what the strongest subsets of a query are predicted to do together, and whether chance would do as well.

    Returns
    -------
    str

    Examples
    --------
    >>> one = Removed(20, -0.5, 0.4, -4.1, 0.6)
    >>> extremes_sentence(Extremes("held-out", "nats", one, Removed(20, 3.0, 0.4, 3.6, 0.02)))
    "removing the 20 most harmful rows together is predicted to change 'held-out' by -0.5 ± 0.4 nats (-4.1 as \
estimated, before chance is taken out), the 20 most helpful by +3 ± 0.4 nats (+3.6); the most harmful cannot be told \
from chance: of 20 about 12 are expected to have no such effect"
    """
    (_, harmful), (_, helpful) = found.listed
    unit = f" {found.unit}" if found.unit else ""
    text = (
        f"removing the {_rows(harmful.count, 'most harmful')} together is predicted to change '{found.query}' by "
        f"{_known(harmful)}{unit} ({harmful.unshrunken:+.2g} as estimated, before chance is taken out), the "
        f"{helpful.count} most helpful by {_known(helpful)}{unit} ({helpful.unshrunken:+.2g})"
    )
    chance = chance_sentence(found)
    return f"{text}; {chance}" if chance else text


def chance_sentence(found: Extremes) -> str:
    """Say which of the strongest subsets cannot be told from chance; "" if all can."""
    lost = [(name, one) for name, one in found.listed if name in found.by_chance]
    if not lost:
        return ""
    count = lost[0][1].count
    wrong = " and ".join(f"{one.sign_error * one.count:.0f}" for _, one in lost)
    names = " and the ".join(f"most {name}" for name, _ in lost)
    return f"the {names} cannot be told from chance: of {count} about {wrong} are expected to have no such effect"


def chance_findings(data: xr.Dataset, queries: Sequence[str], most: int = 3) -> list[str]:
    """Return a sentence for each of a few queries whose strongest rows cannot be told from chance."""
    found = [one for name in queries if (one := extremes(data, name)) is not None and one.by_chance]
    told = [
        f"on '{one.query}' {chance_sentence(one)}; together they are {_both(one)}. More runs, pooled, would tell more"
        for one in found[:most]
    ]
    left = len(found) - most
    return [*told, f"the same holds for {left} more quer{'y' if left == 1 else 'ies'}"] if left > 0 else told


def too_few_to_shrink(data: xr.Dataset) -> tuple[str, ...]:
    """Say so where there are several subsets, but too few to shrink their effects."""
    if kind_of(data) != "effect" or not 1 < data.sizes["subset"] < FEWEST:
        return ()
    return (
        f"fewer than {FEWEST} subsets: effects are not shrunken, and the largest of them are likely exaggerated",
    )


def _both(found: Extremes) -> str:
    parts = [
        f"{one.unshrunken:+.2g} as estimated and {_known(one)} {found.unit} shrunken".replace("  ", " ")
        for name, one in found.listed
        if name in found.by_chance
    ]
    return ", ".join(parts)


def _known(one: Removed) -> str:
    return f"{one.effect:+.2g} ± {one.sd:.2g}"


def _rows(count: int, which: str) -> str:
    return f"{which} row" if count == 1 else f"{count} {which} rows"


def as_line(one: Removed, **labels: Any) -> dict[str, Any]:
    """Return the numbers of a prediction as a line of a table."""
    return {**labels, "rows": one.count, "effect": one.effect, "sd": one.sd, "unshrunken": one.unshrunken,
            "sign_error": one.sign_error}  # fmt: skip
