"""Products of curvatures against matrices written out by autograd."""

import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian, jacobian

from curvature.small_models import (
    ROWS,
    OverTime,
    class_loss,
    convolution,
    flat_losses,
    flat_outputs,
    mlp,
    objective,
)
from finfluence.curvature import LossCurvature, Matrix, largest_eigenvalue, mean_eigenvalue, written_out
from finfluence.errors import NotSupportedError


@pytest.mark.parametrize("factory", [mlp, convolution, OverTime])
def test_products_are_those_of_the_matrix(factory):
    found = objective(factory)
    theta = found.theta
    whole = hessian(lambda p: flat_losses(found)(p).mean(), theta)
    torch.testing.assert_close(written_out(LossCurvature(found, "hessian")), whole)
    rows = jacobian(flat_losses(found), theta)
    torch.testing.assert_close(written_out(LossCurvature(found, "empirical-fisher")), rows.T @ rows / ROWS)
    of_outputs = jacobian(flat_outputs(found), theta)
    p = flat_outputs(found)(theta).softmax(1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    expected = torch.einsum("bcp,bcd,bdq->pq", of_outputs, inner, of_outputs) / ROWS
    torch.testing.assert_close(written_out(LossCurvature(found)), expected)


def test_gradients_and_row_derivatives():
    found = objective(mlp)
    rows = jacobian(flat_losses(found), found.theta)
    torch.testing.assert_close(found.gradient(), rows.mean(0))
    torch.testing.assert_close(torch.cat(list(found.row_gradients())), rows)
    directions = torch.randn(2, found.size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.row_derivatives(directions), directions @ rows.T)


def test_row_gradients_of_a_loss_that_branches_are_the_same():
    def branching(model, batch):
        losses = class_loss(model, batch)
        return losses if losses.max() < 1e9 else losses * 0.0

    torch.testing.assert_close(
        torch.cat(list(objective(mlp, branching).row_gradients())),
        torch.cat(list(objective(mlp).row_gradients())),
    )


def test_gauss_newton_is_refused_where_the_loss_is_not_one_of_outputs():
    def penalised(model, batch):
        return class_loss(model, batch) + 0.1 * sum((p**2).sum() for p in model.parameters())

    with pytest.raises(NotSupportedError, match=r"(?s)penalty on the weights.*curvature='hessian'"):
        LossCurvature(objective(mlp, penalised))

    def twice(model, batch):
        return class_loss(model, batch) + (model(2 * batch["x"]) ** 2).sum(1)

    with pytest.raises(NotSupportedError, match=r"(?s)calls the model 2 times.*curvature='hessian'"):
        LossCurvature(objective(mlp, twice))


def test_a_loss_that_stops_gradients_is_refused():
    def stopped(model, batch):
        out = model(batch["x"])
        return ((out - out.detach() * 0.5) ** 2).sum(1)

    with pytest.raises(NotSupportedError, match=r"(?s)stops or changes gradients.*method='replay'"):
        objective(mlp, stopped).check()
    objective(mlp).check()


def test_eigenvalues_of_a_matrix():
    matrix = torch.diag(torch.arange(1.0, 41.0, dtype=torch.float64))
    assert mean_eigenvalue(Matrix(matrix), 40, seed=0) == pytest.approx(20.5)
    assert mean_eigenvalue(Matrix(matrix), 8, seed=0) == pytest.approx(
        20.5
    )  # a diagonal is met exactly by signs
    coupled = matrix + 0.3 * torch.ones(40, 40, dtype=torch.float64)
    few = [mean_eigenvalue(Matrix(coupled), 8, seed) for seed in (0, 0, 1)]
    assert few[0] == few[1] != few[2] and few[2] == pytest.approx(20.8, rel=0.3)
    assert largest_eigenvalue(Matrix(matrix), seed=0, tolerance=1e-6, iterations=400) == pytest.approx(
        40, rel=1e-3
    )


def test_the_model_is_left_as_it_was():
    found = objective(mlp)
    before = [p.clone() for p in found.model.parameters()]
    LossCurvature(found).products(torch.ones(1, found.size, dtype=torch.float64))
    assert all(torch.equal(a, b) for a, b in zip(before, found.model.parameters(), strict=True))
    assert not any(m._forward_hooks for m in found.model.modules()) and isinstance(found.model, nn.Module)
