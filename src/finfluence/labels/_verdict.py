"""Which labels are wrong: contradictions that no longer become rarer as the models become surer."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp
from scipy.stats import chi2

from finfluence.errors import ConfigError, DataError, explain
from finfluence.labels._out_of_fold import LEAST_CHANCE, OutOfFold

MOST_OF_CLASS, LIKELY = 0.5, 0.5
MOST_FITTED = 5000
NEGLIGIBLE = 1e-6
LEAST_SAID = 1e-7
NO_NOISE = 0.05
SURE_OF_NOISE = 0.05
"""Largest p-value of "no label is wrong by chance" with which any row is named."""
_RATES = np.r_[0.0, np.geomspace(0.002, 0.48, 30)]
_STEEPNESS, _BONUS = np.exp(np.linspace(-0.75, 2.4, 22)), np.linspace(-1.2, 1.2, 9)
_BONUS_SD = 0.15
_STEEPNESS_WITHOUT, _STEEPNESS_WITH = (0.0, 0.3), (0.7, 0.25)
"""Mean and spread of log b where no label is wrong by chance, and where some are."""
ASSUMPTION = (
    "assumes that right labels contradict the models less and less often as these become surer of rows like them "
    "(probabilities at some temperature), so that a share of contradictions which no longer falls is of wrong labels"
)


@dataclass(frozen=True, eq=False)
class LabelVerdict:
    """What models that have not seen a row say of its label.

    Attributes
    ----------
    p_wrong
        Chance that the label is wrong [n], given that the models contradict it and how sure they are; 0 where they do
        not contradict it.
    oof_loss
        Log loss of the label under the out-of-fold predictions [n], nats.
    predicted, confidence
        The models' class [n] and the probability that they give to it.
    ambiguous
        The models contradict the label, but are so unsure of such rows that it is more likely right [n].
    noise_rate, noise_lower, noise_upper
        Share of labels that are wrong by chance, wherever the models are sure: posterior mean and 90 % interval.
    no_noise
        Chance that there is no such share at all.
    p_none
        p-value of the hypothesis that there is none, by the likelihood ratio; rows are named up to 0.05, and then every
        chance above is given that there is such a share.
    findings
        Sentences that qualify the verdict.
    """

    p_wrong: np.ndarray
    oof_loss: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    ambiguous: np.ndarray
    labels: np.ndarray
    noise_rate: float
    noise_lower: float
    noise_upper: float
    no_noise: float
    p_none: float
    told: bool
    findings: tuple[str, ...] = ()

    @property
    def order(self) -> np.ndarray:
        """Positions from the most to the least doubtful label: by log-odds of p_wrong plus out-of-fold loss."""
        chance = np.clip(self.p_wrong, 1e-4, 1 - 1e-6)
        return np.argsort(-(np.log(chance / (1 - chance)) + self.oof_loss), kind="stable")

    @cached_property
    def q_values(self) -> np.ndarray:
        """Least level at which each row is named [n]; 1 where it never is.

        The mean of 1 − p_wrong over the rows at least as likely wrong, and at least `p_none`: where no label is wrong,
        any name is a false one, and that happens as often as `p_none` falls below the level. 1 where the label is more
        likely right than wrong, where no model predicts better than a constant, where `p_none` is above 0.05, and in a
        class of whose rows more than half are more likely wrong than right: then it is the class that the models do not
        know, not its labels that are wrong.
        """
        q = np.ones(len(self.p_wrong))
        if not self.told or self.p_none > SURE_OF_NOISE:
            return q
        likely = self.p_wrong >= LIKELY
        unknown = [k for k in np.unique(self.labels) if likely[self.labels == k].mean() > MOST_OF_CLASS]
        judged = ~np.isin(self.labels, unknown)
        found = share_right(self.p_wrong[judged])
        q[judged] = np.where(found < 1, np.maximum(found, self.p_none), 1.0)
        return q

    def named(self, level: float = 0.1) -> np.ndarray:
        """Name wrong labels, an expected share of `level` of them falsely.

        Those named at one level are named at any larger one.

        Returns
        -------
        array of bool [n]

        Raises
        ------
        ConfigError
            `level` is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ConfigError(
                explain(
                    "a level between 0 and 1", repr(level), "a rate given in percent", "write 0.1 for 10 %"
                )
            )
        named: np.ndarray = self.q_values <= level
        return named

    def expected_wrong(self, k: int) -> tuple[float, float]:
        """Say between which numbers the wrong ones among the first k rows of `order` lie.

        Returns
        -------
        tuple
            The sum of p_wrong, and the number of rows that the models contradict.
        """
        first = self.order[:k]
        contradicted = self.predicted[first] != self.labels[first]
        return float(self.p_wrong[first].sum()), float(contradicted.sum())


