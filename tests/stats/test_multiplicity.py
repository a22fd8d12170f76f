import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import fdrcorrection

from finfluence.errors import ConfigError, DataError
from finfluence.stats import empirical_fdr, one_sided

BULKS = {
    "normal": lambda n, rng: rng.normal(size=n),
    "overdispersed": lambda n, rng: 1.6 * rng.normal(size=n),
    "laplace": lambda n, rng: rng.laplace(size=n) / np.sqrt(2),
    "t3": lambda n, rng: rng.standard_t(3, size=n) / np.sqrt(3),
    "shifted": lambda n, rng: rng.laplace(size=n) / np.sqrt(2) - 0.3,
    "correlated": lambda n, rng: (
        0.2 * rng.normal()
        + rng.normal(size=(n, 5)) @ rng.normal(size=5) * np.sqrt(0.1)
        + np.sqrt(0.5) * rng.normal(size=n)
    ),
}


def realised(bulk, n, share, shift, repeats, select):
    """Mean false-discovery proportion and mean power over `repeats` data sets."""
    rates = []
    for repeat in range(repeats):
        rng = np.random.default_rng([repeat, n])
        z, harmful = BULKS[bulk](n, rng), rng.random(n) < share
        z = z + harmful * shift * rng.uniform(0.7, 1.3, size=n)
        flagged = select(z)
        rates.append(
            (
                (flagged & ~harmful).sum() / max(flagged.sum(), 1),
                (flagged & harmful).sum() / max(harmful.sum(), 1),
            )
        )
    return np.mean(rates, axis=0)


def ours(z):
    return empirical_fdr(z, fdr=0.1).flagged


def theory(z):
    return fdrcorrection(scipy_stats.norm.sf(z), 0.1)[0]


# The proportion of one data set varies by about 0.03 at n = 1000: standard error of the mean 0.006.
@pytest.mark.parametrize("bulk", BULKS)
def test_false_discoveries_keep_near_their_level(bulk):
    shift = 6.4 if bulk == "overdispersed" else 4.0
    false, power = realised(bulk, 1000, 0.1, shift, 30, ours)
    assert false <= 0.13
    assert power >= 0.75


@pytest.mark.parametrize("bulk", ["normal", "overdispersed", "laplace", "correlated"])
def test_nothing_is_found_where_there_is_nothing(bulk):
    false, _ = realised(bulk, 400, 0.0, 0.0, 60, ours)
    assert false <= 0.1


def test_a_wrong_null_gives_44_percent_and_the_empirical_one_keeps_its_level():
    wrong, _ = realised("overdispersed", 2000, 0.1, 4.8, 20, theory)
    right, power = realised("overdispersed", 2000, 0.1, 4.8, 20, ours)
    assert wrong == pytest.approx(0.46, abs=0.03)
    assert right <= 0.12
    assert power >= 0.5


def test_few_rows_with_strong_signals():
    false, power = realised("laplace", 60, 0.1, 6.0, 100, ours)
    assert false <= 0.13
    assert power >= 0.5


def test_a_bulk_of_fifty_thousand_rows():
    false, power = realised("laplace", 50_000, 0.1, 4.0, 2, ours)
    assert false == pytest.approx(0.1, abs=0.02)
    assert power >= 0.8


def test_helpful_rows_make_the_answer_careful_not_bold():
    rng = np.random.default_rng(0)
    z = rng.laplace(size=2000)
    z[:100] -= 8.0
    z[100:300] += 8.0
    harmful = np.zeros(2000, dtype=bool)
    harmful[100:300] = True
    flagged = ours(z)
    assert (flagged & ~harmful).sum() <= 0.1 * max(flagged.sum(), 1)


def test_a_leaning_bulk_is_reported():
    rng = np.random.default_rng(0)
    found = empirical_fdr(rng.exponential(size=3000))
    assert any("bulk leans to the flagged side" in finding for finding in found.findings)
    assert not empirical_fdr(rng.normal(size=3000)).findings


