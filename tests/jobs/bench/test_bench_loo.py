"""Leaving one row out, random halves with one seed, and wrong labels."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from finfluence.errors import DataError
from finfluence.evaluate import roc_auc
from finfluence.jobs.bench.data import DIGITS_LINEAR, FASHION_MNIST_LINEAR

SMALL = {"seeds": 1, "subsets": 12}


@pytest.mark.slow
def test_replay_predicts_single_rows_and_the_table_is_repeated_to_the_bit(clouds):
    result = clouds("loo", methods="replay,own-loss,random,toy,retrain", **SMALL)
    value = pd.read_parquet(result.folder / "figures.parquet").set_index(["method", "figure"])["value"]
    assert value["replay", "loo"] > 0.7 > 0.3 > abs(value["random", "loo"])
    assert (
        value["replay", "lds"] > 0.6 and value["own-loss", "auc"] > 0.8 and np.isfinite(value["toy", "auc"])
    )
    assert np.isnan(value["retrain", "loo"])
    rows = {row[0]: row for row in result.outcome.sections[0].rows}
    assert rows["retrain"][1:4] == ["", "", ""] and rows["retrain"][-1].startswith("left out")
    assert "leaving one row out by replay (LOO 0." in result.outcome.verdict
    again = clouds("loo", folder="again", methods="replay,own-loss,random,toy,retrain", **SMALL)
    name = "figures.parquet"
    assert (again.folder / name).read_bytes() == (result.folder / name).read_bytes()


def test_area_under_the_curve_is_that_of_scikit_learn_with_ties():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(5, size=60).astype(float), rng.random(60) < 0.3
    assert roc_auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))
    assert np.isnan(roc_auc([1.0, 2.0], [True, True]))
    with pytest.raises(DataError, match="at least one positive row"):
        roc_auc([1.0, 2.0], [False, False])


def test_linear_networks_have_as_many_parameters_as_those_of_the_comparison():
    sizes = [sum(p.numel() for p in d.model(0).parameters()) for d in (DIGITS_LINEAR, FASHION_MNIST_LINEAR)]
    assert sizes == [650, 7850]
