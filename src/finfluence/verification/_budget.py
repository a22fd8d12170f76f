"""Time as people write it, and how many trainings fit into it."""

import math
import re

from finfluence.errors import ConfigError, explain

FEWEST_RUNS, FAIR_RUNS = 10, 30
FEWEST, FAIR_SUBSETS = 4, 8
RESERVE = 0.95
_PARTS = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def seconds_of(budget: str | float) -> float:
    """Return a budget in seconds: a number, or a text such as "90s", "10m", "1.5h" or "1h30m".

    Returns
    -------
    float

    Raises
    ------
    ConfigError
        It cannot be read, or is not above zero.

    Examples
    --------
    >>> seconds_of("10m"), seconds_of("1h30m"), seconds_of(45)
    (600.0, 5400.0, 45.0)
    """
    text = str(budget).replace(" ", "").lower()
    match = _PARTS.fullmatch(text)
    parts = [float(p or 0) for p in match.groups()] if match and text else [0.0]
    seconds = parts[0] if len(parts) == 1 else 3600 * parts[0] + 60 * parts[1] + parts[2]
    if not seconds > 0:
        raise ConfigError(
            explain(
                "a budget of time above zero, such as 90s, 10m or 1h30m",
                repr(budget),
                "another unit, or a number of trainings",
                "write seconds, minutes or hours with s, m or h",
            )
        )
    return seconds


def duration(seconds: float) -> str:
    """Return a time in words, rounded as a forecast should be.

    Returns
    -------
    str

    Examples
    --------
    >>> duration(0.4), duration(52.3), duration(250), duration(5400)
    ('1 s', '52 s', '4 min', '1 h 30 min')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def runs_on_all(runs: int, subsets: int, paired: bool = False) -> int:
    """Return how many trainings on all rows serve best.

    Every subset is compared with them, so √S times as many; in pairs each has one of its own seed, which all share.

    Returns
    -------
    int
    """
    return runs if paired else round(runs * math.sqrt(subsets))


def trainings(runs: int, subsets: int, paired: bool = False) -> int:
    """Return the number of trainings in all."""
    return runs_on_all(runs, subsets, paired) + runs * subsets


def fit_to_budget(
    subsets: int, runs: int, seconds: float, spent: float, each: float, paired: bool = False
) -> tuple[int, int]:
    """Return (subsets, runs) that fit into a budget: fewer runs first, then fewer subsets.

    Runs go down to 30, subsets then to 8, runs then to 10: with fewer subsets than 8 no verdict is given, so that a
    budget which cannot pay for them is refused, not spent. (Where fewer are asked for, as many.)

    Parameters
    ----------
    seconds, spent
        The budget, and what measuring took of it.
    each
        Measured seconds of one training. A twentieth of the time is kept in reserve.

    Returns
    -------
    tuple[int, int]

    Raises
    ------
    ConfigError
        Not even 8 subsets with 10 runs fit.
    """
    allowed = max(0.0, RESERVE * (seconds - spent)) / each
    for least_runs, least_subsets in (
        (FAIR_RUNS, subsets), (FAIR_RUNS, FAIR_SUBSETS), (FEWEST_RUNS, FAIR_SUBSETS),
    ):  # fmt: skip
        for count in range(subsets, min(subsets, least_subsets) - 1, -1):
            most = int(allowed / (count + (1 if paired else math.sqrt(count))))
            while most > 0 and trainings(most, count, paired) > allowed:
                most -= 1
            if most >= min(runs, least_runs):
                return count, min(runs, most)
    fewest = min(subsets, FAIR_SUBSETS)
    least = trainings(min(runs, FEWEST_RUNS), fewest, paired)

    def needed(count: int) -> str:
        return duration(math.ceil(1.05 * (spent + count * each / RESERVE)))

    raise ConfigError(
        explain(
            f"a budget of at least {needed(least)} for {fewest} subsets with {min(runs, FEWEST_RUNS)} trainings each",
            duration(seconds),
            f"one training takes {each:.2g} s here, and {least:,} are the least that a verdict is given on",
            f"raise the budget; {subsets} subsets with {runs} trainings each need about "
            f"{needed(trainings(runs, subsets, paired))}",
        )
    )
