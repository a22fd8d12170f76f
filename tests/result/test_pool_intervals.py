"""Moderated variances, t quantiles and the error of the estimate itself: closed forms and simulation."""

import numpy as np
import pytest
from scipy import stats

from finfluence.result import (
    MOST_DF,
    Influence,
    model_error,
    moderate,
    pool,
    ratio_interval,
    trended,
    two_sided,
)


def test_prior_scale_and_degrees_of_freedom_are_found_again() -> None:
    """40,000 variances on 3 degrees of freedom, true ones scattered on 8 around 2.5 times the prior."""
    rng, n = np.random.default_rng(0), 40_000
    prior = rng.uniform(0.1, 10, n)
    true = 2.5 * prior * 8 / rng.chisquare(8, n)
    seen = true * rng.chisquare(3, n) / 3
    variance, df = moderate(seen, 3, prior)
    assert df[0] - 3 == pytest.approx(8, rel=0.1) and (df == df[0]).all()
    expected = (8 * 2.5 * prior + 3 * seen) / 11
    np.testing.assert_allclose(variance, expected, rtol=0.05)
    worse = np.log(seen / true).std()
    assert np.log(variance / true).std() < 0.6 * worse


def test_equal_true_variances_give_the_prior_its_greatest_weight() -> None:
    rng = np.random.default_rng(1)
    seen = rng.chisquare(3, 5000) / 3
    variance, df = moderate(seen, 3, np.ones(5000))
    assert df[0] > 0.8 * MOST_DF and df[0] <= MOST_DF + 3
    assert variance.std() < 0.1


def test_few_variances_use_the_fixed_prior_and_unknown_ones_stand_alone() -> None:
    variance, df = moderate(np.array([2.0, 3.0]), 3, np.array([0.5, np.nan]))
    np.testing.assert_allclose(variance, [(4 * 0.5 + 3 * 2.0) / 7, 3.0])
    assert df.tolist() == [7.0, 3.0]


def test_priors_that_say_too_much_of_the_largest_are_bent_and_others_stay() -> None:
    rng = np.random.default_rng(3)
    prior = np.exp(2 * rng.normal(size=5000))
    for power, expected in ((1.0, 1.0), (0.5, 0.5), (2.0, 1.0), (-1.0, 0.0)):
        bent = trended(prior**power * rng.chisquare(3, 5000) / 3, prior)
        slope = np.polyfit(np.log(prior), np.log(bent), 1)[0]
        assert slope == pytest.approx(expected, abs=0.03)
    unknown = trended(np.array([1.0, np.nan, 0.0] * 10), np.array([4.0, 1.0, 2.0] * 10))
    np.testing.assert_array_equal(unknown, [4.0, 1.0, 2.0] * 10)


def test_t_quantiles_and_model_error_enter_the_interval() -> None:
    two, one, none = np.full(1, 2.0), np.ones(1), np.zeros(1)
    se, lower, upper = ratio_interval(two, 0.5 * one, one, none, df=np.full(1, 4.0))
    assert se.item() == pytest.approx(0.5)
    assert upper.item() == pytest.approx(2 + stats.t.ppf(0.975, 4) * 0.5) and lower.item() == pytest.approx(
        2 - stats.t.ppf(0.975, 4) * 0.5
    )
    se, lower, upper = ratio_interval(two, none, one, none, model=0.25)
    assert se.item() == pytest.approx(0.5) and upper.item() == pytest.approx(2 + 1.959964 * 0.5)
    narrow = ratio_interval(two, 0.5 * one, one, none)[2] - 2
    assert narrow.item() == pytest.approx(1.959964 * 0.5)


def test_p_values_are_of_the_effect_alone() -> None:
    p = two_sided(np.array([2.0, 0.0]), np.ones(2), np.array([4.0, np.inf]))
    np.testing.assert_allclose(p, [2 * stats.t.sf(2, 4), 1.0])


def test_linear_effects_err_more_than_paired_ones_and_more_the_shorter_the_walk() -> None:
    error = model_error(np.array([True, False]), np.array([20.0, 10.0]), 20)
    np.testing.assert_allclose(error, [[0.05, 0.05], [0.25, np.hypot(0.25, 0.3)]])
    assert model_error(np.array([False]), np.array([20.0]), 20, measured=0.4).item() == 0.4


def one_run(effect: np.ndarray, own: np.ndarray, seed: int) -> Influence:
    """Return the result of a run with these effects [S, Q] and errors of its own."""
    rows, queries = effect.shape
    made = {
        "method": "online", "runs": 1, "covers": ["batch order"], "n_rows": rows, "recipe_digest": "r", "epochs": 10,
        "horizon": [10] * queries, "seeds": [{"order": seed}], "query_values": [[0.0] * queries],
    }  # fmt: skip
    return Influence.build(
        effect=effect, effect_se=own, spread=np.ones_like(effect), se=own, p_value=np.ones_like(effect),
        subsets=range(rows), queries=[f"q{k}" for k in range(queries)], provenance=made,
    )  # fmt: skip