def test_null_of_a_normal_bulk():
    found = empirical_fdr(5.0 + 2.0 * np.random.default_rng(1).normal(size=20_000))
    assert found.centre == pytest.approx(5.0, abs=0.05)
    assert found.scale == pytest.approx(2.0, abs=0.05)
    assert found.null_proportion == pytest.approx(1.0, abs=0.02)
    assert (found.method, found.flagged.sum()) == ("mirror", 0)
    assert np.isnan(found.threshold)


def mixture(seed):
    rng = np.random.default_rng(seed)
    z = rng.laplace(size=300)
    z[:30] += 12.0
    return z


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_laws(seed):
    z = mixture(seed)
    found = empirical_fdr(z)
    order = np.argsort(z)
    assert np.all(np.diff(found.q_values[order]) <= 0), "larger statistics never have larger q-values"
    shuffle = np.random.default_rng(seed).permutation(z.size)
    np.testing.assert_allclose(empirical_fdr(z[shuffle]).q_values, found.q_values[shuffle], rtol=1e-3)
    np.testing.assert_allclose(empirical_fdr(4.0 * z).q_values, found.q_values, rtol=1e-3)
    mirrored = empirical_fdr(-z, direction="helpful")
    np.testing.assert_array_equal(mirrored.q_values, found.q_values)
    assert mirrored.centre == -found.centre
    np.testing.assert_array_equal(
        empirical_fdr(z, direction="both").q_values, empirical_fdr(-z, direction="both").q_values
    )
    np.testing.assert_array_equal(found.flagged, found.q_values <= 0.1)
    if found.flagged.any():
        assert found.threshold == z[found.flagged].min()


def test_both_sides_judges_each_against_the_other():
    z = mixture(0)
    both = empirical_fdr(z, direction="both")
    np.testing.assert_array_equal(both.flagged, empirical_fdr(z).flagged)
    assert both.flagged[:30].sum() >= 28
    z[30:60] -= 12.0
    assert empirical_fdr(z, direction="both").flagged.sum() == 0, (
        "equal tails are what a heavy-tailed null looks like"
    )


def test_ties_share_a_q_value():
    z = np.r_[np.random.default_rng(0).laplace(size=200), np.full(15, 30.0)]
    assert np.unique(empirical_fdr(z).q_values[200:]).size == 1


def test_rows_without_a_number_are_never_flagged():
    z = mixture(3)
    z[:3] = np.nan, np.inf, -np.inf
    found = empirical_fdr(z)
    assert not found.flagged[:3].any()
    assert "3 of 300 rows have no finite statistic" in found.findings[0]


def test_where_no_row_has_a_number_that_is_said():
    found = empirical_fdr(np.full(60, np.nan), p_values=np.full(60, np.nan))
    assert not found.flagged.any() and "No row has a finite statistic: none can be named." in found.findings


def test_few_rows_fall_back_to_given_p_values_and_say_so():
    z = np.r_[np.zeros(18), 5.0, -5.0]
    p = np.r_[np.full(18, 0.6), 1e-6, 1e-6]
    found = empirical_fdr(z, p_values=p)
    assert found.method == "benjamini-yekutieli"
    assert np.flatnonzero(found.flagged).tolist() == [18]
    assert "Only 20 rows" in found.findings[0] and "Benjamini-Yekutieli" in found.findings[0]
    expected = fdrcorrection(one_sided(p, z), method="negcorr")[1]
    np.testing.assert_array_equal(found.q_values, expected)
    none = empirical_fdr(z)
    assert (none.method, none.flagged.sum()) == ("none", 0)
    assert "without p-values" in none.findings[0]


def test_a_bulk_without_spread_has_no_null():
    found = empirical_fdr(np.r_[np.zeros(90), np.arange(1.0, 11.0)])
    assert found.method == "none"
    assert "share one value" in found.findings[0]
    assert empirical_fdr([]).flagged.shape == (0,)


def test_words_of_the_errors():
    with pytest.raises(ConfigError, match="fdr between 0 and 1\n  got: 10"):
        empirical_fdr([1.0], fdr=10)
    with pytest.raises(ConfigError, match="one of harmful, helpful, both\n  got: 'up'"):
        empirical_fdr([1.0], direction="up")
    with pytest.raises(DataError, match=r"one p-value between 0 and 1 per row\n  got: 2 values for 1 rows"):
        empirical_fdr([1.0], p_values=[0.5, 0.5])
