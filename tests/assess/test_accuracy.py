"""Accuracy without labels: exact numbers, the identity, what is said, what is refused."""

import numpy as np
import pytest

from finfluence.assess import accuracy, accuracy_change
from finfluence.errors import ConfigError, DataError

SURE, RIGHT = np.array([0.9, 0.8, 0.7, 0.6, 0.55]), np.array([1, 1, 0, 1, 0], dtype=bool)
NEW = np.array([0.95, 0.65, 0.6, 0.5, 0.7])


def pair(confidence):
    return np.column_stack([confidence, 1 - confidence])


def world(n, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet([0.5 + shift] * 3, n)
    y = np.array([rng.choice(3, p=row) for row in p])
    return p, y


def test_the_worked_example():
    labels = np.tile((~RIGHT).astype(int), 2)
    found = accuracy(pair(np.tile(SURE, 2)), labels, pair(NEW), calibrated=False)
    assert (found.estimate, found.source_accuracy) == pytest.approx((0.6, 0.6))
    assert found.baselines["average confidence"] == pytest.approx(0.68)
    assert found.baselines["difference of confidences"] == pytest.approx(0.57)


@pytest.mark.parametrize("score", ["max_confidence", "negative_entropy"])
@pytest.mark.parametrize("calibrated", [True, False])
def test_labelled_rows_fed_back_return_their_own_accuracy(score, calibrated):
    p, y = world(203, 0)
    p[:60] = p[0]  # ties
    found = accuracy(p, y, p, score=score, calibrated=calibrated)
    assert found.estimate == pytest.approx((p.argmax(1) == y).mean(), abs=1e-12)


def test_less_sure_rows_are_less_often_right_and_mean_confidence_wins_where_chances_stay_true():
    (p, y), (q, z) = world(2000, 1), world(2000, 2, shift=0.5)
    found = accuracy(p, y, q)
    truth = (q.argmax(1) == z).mean()
    assert found.estimate < found.source_accuracy - 0.05
    assert abs(found.baselines["average confidence"] - truth) < 0.03 < abs(found.estimate - truth)


def test_same_seed_same_interval_other_seed_another():
    p, y = world(100, 3)
    assert accuracy(p, y, p, seed=1) == accuracy(p, y, p, seed=1)
    assert accuracy(p, y, p, seed=1).lower != accuracy(p, y, p[:60], seed=2).lower


def test_no_error_on_labelled_rows_is_said():
    p, _ = world(50, 4)
    found = accuracy(p, p.argmax(1), p[:9])
    assert found.estimate == 1.0 and "threshold is not determined" in str(found)


def test_a_changed_share_of_classes_is_said():
    p, y = world(500, 5)
    assert any(
        "shares of predicted classes differ" in f for f in accuracy(p, y, p[p.argmax(1) == 0]).findings
    )
    assert not any("shares of predicted" in f for f in accuracy(p, y, world(500, 6)[0]).findings)


def test_the_same_model_twice_does_not_change():
    p, y = world(120, 7)
    found = accuracy_change((p, p[:50]), (p, p[:50]), y)
    assert (found.difference, found.lower, found.upper) == (0.0, 0.0, 0.0)
    assert "cannot be told to change" in str(found)


def test_a_better_model_is_told_to_rise():
    p, y = world(800, 8)
    better = 0.4 * p + 0.6 * np.eye(3)[y]
    assert "rises" in str(accuracy_change((p, p), (better, better), y))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p, y: (p[:, :1], y, p), "the chance of every class"),
        (lambda p, y: (p * 3, y, p), "apply the softmax"),
        (lambda p, y: (p * np.nan, y, p), "apply the softmax"),
        (lambda p, y: (p, y, p[:, :2] / p[:, :2].sum(1, keepdims=True)), "predict both with one model"),
        (lambda p, y: (p, y + 1, p), "pass positions in the order"),
        (lambda p, y: (p, y.astype(str), p), "names of classes"),
        (lambda p, y: (p[:5], y[:5], p), "hold out more rows"),
        (lambda p, y: (p, y, p[:0]), "at least one row"),
    ],
)
def test_bad_input_is_told(change, words):
    with pytest.raises(DataError, match=words):
        accuracy(*change(*world(40, 9)))


def test_an_unknown_score_is_told():
    p, y = world(40, 9)
    with pytest.raises(ConfigError, match="negative_entropy"):
        accuracy(p, y, p, score="entropy")
