import itertools

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import nn

import finfluence.runs as fr
from finfluence.ensemble import Seeds, final_models, random_halves
from finfluence.errors import ConfigError, DataError, TrainingError
from finfluence.estimators.retrain import Retrain, RetrainOptions, half_subsets, retrain, se, two_samples
from finfluence.result import load
from finfluence.runs.describe import find_subsets
from finfluence.stats import auc_probit, pooled_d
from small_recipes import class_loss, classifier, held_out, mean_of_four, mlp, square_loss


def words(error: pytest.ExceptionInfo[Exception]) -> list[str]:
    return [
        line.split(": ", 1)[-1].strip() for line in str(error.value).removeprefix("expected ").splitlines()
    ]


@pytest.mark.slow
def test_the_law_of_a_scalar_recursion_is_recovered():
    # batch 1, independent sampling: mean ȳ and variance η/(2−η)·Var(y);
    # ȳ = 1/4 with the row of 3, −1/7 without
    recipe, level = mean_of_four(epochs=20, lr=0.1)
    data = retrain(recipe, level, [7], runs=3000).data
    effect, spread = -1 / 7 - 1 / 4, np.sqrt(0.1 / 1.9 * (1.9375 + 48 / 49) / 2)
    assert abs(data.effect.item() - effect) < 4 * data.effect_se.item()
    assert data.spread.item() == pytest.approx(spread, rel=4 / np.sqrt(2 * 6000))
    assert abs(data.mu.item() - effect / spread) < 4 * data.se.item()
    assert data.lower.item() < data.mu.item() < data.upper.item()
    assert data.effect_se.item() == pytest.approx(spread * np.sqrt(2 / 3000), rel=0.05)
    assert data.p_value.item() < 1e-12


def test_the_sign_follows_the_query():
    recipe, level = mean_of_four()
    raised = fr.Query(lambda m: -m.bias.sum(), name="minus level", sign=-1)
    data = retrain(recipe, [level, raised], [7], runs=20).data
    np.testing.assert_allclose(data.mu[0, 1], -data.mu[0, 0])
    assert data.sign.values.tolist() == [1, -1]
    assert data.unit.values.tolist() == ["value", "value"]


def test_the_result_says_how_it_was_made(tmp_path):
    influence = retrain(
        classifier(), held_out(), {"pair": ["r1", "r2"], "one": ["r3"]}, runs=5, runs_without=4, seed=3
    )
    data = influence.data
    assert data.subset.values.tolist() == ["pair", "one"]
    assert data["size"].values.tolist() == [2, 1]
    assert data["query"].values.tolist() == ["held-out", "accuracy"]
    for name, value in {
        "method": "retrain", "design": "leave-out", "covers": ["batch order"], "runs": 13, "runs_with": 5,
        "runs_without": 4, "seed": 3, "n_rows": 31, "engine": "stacked, 64 at once", "diverged": {},
        "findings": [],
    }.items():  # fmt: skip
        assert data.attrs[name] == value
    influence.save(tmp_path / "truth.zarr")
    assert load(tmp_path / "truth.zarr").data.identical(data)


def test_own_loss_is_the_mean_final_loss_of_the_subsets_rows():
    recipe = classifier()
    data = retrain(recipe, held_out()[0], {"pair": ["r1", "r2"]}, runs=3, seed=9).data
    batch = recipe.rows.batch(torch.tensor([1, 2]))
    models = final_models(recipe, [Seeds(9, "all").run(None, k) for k in range(3)])
    want = np.mean([class_loss(model, batch).mean().item() for model in models])
    assert data.own_loss.item() == pytest.approx(want, rel=1e-12)


def test_sources_of_randomness_are_named_and_varied():
    recipe = classifier(model=mlp)
    spread = {}
    for vary, covers in [
        ("order", ["batch order"]),
        ("init", ["initialisation"]),
        ("all", ["batch order", "initialisation"]),
    ]:
        data = retrain(recipe, held_out()[0], ["r0"], runs=30, vary=vary).data
        assert data.attrs["covers"] == covers
        spread[vary] = data.spread.item()
    assert spread["init"] > 2 * spread["order"]
    assert spread["all"] > spread["order"]


