"""The effect of adding rows: closed forms, copies of training rows, retraining with the rows added, and refusals."""

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.errors import ConfigError, DataError
from finfluence.estimators.replay import CANDIDATE_STEPS, RowSchedule
from four_parts import assert_parts
from recorded_loops import LOOPS

LEVEL = fi.Query(lambda m: m.weight.sum(), name="level", unit="value", sign=1)
Y = np.array([0.0, 1.0, -2.0, 3.0, 0.5, 4.0, -1.0, 2.5, 0.0, 1.5])
NEW = np.array([5.0, -3.0, 0.9])


def values(y: np.ndarray, ids: list[str] | None = None) -> fr.Rows:
    return fr.Rows(x=torch.ones(len(y), 1, dtype=pt.DOUBLE), y=torch.from_numpy(y), ids=ids)


def mean_estimation(**changes: object) -> fr.Recipe:
    """θ ← θ − η(θ − mean_B y): linear in the batches, so that first order is exact in what is added."""
    model = nn.Linear(1, 1, bias=False, dtype=pt.DOUBLE)
    nn.init.zeros_(model.weight)
    options = {"batch_size": 4, "epochs": 5, "optimizer": fr.SGD(lr=0.1), "drop_last": False, **changes}
    return fr.Recipe(data=values(Y), model=model, loss=pt.square_loss, **options)


def step_weights(recipe: fr.Recipe) -> np.ndarray:
    """∂θ_T/∂(mean_{B_t} y) = η_t Π_{s>t}(1 − η_s)."""
    eta = np.array([recipe.optimizer.lr * recipe.rate(t) for t in range(recipe.steps)])
    return eta * np.append(np.cumprod((1 - eta)[::-1])[::-1][1:], 1.0)


CASES = [{}, {"schedule": "cosine"}, {"sampling": "independent"}, {"batch_size": 1}]


@pytest.mark.parametrize("changes", CASES)
@pytest.mark.quick(2)
def test_exact_where_everything_is_linear(changes):
    """Adding y to the data moves the mean from ȳ to (nȳ + y)/(n + 1); a group, likewise."""
    recipe = mean_estimation(**changes)
    tape, candidates = fi.train(recipe), values(NEW, ["a", "b", "c"])
    groups = {"alone": ["a"], "two": ["b", "c"]}
    found = fi.replay(tape, LEVEL, "full", candidates=candidates, horizon=recipe.epochs, late=0)
    together = fi.replay(tape, LEVEL, "full", groups, candidates=candidates, horizon=recipe.epochs, late=0)
    weight = step_weights(recipe).sum()
    single = weight * ((Y.sum() + NEW) / 11 - Y.mean())
    np.testing.assert_allclose(found.data.effect.values[:, 0], single, rtol=1e-9)
    pair = weight * ((Y.sum() + NEW[1:].sum()) / 12 - Y.mean())
    np.testing.assert_allclose(together.data.effect.values[:, 0], [single[0], pair], rtol=1e-9)
    removal = fi.replay(tape, LEVEL, "full", horizon=recipe.epochs, late=0)
    np.testing.assert_array_equal(found.data.spread.values[0], removal.data.spread.values[0])
    assert found.subsets.tolist() == ["a", "b", "c"] and together.data["size"].values.tolist() == [1, 2]


def test_what_is_added_is_what_a_longer_data_set_trains_to():
    """Full batches, one more row: θ_T of the training on n + 1 rows, where the effect is exactly linear."""
    recipe = mean_estimation(batch_size=10)
    found = fi.replay(fi.train(recipe), LEVEL, "full", candidates=values(NEW, ["a", "b", "c"]), late=0)
    for k, y in enumerate(NEW):
        longer = fr.Recipe(
            data=values(np.append(Y, y)), model=recipe.model, loss=pt.square_loss, batch_size=11, epochs=5,
            optimizer=fr.SGD(lr=0.1), drop_last=False,
        )  # fmt: skip
        moved = float(fi.train(longer).state()[0]) - float(fi.train(recipe).state()[0])
        assert found.data.effect.values[k, 0] == pytest.approx(moved, rel=1e-9)


def copies(recipe: fr.Recipe, rows: list[int]) -> fr.Rows:
    fields = {k: v[rows] for k, v in recipe.rows.fields.items()}
    return fr.Rows(**fields, ids=[f"copy of {i}" for i in rows])


