"""TRAK against its formula, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import finfluence as fi
from finfluence.errors import NotSupportedError
from finfluence.estimators.influence_functions import kernel_products
from finfluence.grads import Projection
from small_recipes import classifier, square_loss

PHI = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)


def test_three_rows_and_two_features():
    found = kernel_products(PHI, torch.tensor([[2.0, 1.0]], dtype=torch.float64), 0.0)
    np.testing.assert_allclose(found * torch.tensor([0.5, 0.2, 0.1]), [[0.5, 0.0, 0.1]], atol=1e-12)


def test_the_kernel_of_rows_is_that_of_features():
    wide = torch.randn(4, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    asked, ridge = wide[:2] + 1, 0.1 * float((wide**2).sum()) / 4
    outer = wide.T @ wide + ridge * torch.eye(9)
    torch.testing.assert_close(kernel_products(wide, asked, 0.1), asked @ torch.linalg.solve(outer, wide.T))
    with pytest.raises(
        NotSupportedError, match=r"(?s)damping above zero, or features of which none.*no inverse"
    ):
        kernel_products(wide, asked, 0.0)


def test_without_projection_it_is_the_formula():
    tape = fi.train(classifier())
    found = fi.estimate(tape, fi.own_loss(["r3"]), "trak", dimensions=10_000, damping=0.05)
    model = tape.model().eval()
    batch = tape.batch(torch.arange(len(tape.rows)))
    losses = torch.nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")
    p = (-losses).exp()
    margins = (p / (1 - p)).log()
    parameters = list(model.parameters())

    def gradient(value: torch.Tensor) -> torch.Tensor:
        parts = torch.autograd.grad(value, parameters, retain_graph=True)
        return torch.cat([part.flatten() for part in parts])

    phi = torch.stack([gradient(m) for m in margins])
    query = gradient(losses[3])[None]
    expected = -kernel_products(phi, query, 0.05) * (1 - p) * -1
    np.testing.assert_allclose(found.data.score.values[:, 0], expected.detach()[0], rtol=1e-6, atol=1e-10)


def test_checkpoints_and_seeds_are_other_numbers():
    tape = fi.train(classifier())
    query = fi.own_loss(["r3"])
    one, same, other = (
        fi.estimate(tape, query, "trak", dimensions=20, seed=s).data.score.values for s in (0, 0, 1)
    )
    assert (one == same).all() and (one != other).any()
    several = fi.estimate(tape, query, "trak", dimensions=20, checkpoints=3)
    assert several.provenance.details["checkpoints"] == [tape.steps // 2, int(tape.steps * 0.75), tape.steps]
    assert (several.data.score.values != one).any()


def test_a_loss_that_is_no_log_probability_is_refused():
    rows = fi.Rows(x=torch.randn(12, 5).double(), y=torch.randn(12).double())
    tape = fi.train(replace(classifier(), data=rows, loss=square_loss))
    with pytest.raises(NotSupportedError, match=r"(?s)−log p of a class label.*if-ekfac"):
        fi.estimate(tape, fi.own_loss([0]), "trak")


def test_projections_keep_inner_products():
    vectors = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vectors[1] += vectors[0]
    exact = float(vectors[0] @ vectors[1])
    errors = []
    for k in (64, 4096):
        low = [Projection(5000, k, seed)(vectors) for seed in range(4)]
        errors.append(np.mean([abs(float(v[0] @ v[1]) / exact - 1) for v in low]))
    assert errors[1] < 0.1 and errors[1] < errors[0] / 2
    assert torch.equal(Projection(5000, 5000, 0)(vectors), vectors)
    assert not torch.equal(Projection(5000, 9, 0, 0)(vectors), Projection(5000, 9, 0, 1)(vectors))