def test_dropout_is_a_source_of_randomness():
    recipe = classifier(model=mlp(1, dropout=0.5), epochs=1)
    data = retrain(recipe, held_out()[0], ["r0"], runs=3, executor="serial").data
    assert data.attrs["covers"] == ["batch order", "dropout"]
    assert data.attrs["engine"] == "one by one: the loss draws random numbers (dropout or augmentation)"


def test_same_seed_same_numbers_other_seed_others():
    first, again, other = (
        retrain(classifier(), held_out()[0], ["r0"], runs=4, seed=s).data for s in (1, 1, 2)
    )
    assert first.identical(again)
    assert first.effect.item() != other.effect.item()


@pytest.mark.parametrize("design", ["leave-out", "paired", "half-subsets"])
@pytest.mark.quick(1)
def test_a_bank_changes_no_number_and_another_query_trains_nothing(design, tmp_path):
    recipe, options = classifier(), {"design": design, "runs": 40, "seed": 2}
    plain = retrain(recipe, held_out()[0], ["r1", "r2"], **options)
    first = retrain(recipe, held_out()[0], ["r1", "r2"], bank=tmp_path, **options)
    for name in plain.data.data_vars:
        assert plain.data[name].values.tobytes() == first.data[name].values.tobytes(), name
    other = retrain(recipe, held_out()[1], ["r1", "r2"], bank=tmp_path, **options)
    assert (first.provenance.runs_trained, other.provenance.runs_trained) == (
        plain.provenance.runs_trained,
        0,
    )
    assert other.provenance.runs_reused == plain.provenance.runs_trained
    assert next(tmp_path.iterdir()).name in other.provenance.engine


def test_a_bank_trains_in_this_process_only():
    with pytest.raises(ConfigError) as raised:
        RetrainOptions(bank="bank", executor="joblib")
    assert words(raised) == [
        "executor to be None or 'serial' with a bank", "'joblib'",
        "a bank trains in the process that asks, and keeps what it trained", "leave executor out, or bank",
    ]  # fmt: skip


def test_random_halves_recover_the_exact_law():
    # rows 0 … 3 always stay; the mean over the kept rows is E θ, η/(2−η) times their variance is Var θ
    recipe, level = mean_of_four(epochs=8, lr=0.1)
    data = retrain(recipe, level, [4, 5, 6, 7], runs=1600, design="half-subsets").data
    y = recipe.rows.fields["y"].numpy()
    effects, variances = np.zeros(4), []
    for bits in itertools.product([False, True], repeat=4):
        here = y[np.array([True] * 4 + list(bits))]
        effects += np.where(bits, -1, 1) * here.mean() / 8
        variances.append(0.1 / 1.9 * here.var())
    assert (np.abs(data.effect[:, 0] - effects) < 4 * data.effect_se[:, 0]).all()
    np.testing.assert_allclose(data.spread, np.sqrt(np.mean(variances)), rtol=4 / np.sqrt(1600))
    assert data.attrs["scale"] == "removal where every other subset is present half of the time"
    assert (data.attrs["runs"], data.attrs["halves"]) == (1600, 800)


def test_a_half_smaller_than_a_batch_is_refused():
    with pytest.raises(DataError) as raised:
        retrain(classifier(batch_size=20), held_out(), runs=40, design="half-subsets")
    assert words(raised)[0] == "every random half to hold a batch of 20 rows"
    assert words(raised)[2:] == [
        "half of the data is hardly more than a batch",
        "use design='leave-out', or a smaller batch_size",
    ]


def test_random_halves_keep_rows_outside_every_subset():
    recipe = classifier()
    subsets = find_subsets(recipe, {"a": ["r1", "r2"], "b": ["r5"]})
    kept, first, second = random_halves(Seeds(0, "all"), 31, subsets, 50)
    for inside, one, two in zip(kept, first, second, strict=True):
        gone = [r for r, i in ((1, 0), (2, 0), (5, 1)) if not inside[i]]
        assert one.keep.tolist() == two.keep.tolist() == [r for r in range(31) if r not in gone]
        assert one.order_seed != two.order_seed
    longer, *_ = random_halves(Seeds(0, "all"), 31, subsets, 80)
    np.testing.assert_array_equal(longer[:50], kept)


