"""`replay` against closed forms and a slow reference that differentiates the unrolled training."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.estimators.replay import EpochSums

LEVEL = fi.Query(lambda m: m.weight.sum(), name="level", unit="value", sign=1)
Y = np.array([0.0, 1.0, -2.0, 3.0, 0.5, 4.0, -1.0, 2.5, 0.0, 1.5])


def mean_estimation(y: np.ndarray = Y, lr: float = 0.1, **changes: object) -> fr.Recipe:
    """θ ← θ − η(θ − mean_B y): everything is linear in the batches, so effect and spread have exact forms."""
    model = nn.Linear(1, 1, bias=False, dtype=pt.DOUBLE)
    nn.init.zeros_(model.weight)
    rows = fr.Rows(x=torch.ones(len(y), 1, dtype=pt.DOUBLE), y=torch.from_numpy(y))
    options = {"batch_size": 4, "epochs": 5, "optimizer": fr.SGD(lr=lr), **changes}
    return fr.Recipe(data=rows, model=model, loss=pt.square_loss, **options)


def step_weights(recipe: fr.Recipe) -> np.ndarray:
    """∂θ_T/∂(mean_{B_t} y) = η_t Π_{s>t}(1 − η_s)."""
    eta = np.array([recipe.optimizer.lr * recipe.rate(t) for t in range(recipe.steps)])
    later = np.append(np.cumprod((1 - eta)[::-1])[::-1][1:], 1.0)
    return eta * later


def exact_spread(recipe: fr.Recipe, y: np.ndarray = Y) -> float:
    w = step_weights(recipe).reshape(recipe.epochs, -1)
    n, s2 = len(y), y.var(ddof=1)
    sizes = np.array([len(b) for b in recipe.epoch_order(0, 0)])
    if recipe.sampling == "independent":
        return float(np.sqrt((w**2 / sizes).sum() * y.var()))
    return float(np.sqrt(s2 * ((w**2 / sizes).sum() - (w.sum(1) ** 2).sum() / n)))


CASES = [
    {}, {"drop_last": False}, {"schedule": "cosine"}, {"sampling": "independent"}, {"batch_size": 5, "epochs": 2},
    {"sampling": "independent", "drop_last": False, "schedule": "linear"}, {"batch_size": 1}, {"batch_size": 3, "drop_last": False},
]  # fmt: skip


@pytest.mark.parametrize("changes", CASES)
@pytest.mark.quick(4)
def test_full_is_exact_where_everything_is_linear(changes):
    recipe = mean_estimation(**changes)
    influence = fi.replay(fi.train(recipe), LEVEL, method="full", horizon=recipe.epochs, late=0)
    n = len(Y)
    leave_out = (Y.sum() - Y) / (n - 1) - Y.mean()
    effect = step_weights(recipe).sum() * leave_out
    np.testing.assert_allclose(influence.data.effect.values[:, 0], effect, rtol=1e-9)
    np.testing.assert_allclose(influence.data.spread.values, exact_spread(recipe), rtol=1e-9)
    np.testing.assert_allclose(influence.data.mu.values[:, 0], effect / exact_spread(recipe), rtol=1e-9)


@pytest.mark.parametrize("changes", CASES[:4])
def test_groups_are_exact_where_everything_is_linear(changes):
    recipe = mean_estimation(**changes)
    groups = {"a": [0], "b": [1, 3, 5], "most": list(range(9))}
    influence = fi.replay(
        fi.train(recipe), LEVEL, method="full", subsets=groups, horizon=recipe.epochs, groups="linear", late=0
    )
    shifts = [np.delete(Y, rows).mean() - Y.mean() for rows in groups.values()]
    np.testing.assert_allclose(
        influence.data.effect.values[:, 0], step_weights(recipe).sum() * np.array(shifts), rtol=1e-9
    )
    assert influence.data["size"].values.tolist() == [1, 3, 9] and influence.subsets.tolist() == list(groups)


@pytest.mark.parametrize("method", ["full", "online"])
def test_groups_are_sums_at_fixed_step_count(method):
    """effect(S) = (n−1)/(n−s) Σ_{i∈S} effect_i."""
    tape = fi.train(pt.recipe())
    alone = fi.replay(tape, fi.own_loss([0]), method=method).data.effect.values[:, 0]
    found = fi.replay(tape, fi.own_loss([0]), method=method, subsets={"g": [2, 5, 7]}, groups="linear")
    group = found.data.effect.item()
    assert group == pytest.approx(11 / 9 * alone[[2, 5, 7]].sum(), rel=1e-12)


@pytest.mark.parametrize("changes", [{"drop_last": False}, {"sampling": "independent", "batch_size": 3}])
def test_exact_forms_hold_in_simulated_training(changes):
    """20,000 trainings of the linear recursion: spread within 5 %, effect within 4 standard errors (rate 6e-5)."""
    recipe, rng, runs = mean_estimation(**changes), np.random.default_rng(0), 20_000
    sizes = [len(b) for b in recipe.epoch_order(0, 0)]

    def simulate(y: np.ndarray) -> np.ndarray:
        theta = np.zeros(runs)
        for _ in range(recipe.epochs):
            if recipe.sampling == "independent":
                drawn = rng.integers(len(y), size=(runs, sum(sizes)))
            else:
                drawn = np.argsort(rng.random((runs, 2 * len(y))) + np.repeat([0, 1], len(y)), axis=1) % len(
                    y
                )
            for batch in np.split(drawn[:, : sum(sizes)], np.cumsum(sizes)[:-1], axis=1):
                theta -= 0.1 * (theta - y[batch].mean(1))
        return theta

    influence = fi.replay(fi.train(recipe), LEVEL, method="full", horizon=recipe.epochs).data
    with_row, without = simulate(Y), simulate(np.delete(Y, 5))
    assert with_row.std(ddof=1) / influence.spread.values[0, 0] == pytest.approx(1, abs=0.05)
    error = np.sqrt((with_row.var() + without.var()) / runs)
    assert abs(without.mean() - with_row.mean() - influence.effect.values[5, 0]) < 4 * error


def test_four_rows_by_hand():
    """D = {0,0,0,4}, full batch, lr 0.1, 50 steps: θ_T = 0.9948462; without the 4 and with the mean renormalised, 0."""
    recipe = mean_estimation(np.array([0.0, 0, 0, 4]), batch_size=4, epochs=50)
    tape = fi.train(recipe)
    influence = fi.replay(tape, LEVEL, method="full", late=0)
    assert round(float(tape.state()[0]), 7) == 0.9948462
    assert influence.data.effect.values[3, 0] == pytest.approx(-float(tape.state()[0]), rel=1e-10)
    assert influence.data.attrs["horizon"] == [50]
    assert influence.data.spread.values[3, 0] == pytest.approx(0, abs=1e-12)
    assert influence.data.attrs["query_values"] == [[pytest.approx(0.9948462247926799, rel=1e-12)]]


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_online_averages_to_full_over_all_orders_of_an_epoch(batch_size):
    """Five rows, every permutation, fixed slopes per step: equal to rounding. A batch of one is compared with others."""
    rng = np.random.default_rng(0)
    steps = -(-5 // batch_size)
    x = torch.from_numpy(rng.normal(size=(steps, 2, 5)))
    total, orders = torch.zeros(5, 2, dtype=pt.DOUBLE), list(itertools.permutations(range(5)))
    for order in orders:
        sums = EpochSums.zeros(5, 0, 2, torch.device("cpu"))
        for t, rows in enumerate(torch.tensor(order).split(batch_size)):
            others = [i for i in range(5) if i not in rows.tolist()] if len(rows) == 1 else []
            sums.add_batch(rows, x[t][:, [*rows.tolist(), *others]])
        sums.close(5, reshuffled=True)
        total += sums.effects
    full = sum((slopes.mean(1, keepdim=True) - slopes) / 4 for slopes in x).T
    torch.testing.assert_close(total / len(orders), full, rtol=1e-12, atol=1e-14)


def replayed(recipe: fr.Recipe, runs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return effects [runs, n] and variances [runs] of online replays of several order seeds."""
    tapes = [fi.train(recipe, seed=s) for s in range(runs)]
    for tape in tapes:
        tape.cache = tapes[0].cache  # one graph for all: losses are pure in θ
    found = [fi.replay(tape, LEVEL, horizon=recipe.epochs).data for tape in tapes]
    return np.stack([f.effect.values[:, 0] for f in found]), np.array(
        [f.spread.values[0, 0] ** 2 for f in found]
    )


