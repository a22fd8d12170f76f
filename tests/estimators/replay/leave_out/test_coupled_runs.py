"""Groups by paired runs: a closed form, a slow reference in plain torch, what is chosen, and what is said."""

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.errors import ConfigError
from finfluence.estimators.replay.leave_out import (
    Baseline,
    Coupling,
    LeaveOut,
    NegativeControl,
    Replicas,
    choose_coupled,
    leave_out_effects,
)
from four_parts import assert_parts

GROUP = np.array([1, 4, 5, 9])


def regression(**changes: object) -> fr.Recipe:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(30, 3)))
    y = torch.from_numpy(rng.normal(size=30))
    model = nn.Linear(3, 1, bias=False, dtype=pt.DOUBLE)
    nn.init.zeros_(model.weight)
    options = {"batch_size": 30, "epochs": 25, "optimizer": fr.SGD(lr=0.3), **changes}
    return fr.Recipe(data=fr.Rows(x=x, y=y), model=model, loss=pt.square_loss, **options)


WEIGHT = fi.Query(lambda m: m.weight[0, 1], name="weight", unit="weight", sign=1)


def quadratic(rows: np.ndarray) -> float:
    """Gradient descent on a quadratic from zero: θ_T = (I − (I − ηH)^T) H⁻¹ b."""
    fields = regression().rows.fields
    x, y = fields["x"].numpy()[rows], fields["y"].numpy()[rows]
    h, b = x.T @ x / len(rows), x.T @ y / len(rows)
    left = np.linalg.matrix_power(np.eye(3) - 0.3 * h, 25)
    return float(((np.eye(3) - left) @ np.linalg.solve(h, b))[1])


def test_exact_where_the_loss_is_quadratic_and_the_linear_estimate_is_not() -> None:
    group = {"g": list(range(12))}
    tape = fi.train(regression())
    exact = quadratic(np.arange(12, 30)) - quadratic(np.arange(30))
    influence = fi.replay(tape, WEIGHT, "full", group, late=0)
    assert influence.data.effect.item() == pytest.approx(exact, rel=1e-9)
    linear = fi.replay(tape, WEIGHT, "full", group, groups="linear", late=0).data.effect.item()
    assert influence.data.linear_effect.item() == linear
    assert abs(linear - exact) > 0.1 * abs(exact)


