"""Whether any label is wrong, against a slow reference: every chance written out, every parameter searched for."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import chi2

from finfluence.labels import OutOfFold, judge_labels

SPREAD_OF_BONUS = 0.15
RATES = np.r_[0.0, np.geomspace(0.002, 0.48, 60)]


def chances(p, labels, log_b, a, rate, law):
    """Return the chance of every label, as the docs write it: class by class for the right one and the given one."""
    rows, first, classes = np.arange(len(p)), p.argmax(1), p.shape[1]
    right = p ** np.exp(log_b)
    right[rows, first] *= np.exp(a)
    right /= right.sum(1, keepdims=True)
    root = np.sqrt(np.maximum(np.sort(p, axis=1)[:, -2], 0.02))
    rates = np.minimum(0.5, rate * root / root.mean()) if law == "confused" else rate
    wrong = np.zeros(len(p))
    for true in range(classes):
        like = 1 / (classes - 1) if law == "uniform" else p[rows, labels] / (1 - p[:, true])
        wrong += np.where(labels == true, 0, right[:, true] * like)
    return (1 - rates) * right[rows, labels] + rates * wrong


def best(p, labels, rates, law):
    """Return the largest log-likelihood over log b, a (under its prior) and the rates given."""

    def loss(at, rate):
        penalty = 0.5 * (at[1] / SPREAD_OF_BONUS) ** 2
        return penalty - np.log(chances(p, labels, *at, rate, law)).sum()

    bounds = [(-0.75, 2.4), (-1.2, 1.2)]
    return max(
        -minimize(loss, [0.3, 0.0], args=(rate,), method="Nelder-Mead", bounds=bounds).fun for rate in rates
    )


@pytest.mark.parametrize("classes, noise", [(2, 0.0), (2, 0.1), (4, 0.08)])
def test_the_p_value_is_that_of_the_best_of_all_laws(classes, noise):
    rng = np.random.default_rng([classes, 3])
    odds = 3 * rng.normal(size=(150, classes))
    p = np.exp(odds) / np.exp(odds).sum(1, keepdims=True)
    labels = (odds + rng.gumbel(size=odds.shape)).argmax(1)
    wrong = rng.random(150) < noise
    labels[wrong] = (labels[wrong] + 1) % classes
    none = best(p, labels, RATES[:1], "uniform")
    alike = [rate for rate in RATES[1::4] if rate <= 0.25]
    laws = {"uniform": RATES[1::4], "alike": RATES[1::4] if classes == 2 else alike, "confused": alike}
    ratio = max(best(p, labels, rates, law) for law, rates in laws.items()) - none
    verdict = judge_labels(OutOfFold("classification", p, (), ("drawn",), 10.0), labels)
    assert 0.5 * chi2.isf(2 * verdict.p_none, 1) == pytest.approx(
        max(ratio, 0), abs=0.5
    )  # a grid, coarse in a
