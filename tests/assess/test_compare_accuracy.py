"""Accuracy without labels of versions that were trained several times: as of one, in pairs, and beside the baselines."""

import numpy as np
import pytest

from finfluence.assess import METHODS, THRESHOLDED, accuracy, compare_accuracy
from finfluence.errors import DataError


def world(n, seed, sharp=0.5, wrong=0.0):
    """Return probabilities and labels drawn from them, or wrong labels for a share of the rows."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet([sharp] * 3, n)
    y = np.array([rng.choice(3, p=row) for row in p])
    flipped = rng.random(n) < wrong
    y[flipped] = (y[flipped] + 1) % 3
    return p, y


@pytest.mark.parametrize("score", ["max_confidence", "negative_entropy"])
def test_one_training_gives_what_accuracy_gives_and_the_same_baselines(score):
    (p, y), (q, _) = world(211, 0), world(97, 1)
    p[:40] = p[0]  # ties
    q[:9] = p[0]
    one = accuracy(p, y, q, score=score)
    found = compare_accuracy({"only": ([p], [q])}, y, score=score).accuracy["only"]
    assert found[THRESHOLDED].estimate == pytest.approx(one.estimate, abs=1e-12)
    for name, value in one.baselines.items():
        mine = "labelled rows" if name == "source accuracy" else name
        assert found[mine].estimate == pytest.approx(value, abs=1e-12)
    assert set(found) == set(METHODS)
    assert all(i.lower <= i.estimate <= i.upper for i in found.values())


def test_labelled_rows_fed_back_return_their_own_accuracy_in_every_training():
    runs = np.stack([world(120, seed)[0] for seed in range(3)])
    y = world(120, 0)[1]
    found = compare_accuracy({"v": (runs, runs)}, y).accuracy["v"]
    assert found[THRESHOLDED].estimate == pytest.approx((runs.argmax(2) == y).mean(), abs=1e-12)
    assert found[THRESHOLDED].estimate == pytest.approx(found["labelled rows"].estimate, abs=1e-12)


def test_a_version_against_itself_differs_by_nothing_and_a_better_one_surely():
    (p, y), (q, z) = world(600, 2), world(600, 3)
    worse_p, worse_q = (0.4 * part + 0.6 * np.roll(part, 1, axis=0) for part in (p, q))
    found = compare_accuracy(
        {
            "a": ([worse_p] * 2, [worse_q] * 2),
            "same": ([worse_p] * 2, [worse_q] * 2),
            "b": ([p] * 2, [q] * 2),
        },
        y,
    )
    same, better = found.difference["same"][THRESHOLDED], found.difference["b"][THRESHOLDED]
    assert (same.estimate, same.lower, same.upper) == (0.0, 0.0, 0.0)
    truth = (q.argmax(1) == z).mean() - (worse_q.argmax(1) == z).mean()
    assert better.lower > 0 and abs(better.estimate - truth) < 0.06
    paired = better.upper - better.lower
    alone = sum(
        i.upper - i.lower for i in (found.accuracy["a"][THRESHOLDED], found.accuracy["b"][THRESHOLDED])
    )
    assert paired < alone


def test_more_trainings_and_rows_are_counted_and_the_seed_decides_the_interval():
    (p, y), (q, _) = world(80, 4), world(60, 5)
    found = compare_accuracy({"v": ([p, p[::-1]], [q, q])}, y, seed=1)
    again, other = (compare_accuracy({"v": ([p, p[::-1]], [q, q])}, y, seed=s) for s in (1, 2))
    assert (found.runs, found.rows) == (2, (80, 60))
    assert found.accuracy["v"] == again.accuracy["v"] and found.accuracy["v"] != other.accuracy["v"]
    assert found.mix.shape == (3, 3) and np.allclose(found.mix.sum(0), 1)


def test_signs_are_said_where_classes_and_scores_are_others_and_not_where_they_are_alike():
    (p, y), (q, _) = world(400, 6), world(400, 7)
    assert compare_accuracy({"v": ([p], [q])}, y).signs == ()
    others = np.tile([0.34, 0.33, 0.33], (400, 1))
    signs = compare_accuracy({"v": ([p], [others])}, y).signs
    assert any("shares of predicted classes differ" in s for s in signs)
    assert any("less sure than of any labelled row" in s for s in signs)


@pytest.mark.slow
def test_the_interval_covers_where_the_assumption_holds():
    """90 % intervals over 60 worlds: fewer than 46 covered has a chance below 0.001."""
    covered = 0
    for k in range(60):
        (p, y), (q, _) = world(150, 1000 + k), world(150, 2000 + k)
        i = compare_accuracy({"v": ([p], [q])}, y, level=0.9, seed=k).accuracy["v"][THRESHOLDED]
        expected = 0.7010  # accuracy of the largest of three Dirichlet(.5) chances, by 4 million draws
        covered += i.lower <= expected <= i.upper
    assert covered >= 46


@pytest.mark.parametrize("extremes", ["all right", "all wrong"])
def test_extremes_have_an_answer(extremes):
    p, _ = world(50, 8)
    y = p.argmax(1) if extremes == "all right" else (p.argmax(1) + 1) % 3
    found = compare_accuracy({"v": ([p], [p])}, y).accuracy["v"][THRESHOLDED]
    assert found.estimate == (1.0 if extremes == "all right" else 0.0)
    assert np.isfinite([found.lower, found.upper]).all()


def test_what_cannot_be_compared_is_told():
    p, y = world(30, 9)
    with pytest.raises(DataError, match="versions of one shape"):
        compare_accuracy({"a": ([p], [p]), "b": ([p[:20]], [p])}, y)
    with pytest.raises(DataError, match="trainings × rows × classes"):
        compare_accuracy({"a": (p, p)}, y)
    with pytest.raises(DataError, match="no version"):
        compare_accuracy({}, y)
    with pytest.raises(DataError, match="at least ten labelled rows"):
        compare_accuracy({"a": ([p[:5]], [p])}, y[:5])