def share_right(p_wrong: np.ndarray) -> np.ndarray:
    """Average 1 − p_wrong over all rows at least as likely wrong.

    Returns
    -------
    array [n]
        1 where p_wrong is below a half: no row is named that is more likely right than wrong.

    Examples
    --------
    >>> share_right(np.array([0.2, 1.0, 0.9])).round(3).tolist()
    [1.0, 0.0, 0.05]
    """
    order = np.argsort(-p_wrong, kind="stable")
    q = np.empty(len(p_wrong))
    q[order] = np.cumsum(1 - p_wrong[order]) / np.arange(1, len(order) + 1)
    return np.where(p_wrong >= LIKELY, q, 1.0)


def judge_labels(found: OutOfFold, labels: ArrayLike) -> LabelVerdict:
    r"""Return the chance that each label is wrong, from predictions of models that have not seen the row.

    With p_k the models' probability of class k and j their first class,

    .. math:: P(k \mid x) = (1 - \varepsilon) \frac{p_k^b\, e^{a [k = j]}}{\sum_m p_m^b\, e^{a [m = j]}}
              + \varepsilon N(k \mid x), \quad
              P(\text{wrong} \mid k, x) = \frac{\varepsilon N(k \mid x)}{P(k \mid x)} \text{ for } k \ne j

    a softmax at a temperature 1/b and a floor ε, with N uniform over the other classes, or in proportion to their p (a
    wrong label is one that looks like the row), averaged over the posterior of (ε, a, b, N) on a grid: a twentieth of
    the prior on ε = 0, the rest uniform in ε. The p are tempered to these very labels, so that b is near 1 if none of
    them is wrong; a floor takes over contradictions for which tempering had flattened the p, and b is then larger, by a
    factor of about two: log b ~ N(0, 0.3²) without a floor and N(0.7, 0.25²) with one; a ~ N(0, 0.15²).

    Whether there is a floor at all is tested first, by the likelihood ratio of its best ε, b, a, N to the best b, a at
    ε = 0 (`p_none`). Above 0.05 nothing is named. Below it ε = 0 is ruled out, and its weight no longer stands between
    the rows and the level: in a table without wrong labels some are named with a chance of 0.05 at most, and in one
    with some the level is that of the posterior given ε > 0.

    Parameters
    ----------
    found : OutOfFold
        Of a classification.
    labels : array [n]
        Class indices.

    Returns
    -------
    LabelVerdict

    Raises
    ------
    DataError
        Lengths differ, or the predictions are of a regression.

    Notes
    -----
    From one noisy label a row, an unlikely outcome and a wrong label cannot be told apart where classes truly overlap.
    Where contradictions become rarer all the way as the models become surer, ε is compatible with 0 and nothing is
    named; where their share comes to rest at a floor, the floor is taken for wrong labels. That is the assumption, and
    it stands beside what is named. If the models predict no better than a constant, nothing is named.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 4, 600)
    >>> x = rng.normal(size=(600, 4)) + 3 * np.eye(4)[y]
    >>> y[:50] = (y[:50] + rng.integers(1, 4, 50)) % 4
    >>> from finfluence.labels import out_of_fold
    >>> verdict = judge_labels(out_of_fold(x, y, repeats=1), y)
    >>> named = verdict.named(0.1)
    >>> bool(named[:50].mean() > 0.5), bool(named[50:].sum() <= 5)
    (True, True)
    """
    labels = np.asarray(labels)
    if found.task != "classification" or len(found.predicted) != len(labels):
        raise DataError(
            explain(
                f"out-of-fold probabilities of {len(labels)} labels",
                f"a {found.task} of {len(found.predicted)} rows",
                "predictions of another table, or of a regression",
                "pass what out_of_fold returned for these labels; for numbers use judge_targets",
            )
        )
    predicted = found.predicted.argmax(1)
    contradicted = predicted != labels
    fit = _fit(np.clip(found.predicted, LEAST_SAID, 1), predicted, labels)
    p_wrong = np.where(contradicted, 1 - fit.right, 0.0)
    verdict = LabelVerdict(
        p_wrong=p_wrong,
        oof_loss=-np.log(np.clip(found.predicted[np.arange(len(labels)), labels], LEAST_CHANCE, 1)),
        predicted=predicted,
        confidence=found.predicted.max(1),
        ambiguous=contradicted & (p_wrong < 0.5),
        labels=labels,
        noise_rate=fit.rate,
        noise_lower=fit.lower,
        noise_upper=fit.upper,
        no_noise=fit.none,
        p_none=fit.p_none,
        told=found.informative,
    )
    return replace(verdict, findings=_findings(verdict, found))


@dataclass(frozen=True, eq=False)
class _Fit:
    """right : chance of each label if it contradicts [n]. rate, lower, upper, none : of ε. p_none : of ε = 0."""

    right: np.ndarray
    rate: float
    lower: float
    upper: float
    none: float
    p_none: float