def simulated(rng: np.random.Generator, runs: int) -> tuple[list[Influence], np.ndarray]:
    """Return runs whose effects scatter around known ones, more than their own errors say, and the true μ."""
    effect = rng.normal(size=(40, 10)) * 2
    own = rng.uniform(0.2, 0.6, effect.shape)
    true_sd = own * np.sqrt(1.7 * 6 / rng.chisquare(6, effect.shape))
    return [one_run(rng.normal(effect, true_sd), own, seed) for seed in range(runs)], effect


def test_the_top_of_several_runs_is_as_large_as_told() -> None:
    """Four runs whose own errors grow with the effects, as replay's do: 20 of 1,000, against the true effects."""
    rng, told, true = np.random.default_rng(4), 0.0, 0.0
    for _ in range(10):
        size = np.exp(rng.normal(size=1000))
        effect, error = size**1.5 * rng.normal(size=1000), size
        runs = [effect + error * rng.normal(size=1000) for _ in range(4)]
        own = np.hypot(error, 0.5 * effect)
        pooled = pool([one_run(run[:, None], own[:, None], seed) for seed, run in enumerate(runs)])
        top = pooled.top(20, "q0", "helpful").row_id.astype(int)
        told += pooled.data["shrunken"].values[top, 0].sum()
        true += effect[top].sum()
    assert told == pytest.approx(true, rel=0.05)


@pytest.mark.slow
def test_pooled_intervals_hold_what_they_promise_where_runs_say_too_little() -> None:
    """400 effects × 20 pools of 4. Without model error they hold .95 ± .02: t of moderated variances, 4 se, rate 6e-5."""
    rng = np.random.default_rng(3)
    inside, normal = [], []
    for _ in range(20):
        runs, effect = simulated(rng, 4)
        pooled = pool(runs).data
        p = pooled.p_value.values
        z = stats.norm.isf(p / 2)
        error = np.abs(pooled.effect.values - effect)
        reach = stats.t.ppf(0.975, 3 + 6) * pooled.effect_se.values
        inside.append(error <= reach)
        normal.append(error <= 1.959964 * np.mean([r.data.effect_se.values for r in runs], axis=0) / 2)
        assert ((np.sign(z) >= 0) | (p > 0.99)).all()
        within = (pooled.lower.values <= effect) & (effect <= pooled.upper.values)
        assert within.mean() >= 0.93
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)
    assert np.mean(normal) < 0.9


@pytest.mark.slow
def test_p_values_of_no_effect_are_uniform() -> None:
    """400 × 20 p-values under no effect: the share below 0.05 within 4 se of it (correlation none; rate 6e-5)."""
    rng = np.random.default_rng(4)
    shares = []
    for _ in range(20):
        runs, effect = simulated(rng, 4)
        for run in runs:
            run.data["effect"] = run.data.effect - effect
        shares.append((pool(runs).data.p_value.values < 0.05).mean())
    assert np.mean(shares) == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 8000) + 0.01)


def test_pooling_is_the_same_in_any_order_and_twice() -> None:
    runs, _ = simulated(np.random.default_rng(5), 5)
    forward, again, backward = pool(runs).data, pool(runs).data, pool(runs[::-1]).data
    for name in ("effect", "effect_se", "lower", "upper", "p_value"):
        assert (forward[name].values == again[name].values).all()
        np.testing.assert_allclose(forward[name].values, backward[name].values, rtol=1e-10)


def test_paired_and_linear_effects_are_moderated_apart_and_pairs_measure_the_linear_error() -> None:
    runs, effect = simulated(np.random.default_rng(6), 4)
    plain = pool(runs).data
    for run in runs:
        linear = np.full(effect.shape, np.nan)
        linear[:20] = run.data.effect.values[:20] / 1.5
        run.data["linear_effect"] = (("subset", "query"), linear)
    pooled = pool(runs).data
    np.testing.assert_allclose(pooled.linear_effect.values[:20], pooled.effect.values[:20] / 1.5, rtol=1e-12)
    assert np.isnan(pooled.linear_effect.values[20:]).all()
    narrow, wide = pooled.isel(subset=slice(0, 20)), pooled.isel(subset=slice(20, None))
    assert float((narrow.upper - narrow.lower).mean()) < float((wide.upper - wide.lower).mean())
    linear_only = plain.isel(subset=slice(20, None))
    big = np.abs(wide.mu.values) > 2
    assert ((wide.upper - wide.lower).values[big] > (linear_only.upper - linear_only.lower).values[big]).all()
