"""The verdicts on an estimate, on its order and on its size, by stated thresholds, and the plain sentence."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from finfluence.verification._figures import Evidence, Figure

Part = Literal["passed", "failed", "undecided"]
Verdict = Literal["passed", "order-only", "failed", "undecided"]

FEWEST_SUBSETS = 8
ORDER = 0.8
SIZE = 2.0
CLOSE = 1.1
LOWEST_CEILING = 0.7
NO_SIGNAL = 0.001


@dataclass(frozen=True)
class Judgement:
    """What is held of an estimate: of the order of its subsets, of the size of its effects, and in words."""

    order: Part
    size: Part
    sentence: str

    @property
    def verdict(self) -> Verdict:
        """Failed where either is refuted; else as far as they are settled: both, the order alone, or not the order."""
        if "failed" in (self.order, self.size):
            return "failed"
        if self.order == "undecided":
            return "undecided"
        return "passed" if self.size == "passed" else "order-only"


def judge(found: Mapping[str, Figure], evidence: Evidence, runs: int, size: int) -> Judgement:
    """Return the verdicts on order and size, and what they mean.

    The thresholds, each held against the whole interval:

    - *order*: Pearson over its ceiling at least 0.8 (the correlation with a noise-free truth);
    - *size*: slope between 1/2 and 2.

    Passed: it holds. Failed: it is refuted. Undecided: anything else, among it fewer than 8 subsets, a ceiling below
    0.7, and truths that do not differ by more than their noise (χ² test at 0.001). The two are judged apart: more
    subsets settle the order long before they settle the size.

    Parameters
    ----------
    found
        Figures by name.
    runs
        Trainings without each subset, for the advice.
    size
        Rows in a typical subset, for the advice.

    Returns
    -------
    Judgement
    """
    if evidence.subsets < FEWEST_SUBSETS:
        text = f"Too few subsets to tell: {evidence.subsets} were measured, at least {FEWEST_SUBSETS} are needed."
        return Judgement("undecided", "undecided", text)
    pearson, slope = found["Pearson"], found["slope"]
    if evidence.p_signal > NO_SIGNAL or evidence.signal == 0:
        return _nothing_moves(slope, evidence, runs, size)
    if evidence.predicted == 0 or math.isnan(pearson.value):
        return Judgement(
            "failed",
            "undecided",
            "The order is not to be trusted: the estimate says the same of every subset, and the truth does not.",
        )
    order, text = _order(pearson, evidence, runs)
    if order == "passed":
        return Judgement(order, *_size_of_ordered(found, slope))
    part = _size(slope) if order == "undecided" else "undecided"
    said = {
        "passed": f" The size is right: the factor of effects (μ) is {slope.value:.2g} ({_bounds(slope)}).",
        "failed": f" The size is wrong: the factor of effects (μ) is {slope.value:.2g} ({_bounds(slope)}).",
        "undecided": "" if order == "failed" else " Nor is the size known.",
    }
    return Judgement(order, part, text + said[part])


def _order(pearson: Figure, evidence: Evidence, runs: int) -> tuple[Part, str]:
    low, high = pearson.lower / pearson.best, pearson.upper / pearson.best
    if high < ORDER:
        return "failed", (
            f"The order is not to be trusted: Pearson {pearson.value:.2f} ({pearson.lower:.2f} to {pearson.upper:.2f}) "
            f"where a perfect estimate would reach {pearson.best:.2f}."
        )
    if pearson.best < LOWEST_CEILING:
        return "undecided", (
            f"Too few retrainings to tell: their noise lets even a perfect estimate reach a Pearson correlation of "
            f"{pearson.best:.2f} only; about {_runs_for(evidence, runs):,} runs would do."
        )
    if low >= ORDER:
        return "passed", ""
    more = _more(pearson, evidence, runs)
    return "undecided", f"Too few retrainings to tell whether the order holds: {more}."


def _size(slope: Figure) -> Part:
    if slope.upper < 1 / SIZE or slope.lower > SIZE:
        return "failed"
    return "passed" if slope.lower >= 1 / SIZE and slope.upper <= SIZE else "undecided"


def _bounds(slope: Figure) -> str:
    return f"{slope.lower:.2f} to {slope.upper:.2f}"


def _size_of_ordered(found: Mapping[str, Figure], slope: Figure) -> tuple[Part, str]:
    part, bounds = _size(slope), _bounds(slope)
    if part == "failed":
        off = "too large" if slope.value < 1 else "too small"
        factor = 1 / slope.value if slope.value < 1 else slope.value
        return part, (
            f"Trust the order, not the size: effects (μ) are about {factor:.2g} times {off}; multiply them by "
            f"{slope.value:.2g} ({bounds}).{_in_units(found)}"
        )
    if part == "undecided":
        return part, (
            f"Trust the order; too few retrainings to tell the size: the factor of effects (μ) is "
            f"{slope.value:.2g} ({bounds}).{_in_units(found)}"
        )
    close = 1 / CLOSE <= slope.value <= CLOSE or slope.lower <= 1 <= slope.upper
    text = (
        f"Trust the order and the size of effects (factor {slope.value:.2f}, {bounds})."
        if close
        else f"Trust the order, multiply effects (μ) by {slope.value:.2g} ({bounds}).{_in_units(found)}"
    )
    return part, text + _intervals(found["coverage"])


def _in_units(found: Mapping[str, Figure]) -> str:
    """Say whether it is the spread or the effect itself that is off, where one of them is right."""
    effect, spread = found["effect slope"], found["spread ratio"]
    right, wrong = effect.lower <= 1 <= effect.upper, not spread.lower <= 1 <= spread.upper
    if not (right or 1 / CLOSE <= effect.value <= CLOSE) or not wrong:
        return ""
    ratio, kind = (spread.value, "small") if spread.value > 1 else (1 / spread.value, "large")
    return (
        f" In the query's own unit effects are right (factor {effect.value:.2f}): it is the spread that is {ratio:.2g} "
        f"times too {kind}."
    )


def _intervals(coverage: Figure) -> str:
    if not coverage.upper < coverage.best:
        return ""
    return (
        f" Its {100 * coverage.best:.0f} % intervals are too narrow: they held the truth {100 * coverage.value:.0f} % "
        "of the time."
    )


def _nothing_moves(slope: Figure, evidence: Evidence, runs: int, size: int) -> Judgement:
    if evidence.predicted > 3 * evidence.noise and slope.upper < 1 / SIZE:
        return Judgement(
            "undecided",
            "failed",
            f"The size is not to be trusted: the estimate says that these subsets differ by {evidence.predicted:.2g} "
            f"spreads, and retraining tells none from noise (factor {slope.value:.2g}, {_bounds(slope)}).",
        )
    ratio = 6 * evidence.noise / evidence.predicted if evidence.predicted else math.inf
    rows = math.ceil(size * ratio) if ratio < 1e6 else 0
    remedy = (
        f"groups of about {rows:,} rows would"
        if rows > size
        else f"more runs might ({4 * runs:,} instead of {runs:,})"
    )
    text = f"Nothing to verify: no subset moves the query by more than noise; {remedy}."
    return Judgement("undecided", "undecided", text)


def _runs_for(evidence: Evidence, runs: int) -> int:
    """Return the runs at which the noise would be a tenth of the variance of the truth."""
    return max(runs + 1, math.ceil(runs * 9 * (evidence.noise / evidence.signal) ** 2))


def _more(pearson: Figure, evidence: Evidence, runs: int) -> str:
    message = f"Pearson {pearson.value:.2f} ({pearson.lower:.2f} to {pearson.upper:.2f}), at best {pearson.best:.2f}"
    if pearson.best < 0.95:
        return f"{message}; about {_runs_for(evidence, runs):,} runs would do"
    return f"{message}; more subsets would, for instance {2 * evidence.subsets}"
