import sys

import numpy as np
import pytest

from finfluence.errors import DataError, NotSupportedError
from finfluence.estimators.baselines import cleanlab_score, loss_score, margin_score, random_score
from finfluence.evaluate import average_precision


def flipped(seed=0):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, size=300)
    p = np.full((300, 3), 0.1)
    p[np.arange(300), true] = 0.8
    p += rng.uniform(0, 0.05, size=p.shape)
    wrong = np.arange(300) < 30
    return p / p.sum(axis=1, keepdims=True), np.where(wrong, (true + 1) % 3, true), wrong


def test_each_baseline_finds_flips_and_chance_does_not():
    p, y, wrong = flipped()
    for score in (loss_score, margin_score, cleanlab_score):
        assert average_precision(score(p, y), wrong) == pytest.approx(1.0)
    assert average_precision(random_score(300), wrong) < 0.3


def test_values():
    p = np.array([[0.7, 0.2, 0.1], [0.0, 0.4, 0.6]])
    np.testing.assert_allclose(margin_score(p, [1, 2]), [0.5, -0.2])
    np.testing.assert_allclose(loss_score(p, [0, 0]), [-np.log(0.7), 708.3964], rtol=1e-6)
    shuffle = [1, 0]
    np.testing.assert_array_equal(margin_score(p[shuffle], [2, 1]), margin_score(p, [1, 2])[shuffle])


def test_random_has_its_own_stream():
    assert not np.array_equal(random_score(5, seed=0), random_score(5, seed=1))


def test_missing_cleanlab_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab.rank", None)
    with pytest.raises(NotSupportedError, match=r'pip install "finfluence\[baselines\]"'):
        cleanlab_score(*flipped()[:2])


def test_words_of_the_errors():
    with pytest.raises(DataError, match="labels by name, or a regression"):
        loss_score([[0.5, 0.5]], ["cat"])
    with pytest.raises(DataError, match="class index of every row"):
        margin_score([[0.5, 0.5]], [2])
    with pytest.raises(DataError, match="logits instead of probabilities"):
        loss_score([[3.0, -1.0]], [0])
