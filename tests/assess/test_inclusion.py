"""Effects from logged runs: exact small cases, and fresh worlds against what is known best."""

import numpy as np
import pytest

from finfluence.assess import inclusion
from finfluence.errors import DataError


def world(seed: int, runs: int = 400, rows: int = 60, share: float = 0.4, scale: float = 0.15):
    rng = np.random.default_rng(seed)
    effects = np.where(rng.random(rows) < share, scale * rng.standard_t(3, rows), 0.0)
    predicted = (effects + 0.3 * scale * rng.normal(size=rows)) / 1.3
    included = rng.random((runs, rows)) < 0.5
    return included, -(included @ effects) + rng.normal(size=runs), effects, predicted


def test_a_perfect_prediction_and_no_noise_give_the_effects_themselves():
    rng = np.random.default_rng(0)
    effects = rng.normal(size=20)
    included = rng.random((40, 20)) < 0.5
    found = inclusion(included, -(included @ effects), predicted=effects)
    np.testing.assert_allclose(found.difference, effects, atol=1e-10)
    np.testing.assert_allclose(found.effect, effects, atol=1e-6)


def test_differences_and_errors_are_those_of_two_samples():
    included, outcome, _, _ = world(1)
    found = inclusion(included, outcome)
    for i in (0, 7):
        without, having = outcome[~included[:, i]], outcome[included[:, i]]
        np.testing.assert_allclose(found.difference[i], without.mean() - having.mean())
        np.testing.assert_allclose(
            found.se[i], np.sqrt(without.var(ddof=1) / len(without) + having.var(ddof=1) / len(having))
        )


def test_removing_a_row_that_raised_the_outcome_lowers_it():
    rng = np.random.default_rng(2)
    included = rng.random((200, 12)) < 0.5
    found = inclusion(included, 3.0 * included[:, 4] + 0.1 * rng.normal(size=200))
    assert found.effect[4] == pytest.approx(-3.0, abs=0.1)
    assert found.upper[4] < 0 and np.argmin(found.sign_error) == 4


def squared_error(found, effects):
    return np.mean((found - effects) ** 2)


@pytest.mark.slow
def test_posterior_beats_difference_of_arms_james_stein_and_the_prediction():
    sums = np.zeros(5)
    for seed in range(6):
        included, outcome, effects, predicted = world(seed)
        found, alone = inclusion(included, outcome, predicted=predicted), inclusion(included, outcome)
        z = alone.difference / alone.se
        james_stein = max(0.0, 1 - (len(z) - 2) / (z @ z)) * alone.difference
        sums += [
            squared_error(v, effects)
            for v in (found.effect, alone.effect, james_stein, alone.difference, predicted)
        ]
    assert sums[0] < 0.75 * sums[1:].min()
    assert sums[1] < sums[2] < sums[3]


@pytest.mark.slow
def test_a_useless_prediction_does_no_harm():
    with_it, without = 0.0, 0.0
    for seed in range(5):
        included, outcome, effects, _ = world(seed)
        noise = 0.15 * np.random.default_rng(100 + seed).normal(size=len(effects))
        with_it += squared_error(inclusion(included, outcome, predicted=noise).effect, effects)
        without += squared_error(inclusion(included, outcome).effect, effects)
    assert with_it < 1.1 * without


def test_a_prediction_of_the_wrong_sign_is_left_out_and_said():
    included, outcome, effects, _ = world(3, scale=0.3)
    found, alone = inclusion(included, outcome, predicted=-effects), inclusion(included, outcome)
    np.testing.assert_array_equal(found.effect, alone.effect)
    assert np.isnan(found.slope) and any("go against them" in f for f in found.findings)
    assert alone.findings == ()


@pytest.mark.slow
def test_intervals_cover_over_worlds_of_every_kind():
    covered, of_those_with_effect = [], []
    rng = np.random.default_rng(5)
    for seed in range(12):
        share, scale = rng.random(), np.exp(rng.uniform(np.log(0.02), np.log(0.5)))
        included, outcome, effects, predicted = world(
            seed, share=share, scale=scale, runs=int(rng.integers(100, 800))
        )
        found = inclusion(included, outcome, predicted=predicted, level=0.9)
        inside = (found.lower <= effects) & (effects <= found.upper)
        covered.append(inside.mean())
        of_those_with_effect.extend(inside[effects != 0])
    assert np.mean(covered) == pytest.approx(0.9, abs=0.05)
    assert np.mean(of_those_with_effect) > 0.75


