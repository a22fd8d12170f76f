"""Z0-Inf and mirrored influence: exact small cases, invariances, and agreement to first order."""

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
import plain_training as pt
from finfluence.errors import ConfigError
from finfluence.estimators.forward_only import StatePath, adjacent, neighbourhood
from finfluence.evaluate import roc_auc
from four_parts import assert_parts

THETA = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]])
A, B = np.array([[1.0], [0.6], [0.2]]), np.array([[2.0], [1.5], [1.6]])
PATH = StatePath.through(THETA)


def test_two_points_on_a_path_of_three_states():
    assert adjacent(PATH, A, B)[0, 0] == pytest.approx(0.19)
    assert adjacent(PATH, A, A)[0, 0] == pytest.approx(0.20)
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
    assert neighbourhood(PATH, A, B)[0, 0] == pytest.approx(0.0475 + ends)


@pytest.mark.parametrize("form", [adjacent, neighbourhood])
def test_symmetric_bilinear_and_the_same_however_the_parameters_are_turned(form):
    rng = np.random.default_rng(0)
    theta, rows, asked = rng.normal(size=(6, 9)), rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
    turn, _ = np.linalg.qr(rng.normal(size=(9, 9)))
    path = StatePath.through(theta)
    found = form(path, rows, asked)
    np.testing.assert_allclose(form(StatePath.through(theta @ turn), rows, asked), found, rtol=1e-9)
    np.testing.assert_allclose(form(path, asked, rows), found.T, rtol=1e-9)
    np.testing.assert_allclose(form(path, 2 * rows, asked - 3), 2 * found, rtol=1e-9, atol=1e-12)
    assert (np.diagonal(form(path, rows, rows)) >= 0).all()


def test_states_that_do_not_move_count_for_nothing():
    theta = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1e-9], [1.0, 2.0]])
    a, b = (np.insert(v, 2, v[1] + 0.01, 0) for v in (A, B))
    path = StatePath.through(theta)
    assert adjacent(path, a, b)[0, 0] == pytest.approx(0.4 * 0.5 + 0.41 * -0.09 / 4)
    assert np.isfinite(neighbourhood(path, a, b)).all()


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


def test_what_one_row_pushes_by_itself_shows_in_single_steps_only():
    """ℓ_i = −x_i·θ, one row a step: seven rows push along the first axis by 1, one pushes along the second by 2.

    At every step by itself, a way is η x_i, and a row's own influence Σ_t (x_i·Δθ_t)²/‖Δθ_t‖² is what it pushed
    itself, 4 for the last row, and what rows like it did: 7 for each of the others. Over an epoch the way is
    (7, 2): (2·2)²/53 for the last row, 7²/53 for the others.
    """
    x = torch.tensor([[1.0, 0.0]] * 7 + [[0.0, 2.0]]).double()

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return -model(batch["x"])[:, 0]

    recipe = pt.recipe(
        data=fi.Rows(x=x), model=pt.made(lambda: nn.Linear(2, 1, bias=False)), loss=loss,
        optimizer=fi.SGD(lr=0.5), batch_size=1, epochs=3,
    )  # fmt: skip
    tape = fi.train(recipe)
    own = fi.own_loss(list(range(8)))
    every = np.diagonal(fi.estimate(tape, own, "z0-inf").data.score.values)
    np.testing.assert_allclose(every, [-7 * 3.0] * 7 + [-4 * 3.0], rtol=1e-9)
    epochs = fi.estimate(tape, own, "z0-inf", checkpoints=3)
    np.testing.assert_allclose(
        np.diagonal(epochs.data.score.values), [-49 / 53 * 3] * 7 + [-16 / 53 * 3], rtol=1e-9
    )
    assert "3 stretches for 24 steps: over a stretch" in " ".join(epochs.provenance.findings)


@pytest.mark.slow
def test_wrong_labels_carry_themselves(flipped_clouds):
    tape, wrong = flipped_clouds
    found = fi.estimate(tape, fi.own_loss(tape.rows.ids.tolist()), "z0-inf")
    assert roc_auc(-np.diagonal(found.data.score.values), wrong) > 0.9
    assert not any("by itself is lost" in finding for finding in found.provenance.findings)


@pytest.fixture(scope="module")
def flipped_clouds() -> tuple[fi.Tape, np.ndarray]:
    """Two clouds of points, four of 40 labels wrong and memorised."""
    rng = np.random.default_rng(0)
    y, wrong = np.arange(40) % 2, np.zeros(40, dtype=bool)
    wrong[rng.choice(40, 4, replace=False)] = True
    x = torch.from_numpy(rng.normal(size=(40, 10)) + 2.0 * (2 * y - 1)[:, None] * (np.arange(10) < 2))
    rows = fi.Rows(x=x, y=torch.from_numpy(np.where(wrong, 1 - y, y)))

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")

    network = pt.made(lambda: nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 2)))
    recipe = pt.recipe(data=rows, model=network, loss=loss, optimizer=fi.SGD(lr=0.3), batch_size=4, epochs=40)
    tape = fi.train(recipe)
    memorised = loss(tape.model(), {"x": x, "y": rows.fields["y"]})[torch.from_numpy(wrong)]
    assert memorised.max() < 0.7, memorised
    return tape, wrong


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


@pytest.mark.parametrize("method", ["z0-inf", "mirrored"])
def test_a_query_that_changes_the_model_is_refused(method):
    def doubles(model: nn.Module) -> torch.Tensor:
        with torch.no_grad():
            model.weight.mul_(2)
        return model.weight.sum()

    with pytest.raises(ConfigError, match="leaves the model as it is") as caught:
        fi.estimate(one_number(0.5), fi.Query(doubles, name="q"), method)
    assert "changes 'weight'" in str(caught.value)


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