def _fit(p: np.ndarray, first: np.ndarray, labels: np.ndarray) -> _Fit:
    """Average over the posterior of (ε, a, b, N); its weights come from at most `MOST_FITTED` rows, evenly spaced."""
    rows = np.arange(len(p))
    log_p = np.log(p)
    some = rows[:: -(-len(rows) // MOST_FITTED)]
    own, top = log_p[rows, labels], log_p[rows, first]
    agrees = first == labels
    noises = _noise_laws(p, first, labels)
    weights = np.empty((len(noises), len(_STEEPNESS), len(_BONUS), len(_RATES)))
    for i, b in enumerate(_STEEPNESS):
        total = logsumexp(b * log_p[some], axis=1)
        for j, a in enumerate(_BONUS):
            right = _softmax(b, a, own[some], top[some], agrees[some], total)
            for k, noise in enumerate(noises):
                chance = np.clip(np.outer(1 - _RATES, right) + np.outer(_RATES, noise[some]), 1e-12, None)
                weights[k, i, j] = np.log(chance).sum(1) * (len(rows) / len(some))
    p_none = _p_none(weights * (len(some) / len(rows)))
    weights += _log_prior()
    weights = np.exp(weights - logsumexp(weights))
    none = float(weights[..., 0].sum())
    if p_none <= SURE_OF_NOISE:
        weights[..., 0] = 0
        weights /= weights.sum()
    mean, known = np.zeros(len(p)), 0.0
    for i, b in enumerate(_STEEPNESS):
        if weights[:, i].max() < NEGLIGIBLE:
            continue
        total = logsumexp(b * log_p, axis=1)
        for k, j, e in np.argwhere(weights[:, i] >= NEGLIGIBLE):
            right = (1 - _RATES[e]) * _softmax(b, _BONUS[j], own, top, agrees, total)
            weight = weights[k, i, j, e]
            mean += weight * right / np.clip(right + _RATES[e] * noises[k], 1e-12, None)
            known += weight
    of_rate = weights.sum((0, 1, 2))
    lower, upper = (float(_RATES[int(np.searchsorted(of_rate.cumsum(), q))]) for q in (0.05, 0.95))
    return _Fit(mean / known, float(of_rate @ _RATES), lower, upper, none, p_none)


def _p_none(likelihood: np.ndarray) -> float:
    """Return the p-value of ε = 0 by the likelihood ratio Λ [N, b, a, ε]: half of it χ² with one degree of freedom.

    ε = 0 is at the edge of what is possible, so that 2 log Λ is 0 half of the time (Self and Liang 1987, case 5). Both
    sides have their best b, and their best a under its prior.

    Returns
    -------
    float
    """
    of_bonus = _normal(_BONUS, 0.0, _BONUS_SD)
    penalised = likelihood + (of_bonus - of_bonus.max())[:, None]
    ratio = float(penalised[..., 1:].max() - penalised[..., 0].max())
    return 0.5 * float(chi2.sf(2 * max(ratio, 0.0), 1))


def _log_prior() -> np.ndarray:
    """Return the log prior [b, a, ε]: of log b and a normal, of ε a share at 0 and the rest uniform."""
    widths = np.gradient(_RATES[1:])
    of_rate = np.log(np.r_[NO_NOISE, (1 - NO_NOISE) * widths / widths.sum()])
    bent = [_normal(np.log(_STEEPNESS), *law) for law in (_STEEPNESS_WITHOUT, _STEEPNESS_WITH)]
    of_steepness = np.stack([bent[0], *[bent[1]] * (len(_RATES) - 1)], axis=1)
    result: np.ndarray = of_steepness[:, None] + _normal(_BONUS, 0.0, _BONUS_SD)[:, None] + of_rate
    return result


def _normal(values: np.ndarray, mean: float, sd: float) -> np.ndarray:
    """Return logs of normal weights at the values, their exponentials adding to 1."""
    logs = -0.5 * ((values - mean) / sd) ** 2
    result: np.ndarray = logs - logsumexp(logs)
    return result


def _softmax(
    b: float, a: float, own: np.ndarray, top: np.ndarray, agrees: np.ndarray, total: np.ndarray
) -> np.ndarray:
    """Return the probability of the given labels: p^b, times e^a for the first class, normalised."""
    extra = np.expm1(a) * np.exp(b * top - total)
    result: np.ndarray = np.exp(b * own + a * agrees - total) / (1 + extra)
    return result


def _noise_laws(p: np.ndarray, first: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Return chances of a wrong label to be the given one [n]: all other classes alike, or as they are like the row."""
    other = first != labels
    uniform = np.where(other, 1 / (p.shape[1] - 1), 0.0)
    if p.shape[1] == 2:
        return [uniform]
    rows = np.arange(len(p))
    return [uniform, np.where(other, p[rows, labels] / (1 - p[rows, first]), 0.0)]


def _findings(verdict: LabelVerdict, found: OutOfFold) -> tuple[str, ...]:
    if not verdict.told:
        return (
            "no model predicts rows that it has not seen better than a constant does: no label can be judged, and none "
            "is named",
        )
    if not verdict.named(0.1).any():
        share = float((verdict.predicted != verdict.labels).mean())
        return (
            f"the models contradict {100 * share:.1f} % of the labels, less often the surer they are: wrong labels "
            "cannot be told from unlikely right ones here; the most doubtful rows are listed for review",
        )
    return (
        f"between {100 * verdict.noise_lower:.1f} % and {100 * verdict.noise_upper:.1f} % of the labels contradict "
        "the models however "
        f"sure these are; calling those wrong {ASSUMPTION}",
    )
