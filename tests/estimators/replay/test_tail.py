"""Effects on a query averaged over the tail: exact derivatives, the same spread, less chance."""

import dataclasses

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import finfluence as fi
import plain_training as pt
from finfluence import runs as fr
from finfluence.errors import ConfigError
from finfluence.estimators.derivatives import adjoint_of
from finfluence.estimators.replay import (
    BackwardPass,
    PassRules,
    RowSchedule,
    TailAverage,
    curved_part,
    tail_steps,
    truncation_for,
)

DOUBLE = torch.float64


def effects(tape: fr.Tape, query: fi.Query, late: tuple[int, ...], full: bool = True) -> np.ndarray:
    """Go back by hand, averaging over the given states."""
    model = tape.model()
    _, slopes = fr.gradients([query], model, tape, tape.layout.parameters(model))
    start = torch.zeros(1, 1 + len(tape.optimizer.slots), tape.layout.size, dtype=slopes.dtype)
    start[:, 0] = slopes
    rules = PassRules(
        RowSchedule(full, 0.25, 0, late),
        truncation_for(len(tape.epochs), tape.noise),
        TailAverage(tape, [query], range(1), late, model),
        np.zeros(len(tape.rows)),
    )
    backward = BackwardPass(tape, adjoint_of(tape), start, rules)
    backward.run(lambda epoch: None)
    return backward.totals.effects.numpy()[:, 0]


@pytest.mark.parametrize(
    ("optimizer", "full"), [(fr.SGD(lr=0.3, momentum=0.5), True), (fr.AdamW(lr=0.05), False)]
)
@pytest.mark.quick(1)
def test_the_mean_over_late_states_is_the_mean_of_shorter_trainings(optimizer, full):
    """A run of six epochs passes through the final states of runs of four and five: effects are linear in the query."""
    recipes = [pt.recipe(optimizer=optimizer, epochs=e) for e in (6, 5, 4)]
    tapes = [fi.train(recipe, seed=3) for recipe in recipes]
    query = fi.own_loss([1])
    steps = tuple(tape.steps for tape in tapes)
    found = effects(tapes[0], query, steps, full)
    apart = [effects(tape, query, (tape.steps,), full) for tape in tapes]
    np.testing.assert_allclose(found, np.mean(apart, axis=0), rtol=1e-9)
    assert np.abs(found - apart[0]).max() > 1e-3 * np.abs(found).max()


def test_the_spread_starts_from_the_mean_gradient_of_the_late_states():
    """Through the epochs that hold averaged states, and beyond, it is that of a query whose gradient is their mean.

    What is added to the last epoch is the curved part of the query, from the states and gradients themselves.
    """
    tape = fi.train(pt.recipe(epochs=10), seed=0)
    averaged = fi.replay(tape, fi.own_loss([1]), late=0.3, horizon=10).data
    states = averaged.attrs["late_states"]
    assert len(states) == 8 and states[0] == tape.steps

    def gradient(step: int) -> torch.Tensor:
        model = tape.model(step)
        return fr.gradients([fi.own_loss([1])], model, tape, tape.layout.parameters(model))[1][0]

    order = sorted(states)
    gradients = torch.stack([gradient(step) for step in order])
    thetas = torch.stack([tape.state(step)[: tape.layout.size] for step in order])
    mean = gradients.mean(0)
    level = fi.Query(
        lambda m: torch.cat([p.reshape(-1) for p in m.parameters()]) @ mean, name="level", sign=1
    )
    linear = fi.replay(tape, level, late=0.0, horizon=10).data
    profile, alone = (np.array(d.attrs["spread_profile"][0]) for d in (averaged, linear))
    curved, _ = curved_part((thetas @ gradients.T).unsqueeze(0))
    assert curved[0] > 0
    alone[-1] += float(curved[0])
    np.testing.assert_allclose(profile[-4:], alone[-4:], rtol=1e-9)


