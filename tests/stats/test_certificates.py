"""Certificates: exact published figures, validity by simulation, and the words of the errors."""

import numpy as np
import pytest
from scipy.stats import binomtest

from finfluence.errors import ConfigError, DataError
from finfluence.stats import (
    certify,
    certify_counts,
    certify_one_run,
    certify_one_run_epsilon,
    clopper_pearson,
)


@pytest.mark.parametrize(
    ("false_alarms", "misses", "bound", "estimate"),
    [(10, 700, 1.48229, 1.80195), (100, 500, 1.09463, 1.28155), (0, 900, 1.28886, None)],
)
def test_bound_from_counts(false_alarms, misses, bound, estimate):
    found = certify_counts(false_alarms, 1000, misses, 1000)
    assert found.bound == pytest.approx(bound, abs=5e-6)
    assert np.isfinite(found.estimate) and found.estimate > found.bound
    if estimate is not None:
        assert found.estimate == pytest.approx(estimate, abs=5e-6)


@pytest.mark.parametrize(
    ("counts", "bound"),
    [((1000, 100, 80), 0.36433), ((1000, 100, 95), 0.78681), ((1000, 1000, 600), 0.16385), ((1000, 1000, 700), 0.35721)],
)  # fmt: skip
def test_one_run_f_dp_audit(counts, bound):
    assert certify_one_run(*counts).bound == pytest.approx(bound, abs=6e-6)


def test_one_run_estimate_is_the_naive_point():
    assert certify_one_run(1000, 1000, 700).estimate == pytest.approx(1.0488, abs=1e-4)


@pytest.mark.parametrize(
    ("counts", "delta", "bound"),
    [
        ((100, 100, 60), 0.0, 0.05191), ((100, 100, 75), 0.0, 0.70221), ((1000, 100, 95), 0.0, 2.17243),
        ((1000, 100, 95), 1e-5, 2.16518), ((1000, 100, 100), 0.0, 3.49297),
    ],
)  # fmt: skip
def test_one_run_epsilon_delta_audit(counts, delta, bound):
    assert certify_one_run_epsilon(*counts, delta=delta).bound == pytest.approx(bound, abs=6e-6)


def test_guessing_certifies_nothing():
    assert certify_one_run(1000, 1000, 500).bound == 0.0
    assert certify_one_run_epsilon(1000, 1000, 500).bound == 0.0
    assert certify_one_run_epsilon(100, 10, 0).bound == 0.0
    assert certify_counts(500, 1000, 500, 1000).bound == 0.0


def test_clopper_pearson_is_scipys():
    for k, n in ((0, 7), (3, 7), (7, 7), (10, 1000)):
        theirs = binomtest(k, n).proportion_ci(0.95, method="exact")
        low, high = clopper_pearson(k, n, 0.025)
        assert (low, high) == (pytest.approx(theirs.low), pytest.approx(theirs.high))


# 250 pairs at level 0.8 (so that failures are seen): the share of false bounds may exceed 0.2 by 4.7 standard
# errors of 0.0253; false-failure rate below 2e-6. All are far below: Clopper-Pearson twice, and several thresholds.
@pytest.mark.parametrize("thresholds", ["scan", "split", 0.5, (-0.5, 0.5, 1.5)])
@pytest.mark.parametrize("law", ["normal", "ties"])
@pytest.mark.quick(3)
def test_certified_bounds_are_true(thresholds, law):
    rng = np.random.default_rng(7)
    mu, wrong = 1.0, 0
    for seed in range(250):
        x, y = rng.normal(size=(2, 40))
        y = y + mu
        if law == "ties":
            x, y = np.round(x), np.round(y)  # a coarser look at the same models: no more than mu can be seen
        wrong += certify(x, y, thresholds=thresholds, level=0.8, seed=seed).bound > mu
    assert wrong / 250 <= 0.2 + 4.7 * 0.0253


def test_nothing_is_certified_without_influence():
    rng = np.random.default_rng(8)
    wrong = sum(certify(*rng.normal(size=(2, 50)), level=0.8).bound > 0 for _ in range(300))
    assert wrong / 300 <= 0.2 + 4.7 * 0.0231


def test_a_clear_difference_is_certified_with_its_direction():
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=200), rng.normal(size=200) + 3
    up, down = certify(x, y), certify(y, x)
    assert up.direction == 1 and down.direction == -1
    assert min(up.bound, down.bound) > 1.5
    assert up.estimate == pytest.approx(-down.estimate) and up.estimate > up.bound
    assert certify(x, y, side="larger").bound > up.bound > certify(x, y, side="smaller").bound == 0.0
    assert str(up).startswith("|mu| >= ") and "certified at 95%" in str(up) and "estimate" in str(up)


def test_the_seed_splits():
    rng = np.random.default_rng(10)
    x, y = rng.normal(size=100), rng.normal(size=100) + 2
    one, same, other = (certify(x, y, thresholds="split", seed=s) for s in (0, 0, 1))
    assert one == same and one.bound != other.bound


def test_words_of_the_errors():
    with pytest.raises(
        DataError, match=r"false_alarms between 0 and the 10 runs\n  got: 11\n.*\n  next step: pass how many"
    ):
        certify_counts(11, 10, 0, 10)
    with pytest.raises(
        DataError,
        match=r"(?s)correct <= guesses <= canaries\n  got: 5 correct of 4 .*another order.*three counts",
    ):
        certify_one_run(10, 4, 5)
    with pytest.raises(DataError, match=r"(?s)delta of at least 0.*got: 2.*exchanged.*delta=1e-5"):
        certify_one_run_epsilon(10, 5, 5, delta=2)
    with pytest.raises(
        ConfigError, match=r"(?s)tests to be a whole number of at least 1\n  got: 0.*pass tests=1"
    ):
        certify_counts(1, 10, 1, 10, tests=0)
    with pytest.raises(
        ConfigError,
        match=r'(?s)"scan", "split", or finite numbers\n  got: \'best\'.*misspelt.*leave thresholds',
    ):
        certify([1.0, 2.0], [1.0, 2.0], thresholds="best")
    with pytest.raises(
        ConfigError, match=r"(?s)side to be one of both, larger, smaller\n  got: 'up'.*leave side"
    ):
        certify([1.0, 2.0], [1.0, 2.0], side="up")
    with pytest.raises(DataError, match="at least 4 value"):
        certify([1.0, 2.0], [1.0, 2.0], thresholds="split")
    with pytest.raises(
        DataError,
        match=r"(?s)one pair of one-dimensional samples\n  got: arrays of shapes \(2, 3\).*each subset",
    ):
        certify(np.zeros((2, 3)), np.zeros((2, 3)))
