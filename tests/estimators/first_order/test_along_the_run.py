"""TracIn, LESS and in-run data Shapley, against their formulas on plain gradients."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import finfluence as fi
import plain_training as pt
from finfluence.estimators.first_order import step_values
from finfluence.grads import Projection
from finfluence.runs import AdamW


def gradients_at(tape: fi.Tape, step: int) -> np.ndarray:
    model = tape.model(step).eval()
    found = []
    for i in range(len(tape.rows)):
        loss = tape.loss(model, tape.batch(torch.tensor([i])))[0]
        found.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))]))
    return torch.stack(found).numpy()


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)


def test_tracin_is_the_sum_over_states_weighed_by_the_learning_rate():
    tape = fi.train(pt.recipe(schedule="cosine"))
    found = fi.estimate(tape, fi.own_loss([0, 3]), "tracin", checkpoints=3)
    assert found.provenance.details["checkpoints"] == [3, 6, 9]
    expected = np.zeros((12, 2))
    for step in (3, 6, 9):
        g = gradients_at(tape, step)
        expected -= 0.1 * tape.recipe.rate(step - 1) * g @ g[[0, 3]].T
    np.testing.assert_allclose(found.data.score.values, expected, rtol=1e-9, atol=1e-13)
    dot = fi.estimate(tape, fi.own_loss([0, 3]), "grad-dot").data.score.values
    last = fi.estimate(tape, fi.own_loss([0, 3]), "tracin", checkpoints=1).data.score.values
    np.testing.assert_allclose(last, tape.rates[-1] * dot, rtol=1e-9, atol=1e-13)


def test_less_is_the_cosine_of_adams_direction():
    tape = fi.train(pt.recipe(optimizer=AdamW(lr=0.01, betas=(0.8, 0.99))))
    found = fi.estimate(tape, fi.own_loss([0, 3]), "less", checkpoints=2)
    expected = np.zeros((12, 2))
    for step in (5, 9):
        g = gradients_at(tape, step)
        m, v = tape.state(step).reshape(3, -1)[1:].numpy()
        direction = (0.8 * m + 0.2 * g) / np.sqrt(0.99 * v + 0.01 * g**2 + 1e-8)
        expected -= 0.5 * cosines(direction, g[[0, 3]])
    np.testing.assert_allclose(found.data.score.values, expected, rtol=1e-9, atol=1e-12)
    assert not any("second moments" in text for text in found.provenance.findings)


def test_less_projects_both_sides_and_says_where_nothing_is_scaled():
    tape = fi.train(pt.recipe())
    found = fi.estimate(tape, fi.own_loss([0]), "less", checkpoints=1, dimensions=7, seed=2)
    g = Projection(43, 7, 2)(torch.from_numpy(gradients_at(tape, 9))).numpy()
    np.testing.assert_allclose(found.data.score.values, -cosines(g, g[:1]), rtol=1e-9, atol=1e-12)
    assert any("keeps no second moments" in text for text in found.provenance.findings)


class Plane(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, -1.0], dtype=torch.float64))


GRADIENTS = torch.tensor([[0.3, 0.1], [-0.2, 0.4], [0.5, -0.6]], dtype=torch.float64)
HESSIAN = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)


def one_step(optimizer: fi.SGD | None = None, epochs: int = 1) -> tuple[fi.Tape, fi.Query]:
    """Rows with constant gradients, all in one step of rate 0.1 for each; the query is quadratic."""

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return batch["x"] @ model.w  # type: ignore[operator]

    recipe = fi.Recipe(
        data=fi.Rows(x=GRADIENTS), model=Plane(), loss=loss, optimizer=optimizer or fi.SGD(lr=0.3), batch_size=3,
        epochs=epochs,
    )  # fmt: skip
    return fi.train(recipe), fi.Query(lambda m: 0.5 * m.w @ HESSIAN @ m.w, name="utility")


def test_shapley_values_of_a_quadratic_utility():
    tape, query = one_step()
    first = fi.estimate(tape, query, "in-run-shapley").data.predicted_effect.values[:, 0]
    np.testing.assert_allclose(-first, [-0.04, 0.05, -0.105], atol=1e-12)
    found = fi.estimate(tape, query, "in-run-shapley", second_order=True).data
    np.testing.assert_allclose(-found.predicted_effect[:, 0], [-0.038175, 0.04925, -0.102725], atol=1e-12)
    np.testing.assert_allclose(found.score[:, 0], [-0.038175, 0.04925, -0.102725], atol=1e-12)  # a loss
    assert -found.predicted_effect.values.sum() == pytest.approx(-0.09165, abs=1e-12)


@pytest.mark.parametrize(
    "optimizer",
    [
        fi.SGD(lr=0.3, momentum=0.9),
        fi.SGD(lr=0.3, momentum=0.9, nesterov=True),
        fi.SGD(lr=0.3, weight_decay=0.1),
    ],
    ids=["momentum", "nesterov", "decay"],
)
def test_values_of_a_step_add_up_to_what_its_gradient_did(optimizer):
    """Efficiency: for a quadratic query the second-order values sum to q with the gradient minus q without it."""
    tape, query = one_step(optimizer, epochs=3)
    at_once = 0.3 * (1.9 if optimizer.nesterov else 1.0)
    for t, (rows, values) in enumerate(step_values(tape, [query], second_order=True)):
        after = tape.state(t + 1)[:2]
        without = after + at_once * GRADIENTS.mean(0)
        expected = 0.5 * (after @ HESSIAN @ after - without @ HESSIAN @ without)
        # the values are of a step from θ_t; momentum and decay move its start
        shift = (without - tape.state(t)[:2]) @ HESSIAN @ (after - without)
        assert sorted(rows) == [0, 1, 2]
        assert values.sum() == pytest.approx(float(expected - shift), abs=1e-12)


def test_first_order_values_are_products_along_the_recorded_steps():
    tape = fi.train(pt.recipe())
    query = fi.own_loss([0])
    expected = np.zeros(12)
    for t in range(tape.steps):
        g = gradients_at(tape, t)
        rows = tape.order[t].numpy()
        expected[rows] += -0.1 / len(rows) * g[rows] @ g[0]
    found = fi.estimate(tape, query, "in-run-shapley").data.predicted_effect.values[:, 0]
    np.testing.assert_allclose(-found, expected, rtol=1e-9, atol=1e-13)
    change = sum(v.sum() for _, v in step_values(tape, [query], second_order=True))
    with torch.no_grad():
        before, after = (tape.loss(tape.model(t), tape.batch(torch.tensor([0]))) for t in (0, tape.steps))
    true = (after - before).item()
    assert change == pytest.approx(true, rel=2e-3)  # it telescopes, up to third order


def test_states_that_are_not_kept_are_recomputed():
    recipe = pt.recipe(epochs=8)
    whole, thin = fi.train(recipe), fi.train(recipe, snapshot_bytes=43 * 8 * 4)
    assert whole.interval == 1 and thin.interval > 4
    a, b = (fi.estimate(t, fi.own_loss([0]), "in-run-shapley").data.score.values for t in (whole, thin))
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("second_order", [False, True])
def test_of_adam_values_are_parts_of_the_step_with_its_second_moments_held(second_order):
    tape = fi.train(pt.recipe(optimizer=AdamW(lr=0.01, betas=(0.8, 0.9), weight_decay=0.1), epochs=1))
    size, lr, found = tape.layout.size, 0.01, []
    for t in range(tape.steps):
        step, state, after = tape.at(t), tape.state(t), tape.state(t + 1)
        model = tape.model(t)
        rows = []
        for i in step.rows.tolist():
            loss = tape.loss(model, tape.batch(torch.tensor([i]))).sum()
            rows.append(tape.layout.flatten(torch.autograd.grad(loss, tape.layout.parameters(model))))
        root = (after[2 * size :] / (1 - 0.9 ** (t + 1))).sqrt() + 1e-8
        parts = -lr * 0.2 / (1 - 0.8 ** (t + 1)) * torch.stack(rows) / len(rows) / root
        if second_order:
            tape.layout.assign(model, state[:size] + 0.5 * parts.sum(0))
        query = tape.loss(model, tape.batch(torch.tensor([0]))).sum()
        slope = tape.layout.flatten(torch.autograd.grad(query, tape.layout.parameters(model)))
        found.append((parts @ slope).numpy())
    values = step_values(tape, [fi.own_loss([0])], second_order)
    for true, (_, given) in zip(found, values, strict=True):
        np.testing.assert_allclose(given[:, 0], true, rtol=1e-6, atol=1e-12)
    result = fi.estimate(tape, fi.own_loss([0]), "in-run-shapley", second_order=second_order)
    assert any("second moments held" in finding for finding in result.provenance.findings)
