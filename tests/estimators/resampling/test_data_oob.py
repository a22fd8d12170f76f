"""Data-OOB against bags whose training ends in a closed form."""

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
import plain_training as pt
from finfluence.errors import ConfigError, TrainingError
from finfluence.estimators.resampling import bootstraps, outside_mean
from four_parts import assert_parts

Y = np.array([0.0, 0.5, -0.5, 0.2, 4.0, 0.1])


def means(rate: float = 0.5) -> fi.Recipe:
    """½(θ − y)² by full batches: a learner ends in the mean of its bag, rows drawn twice counted twice."""
    model = nn.Linear(1, 1, bias=False).double()
    return fi.Recipe(
        data=fi.Rows(x=torch.ones(6, 1).double(), y=torch.from_numpy(Y)), model=model, loss=pt.square_loss,
        optimizer=fi.SGD(lr=rate), batch_size=6, epochs=60,
    )  # fmt: skip


def test_the_score_is_the_mean_loss_under_learners_that_missed_the_row():
    found = fi.estimate(means(), fi.own_loss([0]), "data-oob", learners=30, seed=3)
    bags = bootstraps(np.arange(6), 30, 3)
    levels = np.array([Y[bag].mean() for bag in bags])
    expected, held = np.zeros(6), np.zeros(6)
    for i in range(6):
        inside = np.array([i in bag for bag in bags])
        expected[i] = 0.5 * ((levels[~inside] - Y[i]) ** 2).mean()
        held[i] = 0.5 * ((levels[inside] - Y[i]) ** 2).mean()
    np.testing.assert_allclose(found.data.score[:, 0], expected, rtol=1e-10)
    np.testing.assert_allclose(found.data.own_loss, held, rtol=1e-10)
    assert found.top(1).row_id.tolist() == [4] and found.provenance.runs == 30


def test_a_row_is_missed_with_the_known_chance():
    bags = bootstraps(np.arange(50), 400, 0)
    missed = np.mean([i not in bag for bag in bags for i in range(50)])
    assert missed == pytest.approx((1 - 1 / 50) ** 50, abs=0.01)


def test_a_row_that_no_learner_missed_is_said():
    with pytest.raises(ConfigError) as caught:
        outside_mean(np.ones((2, 3)), np.array([[True, False, True], [True, True, False]]))
    assert_parts(
        caught.value, "every row to be missed", "1 rows that all of 2 learners", ".37", "learners=30"
    )


def test_learners_that_diverge_are_said():
    with pytest.raises(TrainingError) as caught:
        fi.estimate(means(rate=1e200), fi.own_loss([0]), "data-oob", learners=10)
    assert_parts(caught.value, "a learner whose losses are finite", "none", "1e+200", "fi.train")