def test_half_subset_estimates_are_unbiased_and_their_errors_honest():
    rng = np.random.default_rng(0)
    slopes, noise, z, p = np.array([0.5, 0.0, -0.3, 0.0]), 0.7, [], []
    for _ in range(300):
        kept = rng.random((60, 4)) < 0.5
        means = 5.0 - kept @ slopes
        found = half_subsets(*(means[:, None] + rng.normal(0, noise, (60, 1)) for _ in range(2)), kept, 0.95)
        z.append((found.effect[:, 0] - slopes) / found.effect_se[:, 0])
        p.append(found.p_value[[1, 3], 0])
    assert np.abs(np.mean(z, axis=0)).max() < 4 / np.sqrt(300)
    assert np.std(z) == pytest.approx(1.0, abs=0.1)
    assert kstest(np.ravel(p), "uniform").pvalue > 0.001
    assert found.spread[0, 0] == pytest.approx(noise, rel=4 / np.sqrt(120))


def test_two_sample_laws_are_those_of_the_statistics_module():
    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 1, (40, 3)), rng.normal(0.8, 1.5, (25, 3))
    found = two_samples(x, [y], "pooled_d", 0.95)
    np.testing.assert_allclose(found.mu[0], pooled_d(x.T, y.T))
    np.testing.assert_allclose(found.mu, found.effect / found.spread)
    np.testing.assert_allclose(two_samples(x, [y], "auc_probit", 0.95).mu[0], auc_probit(x.T, y.T))


@pytest.mark.parametrize("d", [0.0, 1.0, 4.0])
def test_standard_error_and_interval_of_mu_hold(d):
    # 2,000 simulations: coverage 0.95 ± 0.0195 at 4 standard errors
    rng = np.random.default_rng(2)
    x, y = rng.normal(0, 1, (60, 2000)), rng.normal(d, 1, (40, 2000))
    found = two_samples(x, [y], "pooled_d", 0.95)
    assert found.mu.std() == pytest.approx(found.se.mean(), rel=0.1)
    assert ((found.lower <= d) & (d <= found.upper)).mean() == pytest.approx(0.95, abs=0.025)


def test_p_values_under_no_influence_are_uniform():
    rng = np.random.default_rng(3)
    found = two_samples(rng.normal(size=(12, 1500)), [rng.normal(size=(12, 1500))], "pooled_d", 0.95)
    assert kstest(found.p_value.ravel(), "uniform").pvalue > 0.001


def test_apart_samples_saturate_auc_but_not_pooled_d():
    x, y = np.arange(10.0)[:, None], np.arange(10.0)[:, None] + 1000
    assert two_samples(x, [y], "pooled_d", 0.95).mu.item() > 300
    found = two_samples(x, [y], "auc_probit", 0.95)
    assert found.mu.item() == pytest.approx(np.sqrt(2) * 2.5758, rel=1e-4)
    assert np.isinf(found.upper.item())
    assert np.isfinite(found.se.item())


def test_diverged_runs_are_counted_and_told():
    # row 30 has an enormous input; an epoch of 24 of 31 rows meets it only in some orders
    recipe = classifier(epochs=1)
    x = recipe.rows.fields["x"].clone()
    x[30] = 1e200
    data = fr.Rows(x=x, y=recipe.rows.fields["y"], ids=recipe.rows.ids)
    result = retrain(
        classifier(data=data, epochs=1), held_out()[0], {"bad": ["r30"]}, runs=40, runs_without=10
    ).data
    lost = result.attrs["diverged"]["all rows"]
    assert 20 <= lost < 40
    assert result.attrs["diverged"] == {"all rows": lost}
    assert result.attrs["findings"] == [
        f"{lost} of 50 runs diverged and are left out (most: {lost}, all rows); "
        "the estimates describe the runs that did not"
    ]
    assert np.isfinite(result.mu.item())


def test_when_every_run_diverges():
    with pytest.raises(TrainingError) as raised:
        retrain(classifier(fr.SGD(lr=1e200)), held_out(), ["r0"], runs=3)
    assert words(raised) == [
        "at least two finished runs on all rows",
        "0 of 3; not finite: held-out, accuracy",
        "the learning rate (1e+200) is too high, or a query takes the logarithm of zero",
        "lower the learning rate tenfold, or bound the query",
    ]


