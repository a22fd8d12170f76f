"""Means over runs and rows: closed forms, coverage, and what is refused."""

import numpy as np
import pytest

from finfluence.errors import DataError
from finfluence.stats import crossed_interval, mean_interval, paired_difference


def test_with_runs_that_agree_it_is_the_interval_over_rows():
    rows = np.array([0.0, 1.0, 3.0, 4.0])
    crossed, alone = crossed_interval(np.tile(rows, (5, 1))), mean_interval(rows)
    assert (crossed.lower, crossed.upper) == (pytest.approx(alone.lower), pytest.approx(alone.upper))
    assert crossed.kind == "crossed t"


def test_with_rows_that_agree_it_is_the_paired_interval_over_runs():
    after, before = np.array([2.0, 3.0, 5.0]), np.array([1.0, 2.0, 3.0])
    crossed = crossed_interval(np.tile((after - before)[:, None], (1, 7)))
    paired = paired_difference(after, before)
    assert crossed.estimate == pytest.approx(paired.estimate)
    assert (crossed.lower, crossed.upper) == (pytest.approx(paired.lower), pytest.approx(paired.upper))


def test_strata_weigh_the_same_whatever_their_size():
    values = np.array([[1.0, 1.0, 1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]])
    strata = np.array([0, 0, 0, 1, 1, 1])
    assert crossed_interval(values[:, [0, 1, 3, 4]], strata[[0, 1, 3, 4]]).estimate == pytest.approx(0.5)
    assert crossed_interval(values, strata).estimate == pytest.approx((1 + 1 / 6) / 2)
    same = crossed_interval(np.ones((3, 4)))
    assert same.lower == same.upper == same.estimate == 1


def test_it_covers_the_mean_over_runs_and_rows():
    rng, covered, trials = np.random.default_rng(0), 0, 400
    for _ in range(trials):
        runs, rows = rng.normal(0, 0.5, (6, 1)), rng.normal(0, 1, (1, 25))
        found = crossed_interval(2 + runs + rows + rng.normal(0, 1, (6, 25)))
        covered += found.lower <= 2 <= found.upper
    assert 0.92 <= covered / trials <= 0.985  # 0.95 to 0.96: outside once in a hundred


@pytest.mark.parametrize(
    ("values", "strata"),
    [(np.ones((1, 4)), None), (np.ones((3, 1)), None), (np.ones((3, 3)), [0, 0, 1]), (np.ones(4), None)],
)
def test_words_for_too_few_runs_or_rows(values, strata):
    with pytest.raises(DataError) as caught:
        crossed_interval(values, strata)
    words = str(caught.value)
    assert "two or more runs, with two or more rows in every stratum" in words
    assert "a class has a single row" in words and "classes of one row" in words