@pytest.mark.parametrize("name", sorted(pt.OPTIMIZERS))
def test_a_replica_without_a_group_is_plain_training_over_the_batches_without_the_group(name: str) -> None:
    optimizer, twin = pt.OPTIMIZERS[name]
    recipe = pt.recipe(optimizer=optimizer)
    tape = fi.train(recipe)
    model = tape.model(0)
    running = twin(list(model.parameters()))
    for t, rows in enumerate(recipe.order(tape.order_seed)):
        for group in running.param_groups:
            group["lr"] = recipe.optimizer.lr * recipe.rate(t)
        running.zero_grad()
        kept = rows[~torch.isin(rows, torch.from_numpy(GROUP))]
        assert len(kept)
        recipe.loss(model, recipe.rows.batch(kept)).mean().backward()
        running.step()
    whole, without = Replicas(tape).final([Baseline(), LeaveOut(GROUP, len(recipe.rows), 0, True)])
    torch.testing.assert_close(without, tape.layout.theta(model), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(whole, tape.final_state()[: tape.layout.size], rtol=1e-9, atol=1e-12)


def test_what_smaller_batches_do_by_themselves_is_taken_off() -> None:
    """Adam moves further the less noise there is: leaving out random rows of each batch is not nothing."""
    recipe = pt.recipe(optimizer=fr.Adam(lr=0.02), batch_size=6, epochs=8)
    tape = fi.train(recipe)
    replicas = [NegativeControl(k, 7) for k in range(4)]
    removed = LeaveOut(GROUP, 12, 7, True)
    asked = fi.own_loss([0])
    final = Replicas(tape).final([Baseline(), *replicas, removed])

    def value(theta: torch.Tensor) -> float:
        model = tape.model()
        tape.layout.assign(model, theta)
        return float(asked.values(model, recipe)[0].detach())

    base, *shifted, without = (value(theta) for theta in final)
    per_unit = (np.mean(shifted) - base) / np.mean([replica.noise_inflation for replica in replicas])
    expected = without - base - removed.noise_inflation * per_unit
    got = leave_out_effects(tape, [asked], [GROUP], Coupling(16, 7))
    assert got.item() == pytest.approx(expected, rel=1e-9)
    assert abs(expected - (without - base)) > 1e-6
    sizes = [np.isin(rows.numpy(), GROUP, invert=True).sum() for rows in recipe.order(tape.order_seed)]
    assert removed.noise_inflation == pytest.approx(
        np.mean(1 / np.array(sizes)) - 1 / 8 - (1 / 6 - 1 / 12), rel=1e-9
    )


def test_pairs_are_averaged_over_the_same_states_as_the_backward_pass() -> None:
    """q̄ of both runs: the mean of the query's values at the late states, over pairs that end there."""
    recipe = pt.recipe(epochs=8, batch_size=6)
    tape = fi.train(recipe)
    late = (tape.steps, tape.steps - 2, tape.steps - 5)
    asked = fi.own_loss([0, 3])

    def value(theta: torch.Tensor) -> np.ndarray:
        model = tape.model()
        tape.layout.assign(model, theta)
        return asked.values(model, recipe).detach().numpy()

    removed = LeaveOut(GROUP, 12, 7, True)
    controls = [NegativeControl(k, 7) for k in range(4)]
    states = list(Replicas(tape).at([Baseline(), *controls, removed], late))
    assert len(states) == 3
    values = np.mean([[value(theta) for theta in replicas] for replicas in states], axis=0)
    per_unit = (values[1:5].mean(0) - values[0]) / np.mean([replica.noise_inflation for replica in controls])
    got = leave_out_effects(tape, [asked], [GROUP], Coupling(16, 7, late))
    np.testing.assert_allclose(got[0], values[5] - values[0] - removed.noise_inflation * per_unit, rtol=1e-9)
    last = leave_out_effects(tape, [asked], [GROUP], Coupling(16, 7))
    assert (np.abs(got - last) > 1e-6).all()


def test_negative_controls_together_leave_out_every_place_once() -> None:
    tape = fi.train(pt.recipe(batch_size=6))
    step = tape.at(0)
    kept = np.stack([NegativeControl(k, 3).weights(0, step)[0] for k in range(4)])
    assert kept.sum(0).tolist() == [3.0] * 6
    tiny = fi.train(pt.recipe(batch_size=2)).at(0)
    assert NegativeControl(0, 3).weights(0, tiny)[0].tolist() == [1.0, 1.0]


def test_a_batch_of_nothing_else_is_drawn_from_the_other_rows() -> None:
    """θ ← θ − η(θ − y_i): on average over draws, hits of the group become the mean of the others. 4 se: rate 6e-5."""
    y = np.arange(10.0)
    model = nn.Linear(1, 1, bias=False, dtype=pt.DOUBLE)
    nn.init.zeros_(model.weight)
    rows = fr.Rows(x=torch.ones(10, 1, dtype=pt.DOUBLE), y=torch.from_numpy(y))
    recipe = fr.Recipe(
        data=rows, model=model, loss=pt.square_loss, optimizer=fr.SGD(lr=0.1), batch_size=1, epochs=3
    )
    tape = fi.train(recipe)
    replicas = [LeaveOut(np.array([7, 8, 9]), 10, seed, True) for seed in range(300)]
    final = Replicas(tape).final(replicas)[:, 0].numpy()
    decay = 0.1 * 0.9 ** np.arange(30)[::-1]
    order = torch.cat(tape.order).numpy()
    expected = (decay * np.where(order < 7, y[order], y[:7].mean())).sum()
    assert abs(final.mean() - expected) < 4 * final.std(ddof=1) / np.sqrt(len(final))
    assert final.std() > 0 and final.max() < y[:7].max()


def test_runs_side_by_side_or_alone_and_in_any_order_say_the_same() -> None:
    tape = fi.train(pt.recipe())
    groups = [GROUP, np.array([0, 2]), np.array([3])]
    queries = [fi.own_loss([0, 3])]
    together = leave_out_effects(tape, queries, groups, Coupling(64, 0))
    np.testing.assert_allclose(
        leave_out_effects(tape, queries, groups, Coupling(1, 0)), together, rtol=1e-9, atol=1e-14
    )
    np.testing.assert_allclose(
        leave_out_effects(tape, queries, groups[::-1], Coupling(3, 0))[::-1], together, rtol=1e-9, atol=1e-14
    )
    assert (leave_out_effects(tape, queries, groups, Coupling(64, 0)) == together).all()
    assert (leave_out_effects(tape, queries, groups, Coupling(64, 1)) != together).any()


def test_dropout_is_the_same_in_both_runs_of_a_pair() -> None:
    recipe = pt.recipe(
        model=pt.made(lambda: nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)))
    )
    tape = fi.train(recipe)
    whole, none = Replicas(tape).final([Baseline(), LeaveOut(np.array([], dtype=np.int64), 12, 0, True)])
    assert (whole == none).all()
    torch.testing.assert_close(whole, tape.final_state()[: tape.layout.size], rtol=1e-9, atol=1e-12)


