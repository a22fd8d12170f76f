"""K-FAC and EK-FAC against the curvature written out."""

import pytest
import torch
from torch import nn

from curvature.small_models import (
    OverTime,
    Sideways,
    Tied,
    class_loss,
    convolution,
    mlp,
    objective,
    square_loss,
)
from finfluence.curvature import Dense, Kronecker, KroneckerBlock, LossCurvature, written_out
from finfluence.errors import NotSupportedError

A = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]], dtype=torch.float64)[:, None]
B = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]], dtype=torch.float64)[:, None]
V = torch.tensor([[[1.0, 2.0], [0.0, -1.0]]], dtype=torch.float64)


def block(corrected: bool) -> KroneckerBlock:
    found = KroneckerBlock()
    found.add(A, B)
    found.rotate()
    if corrected:
        found.correct(A, B)
        found.corrected()
    return found


@pytest.mark.parametrize(("corrected", "expected", "error"), [
    (True, [1.699990, 1.817568, 1.222225, 0.789299], 0.9222),
    (False, [1.677026, 1.321611, 1.060404, -0.260158], 1.3654),
])  # fmt: skip
def test_one_layer_of_three_rows(corrected, expected, error):
    found = block(corrected)
    solved = found.apply(V, lambda e: 1 / (e + 0.1)).flatten()
    torch.testing.assert_close(solved, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)
    eye = torch.eye(4, dtype=torch.float64).view(4, 2, 2)
    rows = (B.transpose(1, 2) @ A).flatten(1)
    off = found.apply(eye, lambda e: e).flatten(1) - rows.T @ rows / 3
    assert float(off.norm()) == pytest.approx(error, abs=1e-4)


@pytest.mark.parametrize("kind", ["gauss-newton", "empirical-fisher"])
@pytest.mark.parametrize("factory", [mlp, convolution, OverTime, Tied])
def test_corrected_eigenvalues_are_never_further_from_the_curvature(factory, kind):
    found = objective(factory)
    whole = _same_draws(found, kind)
    eye = torch.eye(found.size, dtype=torch.float64)
    fitted = {c: Kronecker([found], kind, c, seed=2) for c in (False, True)}
    off = {c: float((f.apply(eye, lambda e: e) - whole).norm()) for c, f in fitted.items()}
    assert off[True] <= off[False]
    assert off[True] < float(whole.norm())
    assert fitted[True].mean_eigenvalue == pytest.approx(float(whole.diagonal().mean()))


def test_the_inverse_of_ekfac_is_nearer_to_the_dense_one():
    """On what layers share over time, where A and S are furthest from independent; elsewhere the two are alike."""
    found = objective(OverTime, at_once=50, rows=50)
    gradients = torch.cat(list(found.row_gradients()))
    exact = Dense(LossCurvature(found), 0.02).solve(gradients).vectors
    off = {
        corrected: float(
            (
                Kronecker([found], "gauss-newton", corrected).damped(0.02).solve(gradients).vectors - exact
            ).norm()
        )
        for corrected in (False, True)
    }
    assert off[True] < 0.95 * off[False]


def test_linear_regression_is_met_exactly():
    found = objective(lambda: nn.Linear(4, 1), square_loss)
    eye = torch.eye(5, dtype=torch.float64)
    for corrected in (False, True):
        fitted = Kronecker([found], corrected=corrected).apply(eye, lambda e: e)
        if not corrected:  # S = 1: K-FAC is the curvature itself
            torch.testing.assert_close(fitted, written_out(LossCurvature(found)))
    assert Kronecker([found]).covered == [""]


def test_what_has_no_factors_has_the_diagonal_and_is_named():
    assert Kronecker([objective(mlp)]).diagonal == []
    over = Kronecker([objective(OverTime)])
    assert over.covered == ["shared", "head"]
    assert over.diagonal == ["embedding.weight", "norm.weight", "norm.bias"]
    tied = Kronecker([objective(Tied)])
    assert "first.weight" in tied.diagonal and "head" in tied.covered and "first" not in tied.covered
    sideways = Kronecker([objective(Sideways)])
    assert sideways.covered == ["head"] and sideways.diagonal == ["inner.weight", "inner.bias"]
    found = objective(OverTime)
    diagonal = _same_draws(found, "empirical-fisher").diagonal()
    values = Kronecker([found], "empirical-fisher").apply(torch.ones(1, found.size).double(), lambda e: e)[0]
    where = slice(0, 15)  # the embedding
    torch.testing.assert_close(values[where], diagonal[where])


