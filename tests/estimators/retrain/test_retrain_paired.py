import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest

import finfluence.runs as fr
from finfluence.ensemble import RunSpec, Workers, paired_order, train_many
from finfluence.errors import ConfigError
from finfluence.estimators.retrain import pairs, retrain
from small_recipes import classifier, held_out, mean_of_four, mlp


def words(error: pytest.ExceptionInfo[Exception]) -> list[str]:
    first, *rest = str(error.value).splitlines()
    return [first.removeprefix("expected "), *(line.split(": ", 1)[1] for line in rest)]


def tiny(n: int, **changes: object) -> fr.Recipe:
    data = fr.Rows(x=torch.zeros(n, 5).double(), y=torch.arange(n) % 3)
    return classifier(data=data, **{"batch_size": 2, "epochs": 1, **changes})


@pytest.mark.parametrize(
    ("n", "keep", "changes", "places"),
    [
        (4, [0, 1, 3], {}, 4),  # runs out: three places, then a new permutation
        (5, [0, 2, 4], {}, 4),  # runs out, with a row cut off by drop_last
        (5, [0, 1, 2, 4], {}, 4),  # a cut-off row fills the place
        pytest.param(7, [1, 2, 3, 4], {}, 6, marks=pytest.mark.slow),
        (5, [0, 1, 4], {"drop_last": False}, 5),
        pytest.param(4, [1, 3], {}, 4, marks=pytest.mark.slow),  # two whole turns
        (4, [0, 1, 3], {"sampling": "independent"}, 4),
    ],
)
@pytest.mark.quick(1)
def test_a_paired_order_has_the_law_of_the_unpaired_one(n, keep, changes, places):
    # 6,000 orders against the exact law; p > 1e-4 fails falsely once in 10,000
    recipe, rows = tiny(n, **changes), np.array(keep)
    if recipe.sampling == "independent":
        possible = list(itertools.product(keep, repeat=places))
    else:
        first = min(places, len(keep))
        possible = [
            a + b
            for a in itertools.permutations(keep, first)
            for b in itertools.permutations(keep, places - first)
        ]
    for order in (
        lambda seed: paired_order(recipe, seed, 0, rows),
        lambda seed: recipe.epoch_order(seed, 0, rows),
    ):
        seen = Counter(tuple(torch.cat(order(seed)).tolist()) for seed in range(6000))
        assert set(seen) <= set(possible)
        assert chisquare([seen[o] for o in possible]).pvalue > 1e-4


def test_a_paired_order_stays_close():
    recipe, keep = classifier(), np.delete(np.arange(31), [3, 4])
    for epoch in range(3):
        whole, without = recipe.epoch_order(5, epoch), paired_order(recipe, 5, epoch, keep)
        assert [len(b) for b in whole] == [len(b) for b in without]
        assert (torch.cat(whole) != torch.cat(without)).sum() <= 2
        assert not np.isin(torch.cat(without).numpy(), [3, 4]).any()
    everything = paired_order(recipe, 5, 0, np.arange(31))
    assert all(torch.equal(a, b) for a, b in zip(everything, recipe.epoch_order(5, 0), strict=True))


def test_same_seed_same_order_other_seed_another():
    recipe, keep = classifier(), np.arange(3, 31)
    first, again, other = (torch.cat(paired_order(recipe, s, 1, keep)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_stacked_and_single_paired_runs_agree():
    specs = [RunSpec(0, k, np.arange(2, 31), paired=True) for k in range(3)]
    one = train_many(classifier(), specs, held_out(), Workers(max_bytes=1)).values
    np.testing.assert_allclose(train_many(classifier(), specs, held_out()).values, one, rtol=1e-9)
    assert not np.allclose(
        one, train_many(classifier(), [RunSpec(0, s.order_seed, s.keep) for s in specs], held_out()).values
    )


@pytest.mark.slow
def test_the_law_of_a_scalar_recursion_is_recovered():
    # as for leave-out: means 1/4 and −1/7, variances η/(2−η)·Var(y)
    recipe, level = mean_of_four(epochs=15, lr=0.1)
    data = retrain(recipe, level, [7], runs=500, design="paired").data
    effect, spread = -1 / 7 - 1 / 4, np.sqrt(0.1 / 1.9 * (1.9375 + 48 / 49) / 2)
    assert abs(data.effect.item() - effect) < 4 * data.effect_se.item()
    assert data.spread.item() == pytest.approx(spread, rel=4 / np.sqrt(1000))
    assert abs(data.mu.item() - effect / spread) < 4 * data.se.item()
    assert data.effect_se.item() < 0.7 * spread * np.sqrt(2 / 500)
    assert data.p_value.item() < 1e-12


@pytest.mark.slow
def test_pairs_and_independent_arms_estimate_the_same():
    recipe, subsets = classifier(model=mlp, epochs=2), {"two": ["r1", "r2"]}
    one, other = (
        retrain(recipe, held_out()[0], subsets, runs=400, design=d).data for d in ("paired", "leave-out")
    )
    se = np.hypot(one.effect_se.item(), other.effect_se.item())
    assert abs(one.effect.item() - other.effect.item()) < 4 * se
    assert one.spread.item() == pytest.approx(other.spread.item(), rel=4 / np.sqrt(800))
    assert one.effect_se.item() < 0.3 * other.effect_se.item()


@pytest.mark.parametrize(("d", "noise"), [(0.0, 0.1), (1.0, 0.5), (4.0, 0.3)])
def test_standard_error_and_interval_of_mu_hold(d, noise):
    # 2,000 simulations: coverage 0.95 ± 0.0195 at 4 standard errors
    rng = np.random.default_rng(4)
    x = rng.normal(0, 1, (60, 2000))
    y = d + np.sqrt(1 - noise**2) * x + noise * rng.normal(0, 1, (60, 2000))
    found = pairs([(x, y)], 0.95)
    assert found.mu.std() == pytest.approx(found.se.mean(), rel=0.1)
    assert ((found.lower <= d) & (d <= found.upper)).mean() == pytest.approx(0.95, abs=0.025)
    if d == 0:
        assert kstest(found.p_value.ravel(), "uniform").pvalue > 0.001


def test_a_pair_with_a_diverged_run_is_left_out():
    recipe = classifier(epochs=1)
    x = recipe.rows.fields["x"].clone()
    x[30] = 1e200
    data = fr.Rows(x=x, y=recipe.rows.fields["y"], ids=recipe.rows.ids)
    result = retrain(
        classifier(data=data, epochs=1),
        held_out()[0],
        {"one": ["r3"], "bad": ["r30"]},
        runs=40,
        design="paired",
    ).data
    lost = result.attrs["diverged"]
    assert lost["all rows"] <= lost["without 'one'"] < 40
    assert lost["without 'bad'"] == lost["all rows"]
    assert "diverged and are left out" in result.attrs["findings"][0]
    assert np.isfinite(result.mu).all()


@pytest.mark.parametrize("options", [{"mu": "auc_probit"}, {"runs_without": 30}])
def test_what_pairs_cannot_do(options):
    with pytest.raises(ConfigError) as raised:
        retrain(classifier(), held_out(), ["r0"], design="paired", runs=20, **options)
    assert words(raised)[0] == (
        "mu='pooled_d' and no more runs without a subset than on all rows for design='paired'"
    )
    assert words(raised)[2:] == [
        "run k without a subset is compared with run k on all rows; an AUC takes its samples as independent",
        "leave runs_without out, or use design='leave-out'",
    ]
