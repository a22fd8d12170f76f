import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from finfluence.errors import ConfigError, DataError
from finfluence.evaluate import (
    agreement,
    average_precision,
    consistent_and_correct,
    coverage,
    false_discovery_proportion,
    jaccard,
    jaccard_by_chance,
    recall_at,
    recall_flagged,
    spread_ratio,
    top_ids,
)

rows = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=1, max_size=30).filter(
    lambda pairs: any(y for _, y in pairs)
)


@given(rows)
def test_average_precision_is_scikit_learns(pairs):
    scores, positive = zip(*pairs, strict=True)
    assert average_precision(scores, positive) == pytest.approx(average_precision_score(positive, scores))


@given(rows, st.randoms())
def test_the_order_of_rows_changes_nothing(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    one, other = list(zip(*pairs, strict=True)), list(zip(*shuffled, strict=True))
    assert average_precision(*one) == pytest.approx(average_precision(*other))
    for k in range(len(pairs) + 1):
        assert recall_at(*one, k) == pytest.approx(recall_at(*other, k))


@given(rows)
def test_recall_grows_to_one(pairs):
    scores, positive = zip(*pairs, strict=True)
    recalls = [recall_at(scores, positive, k) for k in range(len(pairs) + 1)]
    assert recalls[0] == 0.0 and recalls[-1] == 1.0
    assert np.all(np.diff(recalls) >= -1e-12)


def test_nan_scores_rank_last():
    assert average_precision([1.0, np.nan, 2.0], [False, True, False]) == pytest.approx(1 / 3)
    assert recall_at([np.nan, 1.0], [True, False], 1) == 0.0
    assert top_ids([np.nan, 1.0, 2.0], [7, 8, 9], 2) == {8, 9}


def test_flags():
    flagged, positive = [True, True, True, False], [True, False, False, True]
    assert recall_flagged(flagged, positive) == 0.5
    assert false_discovery_proportion(flagged, positive) == pytest.approx(2 / 3)
    assert false_discovery_proportion([False], [True]) == 0.0


def test_agreement_knows_both_slopes_and_skips_missing_pairs():
    truth = np.array([1.0, 3.0, 5.0, np.nan, 7.0])
    a = agreement([0.0, 1.0, 2.0, 9.0, 3.0], truth)
    assert (a.slope_with_intercept, a.intercept) == (pytest.approx(2.0), pytest.approx(1.0))
    assert a.slope == pytest.approx((3 + 10 + 21) / 14)
    assert (a.pearson, a.spearman, a.n) == (pytest.approx(1.0), pytest.approx(1.0), 4)
    assert np.isnan(agreement([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).pearson)
    assert np.isnan(agreement([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]).spearman)


def test_spread_ratio_and_coverage():
    assert spread_ratio([1.0, 2.0, 0.0, np.nan], [2.0, 6.0, 1.0, 1.0]) == 2.5
    assert coverage([-np.inf, 0.0, np.nan], [np.inf, 1.0, 1.0], [5.0, 2.0, 0.5]) == 0.5


def test_consistency():
    assert jaccard(set(), set()) == 1.0
    assert consistent_and_correct(set(), set(), {1}) == 0.0
    a, b, truth = set(range(10)), set(range(5, 15)), set(range(8, 30))
    assert consistent_and_correct(a, b, truth) == 2 / 15 <= jaccard(a, b) == 5 / 15
    rng = np.random.default_rng(0)
    drawn = [set(rng.choice(200, 20, replace=False).tolist()) for _ in range(400)]
    measured = np.mean([jaccard(one, other) for one, other in zip(drawn[::2], drawn[1::2], strict=True)])
    assert measured == pytest.approx(jaccard_by_chance(20, 200), abs=0.01)


def test_words_of_the_errors():
    with pytest.raises(DataError, match="at least one positive row\n  got: none of 2"):
        average_precision([1.0, 2.0], [False, False])
    with pytest.raises(ConfigError, match="k between 0 and 2\n  got: 3"):
        recall_at([1.0, 2.0], [True, False], 3)
    with pytest.raises(DataError, match="estimate and truth of one shape"):
        agreement([1.0], [1.0, 2.0])
    with pytest.raises(DataError, match="at least three pairs of finite"):
        agreement([1.0, np.nan, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="some spreads above zero"):
        spread_ratio([0.0], [1.0])
    with pytest.raises(DataError, match="some intervals and truths"):
        coverage([np.nan], [1.0], [0.0])
    with pytest.raises(DataError, match="one id per score"):
        top_ids([1.0], [1, 2], 1)
    with pytest.raises(ConfigError, match="0 <= k <= n"):
        jaccard_by_chance(3, 2)
