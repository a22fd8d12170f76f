"""Curvatures with constants among the parameters, with gradients that are rounding, and in half precision."""

import pytest
import torch
from torch import Tensor, nn

from curvature.small_models import ROWS, class_loss, objective
from finfluence.curvature import DataInf, Dense, Kronecker, LossCurvature, Objective, RowsAtHand, written_out
from finfluence.errors import NotSupportedError
from finfluence.grads import Layout
from finfluence.runs import seeded


class Padded(nn.Module):
    """Tokens, one of which is padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, 3, padding_idx=2), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embedding(x).tanh().mean(1))


def of_tokens() -> Objective:
    with seeded(4):
        model, tokens = Padded().double(), torch.randint(0, 5, (ROWS, 4))
    y = torch.arange(ROWS) % 3
    return Objective(
        model, class_loss, Layout(model), RowsAtHand(ROWS, lambda p: {"x": tokens[p], "y": y[p]})
    )


def test_padding_is_a_constant_of_the_objective():
    found = of_tokens()
    found.check()
    rows = torch.cat(list(found.row_gradients()))
    still = torch.zeros(found.size, dtype=torch.bool)
    still[6:9] = True
    assert not rows[:, still].any() and rows[:, ~still].any()
    alone = [found.gradient_of(found.rows.batch(torch.tensor([i]))) for i in range(ROWS)]
    torch.testing.assert_close(rows, torch.stack(alone))
    directions = torch.randn(2, found.size, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(found.row_derivatives(directions), directions @ rows.T)
    torch.testing.assert_close(written_out(LossCurvature(found, "empirical-fisher")), rows.T @ rows / ROWS)
    for kind in ("hessian", "gauss-newton"):
        whole = written_out(LossCurvature(found, kind))
        torch.testing.assert_close(whole, whole.T)
        assert not whole[still].any()
    gradients = Dense(LossCurvature(found), 0.1).solve(rows).vectors
    assert torch.isfinite(gradients).all()


def test_a_padding_that_another_layer_moves_is_no_constant():
    model = nn.Sequential(nn.Embedding(3, 2, padding_idx=0), nn.Linear(2, 3, bias=False)).double()
    model[1].weight = model[0].weight
    x = torch.tensor([0, 1, 2])
    rows = RowsAtHand(3, lambda p: {"x": x[p], "y": x[p]})
    with pytest.raises(NotSupportedError, match=r"(?s)stops or changes gradients.*depends on the other rows"):
        Objective(model, class_loss, Layout(model), rows).check()


def test_datainf_takes_rounding_for_no_gradient():
    g = torch.tensor([[1.0, 0.5], [0.0, -1.0], [2.0, 0.0]], dtype=torch.float64)
    noise = 1e-17 * torch.tensor([[3.0], [-1.0], [2.0]], dtype=torch.float64)
    both, alone = DataInf(lambda: [torch.cat([g, noise], 1)], [2, 1]), DataInf(lambda: [g], [2])
    v = torch.tensor([[1.0, -2.0, 4e-17]], dtype=torch.float64)
    torch.testing.assert_close(both.solve(v).vectors[:, :2], alone.solve(v[:, :2]).vectors)
    assert both.solve(v).vectors[0, 2] == 0
    small = DataInf(lambda: [torch.cat([g, 1e-6 * g[:, :1]], 1)], [2, 1])
    assert small.damping[1] > 0  # small, and no rounding


def test_kronecker_without_damping_takes_rounding_for_zero():
    few = objective(lambda: nn.Linear(4, 3), rows=3)  # inputs of 3 rows span no 5 dimensions
    for corrected in (True, False):
        with pytest.raises(NotSupportedError, match=r"(?s)damping above zero.*eigenvalues of zero"):
            Kronecker([few], "empirical-fisher", corrected).damped(0.0)
        assert Kronecker([few], "empirical-fisher", corrected).damped(1e-3).damping == 1e-3


def test_kronecker_of_a_model_in_half_precision():
    with seeded(1):
        model, x = nn.Linear(4, 3).bfloat16(), torch.randn(5, 4).bfloat16()
    y = torch.arange(5) % 3
    made = [
        Kronecker([Objective(m, class_loss, Layout(m), RowsAtHand(5, lambda p, t=t: {"x": x.to(t)[p], "y": y[p]}))])
        for m, t in ((model, torch.bfloat16), (nn.Linear(4, 3), torch.float32))
        if m.load_state_dict(model.state_dict()) is not None
    ]  # fmt: skip
    half, single = (one.mean_eigenvalue for one in made)
    assert half == pytest.approx(single, rel=0.02)


def test_losses_that_are_written_out_have_a_curvature_in_the_outputs():
    def margins(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return nn.functional.multi_margin_loss(model(batch["x"]), batch["y"], p=2, reduction="none")

    found = objective(lambda: nn.Linear(4, 3), margins)
    assert Kronecker([found]).mean_eigenvalue > 0
    whole = written_out(LossCurvature(found))
    torch.testing.assert_close(whole, written_out(LossCurvature(found, "hessian")))  # the model is linear