def test_too_few_runs():
    with pytest.raises(ConfigError) as raised:
        retrain(classifier(), held_out(), ["r0"], runs=50, runs_without=1)
    assert words(raised) == [
        "at least 2 runs with and 2 without each subset",
        "runs=50, runs_without=1",
        "a spread needs two values",
        "pass runs=50 for a standard error of μ of about 0.2, runs=200 for 0.1",
    ]


def test_more_runs_than_allowed():
    with pytest.raises(ConfigError) as raised:
        retrain(classifier(), held_out(), runs=100, max_runs=1000)
    assert words(raised) == [
        "at most 1000 runs (max_runs)",
        "3200 runs for 31 subsets",
        "every row alone was asked for",
        "name fewer subsets or runs, use design='half-subsets' (subsets cost nothing there), "
        "or pass max_runs=3200",
    ]


def test_unknown_rows():
    with pytest.raises(DataError) as raised:
        retrain(classifier(), held_out(), {"a": ["r1", 7]}, runs=3)
    assert words(raised) == [
        "row ids of the data in subset 'a'",
        "1 unknown, first 7",
        "ids are those of Rows(ids=…), not positions, and 7 is not '7'",
        "use ids such as 'r0', 'r1', 'r2'",
    ]


def test_a_subset_that_leaves_less_than_a_batch():
    with pytest.raises(DataError) as raised:
        retrain(classifier(), held_out(), {"most": [f"r{i}" for i in range(24)]}, runs=3)
    assert words(raised) == [
        "at least one batch of 8 rows to be left without subset 'most'",
        "7 of 31 rows",
        "the subset is most of the data",
        "take smaller subsets, or a smaller batch_size",
    ]


def test_a_subset_that_empties_a_class():
    with pytest.raises(DataError) as raised:
        retrain(classifier(), held_out(), {"ones": [f"r{i}" for i in range(1, 31, 3)]}, runs=3)
    assert words(raised) == [
        "every class to keep a row without subset 'ones'",
        "none left of class 1",
        "the subset holds a whole class, so that the model without it answers another question",
        "leave some rows of each class out of the subset",
    ]


def test_numbers_to_predict_are_no_classes():
    data = fr.Rows(x=torch.zeros(8, 1), y=torch.arange(8.0))
    recipe = fr.Recipe(
        data=data, model=nn.Linear(1, 1), loss=square_loss, optimizer=fr.SGD(lr=0.1), batch_size=2, epochs=1
    )
    assert retrain(recipe, fr.own_loss([0]), [3], runs=2).data.sizes == {"subset": 1, "query": 1}


@pytest.mark.parametrize(
    ("subsets", "first", "second"),
    [
        ({"a": ["r1", "r1"]}, "different rows in subset 'a'", "a row more than once"),
        ([], "one or more subsets with different names", "none"),
        (["r1", "r1"], "one or more subsets with different names", "'r1' twice"),
    ],
)
def test_subsets_that_say_nothing(subsets, first, second):
    with pytest.raises(DataError) as raised:
        retrain(classifier(), held_out(), subsets, runs=3)
    assert words(raised)[:2] == [first, second]


def test_groups_without_names_are_numbered():
    data = retrain(classifier(), held_out()[0], [["r1", "r2"], ["r3"]], runs=2).data
    assert data.subset.values.tolist() == ["subset 0", "subset 1"]


def test_a_constant_query_among_others_is_a_finding():
    same = fr.Query(lambda m: m[0].weight.sum() * 0 + 1, name="one")
    data = retrain(classifier(), [held_out()[0], same], ["r0"], runs=3).data
    assert data.attrs["findings"] == ["no spread between runs, so no μ, for some subsets of: one"]
    assert np.isnan(data.mu.sel(query="one").item())
    assert data.p_value.sel(query="one").item() == 1.0


def test_nothing_random():
    same = fr.Query(lambda m: m[0].weight.sum() * 0 + 1, name="one")
    with pytest.raises(DataError) as raised:
        retrain(classifier(), same, ["r0"], runs=3)
    assert words(raised)[:2] == ["queries that differ between runs", "the same value in every run of one"]