def test_an_epoch_before_the_tail_is_that_of_the_final_query_until_it_adds_little():
    """SGD on one weight, rate 0.05: epochs before the tail still add, and nothing of the mean over the tail is in them.

    θ_T is linear in the noise of every epoch, with weights (1 − lr)^(T − t) that are known.
    """
    lr, n = 0.05, 20
    tape = fi.train(line(lr=lr, batch_size=2, epochs=20, n=n))
    level = fi.Query(lambda m: m.weight.sum(), name="level", sign=1)
    found = fi.replay(tape, level, method="full", late=0.1, horizon=20).data
    x = -lr * (1 - lr) ** np.arange(199, -1, -1.0).reshape(20, 10)
    y = tape.rows.fields["y"].numpy()
    exact = ((x**2).sum(1) / 2 - x.sum(1) ** 2 / n) * y.var(ddof=1)
    profile = np.array(found.attrs["spread_profile"][0])
    np.testing.assert_allclose(profile[-3:], exact[-3:], rtol=1e-9)
    assert profile[0] > 1.05 * exact[0]


@pytest.mark.parametrize("count", [3, 4, 5, 8])
def test_the_curved_part_is_what_the_mean_gradient_lacks(count):
    """2,000 draws of K states of a quadratic query: its mean is (1/2 − 1/K) tr((HΣ)²), within 4 standard errors."""
    rng = np.random.default_rng(0)
    half = rng.normal(size=(3, 3))
    curvature = half + half.T
    theta = rng.normal(size=(2000, count, 3)) + np.arange(count)[:, None] * (5.0 if count >= 5 else 0.0)
    products = torch.from_numpy(theta @ curvature @ theta.transpose(0, 2, 1))
    parts, _ = curved_part(products)
    exact = (0.5 - 1 / count) * np.trace(curvature @ curvature)
    if count == 8:  # few of 15 terms together are below zero
        assert abs(parts.mean() - exact) < 4 * parts.std() / 2000**0.5 + 0.02 * exact
    assert parts.mean() > 0.9 * exact


def test_two_states_need_nothing_added():
    assert curved_part(torch.ones(3, 2, 2, dtype=torch.float64))[0].tolist() == [0.0, 0.0, 0.0]


def test_the_spread_of_a_linear_query_is_that_of_the_final_state():
    tape = fi.train(line(lr=0.1, batch_size=2, epochs=10, n=20))
    level = fi.Query(lambda m: m.weight.sum(), name="level", sign=1)
    late, final = (fi.replay(tape, level, late=share, horizon=1).data.spread.values for share in (0.5, 0.0))
    np.testing.assert_allclose(late, final, rtol=1e-9)


@pytest.mark.slow
def test_queries_of_one_pass_after_the_other_give_the_same():
    tape = fi.train(pt.recipe(epochs=10), seed=0)
    queries = [fi.own_loss([0, 1, 2]), fi.own_loss([4])]
    together = fi.replay(tape, queries, late=0.3)
    least = pt.least_memory(tape, queries, late=0.3)
    apart = fi.replay(tape, queries, late=0.3, memory_bytes=least)
    np.testing.assert_allclose(together.data.effect.values, apart.data.effect.values, rtol=1e-9)
    alone = fi.replay(tape, fi.own_loss([2]), late=0.3)
    np.testing.assert_allclose(together.data.effect.values[:, 2:3], alone.data.effect.values, rtol=1e-9)


def line(lr: float, batch_size: int, epochs: int, n: int) -> fr.Recipe:
    """SGD on one weight and noisy targets."""
    y = np.random.default_rng(0).normal(size=n) + 0.5
    model = nn.Linear(1, 1, bias=False, dtype=DOUBLE)
    return fr.Recipe(
        data=fr.Rows(x=torch.ones(n, 1, dtype=DOUBLE), y=torch.from_numpy(y)), model=model, loss=pt.square_loss, optimizer=fr.SGD(lr=lr),
        batch_size=batch_size, epochs=epochs,
    )  # fmt: skip


def replays(
    recipe: fr.Recipe, query: fi.Query | list[fi.Query], runs: int, **options: object
) -> list[xr.Dataset]:
    """Replay many runs; they share the graphs that the first one traced."""
    tapes = [fi.train(recipe, seed=seed) for seed in range(runs)]
    for tape in tapes:
        tape.cache = tapes[0].cache
    return [fi.replay(tape, query, **options).data for tape in tapes]


