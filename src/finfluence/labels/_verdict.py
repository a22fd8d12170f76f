"""Which labels are wrong: contradictions that do not become rarer as fast as the models become surer."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from finfluence._indices import same_rows
from finfluence.errors import ConfigError, DataError, explain
from finfluence.labels._floor import SURE_OF_NOISE, Laws, fitted, p_of_none
from finfluence.labels._out_of_fold import LEAST_CHANCE, OutOfFold

MOST_OF_CLASS, LIKELY = 0.5, 0.5
CHANCES, LEVELS = (0.0, 0.2, 0.3, 1.0), (0.0, 0.1, 0.3, 1.0)
"""Chances that a single label is right, and the least levels at which it is named with them; lines between."""
ASSUMPTION = (
    "assumes that right labels contradict the models less and less often as these become surer of rows like them "
    "(probabilities at some temperature), so that contradictions which fall more slowly, or no longer, are wrong labels"
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
        """Positions from the most to the least doubtful label, as `by_doubt` says."""
        return by_doubt(self.p_wrong, self.oof_loss)

    @cached_property
    def q_values(self) -> np.ndarray:
        """Least level at which each row is named [n]; 1 where it never is.

        The mean of 1 − p_wrong over the rows at least as likely wrong, and at least `p_none`. No row is named at 5 %
        that is right with a chance above a tenth, at 10 % above a fifth, at 20 % above a quarter: where classes
        overlap, rows that are said to be right with a chance of a third are right half of the time. Where no label is
        wrong, any name is a false one, and that happens as often as `p_none` falls below the level. 1 where the label
        is more likely right than wrong, where no model predicts better than a constant, where `p_none` is above 0.05,
        and in a class of whose rows more than half are more likely wrong than right: then it is the class that the
        models do not know, not its labels that are wrong.
        """
        q = np.ones(len(self.p_wrong))
        if not self.told or self.p_none > SURE_OF_NOISE:
            return q
        likely = self.p_wrong >= LIKELY
        unknown = [k for k in np.unique(self.labels) if likely[self.labels == k].mean() > MOST_OF_CLASS]
        judged = ~np.isin(self.labels, unknown)
        found = share_right(self.p_wrong[judged])
        each = np.interp(1 - self.p_wrong[judged], CHANCES, LEVELS)
        q[judged] = np.where(found < 1, np.maximum(np.maximum(found, each), self.p_none), 1.0)
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


def by_doubt(p_wrong: np.ndarray, oof_loss: np.ndarray) -> np.ndarray:
    """Order rows from the most to the least doubtful label: by the chance that it is wrong, then by out-of-fold loss.

    Parameters
    ----------
    p_wrong
        Chances [n]; NaN counts as 0.
    oof_loss
        Losses [n], which order the rows of one chance: all those that the models do not contradict.

    Returns
    -------
    array [n]
        Positions.

    Examples
    --------
    >>> by_doubt(np.array([0.5, np.nan, 0.9, 0.0]), np.array([3.0, 0.1, 1.0, 0.2])).tolist()
    [2, 0, 3, 1]
    """
    same_rows(p_wrong=p_wrong, oof_loss=oof_loss)
    positions: np.ndarray = np.lexsort((-np.asarray(oof_loss), -np.nan_to_num(p_wrong)))
    return positions


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

    With p_k the models' probability of class k and j their first class, the right class is k with chance

    .. math:: q_k = \frac{p_k^b\, e^{a [k = j]}}{\sum_m p_m^b\, e^{a [m = j]}}

    and the label is k with

    .. math:: P(k \mid x) = (1 - \varepsilon_x)\, q_k + \varepsilon_x \sum_{t \ne k} q_t N(k \mid t), \quad
              P(\text{wrong} \mid k, x) = \frac{\varepsilon_x \sum_{t \ne k} q_t N(k \mid t)}{P(k \mid x)}
              \text{ for } k \ne j

    a softmax at a temperature 1/b and a share ε of labels that are another class than the right one, by one of three
    laws: N = 1/(C − 1) for all others of C classes and ε_x = ε; N = p_k/(1 − p_t) (a wrong label is one that looks like
    the row) and ε_x = ε; or that N and ε_x = ε √s / mean √s, at most a half, s the p of the second class and at least
    0.02 (a label is oftener wrong where the row looks like two classes). It is averaged over the posterior of (ε, a, b,
    law) on a grid: a twentieth of the prior on ε = 0, the rest uniform in ε (up to a quarter where wrong labels look
    like the row, and under the third law by e less likely for each 0.08 beyond 0.1: with more of them, classes that
    overlap explain the same), all laws alike. The p are tempered to these very labels,
    so that b is near 1 if none of them is wrong; wrong labels take over contradictions for which tempering had
    flattened the p, and b is then larger, by a factor of about two, more the more labels are wrong: log b ~ N(0,
    0.3²) where none is and N(m, 0.25²) where some are, m = 0.85 √(ε/0.1), at least 0.7; a ~ N(0, 0.15²).

    Whether there are any is tested first, by the likelihood ratio of the best law, ε, b and a to the best b, a at ε =
    0, for the average of models and for each model used on what it says in its first round; `p_none` is twice the
    smaller one of the average's p-value and the median of the models' (where what each says was not kept, the
    average's). An average hides what each of several models sees, and the first round of one that learned the errors
    shows little. Above 0.05 nothing is named. Below it ε = 0 is ruled out, and its weight no longer stands between
    the rows and the level: in a table without wrong labels some are named with a chance of about 0.05 at most, and in
    one with some the level is that of the posterior given ε > 0.

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
    From one noisy label a row, an unlikely outcome and a wrong label cannot be told apart where classes truly
    overlap. Where contradictions become rarer as fast as probabilities do at some temperature, ε is compatible with 0
    and nothing is named; where their share comes to rest at a floor, or falls with the root of it only, what is in
    excess is taken for wrong labels. That is the assumption, and it stands beside what is named. If the models
    predict no better than a constant, nothing is named.

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
    laws = Laws(found.predicted, labels)
    p_none = p_of_none(laws)
    if alone := [found.each[name] for name in found.used if name in found.each]:
        p_none = min(1.0, 2 * min(p_none, float(np.median([p_of_none(Laws(p, labels)) for p in alone]))))
    fit = fitted(laws, p_none)
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
        p_none=p_none,
        told=found.informative,
    )
    return replace(verdict, findings=_findings(verdict, found))


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
        f"the models beyond what these leave open; calling those wrong {ASSUMPTION}",
    )