@pytest.mark.parametrize("name", ["sgd", "momentum", "adamw"])
def test_a_copy_of_a_row_does_the_opposite_of_removing_it(name):
    """At first order, (n+1) times the effect of a copy is −(n−1) times that of removal: every slope is the same."""
    recipe = pt.recipe(optimizer=pt.OPTIMIZERS[name][0], epochs=4)
    tape, queries = fi.train(recipe, seed=3), [fi.own_loss([1, 4])]
    removed = fi.replay(tape, queries, "full").data
    added = fi.replay(tape, queries, "full", candidates=copies(recipe, [*range(12)])).data
    np.testing.assert_allclose(13 * added.effect.values, -11 * removed.effect.values, rtol=1e-8, atol=1e-12)
    for same in ("spread", "own_loss"):
        np.testing.assert_allclose(added[same].values, removed[same].values, rtol=1e-12)
    np.testing.assert_allclose(13 * added.effect_se.values, 11 * removed.effect_se.values, rtol=1e-8)


@pytest.mark.parametrize("name", ["adamw", "dropout", "uneven accumulation"])
def test_copies_of_rows_of_a_recorded_loop(name):
    """Weighed micro-batches, and dropout under the step's own random state."""
    _, tape = LOOPS[name].run(record=True)
    rows = tape.finish().rows
    fields = {k: v for k, v in rows.batch(torch.tensor([2, 8])).items() if k != "id"}
    candidates, n = fr.Rows(**fields, ids=["two", "eight"]), len(rows)
    removed = fi.replay(tape, fi.own_loss([2]), "full").data.effect.values[[2, 8]]
    added = fi.replay(tape, fi.own_loss([2]), "full", candidates=candidates).data.effect.values
    if name == "dropout":  # masks fall on places in a batch: another place, another mask
        assert np.isfinite(added).all()
        again = fi.replay(tape, fi.own_loss([2]), "full", candidates=candidates).data.effect.values
        np.testing.assert_array_equal(added, again)
    else:
        np.testing.assert_allclose((n + 1) * added, -(n - 1) * removed, rtol=1e-7)


def many(epochs: int = 12) -> tuple[fr.Recipe, fr.Rows]:
    recipe = pt.recipe(data=pt.table(60), epochs=epochs, batch_size=5)
    more = pt.table(20, seed=9)
    return recipe, fr.Rows(**more.fields, ids=[f"new {i}" for i in range(20)])


@pytest.mark.slow
def test_online_draws_its_steps_and_says_how_far_that_may_err():
    """40 draws of the steps: their mean is the full estimate's, but for what is common to all candidates.

    Differences between 20 rows within 4 standard errors (rate below 6e-3 for all); what is common is how far the run
    itself was from the mean of all orders, spread/(n + 1) in one standard deviation. The stated variance covers that of
    the draws, and what differs between epochs besides.
    """
    recipe, candidates = many()
    tape, options = fi.train(recipe), {"candidates": candidates, "horizon": 12}
    draws = [fi.replay(tape, fi.own_loss([3]), seed=s, **options).data for s in range(40)]
    effects = np.stack([d.effect.values[:, 0] for d in draws])
    full = fi.replay(tape, fi.own_loss([3]), "full", **options).data
    shifts = effects - full.effect.values[:, 0]
    apart = shifts - shifts.mean(1, keepdims=True)
    assert (np.abs(apart.mean(0)) < 4 * apart.std(0, ddof=1) / np.sqrt(40)).all()
    assert abs(shifts.mean()) < 4 * full.spread.values[0, 0] / 61
    assert np.corrcoef(effects[0], full.effect.values[:, 0])[0, 1] > 0.95
    stated = np.mean([d.effect_se.values[:, 0] ** 2 for d in draws])
    assert stated > 0.7 * effects.var(0, ddof=1).mean()


def test_steps_are_one_of_each_quarter_and_all_of_a_short_epoch():
    schedule = RowSchedule(False, 0.25, seed=1)
    assert schedule.candidate_steps(0, range(3)) == {0: 1.0, 1: 1.0, 2: 1.0}
    drawn = schedule.candidate_steps(2, range(20, 31))
    assert len(drawn) == CANDIDATE_STEPS and sum(drawn.values()) == 11
    assert drawn != schedule.candidate_steps(3, range(20, 31))
    full = RowSchedule(True, 0.25, seed=1).candidate_steps(2, range(20, 31))
    assert list(full) == list(range(20, 31)) and set(full.values()) == {1.0}