def test_a_fixed_model_has_no_initialisation_to_vary():
    with pytest.raises(ConfigError) as raised:
        retrain(classifier(), held_out(), ["r0"], runs=3, vary="init")
    assert words(raised) == [
        "a model factory with vary='init'",
        "a fixed nn.Module: every run would be the same",
        "the recipe was built for fine-tuning from given weights",
        "pass model=callable(seed) -> nn.Module to the recipe, or vary='order'",
    ]


def test_overlapping_subsets_have_no_random_halves():
    with pytest.raises(DataError) as raised:
        retrain(classifier(), held_out(), {"a": ["r1"], "b": ["r1", "r2"]}, runs=40, design="half-subsets")
    assert words(raised)[:2] == [
        "subsets that do not overlap for design='half-subsets'",
        "1 rows in more than one, first position 1",
    ]


@pytest.mark.parametrize(
    ("options", "got"),
    [
        ({"design": "loo"}, "design='loo', mu='pooled_d', level=0.95"),
        ({"mu": "d"}, "design='leave-out', mu='d', level=0.95"),
        ({"level": 95}, "design='leave-out', mu='pooled_d', level=95"),
        ({"design": "half-subsets", "runs": 21}, "runs=21, mu='pooled_d'"),
        ({"design": "half-subsets", "mu": "auc_probit"}, "runs=20, mu='auc_probit'"),
        ({"vary": "seed"}, "'seed'"),
    ],
)
def test_mistyped_options(options, got):
    with pytest.raises(ConfigError) as raised:
        retrain(classifier(), held_out(), ["r0"], **{"runs": 20, **options})
    assert words(raised)[1] == got


def test_halves_too_few_to_see_a_row_twice():
    with pytest.raises(ConfigError) as raised:
        retrain(classifier(), held_out(), runs=8, design="half-subsets")
    assert words(raised)[0] == "every subset to be in at least two random halves and out of two"
    assert words(raised)[3] == "pass runs=40 or more; finished runs are reused if out=… is given"


@pytest.mark.parametrize("design", ["leave-out", "paired", "half-subsets"])
def test_removing_nothing_changes_nothing_and_costs_no_run(design):
    recipe = classifier(epochs=1)
    options = {"runs": 40, "design": design}
    plain = retrain(recipe, held_out(), {"a": ["r1"], "b": ["r4", "r5"]}, **options).data
    found = retrain(recipe, held_out(), {"none": [], "a": ["r1"], "b": ["r4", "r5"]}, **options).data
    for name in ("effect", "spread", "mu", "se", "p_value", "own_loss"):
        np.testing.assert_array_equal(found[name].values[1:], plain[name].values)
    assert (
        found.attrs["runs"] == plain.attrs["runs"]
        and found.attrs["runs_trained"] == plain.attrs["runs_trained"]
    )
    nothing = found.sel(subset="none")
    for name in ("effect", "effect_se", "mu", "se", "lower", "upper"):
        assert (nothing[name].values == 0).all()
    assert (nothing["p_value"].values == 1).all() and np.isnan(nothing["own_loss"].item())
    assert (nothing["spread"].values > 0).all()


def test_only_nothing_removed_shows_the_spread():
    recipe = classifier(epochs=1)
    found = retrain(recipe, held_out(), {"none": []}, runs=12).data
    whole = retrain(recipe, held_out(), ["r1"], runs=12).data
    assert found.attrs["runs"] == 12 and found.attrs["runs_without"] == 0
    assert (found["spread"].values > 0).all() and not found["mu"].values.any()
    assert whole.attrs["runs"] == 24
    half = retrain(recipe, held_out(), {"none": []}, runs=12, design="half-subsets").data
    np.testing.assert_array_equal(half["spread"], found["spread"])


def test_cost_counts_the_trainings():
    recipe = classifier()
    estimator = Retrain(RetrainOptions(runs=20, runs_without=10))
    assert estimator.cost(recipe, held_out(), ["r1", "r2"]).trainings == 20 + 2 * 10 + 16
    assert (
        Retrain(RetrainOptions(runs=40, design="half-subsets")).cost(recipe, held_out()).trainings == 40 + 16
    )
    until = Retrain(RetrainOptions(until=se("mu") < 0.2))
    assert until.cost(recipe, held_out(), ["r1"]).trainings == 4 / 0.04 + 16
