"""Contradictions that do not become rarer as fast as the models become surer: likelihood, test and posterior."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import logsumexp
from scipy.stats import chi2

MOST_CONTRADICTED, MOST_AGREED = 2000, 500
"""How many rows of each kind the likelihood is of at most; each stands for its share of all."""
MOST_WRONG = 0.5
"""Largest chance of a wrong label that any law of wrong labels gives to a row."""
MOST_ALIKE = 0.25
"""Largest ε of laws by which wrong labels look like the row: beyond it, classes that overlap explain the same."""
USUAL, RARER = 0.1, 0.08
"""ε from which labels that are wrong oftener where the row could be another class are thought rarer, by e a step."""
LEAST_ALIKE = 0.02
"""What the second class's p counts as at least: how much surer models are says little of how often labels are wrong."""
NEGLIGIBLE = 1e-6
LEAST_SAID, LEAST_LIKELY = 1e-7, 1e-12
NO_NOISE = 0.05
SURE_OF_NOISE = 0.05
"""Largest p-value of "no label is wrong by chance" with which any row is named."""
_RATES = np.r_[0.0, np.geomspace(0.002, 0.48, 30)]
_STEEPNESS, _BONUS = np.exp(np.linspace(-0.75, 2.4, 22)), np.linspace(-0.3, 0.3, 5)
_BONUS_SD = 0.15
_STEEPNESS_SD, _STEEPNESS_SD_WITHOUT = 0.25, 0.3


@dataclass(frozen=True, eq=False)
class _Chances:
    """Chances of some rows' labels at a steepness b, before the bonus for the first class.

    own, top : q of the given class and of the first one [n]. wrong : of each law, the chance of the given class if it
    is wrong [n], and N(given | first), its part by the first class over that class's q [n].
    """

    own: np.ndarray
    top: np.ndarray
    wrong: tuple[tuple[np.ndarray, np.ndarray], ...]
    agrees: np.ndarray

    def given(self, a: float) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return chances of the label if right [n] and, for each law, if wrong [n], with a bonus a for the first."""
        more = np.expm1(a)
        total = 1 + more * self.top
        right = self.own * np.where(self.agrees, 1 + more, 1.0) / total
        by_first = np.where(self.agrees, 0.0, more * self.top)
        return right, [(chance + by_first * of_first) / total for chance, of_first in self.wrong]


class Laws:
    """Chances of the given labels if they are right, and if they are wrong, whichever class is the right one.

    Parameters
    ----------
    p : array [n, classes]
        Predicted probabilities.
    labels : array [n]
        Class indices.
    """

    def __init__(self, p: np.ndarray, labels: np.ndarray) -> None:
        self.p = np.clip(p, LEAST_SAID, 1)
        self.labels, self.first = labels, self.p.argmax(1)
        second = np.sqrt(np.clip(np.partition(self.p, -2, axis=1)[:, -2], LEAST_ALIKE, None))
        even, root = np.ones(len(p)), second / second.mean()
        self.oftener = (even, root) if p.shape[1] == 2 else (even, even, root)
        """How often a label is wrong, in ε [n], by law: all other classes alike; the classes that the row is like; and
        these, oftener where it could well be another. Two classes have one other: the first two are the same."""
        agrees = self.first == labels
        self.contradicted = np.flatnonzero(~agrees)
        agreed = np.flatnonzero(agrees)
        agreed = agreed[np.argsort(self.p[agreed, labels[agreed]], kind="stable")]
        kept = [_evenly(self.contradicted, MOST_CONTRADICTED), _evenly(agreed, MOST_AGREED)]
        self.some = np.concatenate(kept)
        self.each_for = np.concatenate(
            [
                np.full(len(k), len(r) / max(1, len(k)))
                for k, r in zip(kept, (self.contradicted, agreed), strict=True)
            ]
        )

    def rates(self, law: int, rows: np.ndarray) -> np.ndarray:
        """Return the chance of each row to be wrong [ε, n]: ε times how often it is, at most a half."""
        result: np.ndarray = np.minimum(np.outer(_RATES, self.oftener[law][rows]), MOST_WRONG)
        return result

    def chances(self, b: float, rows: np.ndarray) -> _Chances:
        """Return chances of the rows' labels at a steepness b."""
        p, labels, first, at = self.p[rows], self.labels[rows], self.first[rows], np.arange(len(rows))
        logs = b * np.log(p)
        q = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
        own, top, others = q[at, labels], q[at, first], p.shape[1] - 1
        alike = ((1 - own) / others, np.full(len(rows), 1 / others))
        wrong = [alike] * len(self.oftener)
        if others > 1:
            over = 1 / np.clip(1 - p, LEAST_SAID, None)
            like = ((q * over).sum(1) - own * over[at, labels]) * p[at, labels]
            wrong[1:] = [(like, p[at, labels] * over[at, first])] * 2
        return _Chances(own, top, tuple(wrong), labels == first)

    @cached_property
    def log_likelihood(self) -> np.ndarray:
        """The log-likelihood [N, b, a, ε] of all rows, by `some` of them."""
        rates = [self.rates(law, self.some) for law in range(len(self.oftener))]
        found = np.empty((len(rates), len(_STEEPNESS), len(_BONUS), len(_RATES)))
        for i, b in enumerate(_STEEPNESS):
            chances = self.chances(b, self.some)
            for j, a in enumerate(_BONUS):
                right, wrong = chances.given(a)
                for k, rate in enumerate(rates):
                    likely = np.clip(right + rate * (wrong[k] - right), LEAST_LIKELY, None)
                    found[k, i, j] = np.log(likely) @ self.each_for
        found[1:, ..., _RATES > MOST_ALIKE] = -np.inf
        return found


