import numpy as np
import pytest
import torch

import finfluence as fi
import plain_training as pt
from finfluence.errors import NotSupportedError
from finfluence.estimators.baselines import forgetting_events
from finfluence.runs.tape import final_losses


def test_the_mean_loss_is_that_of_the_ends_of_epochs():
    tape = fi.train(pt.recipe())
    expected = np.mean([final_losses(tape, tape.model(step)) for step in (3, 6, 9)], 0)
    found = fi.estimate(tape, fi.own_loss([0]), "mean-loss").data.score.values[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    last = fi.estimate(tape, fi.own_loss([0]), "mean-loss", checkpoints=1).data.score.values
    np.testing.assert_allclose(last, fi.estimate(tape, fi.own_loss([0]), "own-loss").data.score.values)


def test_forgetting_counts_right_then_wrong():
    right = np.array([[1, 1, 0, 0], [0, 1, 0, 1], [1, 1, 0, 1], [0, 1, 0, 0]], dtype=bool)
    assert forgetting_events(right).tolist() == [2.0, 0.0, 5.0, 1.0]
    tape = fi.train(pt.recipe(epochs=6, optimizer=fi.SGD(lr=1.0)))
    seen = []
    for step in range(3, 19, 3):
        output = tape.model(step)(tape.recipe.rows.fields["x"])
        seen.append((output.argmax(1) == tape.recipe.rows.fields["y"]).numpy())
    found = fi.estimate(tape, fi.own_loss([0]), "forgetting").data.score.values[:, 0]
    assert found.tolist() == forgetting_events(np.stack(seen)).tolist() and len(set(found)) > 1


def test_forgetting_needs_classes():
    rows = fi.Rows(x=torch.randn(12, 4).double(), y=torch.randn(12).double())
    tape = fi.train(pt.recipe(data=rows, loss=pt.square_loss))
    with pytest.raises(NotSupportedError, match=r"(?s)expected a classifier.*use method='own-loss'"):
        fi.estimate(tape, fi.own_loss([0]), "forgetting")
