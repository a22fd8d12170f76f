"""How long a method will take that is asked about many queries, by what it takes for a few of them."""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

MANY = 64
FEW, MORE = 16, 4
"""One in so many queries is asked about, first and then."""


@dataclass(frozen=True)
class Forecast:
    """Between which times a method will take, in trainings.

    Attributes
    ----------
    least, most
        Of all queries, by those that were tried: what does not grow with them is shared, and work in blocks grows
        in proportion, so that the truth lies between.
    tried
        How many queries were.
    """

    least: float
    most: float
    tried: int

    @property
    def middle(self) -> float:
        """√(least · most): within a factor of two where a quarter of the queries were tried."""
        return sqrt(self.least * self.most)


def forecast(took: Callable[[int], float], queries: int, limit: float | None = None) -> Forecast:
    """Return the forecast of a question about `queries` queries, tried with as few as tell whether it passes a limit.

    With t₁ for a sixteenth k₁ of the queries Q, the time is at least t₁ and at most t₁Q/k₁. Where the limit lies
    between, a quarter k₂ is tried, too: at least the line through both, at most t₂Q/k₂.

    Parameters
    ----------
    took : callable
        `took(k)`: the time that so many queries take, in trainings.
    queries : int
        At least `MANY`.
    limit : float, optional
        In trainings; a quarter is tried in any case unless given.

    Returns
    -------
    Forecast

    Examples
    --------
    >>> forecast(lambda k: 10 + 0.5 * k, 320, limit=500.0)                    # a sixteenth is enough
    Forecast(least=20.0, most=320.0, tried=20)
    >>> found = forecast(lambda k: 10 + 0.5 * k, 320, limit=150.0)
    >>> found, round(found.middle, 1)
    (Forecast(least=170.0, most=200.0, tried=80), 184.4)
    """
    few, more = queries // FEW, queries // MORE
    first = took(few)
    if limit is not None and not first <= limit < first * queries / few:
        return Forecast(first, first * queries / few, few)
    second = took(more)
    slope = max(0.0, (second - first) / (more - few))
    return Forecast(second + slope * (queries - more), max(second, first) * queries / more, more)