def test_a_weight_the_other_way_round_is_the_same_curvature():
    """GPT-2's linear layer beside torch's: the same blocks, its bias aside."""
    transposed = pytest.importorskip("transformers.pytorch_utils").Conv1D
    plain, layer = nn.Linear(4, 3, bias=False), transposed(3, 4)
    layer.weight.data = plain.weight.data.T.contiguous()
    one = Kronecker([objective(lambda: plain)], "empirical-fisher")
    other = Kronecker([objective(lambda: layer)], "empirical-fisher")
    assert one.covered == other.covered == [""] and other.diagonal == ["bias"]
    v = torch.randn(2, 12, generator=torch.Generator().manual_seed(0)).double()
    turned = torch.cat([v.view(2, 3, 4).mT.reshape(2, 12), torch.zeros(2, 3).double()], 1)
    inverse = [k.apply(x, lambda e: 1 / (e + 0.1)) for k, x in ((one, v), (other, turned))]
    torch.testing.assert_close(inverse[1][:, :12].view(2, 4, 3).mT.reshape(2, 12), inverse[0])


def test_convolutions_of_any_padding_have_blocks():
    def around() -> nn.Module:
        return nn.Sequential(
            nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 3, padding="same", padding_mode="circular"), nn.Flatten(),
            nn.Linear(8, 3),
        )  # fmt: skip

    assert Kronecker([objective(around)]).covered == ["1", "3"]


def test_chunks_and_branches_change_nothing_and_the_seed_does():
    def branching(model, batch):
        losses = class_loss(model, batch)
        return losses if losses.max() < 1e9 else losses * 0.0

    v = torch.ones(1, objective(OverTime).size, dtype=torch.float64)

    def solved(loss=class_loss, at_once=3, seed=0):
        return Kronecker([objective(OverTime, loss, at_once)], seed=seed).damped(0.1).solve(v).vectors

    first = solved()
    torch.testing.assert_close(first, solved(at_once=7))
    torch.testing.assert_close(first, solved(branching))
    assert torch.equal(first, solved()) and not torch.allclose(first, solved(seed=1))


def test_refusals_say_what_to_do():
    wide = objective(lambda: nn.Linear(4, 300))
    with pytest.raises(NotSupportedError, match=r"(?s)at most 256 outputs a row.*empirical-fisher"):
        Kronecker([wide])
    assert Kronecker([wide], "empirical-fisher").covered == [""]
    dead = objective(lambda: nn.Sequential(nn.Linear(4, 4), nn.Threshold(1e9, 0.0), nn.Linear(4, 3)))
    with pytest.raises(NotSupportedError, match=r"(?s)damping above zero.*tenth of the mean eigenvalue"):
        Kronecker([dead]).damped(0.0)


def test_a_loss_that_is_not_convex_is_noticed():
    def bent(model, batch):
        return torch.sin(3 * model(batch["x"])).sum(1)

    assert Kronecker([objective(mlp, bent)]).clamped > 0.1
    assert Kronecker([objective(mlp)]).clamped < 1e-12


def test_the_hooks_are_gone():
    found = objective(mlp)
    Kronecker([found])
    assert not any(m._forward_hooks for m in found.model.modules())


def _same_draws(found, kind) -> torch.Tensor:
    """Return the mean outer product of the rows' gradients that the fit takes, from one row at a time."""
    if kind == "empirical-fisher":
        return written_out(LossCurvature(found, kind))
    taken = Kronecker([found], kind, seed=2)
    whole = torch.zeros(found.size, found.size, dtype=torch.float64)
    for _, _, batch, along in taken._passes():
        gradients = found.gradients_of_rows(batch, along)
        whole += gradients.T @ gradients
    return whole / found.rows.count


def test_random_signs_average_to_gauss_newton():
    found = objective(mlp)
    exact = written_out(LossCurvature(found)).diagonal().mean()
    means = torch.tensor([Kronecker([found], seed=seed).mean_eigenvalue for seed in range(60)])
    assert float(means.mean()) == pytest.approx(float(exact), rel=0.05)
