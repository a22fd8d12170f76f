"""Contradictions that do not become rarer as fast as the models become surer: likelihood, test and posterior."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import logsumexp
from scipy.stats import chi2

MOST_FITTED = 5000
MOST_WRONG = 0.5
"""Largest chance of a wrong label that any law of wrong labels gives to a row."""
LEAST_ALIKE = 0.02
"""What the second class's p counts as at least: how much surer models are says little of how often labels are wrong."""
NEGLIGIBLE = 1e-6
LEAST_SAID, LEAST_LIKELY = 1e-7, 1e-12
NO_NOISE = 0.05
SURE_OF_NOISE = 0.05
"""Largest p-value of "no label is wrong by chance" with which any row is named."""
_RATES = np.r_[0.0, np.geomspace(0.002, 0.48, 30)]
_STEEPNESS, _BONUS = np.exp(np.linspace(-0.75, 2.4, 22)), np.linspace(-1.2, 1.2, 9)
_BONUS_SD = 0.15
_STEEPNESS_SD, _STEEPNESS_SD_WITHOUT = 0.25, 0.3


class Laws:
    """Chances of the given labels if they are right, and if they are wrong.

    Parameters
    ----------
    p : array [n, classes]
        Predicted probabilities.
    labels : array [n]
        Class indices.
    """

    def __init__(self, p: np.ndarray, labels: np.ndarray) -> None:
        p = np.clip(p, LEAST_SAID, 1)
        rows, first = np.arange(len(p)), p.argmax(1)
        self.log_p = np.log(p)
        self.own, self.top = self.log_p[rows, labels], self.log_p[rows, first]
        self.agrees = first == labels
        self.wrong = _wrong_laws(p, first, labels)
        self.some = slice(None, None, -(-len(p) // MOST_FITTED))
        self.each_for = len(p) / len(self.own[self.some])

    def log_right(self, b: float, a: float, rows: slice, total: np.ndarray) -> np.ndarray:
        """Return logs of p^b, times e^a for the first class, normalised, of the given labels."""
        of_first = np.log1p(np.expm1(a) * np.exp(b * self.top[rows] - total))
        result: np.ndarray = b * self.own[rows] + a * self.agrees[rows] - total - of_first
        return result

    @cached_property
    def log_likelihood(self) -> np.ndarray:
        """The log-likelihood [N, b, a, ε] of `some` rows, evenly spaced; each stands for `each_for` of them."""
        some, agrees = self.some, self.agrees[self.some]
        rates = [_rates(weight[some]) for _, weight in self.wrong]
        agreed = [np.log1p(-rate[:, agrees]).sum(1) for rate in rates]
        kept = [1 - rate[:, ~agrees] for rate in rates]
        wrong = [
            rate[:, ~agrees] * chance[some][~agrees]
            for rate, (chance, _) in zip(rates, self.wrong, strict=True)
        ]
        found = np.empty((len(rates), len(_STEEPNESS), len(_BONUS), len(_RATES)))
        for i, b in enumerate(_STEEPNESS):
            total = logsumexp(b * self.log_p[some], axis=1)
            for j, a in enumerate(_BONUS):
                log_right = self.log_right(b, a, some, total)
                right = np.exp(log_right[~agrees])
                for k in range(len(rates)):
                    chance = np.clip(kept[k] * right + wrong[k], LEAST_LIKELY, None)
                    found[k, i, j] = log_right[agrees].sum() + agreed[k] + np.log(chance).sum(1)
        return found


@dataclass(frozen=True, eq=False)
class Fit:
    """right : chance of each label if it contradicts [n]. rate, lower, upper, none : of ε."""

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
    weights = laws.log_likelihood * laws.each_for + _log_prior()
    weights = np.exp(weights - logsumexp(weights))
    none = float(weights[..., 0].sum())
    if p_none <= SURE_OF_NOISE:
        weights[..., 0] = 0
        weights /= weights.sum()
    mean, known, rows = np.zeros(len(laws.own)), 0.0, slice(None)
    rates = [_rates(weight) for _, weight in laws.wrong]
    for i, b in enumerate(_STEEPNESS):
        if weights[:, i].max() < NEGLIGIBLE:
            continue
        total = logsumexp(b * laws.log_p, axis=1)
        for k, j, e in np.argwhere(weights[:, i] >= NEGLIGIBLE):
            rate, weight = rates[k][e], weights[k, i, j, e]
            right = (1 - rate) * np.exp(laws.log_right(b, _BONUS[j], rows, total))
            mean += weight * right / np.clip(right + rate * laws.wrong[k][0], LEAST_LIKELY, None)
            known += weight
    of_rate = weights.sum((0, 1, 2))
    lower, upper = (float(_RATES[int(np.searchsorted(of_rate.cumsum(), q))]) for q in (0.05, 0.95))
    return Fit(mean / known, float(of_rate @ _RATES), lower, upper, none)


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


def _rates(weight: np.ndarray) -> np.ndarray:
    """Return the chance of every row to be wrong [ε, n]: ε times its weight, at most a half."""
    result: np.ndarray = np.minimum(np.outer(_RATES, weight), MOST_WRONG)
    return result


def _wrong_laws(p: np.ndarray, first: np.ndarray, labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return laws of wrong labels: the chance to be the given one [n], and how often the row is wrong, in ε [n].

    All other classes alike; as they are like the row; and these oftener where the row could well be another class, in
    proportion to the root of the second class's p. Two classes have one other, so that the first two are the same.

    Returns
    -------
    list
    """
    rows, other = np.arange(len(p)), first != labels
    even, root = np.ones(len(p)), np.sqrt(np.clip(np.partition(p, -2, axis=1)[:, -2], LEAST_ALIKE, None))
    uniform = np.where(other, 1 / (p.shape[1] - 1), 0.0)
    alike = np.where(other, p[rows, labels] / np.clip(1 - p[rows, first], LEAST_SAID, None), 0.0)
    laws = [(uniform, even), (alike, even), (alike, root / root.mean())]
    return laws[1:] if p.shape[1] == 2 else laws


def _log_prior() -> np.ndarray:
    """Return the log prior [b, a, ε]: of log b and a normal, of ε a share at 0 and the rest uniform."""
    widths = np.gradient(_RATES[1:])
    of_rate = np.log(np.r_[NO_NOISE, (1 - NO_NOISE) * widths / widths.sum()])
    bent = [_normal(np.log(_STEEPNESS), 0.0, _STEEPNESS_SD_WITHOUT)]
    bent += [_normal(np.log(_STEEPNESS), _steepness(rate), _STEEPNESS_SD) for rate in _RATES[1:]]
    of_steepness = np.stack(bent, axis=1)
    result: np.ndarray = of_steepness[:, None] + _normal(_BONUS, 0.0, _BONUS_SD)[:, None] + of_rate
    return result


def _steepness(rate: float) -> float:
    """Return the prior mean of log b where a share `rate` of the labels is wrong: 0.85 √(rate / 0.1), at least 0.7."""
    return max(0.7, 0.85 * float(np.sqrt(rate / 0.1)))


def _normal(values: np.ndarray, mean: float, sd: float) -> np.ndarray:
    """Return logs of normal weights at the values, their exponentials adding to 1."""
    logs = -0.5 * ((values - mean) / sd) ** 2
    result: np.ndarray = logs - logsumexp(logs)
    return result
