"""Products of gradients at the end of a run, against the definition."""

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
import plain_training as pt


def gradient_of(value: torch.Tensor, model: nn.Module) -> np.ndarray:
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, list(model.parameters()))]).numpy()


def test_scores_are_products_of_plain_gradients():
    tape = fi.train(pt.recipe())
    model, rows = tape.model(), tape.recipe.rows
    queries = [fi.own_loss([0, 3]), fi.Query(lambda m: m[0].bias.sum(), name="bias", sign=1)]
    losses = [pt.class_loss(model, rows.batch(torch.tensor([i])))[0] for i in range(12)]
    gradients = np.stack([gradient_of(loss, model) for loss in losses])
    bias = np.concatenate([np.zeros(20), np.ones(5), np.zeros(18)])
    asked = np.stack([-gradients[0], -gradients[3], bias])
    dot = fi.estimate(tape, queries, "grad-dot").data.score.values
    np.testing.assert_allclose(dot, gradients @ asked.T, rtol=1e-10, atol=1e-13)
    cosine = fi.estimate(tape, queries, "grad-cosine").data.score.values
    lengths = np.linalg.norm(gradients, axis=1)[:, None] * np.linalg.norm(asked, axis=1)
    np.testing.assert_allclose(cosine, gradients @ asked.T / lengths, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(np.diag(cosine[[0, 3]]), -1.0, rtol=1e-10)
    norm = fi.estimate(tape, queries, "gradient-norm").data.score.values[:, 0]
    np.testing.assert_allclose(norm, np.linalg.norm(gradients, axis=1), rtol=1e-10)


def test_a_group_is_the_sum_of_its_rows():
    tape = fi.train(pt.recipe())
    for method in ("grad-dot", "gradient-norm", "own-loss"):
        alone = fi.estimate(tape, fi.own_loss([0]), method).data.score.values[:, 0]
        together = fi.estimate(tape, fi.own_loss([0]), method, {"g": [1, 4, 7]}).data.score.values[0, 0]
        assert together == pytest.approx(alone[[1, 4, 7]].sum(), rel=1e-12)


def test_a_harmful_row_has_the_largest_score():
    """Rows of 0 and one of 4: the query is the loss at 0, which the row of 4 raises."""
    y = np.zeros(8)
    y[5] = 4.0
    recipe = fi.Recipe(
        data=fi.Rows(x=np.ones((8, 1)), y=y), model=nn.Linear(1, 1, bias=False), loss=pt.square_loss,
        optimizer=fi.SGD(lr=0.1), batch_size=4, epochs=20,
    )  # fmt: skip
    query = fi.mean_loss(np.ones((1, 1)), np.zeros(1), name="at zero")
    tape = fi.train(recipe)
    for method in ("grad-dot", "grad-cosine"):
        assert fi.estimate(tape, query, method).top(1).row_id.tolist() == [5]
