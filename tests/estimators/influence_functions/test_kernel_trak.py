"""Kernel TRAK against ridge regression on the features of all states side by side."""

import numpy as np
import pytest
import torch

import finfluence as fi
from finfluence.errors import NotSupportedError
from finfluence.estimators.influence_functions import KernelTrak
from finfluence.runs import AdamW
from four_parts import assert_parts
from small_recipes import classifier


def features(tape: fi.Tape, step: int) -> np.ndarray:
    model = tape.model(step).eval()
    found = []
    for i in range(len(tape.rows)):
        loss = tape.loss(model, tape.batch(torch.tensor([i])))[0]
        found.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))]))
    gradients = torch.stack(found).numpy()
    if len(tape.optimizer.slots) == 2:
        gradients /= np.sqrt(tape.state(step).reshape(3, -1)[2].numpy())
    return gradients / np.linalg.norm(gradients, axis=1, keepdims=True)


@pytest.mark.parametrize("optimizer", [AdamW(lr=0.02), fi.SGD(lr=0.2)], ids=["adamw", "sgd"])
def test_it_is_ridge_regression_on_the_features_of_all_states(optimizer):
    tape = fi.train(classifier(optimizer))
    found = fi.estimate(tape, fi.own_loss(["r3"]), "kernel-trak", checkpoints=3, ridge=0.5)
    steps = found.provenance.details["checkpoints"]
    phi = np.concatenate([features(tape, step) for step in steps], 1) / np.sqrt(3)
    ridge = phi.T @ phi + 0.5 * np.eye(phi.shape[1])
    expected = -phi @ np.linalg.solve(ridge, phi[3])
    np.testing.assert_allclose(found.data.score.values[:, 0], expected, rtol=1e-7, atol=1e-10)
    assert found.top(1, direction="helpful").row_id.tolist() == ["r3"]
    said = [text for text in found.provenance.findings if "no second moments" in text]
    assert bool(said) == (optimizer.describe()["name"] == "SGD")


def test_parameters_that_adam_never_moved_count_for_nothing():
    """A field that is zero in training and one in the query: its weights have a gradient there, and no moments."""
    recipe = classifier(AdamW(lr=0.02))
    recipe.rows.fields["x"][:, 0] = 0.0
    tape = fi.train(classifier(AdamW(lr=0.02), data=fi.Rows(**recipe.rows.fields)))
    x = torch.ones(1, 5).double()
    asked = [
        fi.mean_loss(x * torch.tensor([k, 1, 1, 1, 1]), torch.tensor([1]), name=str(k)) for k in (0.0, 1e-9)
    ]
    found = fi.estimate(tape, asked, "kernel-trak", checkpoints=2).data.score.values
    np.testing.assert_allclose(found[:, 0], found[:, 1], rtol=1e-6)


def test_too_many_rows_are_refused_in_words(monkeypatch):
    tape = fi.train(classifier())
    monkeypatch.setattr(type(tape), "check_unchanged", lambda self: None)
    monkeypatch.setattr(type(tape.rows), "__len__", lambda self: 30_000)
    with pytest.raises(NotSupportedError) as caught:
        KernelTrak().estimate(tape, fi.own_loss([0]))
    assert_parts(caught.value, "at most 20,000 rows", "30,000", "each pair of rows", "use method='trak'")
