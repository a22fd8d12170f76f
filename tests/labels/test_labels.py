"""Labels judged by models that have not seen them."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits
from threadpoolctl import threadpool_limits

from finfluence.errors import ConfigError, DataError
from finfluence.evaluate import average_precision
from finfluence.labels import judge_labels, judge_targets, out_of_fold, plant_and_find


def standard(x):
    return np.clip((x - x.mean(0)) / (x.std(0) + 1e-9), -3, 3)


def flipped(y, share, seed):
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(y), round(share * len(y)), replace=False)
    z, classes = y.copy(), y.max() + 1
    z[rows] = (y[rows] + rng.integers(1, classes, len(rows))) % classes
    wrong = np.zeros(len(y), dtype=bool)
    wrong[rows] = True
    return z, wrong


@pytest.mark.parametrize(
    ("share", "classes"),
    [
        (0.05, 2),
        pytest.param(0.4, 2, marks=pytest.mark.slow),
        pytest.param(0.5, 2, marks=pytest.mark.slow),
        pytest.param(0.02, 2, marks=pytest.mark.slow),
        pytest.param(0.1, 5, marks=pytest.mark.slow),
    ],
)
def test_labels_without_any_signal_are_not_named(share, classes):
    rng = np.random.default_rng(5)
    chances = np.r_[share, np.full(classes - 1, (1 - share) / (classes - 1))]
    y = rng.choice(classes, 600, p=chances)
    found = out_of_fold(rng.normal(size=(600, 4)), y, repeats=1)
    verdict = judge_labels(found, y)
    assert not found.informative
    assert not verdict.named(0.2).any()
    assert "better than a constant" in verdict.findings[0]


def test_a_rare_class_with_weak_signal_keeps_its_labels():
    rng = np.random.default_rng(0)
    y = (rng.random(1500) < 0.05).astype(np.int64)
    x = rng.normal(size=(1500, 3))
    x[:, 0] += y
    verdict = judge_labels(out_of_fold(x, y, repeats=1), y)
    assert not verdict.named(0.2).any()


@pytest.mark.slow
def test_flipped_digits_are_named_at_the_level():
    x, y = load_digits(return_X_y=True)
    z, wrong = flipped(y[:1200], 0.1, 1)
    verdict = judge_labels(out_of_fold(standard(x[:1200]), z, repeats=1), z)
    named = verdict.named(0.1)
    assert named[wrong].mean() > 0.6
    assert wrong[named].mean() > 0.9
    assert wrong[verdict.order[: wrong.sum()]].mean() > 0.9
    low, high = verdict.expected_wrong(100)
    assert low <= wrong[verdict.order[:100]].sum() <= high


def test_flips_of_a_small_table_are_named():
    x, y = load_breast_cancer(return_X_y=True)
    z, wrong = flipped(y, 0.1, 3)
    verdict = judge_labels(out_of_fold(standard(x), z), z)
    named = verdict.named(0.1)
    assert named[wrong].mean() >= 0.5
    assert wrong[named].mean() >= 0.85


@pytest.mark.slow
def test_overlapping_classes_end_in_review_and_not_in_names():
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 1500)
    x = rng.normal(size=(1500, 2)) + 0.8 * y[:, None]
    verdict = judge_labels(out_of_fold(x, y), y)
    assert not verdict.named(0.1).any()
    assert verdict.ambiguous.sum() > 100
    assert "cannot be told" in verdict.findings[0]


@pytest.mark.slow
def test_order_of_rows_does_not_matter_for_the_verdict_on_given_predictions():
    x, y = load_breast_cancer(return_X_y=True)
    z, _ = flipped(y, 0.1, 0)
    found = out_of_fold(standard(x), z, repeats=1)
    place = np.random.default_rng(1).permutation(len(z))
    moved = type(found)(found.task, found.predicted[place], found.scores, found.used, found.gain)
    assert np.allclose(
        judge_labels(found, z).p_wrong[place], judge_labels(moved, z[place]).p_wrong, atol=1e-12
    )


def test_same_seed_same_bytes_and_another_seed_others():
    x, y = load_breast_cancer(return_X_y=True)
    one, again, other = (
        out_of_fold(standard(x)[:200], y[:200], seed=s, repeats=1).predicted for s in (0, 0, 1)
    )
    assert one.tobytes() == again.tobytes()
    assert one.tobytes() != other.tobytes()


@pytest.mark.slow
def test_groups_share_a_fold():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    y = np.repeat(rng.integers(0, 2, 40), 5)
    x = np.repeat(
        rng.normal(size=(40, 3)), 5, axis=0
    )  # rows of a group are copies: their label can be learned by heart
    apart = out_of_fold(x, y, groups=groups, repeats=1)
    together = out_of_fold(x, y, repeats=1)
    assert together.informative
    assert not apart.informative


def test_wrong_numbers_are_named_and_heavy_tails_are_not():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3))
    y = 50 + 5 * x[:, 0] + rng.standard_t(3, 500)
    clean = judge_targets(out_of_fold(x, y, task="regression", repeats=1), x, y)
    assert clean.named(0.1).sum() <= 3
    y[:15] *= 10
    verdict = judge_targets(out_of_fold(x, y, task="regression", repeats=1), x, y)
    assert verdict.named(0.1)[:15].all()
    assert verdict.named(0.1)[15:].sum() <= 3


def test_numbers_a_tenth_of_themselves_are_named_by_their_ratio():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3))
    y = np.exp(2.5 + 0.4 * x[:, 0] + 0.1 * rng.normal(size=400))
    y[:20] /= 10
    verdict = judge_targets(out_of_fold(x, y, task="regression", repeats=1), x, y)
    assert verdict.measure == "ratio"
    assert "logarithms of the ratio to the prediction" in verdict.findings[0]
    assert verdict.named(0.1)[:20].all()
    assert verdict.named(0.1)[20:].sum() <= 2
    assert (verdict.residual[:20] < -2).all()  # in the target's unit, whatever names


def test_errors_alike_are_named_beside_a_spread_that_would_allow_each():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 3))
    y = 5 * x[:, 0] + rng.normal(size=400)
    y[:24] += 8
    verdict = judge_targets(out_of_fold(x, y, task="regression", repeats=1), x, y)
    assert (verdict.measure, verdict.measures) == ("difference", 1)
    assert verdict.named(0.1)[:24].mean() > 0.5
    assert verdict.named(0.1)[24:].sum() <= 3


@pytest.mark.slow
def test_planted_errors_say_what_could_be_found():
    x, y = load_digits(return_X_y=True)
    found = plant_and_find(standard(x[:600]), y[:600], first=30)
    assert found.planted == 30
    assert found.found >= 20
    assert "the first 30 rows of the list would hold about" in found.sentence()


def test_words():
    with pytest.raises(DataError, match="at least 30 rows, each with a label"):
        out_of_fold(np.zeros((10, 2)), np.zeros(10, dtype=int))
    with pytest.raises(DataError, match="labels of at least two classes"):
        out_of_fold(np.zeros((50, 2)), np.zeros(50, dtype=int))
    y = np.arange(60) % 2
    found = out_of_fold(np.random.default_rng(0).normal(size=(60, 2)) + 3 * y[:, None], y, repeats=1)
    with pytest.raises(DataError, match="out-of-fold probabilities of 50 labels"):
        judge_labels(found, y[:50])
    with pytest.raises(DataError, match="for classes use judge_labels"):
        judge_targets(found, np.zeros((60, 2)), y)
    with pytest.raises(ConfigError, match=r"write 0\.1 for 10 %"):
        judge_labels(found, y).named(10)


@pytest.mark.slow
def test_the_list_for_review_is_by_chance_and_beats_the_loss_where_errors_look_like_the_row():
    rng = np.random.default_rng(3)
    y = rng.integers(0, 5, 900)
    means = 0.9 * rng.normal(size=(5, 8))
    x = means[y] + rng.normal(size=(900, 8))
    odds = -0.5 * ((x[:, None] - means) ** 2).sum(2)
    odds[np.arange(900), y] = -np.inf
    given, wrong = y.copy(), np.zeros(900, dtype=bool)
    wrong[rng.choice(900, 90, replace=False)] = True
    given[wrong] = odds[wrong].argmax(1)
    verdict = judge_labels(out_of_fold(x, given, repeats=1), given)
    chances = verdict.p_wrong[verdict.order]
    assert (np.diff(chances) <= 0).all()
    agreed = verdict.order[chances == 0]
    assert (np.diff(verdict.oof_loss[agreed]) <= 0).all()
    place = -np.argsort(verdict.order)
    assert average_precision(place, wrong) > average_precision(verdict.oof_loss, wrong) + 0.02


@pytest.mark.slow
def test_predictions_do_not_depend_on_the_number_of_threads():
    rng = np.random.default_rng(4)
    y = rng.integers(0, 2, 90)
    x = rng.normal(size=(90, 30)) + y[:, None]
    with threadpool_limits(2):
        first = out_of_fold(x, y, repeats=1)
    with threadpool_limits(1):
        second = out_of_fold(x, y, repeats=1)
    np.testing.assert_array_equal(first.predicted, second.predicted)
