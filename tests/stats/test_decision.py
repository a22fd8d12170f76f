"""One rule for any number of tests: q = min(1, V · min q), and what it refuses."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finfluence.errors import ConfigError, DataError
from finfluence.stats import RowTest, empirical_fdr, name_rows
from four_parts import assert_parts


def test_one_test_is_the_empirical_rule() -> None:
    z = np.r_[np.random.default_rng(0).laplace(size=500), np.full(30, 25.0)]
    named, found = name_rows([RowTest("q", z)], 0.1), empirical_fdr(z, fdr=0.1)
    np.testing.assert_array_equal(named.q_values, found.q_values)
    np.testing.assert_array_equal(named.flagged, found.flagged)
    assert named.thresholds == (found.threshold,) and named.findings == found.findings


def test_several_tests_are_paid_for() -> None:
    q = np.array([[0.01, 0.04, 0.2, 1.0], [0.5, 0.03, 0.9, 0.06]])
    tests = [RowTest(f"t{k}", q_values=values) for k, values in enumerate(q)]
    named = name_rows(tests, 0.1)
    np.testing.assert_allclose(named.q_values, [0.02, 0.06, 0.4, 0.12])
    assert named.flagged.tolist() == [True, True, False, False]
    assert named.flagged_by.tolist() == [[True, True, False, False], [False, True, False, False]]
    assert name_rows(tests, 0.1, paid=4).flagged.tolist() == [True, False, False, False]
    assert name_rows(tests, 0.1).q_values.max() <= 1


def test_a_test_with_a_level_of_its_own_pays_for_no_other() -> None:
    apart = [
        RowTest("a", q_values=[0.01, 0.04, 0.9]),
        RowTest("b", q_values=[0.9, 0.9, 0.08], own_level=True),
    ]
    named = name_rows(apart, 0.1, paid=3)
    np.testing.assert_allclose(named.q_values, [0.03, 0.12, 0.08])
    assert named.flagged_by.tolist() == [[True, False, False], [False, False, True]]
    assert named.factors == (3, 1)


def test_the_order_of_tests_and_rows_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    z = rng.laplace(size=(2, 300))
    z[0, :20] += 30.0
    turn = rng.permutation(300)
    one = name_rows([RowTest("a", z[0]), RowTest("b", z[1])]).q_values
    np.testing.assert_array_equal(name_rows([RowTest("b", z[1]), RowTest("a", z[0])]).q_values, one)
    np.testing.assert_array_equal(
        name_rows([RowTest("a", z[0][turn]), RowTest("b", z[1][turn])]).q_values, one[turn]
    )


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([12, 60, 400]),
    st.sampled_from([1, 3]),
    st.sampled_from(["harmful", "both"]),
)
def test_a_higher_level_never_names_fewer(seed: int, n: int, tests: int, direction: str) -> None:
    rng = np.random.default_rng(seed)
    asked = [
        RowTest(
            f"t{k}", rng.standard_t(3, n) + 6 * (rng.random(n) < 0.1), rng.random(n) ** 4, direction=direction
        )
        for k in range(tests)
    ]
    named = [name_rows(asked, fdr).flagged for fdr in (0.01, 0.05, 0.1, 0.2, 0.5)]
    for less, more in itertools.pairwise(named):
        assert (less <= more).all()


def test_an_unknown_p_value_says_nothing() -> None:
    harm, p = np.r_[np.zeros(19), 5.0], np.full(20, np.nan)
    assert not name_rows([RowTest("q", harm, p)]).flagged.any()
    p[-1] = 1e-9
    named = name_rows([RowTest("q", harm, p)])
    assert np.flatnonzero(named.flagged).tolist() == [19] and named.thresholds == (5.0,)


def test_findings_say_whose_they_are() -> None:
    few = np.zeros(5)
    (alone,) = name_rows([RowTest("a", few)]).findings
    assert alone.startswith("Only 5 rows")
    both = name_rows([RowTest("a", few), RowTest("b", q_values=few + 1, findings=("Careful.",))]).findings
    assert both == (f"a: {alone}", "b: Careful.")


def test_thresholds_lie_on_the_named_side() -> None:
    z = np.r_[np.random.default_rng(0).laplace(size=500), np.full(30, -25.0)]
    assert name_rows([RowTest("q", z, direction="helpful")]).thresholds[0] > 3
    assert name_rows([RowTest("q", z, direction="both")]).thresholds[0] > 3
    assert np.isnan(name_rows([RowTest("q", z)]).thresholds[0])


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        name_rows([])
    assert_parts(caught.value, "at least one test of the rows", "none", "no query was asked", "name a query")
    with pytest.raises(DataError) as wrong:
        name_rows([RowTest("a", np.zeros(3)), RowTest("b", np.zeros(4))])
    assert_parts(
        wrong.value,
        "tests over the same rows",
        "3 in 'a', 4 in 'b'",
        "different data",
        "one value for each row",
    )
    with pytest.raises(ConfigError, match="fdr between 0 and 1"):
        name_rows([RowTest("a", np.zeros(3))], 10)
