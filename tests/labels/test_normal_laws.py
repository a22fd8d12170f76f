"""Normal laws of the classes against scikit-learn's, and where that takes no table."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from finfluence.labels import judge_labels, out_of_fold


def whitened(x):
    return (x - x.mean(0)) / x.std(0)


def test_predictions_are_those_of_a_normal_law_for_each_class():
    x, y = load_breast_cancer(return_X_y=True)
    x = whitened(x)
    found = out_of_fold(x, y, repeats=1)
    theirs = make_pipeline(StandardScaler(), QuadraticDiscriminantAnalysis(reg_param=0.2)).fit(x, y)
    ours = found.each["normal laws, telling features"]
    assert (ours.argmax(1) == theirs.predict(x)).mean() > 0.95
    assert (ours.argmax(1) == y).mean() > 0.95


def test_with_few_rows_a_column_only_the_classes_shares_are_said():
    """Dozens of columns and sixty rows a class: as the surest model it would hide wrong labels."""
    x, y = (part[:600] for part in load_digits(return_X_y=True))
    found = out_of_fold(whitened(x[:, x.std(0) > 0]), y, repeats=1)
    said = found.each["normal laws, telling features"]
    assert said.max() < 0.2 and "normal laws, telling features" not in found.used


@pytest.mark.parametrize("rows", [9, 1])
@pytest.mark.quick(1)
def test_a_class_of_fewer_rows_than_columns_is_no_error(rows):
    rng = np.random.default_rng(0)
    y = np.r_[np.zeros(60, int), np.ones(60, int), np.full(rows, 2)]
    x = rng.normal(size=(len(y), 15)) + 3 * np.eye(15)[y]
    found = out_of_fold(x, y, repeats=3)
    assert np.isfinite(found.each["normal laws, telling features"]).all()
    assert np.isfinite(judge_labels(found, y).p_wrong).all()
