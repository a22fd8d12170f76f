"""The decision about labels where the truth is known: drawn predictions, and tables with planted errors."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.datasets import load_breast_cancer

from finfluence.labels import OutOfFold, judge_labels, out_of_fold


def drawn(seed, *, classes=2, spread=4.0, noise=0.0, rows=800, lean=0.0, confused=False):
    """Draw predictions that are right up to their temperature, which is fitted to the noisy labels as models' is.

    Wrong labels are any other class, or (confused) the likeliest other one, oftener where it is likely.
    """
    rng = np.random.default_rng([seed, classes, round(10 * spread), round(100 * noise)])
    odds = spread * rng.normal(size=(rows, classes)) + lean * np.arange(classes)
    right = (odds + rng.gumbel(size=odds.shape)).argmax(1)
    wrong = rng.random(rows) < noise
    other = (right + rng.integers(1, classes, rows)) % classes
    if confused:
        p = np.exp(log_softmax(odds, axis=1))
        p[np.arange(rows), right] = 0
        other, weight = p.argmax(1), 0.1 + p.max(1)
        wrong = rng.random(rows) < noise * weight / weight.mean()
    labels = np.where(wrong, other, right)

    def loss(log_t):
        return -log_softmax(np.exp(log_t) * odds, axis=1)[np.arange(rows), labels].mean()

    t = np.exp(minimize_scalar(loss, bounds=(-3, 1), method="bounded").x)
    found = OutOfFold("classification", np.exp(log_softmax(t * odds, axis=1)), (), ("drawn",), 10.0)
    return found, labels, wrong


TABLES, SLACK = 5, 0.05
"""Tables of a kind, and two standard errors of their mean share of false names (0.03 from table to table)."""


@pytest.mark.parametrize(
    "classes, noise, least", [(2, 0.05, 0.3), (2, 0.15, 0.5), (5, 0.06, 0.4), (5, 0.2, 0.5)]
)
def test_the_level_holds_and_errors_are_named(classes, noise, least):
    false, found_of_wrong, covered = [], [], 0
    for seed in range(TABLES):
        found, labels, wrong = drawn(seed, classes=classes, noise=noise)
        verdict = judge_labels(found, labels)
        named = verdict.named(0.1)
        false.append((named & ~wrong).sum() / max(1, named.sum()))
        found_of_wrong.append(named[wrong].mean())
        covered += verdict.noise_lower <= wrong.mean() <= verdict.noise_upper
    assert np.mean(false) <= 0.1 + SLACK
    assert np.mean(found_of_wrong) >= least
    assert covered >= TABLES - 2


def test_errors_where_a_row_looks_like_two_classes_are_named_at_the_level():
    false, found_of_wrong = [], []
    for seed in range(TABLES):
        found, labels, wrong = drawn(seed, noise=0.1, confused=True)
        named = judge_labels(found, labels).named(0.1)
        false.append((named & ~wrong).sum() / max(1, named.sum()))
        found_of_wrong.append(named[wrong].mean())
    assert np.mean(false) <= 0.1 + SLACK
    assert np.mean(found_of_wrong) >= 0.2


@pytest.mark.parametrize("seed", [100, 103])
def test_classes_that_overlap_are_not_taken_for_errors_that_look_like_the_row(seed):
    found, labels, wrong = drawn(seed, classes=5, spread=2.0, noise=0.1, rows=1000, confused=True)
    assert (found.predicted.argmax(1) != labels).mean() > 0.3
    assert (
        judge_labels(found, labels).named(0.1) & ~wrong
    ).sum() <= 10  # without a bound on such errors 121 and more


def test_right_labels_that_are_merely_unlikely_are_not_named():
    kinds = ((2, 0.5, 0.0), (2, 1.5, 1.5), (2, 4.0, 0.0), (2, 2.0, 3.0), (5, 1.0, 0.0), (5, 3.0, 0.5))
    named = 0
    for seed, (classes, spread, lean) in itertools.product(range(3), kinds):
        found, labels, _ = drawn(seed, classes=classes, spread=spread, lean=lean)
        named += judge_labels(found, labels).named(0.1).any()
    assert named <= 2  # of 18 at 5 %, more with a chance of 0.06


@pytest.mark.parametrize("classes, noise", [(2, 0.08), (5, 0.06), (3, 0.2)])
def test_a_larger_level_names_the_same_rows_and_more(classes, noise):
    found, labels, _ = drawn(1, classes=classes, noise=noise)
    rare = labels == 0
    keep = np.flatnonzero(~rare | (rare.cumsum() % 12 == 0))  # a class that loses most of its rows to errors
    verdict = judge_labels(replace(found, predicted=found.predicted[keep]), labels[keep])
    named = [verdict.named(level) for level in (0.01, 0.05, 0.1, 0.2, 0.4, 0.6)]
    for fewer, more in itertools.pairwise(named):
        assert (more | ~fewer).all()
    assert named[-1].sum() > named[0].sum()


def test_no_single_name_is_likelier_right_than_its_level_allows():
    found, labels, _ = drawn(1, classes=3, noise=0.2)
    rows = np.arange(len(labels))
    chance = np.where(rows % 5 < 2, 1.0, 0.0)  # many are wrong for sure, so that the mean binds nothing
    graded = rows % 20 == 4
    chance[graded] = 1 - np.linspace(0, 0.5, graded.sum())
    verdict = replace(judge_labels(found, labels), p_wrong=chance, p_none=0.0)
    for level, most in ((0.05, 0.1), (0.1, 0.2), (0.2, 0.25), (0.3, 0.3)):
        right = 1 - chance[graded & verdict.named(level)].min()
        assert right == pytest.approx(most, abs=0.03) and right <= most + 1e-9


def test_a_class_that_would_mostly_be_named_is_not_judged():
    found, labels, _ = drawn(0, classes=3, noise=0.1)
    contradicted = np.flatnonzero(found.predicted.argmax(1) != labels)
    surest = contradicted[np.argsort(-found.predicted.max(1)[contradicted])][:12]
    labels[surest] = 3
    predicted = np.c_[found.predicted, np.full(len(labels), 1e-4)]
    verdict = judge_labels(replace(found, predicted=predicted / predicted.sum(1, keepdims=True)), labels)
    assert (verdict.p_wrong[labels == 3] > 0.5).mean() > 0.5
    assert (verdict.q_values[labels == 3] == 1).all()
    assert verdict.named(0.1).any()


def test_without_wrong_labels_the_test_of_the_floor_keeps_its_level():
    p_none = []
    for seed in range(20):
        found, labels, _ = drawn(seed, classes=2 + seed % 3, rows=500)
        verdict = judge_labels(found, labels)
        p_none.append(verdict.p_none)
        assert verdict.p_none <= 0.05 or not verdict.named(0.5).any()
    assert sum(p <= 0.05 for p in p_none) <= 4  # of 20 at 5 %, more with a chance of 0.003
    assert min(p_none) > 0


def test_a_level_below_the_p_value_of_no_wrong_label_names_nothing():
    found, labels, _ = drawn(0, noise=0.05)
    verdict = replace(judge_labels(found, labels), p_none=0.03)
    assert not verdict.named(0.02).any() and verdict.named(0.1).any()
    assert not replace(verdict, p_none=0.06).named(0.5).any()


def test_whether_labels_are_wrong_is_asked_of_the_average_and_of_each_model():
    found, labels, _ = drawn(0, noise=0.1)
    blind = np.tile(np.bincount(labels) / len(labels), (len(labels), 1))
    sees, none = (judge_labels(replace(found, predicted=p), labels).p_none for p in (found.predicted, blind))
    assert sees < 0.01 and none > 0.05

    def asked(average, *models):
        each = {str(k): p for k, p in enumerate(models)}
        kept = {**each, "not used": found.predicted}
        return judge_labels(replace(found, predicted=average, used=tuple(each), each=kept), labels).p_none

    assert asked(found.predicted, blind, blind) == 2 * sees
    assert asked(blind, found.predicted, blind, found.predicted) == 2 * sees
    assert asked(blind, found.predicted, blind, blind) == min(1.0, 2 * none)


def test_predictions_of_some_rows_judge_as_if_they_were_all():
    found, labels, _ = drawn(0, classes=3, noise=0.1)
    found = replace(found, used=("one",), each={"one": found.predicted})
    some = np.arange(0, len(labels), 2)
    part = judge_labels(found.take(some), labels[some])
    by_hand = replace(found, predicted=found.predicted[some], each={"one": found.predicted[some]})
    np.testing.assert_array_equal(part.p_wrong, judge_labels(by_hand, labels[some]).p_wrong)
    assert part.p_none == judge_labels(by_hand, labels[some]).p_none


@pytest.mark.parametrize("classes", [2, 3])
def test_models_that_are_quite_sure_leave_finite_chances(classes):
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, 200)
    labels = np.where(np.arange(200) < 20, (y + 1) % classes, y)
    verdict = judge_labels(OutOfFold("classification", np.eye(classes)[y], (), ("sure",), 10.0), labels)
    assert np.isfinite(verdict.p_wrong).all() and np.isfinite(verdict.q_values).all()
    assert verdict.named(0.1).tolist() == (labels != y).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_columns_that_say_nothing_do_not_hide_flipped_labels(seed):
    rng = np.random.default_rng(seed)
    data = load_breast_cancer()
    numbers = data.data[:, :12]
    x = np.c_[(numbers - numbers.mean(0)) / numbers.std(0), rng.normal(size=(len(numbers), 100))]
    wrong = np.zeros(len(x), dtype=bool)
    wrong[rng.choice(len(x), 57, replace=False)] = True
    found = out_of_fold(x, np.where(wrong, 1 - data.target, data.target))
    assert "telling features" in found.used[0]
    named = judge_labels(found, np.where(wrong, 1 - data.target, data.target)).named(0.1)
    assert (named & wrong).sum() >= 0.4 * wrong.sum()
    assert (named & ~wrong).sum() <= 0.15 * named.sum()
    assert not judge_labels(out_of_fold(x, data.target), data.target).named(0.1).any()
