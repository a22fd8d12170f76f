"""Agreement between seeds, and with the truth."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import friedmanchisquare, spearmanr

from finfluence.errors import ConfigError, DataError
from finfluence.evaluate import kendalls_w


def test_own_loss_agrees_with_itself_and_chance_as_chance_does(clouds):
    result = clouds("consistency", seeds=3)
    pairs = pd.read_parquet(result.folder / "pairs.parquet")
    at = pairs[pairs["share"] == 0.2].groupby("method")[["jaccard", "joint", "kendalls_w"]].mean()
    assert at.loc["own-loss", "jaccard"] > 0.8 > 0.3 > at.loc["random", "jaccard"]
    assert (pairs["joint"] <= pairs["jaccard"]).all() and at.loc["own-loss", "joint"] > 0.8
    assert len(pairs) == 2 * 3 * 3 and pairs["chance"].round(4).unique().tolist() == [0.0256, 0.0526, 0.1111]
    assert "named most alike by own-loss" in result.outcome.verdict


def test_questions_of_the_first_experiment_are_not_asked_again(clouds):
    assert clouds("mislabels", methods="own-loss", seeds=1).measured == 1
    assert clouds("consistency", methods="own-loss", seeds=2).measured == 1


def test_one_seed_has_nothing_to_agree_with(clouds):
    with pytest.raises(ConfigError, match=r"(?s)two seeds or more.*--seeds 1"):
        clouds("consistency", seeds=1)


def test_kendalls_w_of_two_rankings_is_spearman_and_of_several_friedman():
    rng = np.random.default_rng(4)
    scores = rng.normal(size=(4, 30))
    assert kendalls_w(scores[:2]) == pytest.approx((1 + spearmanr(*scores[:2])[0]) / 2)
    tied = np.round(scores)
    assert kendalls_w(tied) == pytest.approx(friedmanchisquare(*tied.T)[0] / (4 * 29))
    assert np.isnan(kendalls_w(np.ones((2, 3))))


@pytest.mark.parametrize("scores", [np.ones((1, 4)), np.full((2, 3), np.nan), np.ones(3)])
def test_kendalls_w_needs_several_finite_rankings(scores):
    with pytest.raises(DataError, match=r"(?s)finite scores \[rankings, rows\]"):
        kendalls_w(scores)
