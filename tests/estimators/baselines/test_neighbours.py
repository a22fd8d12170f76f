import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
import plain_training as pt
from finfluence.errors import NotSupportedError
from finfluence.estimators.baselines import representation
from four_parts import assert_parts


def test_neighbours_are_those_of_the_last_hidden_layer():
    tape = fi.train(pt.recipe())
    model, rows = tape.model(), tape.recipe.rows.fields
    with torch.no_grad():
        hidden = model[1](model[0](rows["x"])).numpy()
    np.testing.assert_allclose(representation(tape, torch.arange(12)), hidden, rtol=1e-12)
    unit = hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
    cosines, y = unit @ unit.T, rows["y"].numpy()
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.argsort(-cosines, axis=1)[:, :3]
    found = fi.estimate(tape, fi.own_loss([0]), "neighbours", neighbours=3).data.score.values[:, 0]
    np.testing.assert_allclose(found, (y[nearest] != y[:, None]).mean(1))


def test_a_flipped_label_stands_out():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = np.eye(3)[y] * 3 + rng.normal(size=(60, 3)) * 0.3
    y[7] = (y[7] + 1) % 3
    rows = fi.Rows(x=torch.from_numpy(x), y=torch.from_numpy(y))
    tape = fi.train(pt.recipe(data=rows, model=pt.made(lambda: nn.Linear(3, 3))))
    assert fi.estimate(tape, fi.own_loss([0]), "neighbours").top(1).row_id.tolist() == [7]


def test_a_model_without_a_linear_layer_is_refused_in_words():
    model = pt.made(lambda: nn.Sequential(nn.Unflatten(1, (4, 1)), nn.Conv1d(4, 3, 1), nn.Flatten()))
    tape = fi.train(pt.recipe(model=model))
    with pytest.raises(NotSupportedError) as caught:
        fi.estimate(tape, fi.own_loss([0]), "neighbours")
    assert_parts(caught.value, "last Linear layer", "no Linear layer", "convolution", "use method='margin'")
