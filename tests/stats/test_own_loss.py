import numpy as np
import pytest

from finfluence.errors import ConfigError, DataError
from finfluence.stats import label_errors, log_odds


def losses(n_right, n_wrong, seed):
    rng = np.random.default_rng(seed)
    odds = np.r_[rng.logistic(6, 1, size=n_right), rng.normal(-3, 1.2, size=n_wrong)]
    return np.logaddexp(0.0, -odds), np.r_[np.zeros(n_right, bool), np.ones(n_wrong, bool)]


def test_log_odds_undo_the_loss():
    odds = np.array([-20.0, -1.0, 0.0, 3.0, 20.0])
    np.testing.assert_allclose(log_odds(np.logaddexp(0.0, -odds)), odds, rtol=1e-6, atol=1e-12)
    assert log_odds(np.array([0.0, np.inf])).tolist() == [40.0, -40.0]


@pytest.mark.parametrize("share", [0.02, 0.1, 0.2])
def test_wrong_labels_are_found_at_their_level(share):
    false, recall = [], []
    for seed in range(10):
        loss, wrong = losses(int(1000 * (1 - share)), int(1000 * share), seed)
        flagged = label_errors(loss).q_values <= 0.1
        false.append((flagged & ~wrong).sum() / max(flagged.sum(), 1))
        recall.append((flagged & wrong).sum() / wrong.sum())
    assert np.mean(false) <= 0.1
    assert np.mean(recall) >= 0.8


def test_clean_labels_stay_unflagged():
    rng = np.random.default_rng(0)
    for odds in (
        rng.logistic(6, 1, size=1000),
        rng.normal(4, 2, size=1000),
        rng.standard_t(4, size=1000) + 5,
    ):
        verdict = label_errors(np.logaddexp(0.0, -odds))
        assert (verdict.q_values <= 0.1).sum() == 0
        assert verdict.noise_rate <= 0.05


def test_a_larger_loss_never_has_a_larger_q_value():
    loss, _ = losses(900, 100, 1)
    verdict = label_errors(loss)
    assert np.all(np.diff(verdict.q_values[np.argsort(loss)]) <= 0)
    assert verdict.noise_rate == pytest.approx(0.1, abs=0.03)
    assert verdict.threshold == loss[verdict.q_values <= 0.1].min()


def test_permuting_rows_permutes_results():
    loss, _ = losses(900, 100, 2)
    shuffle = np.random.default_rng(0).permutation(loss.size)
    np.testing.assert_allclose(
        label_errors(loss[shuffle]).q_values, label_errors(loss).q_values[shuffle], atol=1e-3
    )


def test_rows_without_a_loss_and_few_rows():
    loss, _ = losses(900, 100, 3)
    loss[:2] = np.nan
    verdict = label_errors(loss)
    assert verdict.q_values[:2].tolist() == [1.0, 1.0]
    assert verdict.findings == ("2 rows have no loss; never flagged.",)
    few = label_errors(loss[2:50])
    assert (few.q_values == 1.0).all() and few.threshold == np.inf
    assert few.findings[0].startswith("Only 48 rows with a loss")


def test_words_of_the_errors():
    with pytest.raises(DataError, match=r"never negative\n  got: 1 negative values, the least -0\.5"):
        label_errors([-0.5, 1.0])
    with pytest.raises(ConfigError, match="fdr between 0 and 1"):
        label_errors([0.5], fdr=0)
