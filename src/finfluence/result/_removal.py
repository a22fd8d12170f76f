"""What removing rows that were chosen does: the estimate, with an interval from groups that were retrained."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from finfluence.stats import check_level

LEVEL = 0.8
EXTREME = ("top", "bottom")


@dataclass(frozen=True)
class Removal:
    """The effect of removing chosen rows together on one query.

    Attributes
    ----------
    query : str
    rows : int
    predicted : float
        Change of the query as estimated.
    lower, upper : float
        Its interval; infinite where too few groups were retrained.
    level : float
    groups : int
        Retrained groups from the ends of the list that the interval rests on.
    largest : int
        Rows of the largest of them.
    """

    query: str
    rows: int
    predicted: float
    lower: float
    upper: float
    level: float
    groups: int
    largest: int

    @property
    def known(self) -> bool:
        """Whether enough groups were retrained for an interval."""
        return bool(np.isfinite(self.lower))

    def __str__(self) -> str:
        return self.sentence

    @property
    def sentence(self) -> str:
        """What it says."""
        first = f"Removing the {self.rows:,} named rows is predicted to change {self.query} by {self.predicted:+.3g}"
        if not self.known:
            fewest = int(np.ceil((1 + self.level) / (1 - self.level) - 1e-9))
            return (
                f"{first}; an interval needs at least {fewest} retrained groups from the ends of the list, there are "
                f"{self.groups}."
            )
        beyond = self.rows > self.largest
        return (
            f"{first} [{self.lower:+.3g}, {self.upper:+.3g}] ({100 * self.level:.0f} %, by what became of the "
            f"estimates of {self.groups} groups from the ends of the list"
            + (f", of which none had more than {self.largest:,} rows" if beyond else "")
            + ")."
        )


def removal_interval(
    points: pd.DataFrame, query: str, predicted: float, rows: int, *, level: float = LEVEL
) -> Removal:
    r"""Return the effect of removing rows that were chosen from an end of the list, with an interval.

    Rows are chosen for an extreme estimate, so groups from the ends of the list, top and bottom, tell what becomes of
    such estimates. With their G ratios of retrained effect to estimate, sorted, the conformal interval (split form,
    every one of them as likely to be chosen) is

    .. math:: \hat e \cdot [\rho_{(G+1-j)}, \rho_{(j)}], \qquad j = \lceil (G+1)(1+\text{level})/2 \rceil .

    Ratios, because estimates that are too large altogether are off by the more the more extreme they are. The noise of
    the retrained effects stays in the ratios, so that the interval is rather too wide.

    Parameters
    ----------
    points : pandas.DataFrame
        Groups that were retrained, one line for each and query: `kind` ("top" and "bottom" count), `query`, `size`,
        `effect` and `true_effect`, as `Verification.points` holds them.
    query : str
    predicted : float
        Sum of shrunken effects of the chosen rows, `influence.predict(rows)`.
    rows : int
        How many are chosen.
    level : float
        At least (1 + level) / (1 − level) groups are needed.

    Returns
    -------
    Removal
        Without groups of known effects, as with too few of them, its ends are infinite.

    References
    ----------
    Vovk, Gammerman and Shafer, "Algorithmic learning in a random world" (2005), inductive conformal prediction.

    Examples
    --------
    >>> points = pd.DataFrame({"kind": ["top", "bottom"] * 5, "query": "loss", "size": 5, "effect": [1.0, -1.0] * 5,
    ...                        "true_effect": [0.9, -1.2, 0.8, -0.5, 0.7, -0.9, 1.1, -1.0, 0.8, -0.6]})
    >>> print(removal_interval(points, "loss", -2.0, 5).sentence)  # doctest: +NORMALIZE_WHITESPACE
    Removing the 5 named rows is predicted to change loss by -2 [-2.4, -1] (80 %, by what became of the estimates of 10
    groups from the ends of the list).
    """
    check_level(level)
    of = points[(points["query"] == query) & points["kind"].isin(EXTREME)]
    estimate, truth = (of[name].to_numpy(dtype=np.float64) for name in ("effect", "true_effect"))
    known = np.isfinite(estimate) & np.isfinite(truth) & (estimate != 0)
    if not known.any():
        return Removal(query, rows, predicted, -np.inf, np.inf, level, 0, 0)
    ratio = np.sort((truth / estimate)[known])
    largest = int(of["size"][known].max())
    place = int(np.ceil((len(ratio) + 1) * (1 + level) / 2 - 1e-9))
    if place > len(ratio):
        return Removal(query, rows, predicted, -np.inf, np.inf, level, len(ratio), largest)
    lower, upper = np.sort(predicted * ratio[[len(ratio) - place, place - 1]])
    return Removal(query, rows, predicted, float(lower), float(upper), level, len(ratio), largest)