def test_what_auto_pairs() -> None:
    assert choose_coupled("linear", np.array([5, 6]), 9).sum() == 0
    assert choose_coupled("paired", np.array([1, 1]), 9).all()
    assert choose_coupled("auto", np.array([1, 2, 3]), 1).tolist() == [False, True, True]
    assert (
        choose_coupled("auto", np.full(11, 2), 1).all()
        and not choose_coupled("auto", np.full(12, 2), 1).any()
    )
    assert choose_coupled("auto", np.full(12, 2), 17).all()
    with pytest.raises(ConfigError) as error:
        fi.replay(fi.train(pt.recipe()), fi.own_loss([0]), groups="quadratic")  # type: ignore[arg-type]
    assert_parts(error.value, "groups", "'quadratic'", "", "")


def test_the_result_says_what_was_paired_and_what_was_not() -> None:
    tape = fi.train(pt.recipe())
    subsets = {"alone": [0], "few": [1, 2, 3]}
    mixed = fi.replay(tape, fi.own_loss([0]), subsets=subsets)
    assert np.isfinite(mixed.data.linear_effect.values[:, 0]).tolist() == [False, True]
    assert "effects of 1 subsets are from runs without them under the same batch order (paired)" in repr(
        mixed
    )
    linear = fi.replay(tape, fi.own_loss([0]), subsets=subsets, groups="linear")
    assert "linear_effect" not in linear.data
    assert linear.data.effect.values[0] == mixed.data.effect.values[0]
    assert "1 subsets that hold 10% or more of a class are linear" in repr(linear)
    assert "'few'; groups='paired' corrects them" in repr(linear)
    tolerated = fi.replay(tape, fi.own_loss([0]), subsets={"alone": [0]}, groups="linear")
    assert "groups='paired'" not in repr(tolerated)


def test_pairs_survive_saving_and_pooling(tmp_path) -> None:
    described = pt.recipe()
    runs = [fi.replay(fi.train(described, seed=s), fi.own_loss([0]), subsets={"g": [1, 2]}) for s in range(3)]
    runs[0].save(tmp_path / "r.zarr")
    assert fi.load(tmp_path / "r.zarr").data.equals(runs[0].data)
    pooled = fi.pool(runs).data
    np.testing.assert_allclose(pooled.effect, np.mean([r.data.effect for r in runs], axis=0), rtol=1e-12)
    np.testing.assert_allclose(
        pooled.linear_effect, np.mean([r.data.linear_effect for r in runs], axis=0), rtol=1e-12
    )


def test_a_run_that_diverges_without_the_group_leaves_the_linear_effect_and_says_so() -> None:
    x = np.ones((10, 1), dtype=np.float32)
    x[9] = 5.0
    model = nn.Linear(1, 1, bias=False)
    recipe = fr.Recipe(
        data=fr.Rows(x=x, y=np.ones(10, dtype=np.float32)), model=model, loss=pt.square_loss,
        optimizer=fr.SGD(lr=0.3), batch_size=10, epochs=60,
    )  # fmt: skip
    query = fi.Query(lambda m: m.weight.sum(), name="w")
    subsets = {"calm": list(range(9)), "one": [3]}
    found = fi.replay(fi.train(recipe), query, "full", subsets, groups="paired")
    assert "the run without 'calm' diverged: the effect given is the linear one" in repr(found)
    linear = fi.replay(fi.train(recipe), query, "full", subsets, groups="linear")
    assert found.data.effect.values[0] == linear.data.effect.values[0]
    assert np.isfinite(found.data.linear_effect.values[:, 0]).tolist() == [False, True]