@pytest.mark.slow
@pytest.mark.parametrize("changes", [
    {}, {"drop_last": False, "batch_size": 3}, {"batch_size": 1}, {"sampling": "independent"}
])  # fmt: skip
def test_online_is_unbiased(changes):
    """Mean over 60 orders within 4.5 standard errors of the exact effect, for ten rows (false failure 7e-5)."""
    recipe = mean_estimation(epochs=2, **changes)
    found, _ = replayed(recipe, 60)
    exact = step_weights(recipe).sum() * ((Y.sum() - Y) / 9 - Y.mean())
    error = found.std(0, ddof=1) / np.sqrt(len(found))
    assert (np.abs(found.mean(0) - exact) < 4.5 * error).all()
    assert found.std(0).min() > 0


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [4, 1])
def test_spread_of_independent_batches_needs_no_probes(batch_size):
    """Mean of 60 estimated variances within 4.5 standard errors of the exact one; each as good as its rows allow."""
    y = np.random.default_rng(4).normal(size=80)
    recipe = mean_estimation(y, batch_size=batch_size, epochs=1, sampling="independent")
    _, found = replayed(recipe, 60)
    ratios = found / exact_spread(recipe, y) ** 2
    assert abs(ratios.mean() - 1) < 4.5 * ratios.std(ddof=1) / 60**0.5
    assert 0 < ratios.std() < (2 / (80 * (1 - 1 / max(2, batch_size)))) ** 0.5 * 1.4


