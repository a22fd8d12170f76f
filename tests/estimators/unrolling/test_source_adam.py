"""SOURCE of runs of Adam: against its formula written out, its limit, and retraining."""

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from torch import Tensor, nn

import finfluence as fi
import plain_training as pt
from finfluence.curvature import Matrix, functions_of
from finfluence.runs import Adam, AdamW

X = torch.tensor(
    [[1.0, 0.0, 2.0], [0.5, 1.0, 0.0], [0.0, -1.0, 1.0], [2.0, 0.3, 0.1], [1.0, 1.0, 1.0]]
).double()
Y = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0]).double()


def quadratic(optimizer: fi.AdamW, epochs: int = 40) -> tuple[fi.Tape, fi.Query]:
    """½(⟨w, x⟩ − y)², five rows by full batches: H = XᵀX/5."""
    model = nn.Linear(3, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    recipe = fi.Recipe(
        data=fi.Rows(x=X, y=Y),
        model=model,
        loss=pt.square_loss,
        optimizer=optimizer,
        batch_size=5,
        epochs=epochs,
    )
    at = torch.tensor([1.0, -1.0, 0.5]).double()
    return fi.train(recipe), fi.Query(lambda m: (m.weight @ at).sum(), name="at", sign=1)


def metric_at(tape: fi.Tape, step: int, beta: float, eps: float) -> np.ndarray:
    square = tape.state(step).view(3, -1)[2].numpy()
    return 1 / (np.sqrt(square / (1 - beta**step)) + eps)


@pytest.mark.parametrize(
    "optimizer, decoupled",
    [
        (AdamW(lr=0.02, weight_decay=0.1), True),
        (Adam(lr=0.02, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.2), False),
    ],
)
def test_two_segments_are_those_of_matrix_exponentials(optimizer, decoupled):
    tape, query = quadratic(optimizer)
    found = fi.estimate(tape, query, "source", segments=2, checkpoints=2)
    parts, kappas = (found.provenance.details[k] for k in ("segments", "integrated_rates"))
    assert parts == [[10, 20], [30, 40]]
    np.testing.assert_allclose(kappas, [0.4, 0.4])
    hessian, asked, x = (X.T @ X / 5).numpy(), np.array([1.0, -1.0, 0.5]), np.zeros(5)
    decay = optimizer.weight_decay
    for part, kappa in zip(parts[::-1], kappas[::-1], strict=True):
        metric = np.diag(
            np.mean([metric_at(tape, t, optimizer.betas[1], optimizer.eps) for t in part], axis=0)
        )
        added = decay * np.eye(3) if decoupled else decay * metric
        flow = metric @ hessian + added
        gradients = np.mean(
            [((X @ tape.state(t)[:3] - Y)[:, None] * X).numpy() for t in part], axis=0
        )  # [5, 3]
        carried = expm(-kappa * flow)
        x += gradients @ (np.linalg.solve(flow, np.eye(3) - carried) @ metric).T @ asked
        asked = carried.T @ asked
    np.testing.assert_allclose(found.data.score[:, 0], x / 5, rtol=1e-9)
    np.testing.assert_allclose(found.data.predicted_effect[:, 0], (x - x.mean()) / 4, rtol=1e-9)


def test_a_long_segment_is_an_influence_function_whatever_the_metric():
    tape, query = quadratic(AdamW(lr=0.05, weight_decay=0.0), epochs=2000)
    found = fi.estimate(tape, query, "source", segments=1, checkpoints=1).data.score.values
    ends = fi.estimate(tape, query, "if-explicit", damping=0.0).data.score.values
    np.testing.assert_allclose(found, ends, rtol=1e-6, atol=1e-12)


def test_functions_of_a_matrix_by_products():
    drawn = torch.randn(12, 12, generator=torch.Generator().manual_seed(0)).double()
    matrix = drawn @ drawn.T
    vectors = torch.randn(3, 12, generator=torch.Generator().manual_seed(1)).double()
    vectors[1] = torch.linalg.eigh(matrix)[1][:, 4]  # a space that closes at once, beside two that do not
    wanted = expm(-0.3 * matrix.numpy())
    full = functions_of(Matrix(matrix), vectors, [lambda s: torch.exp(-0.3 * s)], tolerance=0.0)
    assert full.products == 12 and full.change == 0.0
    np.testing.assert_allclose(full.values[0], vectors.numpy() @ wanted, atol=1e-10)
    early = functions_of(Matrix(matrix), vectors, [lambda s: torch.exp(-0.3 * s)], tolerance=1e-2)
    assert early.products < 12 and 0 < early.change <= 1e-2
    apart = early.values[0].numpy() - vectors.numpy() @ wanted
    assert np.linalg.norm(apart, axis=1).max() < 0.02 * np.linalg.norm(vectors.numpy() @ wanted, axis=1).min()


def test_too_few_products_are_said():
    tape = fi.train(pt.recipe(optimizer=AdamW(lr=0.01), epochs=20))
    found = fi.estimate(tape, fi.own_loss([0]), "source", products=2)
    assert any("with the last of 2 products" in text for text in found.provenance.findings)
    assert not any("products" in t for t in fi.estimate(tape, fi.own_loss([0]), "source").provenance.findings)


def test_a_weight_that_never_moved_plays_no_part():
    """An input that is always zero: Adam's second moment of its weight is zero."""
    rows = pt.table(12)
    rows = fi.Rows(x=torch.cat([rows.fields["x"], torch.zeros(12, 1).double()], 1), y=rows.fields["y"])
    tape = fi.train(pt.recipe(data=rows, model=pt.made(lambda: pt.mlp(width=5)), optimizer=AdamW(lr=0.01)))
    every = fi.mean_loss(torch.ones(3, 5).double(), torch.arange(3), name="all inputs")
    found = fi.estimate(tape, every, "source").data.score.values
    assert np.isfinite(found).all() and np.abs(found).max() > 1e-6
    weight = fi.Query(lambda m: m[0].weight[:, 4].sum(), name="the still weight", sign=1)
    assert not fi.estimate(tape, weight, "source").data.score.values.any()


@pytest.mark.slow
def test_it_predicts_retraining_of_a_network():
    """Forty rows by full batches: the effect of leaving out each row, exactly retrained."""
    rows = pt.table(40)
    x, y = torch.randn(30, 4, generator=torch.Generator().manual_seed(1)).double(), torch.arange(30) % 3

    def trained(kept: list[int]) -> fi.Tape:
        data = fi.Rows(**{k: v[kept] for k, v in rows.fields.items()})
        options = {"batch_size": len(kept), "epochs": 60, "optimizer": AdamW(lr=0.01, eps=0.01)}
        return fi.train(pt.recipe(data=data, **options))

    tape = trained(list(range(40)))
    whole = loss_of(tape, x, y)
    truth = [loss_of(trained([k for k in range(40) if k != i]), x, y) - whole for i in range(40)]
    query = fi.mean_loss(x, y, name="held-out")
    found = fi.estimate(tape, query, "source").data.predicted_effect.values[:, 0]
    ends = fi.estimate(tape, query, "if-ekfac").data.predicted_effect.values[:, 0]
    assert np.corrcoef(found, truth)[0, 1] > 0.85 > np.corrcoef(ends, truth)[0, 1]
    assert 0.8 < np.polyfit(found, truth, 1)[0] < 1.25


def loss_of(tape: fi.Tape, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return nn.functional.cross_entropy(tape.model()(x), y).item()