@pytest.mark.slow
def test_ranks_of_the_truth_in_its_posterior_are_even():
    ranks = []
    for seed in range(25):
        included, outcome, effects, predicted = world(1000 + seed, share=0.9, scale=0.3)
        found = inclusion(included, outcome, predicted=predicted, level=0.5)
        there = effects != 0
        ranks.append([(effects < found.lower)[there].mean(), (effects > found.upper)[there].mean()])
    np.testing.assert_allclose(np.mean(ranks, 0), [0.25, 0.25], atol=0.05)


def test_nothing_random_is_inside():
    included, outcome, _, predicted = world(6)
    first, second = (inclusion(included, outcome, predicted=predicted) for _ in range(2))
    np.testing.assert_array_equal(first.effect, second.effect)
    assert (inclusion(included, outcome + 5.0, predicted=predicted).effect - first.effect).max() < 1e-9


def test_rows_that_go_together_a_drifting_share_and_another_unit_are_said():
    included, outcome, _, predicted = world(7)
    included[:, 3] = included[:, 9]
    assert any("most of all 3 and 9" in f for f in inclusion(included, outcome).findings)
    named = inclusion(included, outcome, names=[f"row {i}" for i in range(60)])
    assert any("row 3 and row 9" in f for f in named.findings)
    included, outcome, _, predicted = world(8, scale=0.5)
    assert any("another unit" in f for f in inclusion(included, outcome, predicted=1000 * predicted).findings)
    assert inclusion(included, outcome, predicted=predicted).findings == ()
    included[:200, 0], included[200:, 0] = True, False
    included[:5, 0], included[-5:, 0] = False, True
    assert any(
        "changed between the first and the second half" in f for f in inclusion(included, outcome).findings
    )


def test_effects_that_are_alike_near_by_are_said_in_whatever_unit_and_shuffled_ones_are_not():
    rng = np.random.default_rng(11)
    effects = 0.2 * np.repeat(rng.normal(size=16), 8)
    included = rng.random((400, 128)) < 0.5
    outcome = 7.0 * (rng.normal(size=400) - included @ effects)
    found = inclusion(included, outcome)
    assert any("rows that stand near each other" in f and "difference ± 1.64 se" in f for f in found.findings)
    mixed = rng.permutation(128)
    assert not any("near each other" in f for f in inclusion(included[:, mixed], outcome).findings)
    alone = inclusion(included[:, mixed], outcome, predicted=np.arange(128.0))
    assert any("effects or predictions" in f for f in alone.findings)


def test_constant_outcomes_have_no_effects():
    included, outcome, _, _ = world(9)
    found = inclusion(included, np.full(len(outcome), 2.5))
    np.testing.assert_array_equal(found.effect, 0.0)
    np.testing.assert_array_equal(found.se, 0.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t, y, a: (np.arange(12).reshape(3, 4), y, a), "runs × rows of True and False"),
        (lambda t, y, a: (t.T, y, a), "a transposed table"),
        (lambda t, y, a: (t, np.where(np.arange(len(y)) == 5, np.nan, y), a), "the first is run 5"),
        (lambda t, y, a: (t[:6], y[:6], a), "at least 8 runs"),
        (lambda t, y, a: (np.column_stack([t[:, :3], np.ones(len(t), bool)]), y, None), "row 3 was in 400"),
        (lambda t, y, a: (t, y, a[:5]), "one finite predicted effect for each of 60 rows"),
        (lambda t, y, a: (t, y, a * np.nan), "predict 0 where nothing is known"),
    ],
)
def test_bad_logs_are_told(change, words):
    included, outcome, _, predicted = world(10)
    t, y, a = change(included, outcome, predicted)
    with pytest.raises(DataError, match=words):
        inclusion(t, y, predicted=a)