@pytest.mark.slow
def test_spread_from_probe_rows_is_nearly_unbiased():
    """Mean of 60 estimated variances from 64 of 200 rows within 1 % of the exact one, each within 5 %."""
    y = np.random.default_rng(4).standard_t(5, size=200)
    recipe = mean_estimation(y, batch_size=20, epochs=3)
    tape = fi.train(recipe)
    found = np.array([
        fi.replay(tape, LEVEL, horizon=3, seed=s, probe_budget=4.0).data.spread.values[0, 0] ** 2 for s in range(60)
    ])  # fmt: skip
    assert len(set(found.tolist())) == 60
    ratios = found / exact_spread(recipe, y) ** 2
    assert abs(ratios.mean() - 1) < 0.01 and np.abs(ratios - 1).max() < 0.05


def test_linear_regression_at_convergence():
    """Ridge by gradient descent: effect_i = cᵀH⁻¹(g_i − ḡ)/(n−1), and near the refit without row i."""
    rng = np.random.default_rng(0)
    n, p, ridge = 40, 3, 0.1
    x = rng.normal(size=(n, p))
    y = x @ [1.0, -2.0, 0.5] + rng.normal(size=n)
    model = nn.Linear(p, 1, bias=False, dtype=pt.DOUBLE)
    recipe = fr.Recipe(
        data=fr.Rows(x=torch.from_numpy(x), y=torch.from_numpy(y)), model=model, loss=pt.square_loss,
        optimizer=fr.SGD(lr=0.3, weight_decay=ridge), batch_size=n, epochs=150,
    )  # fmt: skip
    c = np.array([1.0, 0.5, -1.0])
    query = fi.Query(lambda m: (m.weight[0] * torch.from_numpy(c)).sum(), name="contrast", sign=1)
    influence = fi.replay(fi.train(recipe), query, method="full", horizon=150)
    hessian = x.T @ x / n + ridge * np.eye(p)
    theta = np.linalg.solve(hessian, x.T @ y / n)
    rows = x * (x @ theta - y)[:, None]
    expected = (rows - rows.mean(0)) @ np.linalg.solve(hessian, c) / (n - 1)
    found = influence.data.effect.values[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)
    refits = []
    for i in range(n):
        xi, yi = np.delete(x, i, 0), np.delete(y, i)
        refits.append(
            c @ (np.linalg.solve(xi.T @ xi / (n - 1) + ridge * np.eye(p), xi.T @ yi / (n - 1)) - theta)
        )
    assert np.corrcoef(found, refits)[0, 1] > 0.99
    assert np.abs(found - refits).max() < 0.3 * np.abs(refits).max()


def unrolled(recipe: fr.Recipe, query, seed: int) -> tuple[np.ndarray, list[Tensor]]:
    """Slopes x [T, n] of one query: u_t as the gradient of q in a shift added to g_t, rows by a loop."""
    layout = fr.Stepper(recipe, fr.initial_model(recipe, 0), 0).layout
    model = fr.initial_model(recipe, 0)
    order, rows = recipe.order(seed), recipe.rows
    shifts = torch.zeros(recipe.steps, layout.size, dtype=pt.DOUBLE, requires_grad=True)
    theta = layout.theta(model).requires_grad_(True)
    slots = tuple(torch.zeros_like(theta) for _ in recipe.optimizer.slots)
    points = []

    def each(point: Tensor, positions: Tensor) -> Tensor:
        return torch.func.functional_call(
            _Loss(model, recipe.loss), layout.split(point), (rows.batch(positions),)
        )

    layout = _prefixed(layout)
    for t, batch in enumerate(order):
        points.append(theta)
        grad = torch.autograd.grad(each(theta, batch).mean(), theta, create_graph=True)[0] + shifts[t]
        hyper = torch.tensor(recipe.optimizer.hyper(t, recipe.rate(t)), dtype=pt.DOUBLE).unbind()
        theta, slots = recipe.optimizer.update(theta, slots, grad, hyper)
    value = query(lambda positions: each(theta, positions))
    u = torch.autograd.grad(value, shifts)[0]
    x = np.empty((recipe.steps, len(rows)))
    for t, point in enumerate(points):
        at = point.detach().requires_grad_(True)
        for i in range(len(rows)):
            x[t, i] = float(u[t] @ torch.autograd.grad(each(at, torch.tensor([i]))[0], at)[0])
    return x, order


