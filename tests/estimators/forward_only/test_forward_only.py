"""Z0-Inf and mirrored influence: exact small cases, invariances, and agreement to first order."""

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
import plain_training as pt
from finfluence.errors import ConfigError
from finfluence.estimators.forward_only import adjacent, neighbourhood
from four_parts import assert_parts

THETA = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]])
A, B = np.array([[1.0], [0.6], [0.2]]), np.array([[2.0], [1.5], [1.6]])
GRAM = THETA @ THETA.T


def test_two_points_on_a_path_of_three_states():
    assert adjacent(GRAM, A, B)[0, 0] == pytest.approx(0.19)
    assert adjacent(GRAM, A, A)[0, 0] == pytest.approx(0.20)
    fitted = [
        np.mean(
            [
                (v[j, 0] - v[1, 0]) / ((THETA[j] - THETA[1]) ** 2).sum() * (THETA[j] - THETA[1])
                for j in (0, 2)
            ],
            0,
        )
        for v in (A, B)
    ]
    assert fitted[0] @ fitted[1] == pytest.approx(0.0475)
    ends = 0.4 * 0.5 + 0.4 * -0.1 / 4
    assert neighbourhood(GRAM, A, B)[0, 0] == pytest.approx(0.0475 + ends)


@pytest.mark.parametrize("form", [adjacent, neighbourhood])
def test_symmetric_bilinear_and_the_same_however_the_parameters_are_turned(form):
    rng = np.random.default_rng(0)
    theta, rows, asked = rng.normal(size=(6, 9)), rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
    turn, _ = np.linalg.qr(rng.normal(size=(9, 9)))
    gram = theta @ theta.T
    found = form(gram, rows, asked)
    np.testing.assert_allclose(form((theta @ turn) @ (theta @ turn).T, rows, asked), found, rtol=1e-9)
    np.testing.assert_allclose(form(gram, asked, rows), found.T, rtol=1e-9)
    np.testing.assert_allclose(form(gram, 2 * rows, asked - 3), 2 * found, rtol=1e-9, atol=1e-12)
    assert (np.diagonal(form(gram, rows, rows)) >= 0).all()


def test_states_that_do_not_move_count_for_nothing():
    theta = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1e-9], [1.0, 2.0]])
    a, b = (np.insert(v, 2, v[1] + 0.01, 0) for v in (A, B))
    assert adjacent(theta @ theta.T, a, b)[0, 0] == pytest.approx(0.4 * 0.5 + 0.41 * -0.09 / 4)


def test_it_is_tracin_along_the_path_where_losses_are_linear():
    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return model(batch["x"])[:, 0]

    rows = fi.Rows(x=torch.randn(12, 4, generator=torch.Generator().manual_seed(2)).double())
    tape = fi.train(pt.recipe(data=rows, model=pt.made(lambda: nn.Linear(4, 1, bias=False)), loss=loss))
    found = fi.estimate(tape, fi.own_loss([0]), "z0-inf", checkpoints=9).data.score.values[:, 0]
    x, expected = rows.fields["x"].numpy(), np.zeros(12)
    for t in range(9):
        way = (tape.state(t + 1) - tape.state(t)).numpy()
        expected -= (x @ way) * (x[0] @ way) / (way @ way)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_a_query_without_a_derivative():
    tape = fi.train(pt.recipe())
    x, y = tape.recipe.rows.fields["x"], tape.recipe.rows.fields["y"]
    accuracy = fi.Query(lambda m: (m(x).argmax(1) == y).double().mean(), name="accuracy", sign=1)
    found = fi.estimate(tape, accuracy, "z0-inf", checkpoints=4).data.score.values
    assert found.shape == (12, 1) and np.isfinite(found).all()


def test_a_query_that_is_not_finite_is_refused_in_words():
    tape = fi.train(pt.recipe())
    nothing = fi.Query(lambda m: m[0].bias.sum() * float("inf"), name="nothing")
    with pytest.raises(ConfigError) as caught:
        fi.estimate(tape, nothing, "z0-inf")
    assert_parts(caught.value, "query 'nothing' to be finite", "inf", "logarithm of zero", "bound the query")


def one_number(value: float) -> fi.Tape:
    """ℓ = ½(θ − x)² of rows at 4 and 2, stopped at θ = `value`."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, value)
    rows = fi.Rows(x=torch.ones(2, 1).double(), y=torch.tensor([4.0, 2.0]).double())
    recipe = fi.Recipe(
        data=rows, model=model, loss=pt.square_loss, optimizer=fi.SGD(lr=0.0), batch_size=2, epochs=1
    )
    return fi.train(recipe)


def test_a_step_up_the_query_by_hand():
    query = fi.Query(lambda m: 0.5 * m.weight.sum() ** 2, name="at zero")
    found = fi.estimate(one_number(1.0), query, "mirrored", length=0.01).data.score.values[:, 0]
    np.testing.assert_allclose(found, [0.02995, 0.00995], atol=1e-12)  # a loss: minus the change of −.02995


def test_both_directions_agree_to_first_order():
    tape = fi.train(pt.recipe())
    dot = fi.estimate(tape, fi.own_loss([0]), "grad-dot").data.score.values[:, 0]
    theta, gradient = tape.state()[:43].norm().item(), np.sqrt(-dot[0])
    errors = []
    for length in (1e-3, 1e-4):
        found = fi.estimate(tape, fi.own_loss([0]), "mirrored", length=length).data.score.values[:, 0]
        errors.append(np.abs(found / (length * theta / gradient) - dot).max())
    assert errors[1] < 0.15 * errors[0] and errors[1] < 1e-3 * np.abs(dot).max()


def test_a_row_stands_out_against_controls_where_it_answers_the_query():
    """Two clusters: rows of the query's cluster move with it, and controls are of both."""
    x = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 17).double()
    rows = fi.Rows(x=x, y=torch.tensor([1.0] * 3 + [0.5, -0.5] * 8 + [0.0]).double())
    tape = fi.train(
        pt.recipe(data=rows, model=pt.made(lambda: nn.Linear(2, 1, bias=False)), loss=pt.square_loss)
    )
    query = fi.mean_loss(x[:1], torch.tensor([1.0]).double(), name="first cluster")
    z = fi.estimate(tape, query, "mirrored", controls=20).data.against_controls.values[:, 0]
    assert z[:3].min() > 1.5 and np.abs(z[3:]).max() < 0.5
