"""The sentences of the page: power in words, what removing a row does, and the glossary."""

import math

from finfluence.report._schema import QueryInfo, RowEntry
from finfluence.report._text import number, percent
from finfluence.tradeoff import Gaussian

ALPHA = 0.05

GLOSSARY = {
    "μ": "Effect divided by spread, signed: positive means that removing the row raises the query, "
    "negative that removing it lowers the query.",
    "effect": "What removing the row does to the query, on average over training runs, in the query's unit.",
    "spread": "Standard deviation of the query between training runs that differ only in their randomness.",
    "interval": "Range that holds the true value with the level stated, as far as the estimate knows it.",
    "query": "The measured behaviour of the trained model, one number: a held-out loss, an accuracy, "
    "a log-probability.",
    "harmful": "A row whose removal makes the query better: harmful to the query asked, not in general.",
    "p-value": "Chance of a μ at least this far from zero if removing the row changed nothing.",
    "false-discovery rate": "Expected share of wrongly named rows among all rows that are named.",
    "q-value": "Smallest false-discovery rate at which the row would still be named.",
    "empirical null": "How μ spreads over rows that do nothing, estimated from the bulk of the data itself.",
    "own loss": "Mean loss of the row under the finished model, in natural-log units; high for rows that "
    "fit badly.",
    "power": "Chance to notice from one trained model that the row was removed, at a given false-alarm rate.",
    "horizon": "How many of the last epochs the replay walked back through; earlier ones are left out.",
    "probes": "A fixed random set of rows evaluated along the way to measure the noise of the batches.",
}


def power(mu: float, alpha: float = ALPHA) -> float:
    """Return Φ(|μ| − Φ⁻¹(1−α)): the chance to notice the removal from one model at false-alarm rate `alpha`.

    Examples
    --------
    >>> round(power(1.0, 0.05), 6)
    0.259511
    """
    if math.isfinite(mu):
        return float(Gaussian(mu).power(alpha))
    return math.nan if math.isnan(mu) else 1.0


def magnitude(lower: float, upper: float) -> tuple[float, float]:
    """Return the interval of |μ|, given the interval of μ."""
    if math.isnan(lower) or math.isnan(upper):
        return math.nan, math.nan
    least = 0.0 if lower <= 0 <= upper else min(abs(lower), abs(upper))
    return least, max(abs(lower), abs(upper))


def power_sentence(row: RowEntry, level: float) -> str:
    """Say how often the row's removal would be noticed, with the interval that μ's own gives."""
    chance = power(row.mu)
    if math.isnan(chance):
        return "How often its removal would be noticed is not available, because μ is not."
    low, high = (power(bound) for bound in magnitude(row.lower, row.upper))
    band = "" if math.isnan(low) else f" ({percent(level)} interval {_chance(low)} to {_chance(high)})"
    if band and _chance(low) == _chance(high):
        band = f" (the same over the {percent(level)} interval)"
    tail = ", hardly more often than by chance" if chance < 1.5 * ALPHA else ""
    return (
        f"Seen in one model, its removal would be noticed with probability {_chance(chance)}{band} "
        f"at {percent(ALPHA)} false alarms{tail}."
    )


def effect_sentence(row: RowEntry, query: QueryInfo) -> str:
    """Say what removing the row does to the query, and whether that makes it harmful or helpful."""
    if not math.isfinite(row.mu):
        return f"What removing it does to “{query.name}” is not available."
    verb = "raise" if row.mu > 0 else "lower"
    by = f" by {number(abs(row.effect))} {query.unit}".rstrip() if math.isfinite(row.effect) else ""
    spreads = f"{number(abs(row.mu))} times the spread between training runs"
    text = f"Removing it is expected to {verb} “{query.name}”{by}, {spreads}"
    if row.lower <= 0 <= row.upper:
        return f"{text}; but the interval of μ includes zero, so even the direction is uncertain."
    kind = direction(row.mu, query)
    return f"{text}: to this query the row is {kind}." if kind else f"{text}."


def direction(mu: float, query: QueryInfo) -> str:
    """Return "harmful" where removing the row makes the query better, "helpful" where worse, else ""."""
    if not mu or math.isnan(mu):
        return ""
    return "harmful" if query.sign * mu > 0 else "helpful"


def _chance(value: float) -> str:
    if value > 0.995:
        return "more than 0.99"
    return f"{value:.2f}"