class _Loss(nn.Module):
    def __init__(self, model, loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch):
        return self.loss(self.model, batch)


def _prefixed(layout):
    split = layout.split
    layout.split = lambda flat: {f"model.{k}": v for k, v in split(flat).items()}
    return layout


@pytest.mark.parametrize("changes", [
    {"optimizer": fr.AdamW(lr=0.02, eps=1e-3), "drop_last": False, "data": pt.table(10), "schedule": "cosine"},
    {"optimizer": fr.SGD(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)},
    {"optimizer": fr.SGD(lr=0.1), "sampling": "independent"},
])  # fmt: skip
def test_full_and_online_equal_the_unrolled_training(changes):
    recipe = pt.recipe(epochs=2, **changes)
    tape = fi.train(recipe, seed=3)
    n, epochs = len(recipe.rows), recipe.epochs
    queries = [fi.own_loss([1]), fi.own_loss([4])]
    slopes = []
    for row in (1, 4):
        x, order = unrolled(recipe, lambda losses, row=row: losses(torch.tensor([row]))[0], 3)
        slopes.append(x)
    full = fi.replay(tape, queries, method="full", horizon=epochs, first_steps="tangent").data
    online = fi.replay(tape, queries, horizon=epochs, probe_budget=1e3, first_steps="tangent").data
    for k, x in enumerate(slopes):
        effect = -((x - x.mean(1, keepdims=True)) / (n - 1)).sum(0)
        np.testing.assert_allclose(full.effect.values[:, k], effect, rtol=1e-8, atol=1e-12)
        sampled = np.zeros(n)
        for t, batch in enumerate(order):
            own = x[t][batch.numpy()]
            np.add.at(sampled, batch.numpy(), -(own - own.mean()) / (len(own) - 1))
        np.testing.assert_allclose(online.effect.values[:, k], sampled, rtol=1e-8, atol=1e-12)
        sizes = np.array([len(b) for b in order])
        variance = (x.var(1, ddof=1) / sizes).sum()
        if recipe.sampling == "reshuffle":
            per_epoch = x.reshape(epochs, -1, n).sum(1)
            variance -= per_epoch.var(1, ddof=1).sum() / n
            np.testing.assert_allclose(online.spread.values[0, k], np.sqrt(variance), rtol=1e-8)
        else:
            variance *= (n - 1) / n
            own = sum(x[t][b.numpy()].var(ddof=1) / len(b) for t, b in enumerate(order))
            np.testing.assert_allclose(online.spread.values[0, k], np.sqrt(own), rtol=1e-8)
        np.testing.assert_allclose(full.spread.values[0, k], np.sqrt(variance), rtol=1e-8)


def test_the_result_carries_what_a_reader_needs():
    tape = fi.train(pt.recipe(model=lambda seed: pt.mlp().to(pt.DOUBLE)), seed=4)
    margin = fi.Query(
        lambda m: m(torch.ones(1, 4, dtype=pt.DOUBLE))[0, 0], name="margin", unit="logit", sign=1
    )
    influence = fi.replay(tape, [fi.own_loss([3]), margin])
    data = influence.data
    assert data.sizes == {"subset": 12, "query": 2}
    assert data["unit"].values.tolist() == ["nats", "logit"] and data["sign"].values.tolist() == [-1, 1]
    assert data.attrs["method"] == "online" and data.attrs["runs"] == 1 and data.attrs["n_rows"] == 12
    assert data.attrs["seeds"] == [{"init": 4, "order": 4}] and data.attrs["covers"] == ["batch order"]
    assert (
        data.attrs["uncovered"] == ["initialisation"]
        and data.attrs["recipe"]["data"] == tape.recipe.rows.digest()
    )
    losses = tape.recipe.loss(tape.model().eval(), tape.recipe.rows.batch(torch.arange(12))).detach()
    np.testing.assert_allclose(data.own_loss.values, losses, rtol=1e-12)
    np.testing.assert_allclose(data.attrs["query_values"][0][0], losses[3], rtol=1e-12)
    text = repr(influence)
    for words in (
        "12 rows on 2 queries", "spread over batch order, from 1 training run (method: online)",
        "removing the rows raises 'own loss[3]' [nats], so the rows help",
        "removing the rows raises 'margin' [logit], so the rows harm", "pool several runs",
    ):  # fmt: skip
        assert words in text