@pytest.mark.slow
def test_memory_order_of_rows_and_interruption_do_not_matter(tmp_path):
    recipe, candidates = many(epochs=4)
    tape, queries = fi.train(recipe), [fi.own_loss([3, 4])]
    whole = fi.replay(tape, queries, candidates=candidates).data
    least = pt.least_memory(tape, queries, candidates=candidates)
    apart = fi.replay(tape, queries, candidates=candidates, memory_bytes=least).data
    turn = np.random.default_rng(0).permutation(20)
    turned = fr.Rows(
        **{k: v[turn] for k, v in candidates.fields.items()}, ids=[f"new {i}" for i in turn.tolist()]
    )
    permuted = fi.replay(tape, queries, candidates=turned).data.sel(subset=whole["subset"])
    for other in (apart, permuted):
        np.testing.assert_allclose(other.effect.values, whole.effect.values, rtol=1e-9, atol=1e-14)
    first = fi.replay(tape, queries, candidates=candidates, out=tmp_path).data
    again = fi.replay(tape, queries, candidates=candidates, out=tmp_path).data
    others = fi.replay(tape, queries, candidates=turned, out=tmp_path).data
    np.testing.assert_array_equal(first.effect.values, again.effect.values)
    assert not np.array_equal(others.effect.values, first.effect.values), (
        "progress of other rows is not taken"
    )
    rows = fi.replay(tape, queries, out=tmp_path).data
    np.testing.assert_array_equal(rows.effect.values, fi.replay(tape, queries).data.effect.values)


@pytest.mark.slow
def test_a_dictionary_and_a_data_set_are_candidates_too():
    recipe = mean_estimation()
    tape = fi.train(recipe)
    wanted = fi.replay(tape, LEVEL, "full", candidates=values(NEW, [7000, 7001, 7002])).data.effect.values
    given = {**values(NEW).fields, "ids": [7000, 7001, 7002]}
    np.testing.assert_array_equal(fi.replay(tape, LEVEL, "full", candidates=given).data.effect.values, wanted)
    listed = [
        {"x": torch.ones(1, dtype=pt.DOUBLE), "y": torch.tensor(y, dtype=pt.DOUBLE), "id": 7000 + k}
        for k, y in enumerate(NEW)
    ]
    np.testing.assert_allclose(
        fi.replay(tape, LEVEL, "full", candidates=listed).data.effect.values, wanted, rtol=1e-12
    )


def test_the_result_says_that_rows_are_added(tmp_path):
    """The largest value raises the level, which is good: adding it helps, and it is not among the harmful."""
    tape = fi.train(mean_estimation())
    found = fi.replay(tape, LEVEL, candidates=values(NEW, ["high", "low", "even"]), save_to=tmp_path / "r")
    assert found.provenance.contrast == "add" and fi.replay(tape, LEVEL).provenance.contrast == "remove"
    assert "adding" in repr(found) and "removing" not in repr(found)
    assert found.top(1, direction="harmful").row_id.tolist() == ["low"]
    assert found.top(1, direction="helpful").row_id.tolist() == ["high"]
    assert fi.load(tmp_path / "r").provenance.contrast == "add"
    np.testing.assert_allclose(found.data.own_loss.values, (NEW - float(tape.state()[0])) ** 2 / 2)
    groups = {"all": ["high", "low", "even"]}
    large = fi.replay(tape, LEVEL, subsets=groups, candidates=values(NEW, groups["all"]))
    assert "the effects of adding 1 subsets as large as 10% of the training rows or more are linear" in repr(
        large
    )


def refused(kind, parts, candidates, **options):
    with pytest.raises(kind) as caught:
        fi.replay(fi.train(mean_estimation()), LEVEL, candidates=candidates, **options)
    assert_parts(caught.value, *parts)


def test_errors():
    good = values(NEW, ["a", "b", "c"])
    refused(
        DataError, ("at least one candidate row", "none", "a selection came out empty", "candidates=fi.Rows"),
        values(NEW[:0], []),
    )  # fmt: skip
    refused(
        DataError, ("fields of the training rows: x, y", "x", "another way", "name the fields alike"),
        fr.Rows(x=torch.ones(3, 1, dtype=pt.DOUBLE), ids=["a", "b", "c"]),
    )  # fmt: skip
    refused(
        DataError, ("field 'x' of the candidates like that of the training rows: float64 of shape (1,)", "float64 of shape (2,)", "scaled, cut", "same code"),
        fr.Rows(x=torch.ones(3, 2, dtype=pt.DOUBLE), y=good.fields["y"], ids=["a", "b", "c"]),
    )  # fmt: skip
    refused(
        DataError, ("float64 of shape (1,)", "float32 of shape (1,)", "another precision", "NumPy floats become float32"),
        fr.Rows(x=np.ones((3, 1)), y=good.fields["y"], ids=["a", "b", "c"]),
    )  # fmt: skip
    refused(
        DataError, ("ids of candidates that no training row has", "3 that some have, such as '0'", "numbered from 0 in both", "fi.Rows(x=…, y=…, ids="),
        values(NEW),
    )  # fmt: skip
    refused(
        DataError, ("row ids of the data in subset 'g'", "1 unknown, first 0", "ids are those", "use ids such as 'a'"),
        good, subsets={"g": [0]},
    )  # fmt: skip
    refused(
        ConfigError, ("groups='auto' or 'linear' where candidates are added", "groups='paired'", "they add none", "leave groups out"),
        good, groups="paired",
    )  # fmt: skip