@dataclass(frozen=True, eq=False)
class Fit:
    """right : chance of each contradicted label to be right, 1 of others [n]. rate, lower, upper, none : of ε."""

    right: np.ndarray
    rate: float
    lower: float
    upper: float
    none: float


def fitted(laws: Laws, p_none: float) -> Fit:
    """Average over the posterior of (ε, a, b, N), ε = 0 ruled out where `p_none` is small enough.

    Returns
    -------
    Fit
    """
    weights = laws.log_likelihood + _log_prior(len(laws.oftener))
    weights = np.exp(weights - logsumexp(weights))
    none = float(weights[..., 0].sum())
    if p_none <= SURE_OF_NOISE:
        weights[..., 0] = 0
        weights /= weights.sum()
    rows = laws.contradicted
    mean, known = np.zeros(len(rows)), 0.0
    rates = [laws.rates(law, rows) for law in range(len(laws.oftener))]
    for i, b in enumerate(_STEEPNESS):
        if weights[:, i].max() < NEGLIGIBLE:
            continue
        chances = laws.chances(b, rows)
        for j, a in enumerate(_BONUS):
            right, wrong = chances.given(a)
            for k, e in np.argwhere(weights[:, i, j] >= NEGLIGIBLE):
                kept, weight = (1 - rates[k][e]) * right, weights[k, i, j, e]
                mean += weight * kept / np.clip(kept + rates[k][e] * wrong[k], LEAST_LIKELY, None)
                known += weight
    of_rate = weights.sum((0, 1, 2))
    lower, upper = (float(_RATES[int(np.searchsorted(of_rate.cumsum(), q))]) for q in (0.05, 0.95))
    right = np.ones(len(laws.labels))
    right[rows] = mean / known
    return Fit(right, float(of_rate @ _RATES), lower, upper, none)


def p_of_none(laws: Laws) -> float:
    """Return the p-value of ε = 0 by the likelihood ratio Λ over N, b, a, ε: half of it χ² with one degree of freedom.

    ε = 0 is at the edge of what is possible, so that 2 log Λ is 0 half of the time (Self and Liang 1987, case 5). Both
    sides have their best b, and their best a under its prior.

    Returns
    -------
    float
    """
    of_bonus = _normal(_BONUS, 0.0, _BONUS_SD)
    penalised = laws.log_likelihood + (of_bonus - of_bonus.max())[:, None]
    ratio = float(penalised[..., 1:].max() - penalised[..., 0].max())
    return 0.5 * float(chi2.sf(2 * max(ratio, 0.0), 1))


def _evenly(rows: np.ndarray, most: int) -> np.ndarray:
    """Return `most` of the rows at most, evenly spaced."""
    step = max(1, -(-len(rows) // most))
    result: np.ndarray = rows[step // 2 :: step]
    return result


def _log_prior(laws: int) -> np.ndarray:
    """Return the log prior [N, b, a, ε], N the law: of log b and a normal, of ε a share at 0 and the rest uniform.

    Under the last law ε is less likely beyond a tenth: there it and classes that overlap explain nearly the same.

    Returns
    -------
    array
    """
    widths = np.gradient(_RATES[1:])
    of_rate = np.log(np.r_[NO_NOISE, (1 - NO_NOISE) * widths / widths.sum()])
    bent = [_normal(np.log(_STEEPNESS), 0.0, _STEEPNESS_SD_WITHOUT)]
    bent += [_normal(np.log(_STEEPNESS), _steepness(rate), _STEEPNESS_SD) for rate in _RATES[1:]]
    of_steepness = np.stack(bent, axis=1)
    of_one = of_steepness[:, None] + _normal(_BONUS, 0.0, _BONUS_SD)[:, None] + of_rate
    result = np.repeat(of_one[None], laws, axis=0)
    result[-1] -= np.maximum(_RATES - USUAL, 0) / RARER
    return result


def _steepness(rate: float) -> float:
    """Return the prior mean of log b where a share `rate` of the labels is wrong: 0.85 √(rate / 0.1), at least 0.7."""
    return max(0.7, 0.85 * float(np.sqrt(rate / 0.1)))


def _normal(values: np.ndarray, mean: float, sd: float) -> np.ndarray:
    """Return logs of normal weights at the values, their exponentials adding to 1."""
    logs = -0.5 * ((values - mean) / sd) ** 2
    result: np.ndarray = logs - logsumexp(logs)
    return result