@pytest.mark.slow
def test_the_chance_of_one_final_state_averages_out():
    """The query is θ²/2, whose gradient θ_T hops from run to run. 24 runs: half of the variance or less.

    Both means agree within 4 standard errors (rate 6e-5 a row).
    """
    query = fi.Query(lambda m: (m.weight**2).sum() / 2, name="square", sign=1)
    recipe = line(lr=0.5, batch_size=2, epochs=10, n=20)
    one, many = (
        np.stack([d.effect.values[:, 0] for d in replays(recipe, query, 24, method="full", late=late)])
        for late in (0.0, 0.1)
    )
    assert (many.var(0, ddof=1) < one.var(0, ddof=1) / 2).all()
    error = np.sqrt((one - many).var(0, ddof=1) / 24)
    assert (np.abs(one.mean(0) - many.mean(0)) < 4 * error).all()


@pytest.mark.slow
def test_the_spread_counts_the_curved_part_of_a_query_once():
    """θ²/2 with θ normal about 0 and variance σ² varies by σ⁴/2; the gradient of one state alone says σ⁴.

    40 weights with targets of their own, six replays; σ² is from 2,000 trainings. The mean of spread² has a relative
    standard error of about √(2/240) = .09, so that a correct one is off by .35 at a rate of 1e-4; the final state alone
    is off by 1.
    """
    weights, n, lr = 40, 20, 0.5
    rng = np.random.default_rng(1)
    y = rng.normal(size=(n, weights))
    y -= y.mean(0)
    recipe = dataclasses.replace(
        line(lr, 2, 10, n), model=nn.Linear(1, weights, bias=False, dtype=DOUBLE),
        data=fr.Rows(x=torch.ones(n, 1, dtype=DOUBLE), y=torch.from_numpy(y)),
        loss=lambda m, b: 0.5 * ((m(b["x"]) - b["y"]) ** 2).sum(1),
    )  # fmt: skip
    theta = np.zeros((2000, weights))
    for _ in range(10):
        order = rng.permuted(np.tile(np.arange(n), (2000, 1)), axis=1).reshape(2000, 10, 2)
        for t in range(10):
            theta -= lr * (theta - y[order[:, t]].mean(1))
    truth = (theta**2 / 2).var(0)
    queries = [
        fi.Query(lambda m, j=j: m.weight[j, 0] ** 2 / 2, name=f"square {j}", sign=1) for j in range(weights)
    ]
    once, twice = (
        np.mean([d.spread.values[0] ** 2 / truth for d in replays(recipe, queries, 6, horizon=2, late=late)])
        for late in (0.5, 0.0)
    )
    assert once == pytest.approx(1, rel=0.35)
    assert twice > 1.5


@pytest.mark.slow
def test_the_error_of_effects_allows_for_partly_averaged_epochs():
    """60 runs of a linear problem, online: mean estimated variance within a factor of 1.6 of the variance between runs.

    The ratio's own standard error is about 0.15, so that a correct estimate fails at a rate below 1e-3.
    """
    level = fi.Query(lambda m: m.weight.sum(), name="level", sign=1)
    found = replays(line(lr=0.02, batch_size=4, epochs=20, n=24), level, 60, late=0.2)
    effect = np.stack([d.effect.values[:, 0] for d in found])
    error = np.stack([d.effect_se.values[:, 0] for d in found])
    ratio = (error**2).mean() / effect.var(0, ddof=1).mean()
    assert 1 / 1.6 < ratio < 1.6


def test_averaged_states_lie_within_the_steps_covered():
    assert tail_steps(400, 400, 0.1) == (400, 395, 390, 385, 380, 375, 370, 365)
    assert tail_steps(20, 20, 0.1) == (20, 19)
    assert tail_steps(9, 9, 0.1) == (9,)
    assert min(tail_steps(400, 40, 0.5)) > 400 - 20


@pytest.mark.parametrize("late", [-0.1, 0.6, 10, float("nan")])
def test_a_share_that_leaves_no_training_is_refused(late):
    tape = fi.train(pt.recipe(epochs=1))
    with pytest.raises(ConfigError) as caught:
        fi.replay(tape, fi.own_loss([0]), late=late)
    for words in ("late from 0 to 0.5", repr(late), "per cent", "0 for the final state alone"):
        assert words in str(caught.value)
