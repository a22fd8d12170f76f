"""The sentences of the page: power in words, what removing a row does, and the glossary."""

import math

from finfluence.report._schema import Contrast, QueryInfo, RowEntry
from finfluence.report._text import number, percent
from finfluence.tradeoff import Gaussian

ALPHA = 0.05

_WORDS = {
    "remove": {"doing": "removing", "done": "removed", "deed": "removal", "better": "better"},
    "add": {"doing": "adding", "done": "added", "deed": "addition", "better": "worse"},
}
_GLOSSARY = {
    "μ": "Effect divided by spread, signed: positive means that {doing} the row raises the query, "
    "negative that {doing} it lowers the query.",
    "effect": "What {doing} the row does to the query, on average over training runs, in the query's unit.",
    "shrunken effect": "The effect with chance taken out: the largest of many estimates owe part of their size to "
    "their errors. Rows are ranked by it, and sums over chosen rows are made of it.",
    "sign error": "Chance that {doing} the row has the opposite effect, or none.",
    "spread": "Standard deviation of the query between training runs that differ only in their randomness.",
    "interval": "Range that holds the true value with the level stated, as far as the estimate knows it.",
    "query": "The measured behaviour of the trained model, one number: a held-out loss, an accuracy, "
    "a log-probability.",
    "harmful": "A row whose {deed} makes the query {better}: harmful to the query asked, not in general.",
    "p-value": "Chance of a μ at least this far from zero if {doing} the row changed nothing.",
    "false-discovery rate": "Expected share of wrongly named rows among all rows that are named.",
    "q-value": "Smallest false-discovery rate at which the row would still be named.",
    "empirical null": "How μ spreads over rows that do nothing, estimated from the bulk of the data itself.",
    "own loss": "Mean loss of the row under the finished model, in natural-log units; high for rows that "
    "fit badly.",
    "power": "Chance to notice from one trained model that the row was {done}, at a given false-alarm rate.",
    "horizon": "How many of the last epochs the replay walked back through; earlier ones are left out.",
    "probes": "A fixed random set of rows evaluated along the way to measure the noise of the batches.",
}


def words_of(contrast: Contrast) -> dict[str, str]:
    """Return the words for what is done to the rows: doing, done, deed; and what a harmful row's deed does."""
    return _WORDS[contrast]


def glossary(contrast: Contrast) -> dict[str, str]:
    """Return the terms of the page and what each means."""
    return {term: sentence.format(**_WORDS[contrast]) for term, sentence in _GLOSSARY.items()}


def power(mu: float, alpha: float = ALPHA) -> float:
    """Return Φ(|μ| − Φ⁻¹(1−α)): the chance to notice the removal from one model at false-alarm rate `alpha`.

    Returns
    -------
    float

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


def power_sentence(row: RowEntry, level: float, contrast: Contrast = "remove") -> str:
    """Say how often the row's removal (or addition) would be noticed, with the interval that μ's own gives."""
    chance, deed = power(row.mu), _WORDS[contrast]["deed"]
    if math.isnan(chance):
        return f"How often its {deed} would be noticed is not available, because μ is not."
    low, high = (power(bound) for bound in magnitude(row.lower, row.upper))
    band = "" if math.isnan(low) else f" ({percent(level)} interval {_chance(low)} to {_chance(high)})"
    if band and _chance(low) == _chance(high):
        band = f" (the same over the {percent(level)} interval)"
    tail = ", hardly more often than by chance" if chance < 1.5 * ALPHA else ""
    return (
        f"Seen in one model, its {deed} would be noticed with probability {_chance(chance)}{band} "
        f"at {percent(ALPHA)} false alarms{tail}."
    )


def effect_sentence(row: RowEntry, query: QueryInfo) -> str:
    """Say what removing (or adding) the row does to the query, and whether that makes it harmful or helpful."""
    doing = _WORDS[query.contrast]["doing"]
    if not math.isfinite(row.mu):
        return f"What {doing} it does to “{query.name}” is not available."
    verb = "raise" if row.mu > 0 else "lower"
    by = f" by {number(abs(row.effect))} {query.unit}".rstrip() if math.isfinite(row.effect) else ""
    spreads = f"{number(abs(row.mu))} times the spread between training runs"
    text = f"{doing.capitalize()} it is expected to {verb} “{query.name}”{by}, {spreads}"
    if row.lower <= 0 <= row.upper:
        return f"{text}; but the interval of μ includes zero, so even the direction is uncertain."
    kind = direction(row.mu, query)
    return f"{text}: to this query the row is {kind}." if kind else f"{text}."


def direction(mu: float, query: QueryInfo) -> str:
    """Return "harmful" where removing the row makes the query better (or adding it, worse), else "helpful" or ""."""
    if not mu or math.isnan(mu):
        return ""
    return "harmful" if query.harmful * mu > 0 else "helpful"


def _chance(value: float) -> str:
    if value > 0.995:
        return "more than 0.99"
    return f"{value:.2f}"
