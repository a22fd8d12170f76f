"""UnTrac and its inverse: exact small cases, first order, and controls."""

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
import plain_training as pt
from finfluence.errors import TrainingError
from four_parts import assert_parts


def one_number(value: float = 1.0, rate: float = 0.0) -> fi.Tape:
    """ℓ = ½(θ − x)² of rows at 4 and 2, stopped at θ = `value`."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, value)
    rows = fi.Rows(x=torch.ones(2, 1).double(), y=torch.tensor([4.0, 2.0]).double())
    recipe = fi.Recipe(
        data=rows, model=model, loss=pt.square_loss, optimizer=fi.SGD(lr=rate), batch_size=2, epochs=1
    )
    return fi.train(recipe)


QUERY = fi.Query(lambda m: 0.5 * m.weight.sum() ** 2, name="at zero")


def test_one_step_by_hand():
    """Query at 0, row at 4, θ = 1, step .01: −.02955 for the query, −.02995 for the row, −.03 to first order."""
    tape = one_number()
    there = fi.estimate(tape, QUERY, "untrac", steps=1, rate=0.01).data
    back = fi.estimate(tape, QUERY, "untrac-inv", steps=1, rate=0.01).data
    assert there.change.values[0, 0] == pytest.approx(-0.02955, abs=1e-12)
    assert back.change.values[0, 0] == pytest.approx(-0.02995, abs=1e-12)
    np.testing.assert_allclose(there.score, -there.change)  # a loss that unlearning lowers: the row harms


@pytest.mark.parametrize("method", ["untrac", "untrac-inv"])
def test_short_steps_are_gradient_products(method):
    tape = fi.train(pt.recipe())
    dot = fi.estimate(tape, fi.own_loss([0, 3]), "grad-dot").data.score.values
    errors = []
    for rate in (1e-3, 1e-4):
        found = fi.estimate(tape, fi.own_loss([0, 3]), method, steps=3, rate=rate).data.score.values
        errors.append(np.abs(found / (3 * rate) - dot).max())
    assert errors[1] < 0.15 * errors[0] and errors[1] < 5e-3 * np.abs(dot).max()


def test_the_rate_is_that_of_the_run_unless_given():
    tape = fi.train(pt.recipe(schedule="cosine"))
    found = fi.estimate(tape, fi.own_loss([0]), "untrac-inv", steps=1)
    assert found.provenance.details["rate"] == pytest.approx(np.mean(tape.rates))
    assert np.mean(tape.rates) == pytest.approx(0.1 * np.mean([tape.recipe.rate(t) for t in range(9)]))


def test_adam_takes_steps_of_one_length():
    tape = one_number()
    found = fi.estimate(tape, QUERY, "untrac", steps=1, rate=0.01, optimizer="adam").data.change.values
    np.testing.assert_allclose(found[:, 0], 0.5 * (0.99**2 - 1), rtol=1e-6)  # down by .01 for both rows


def test_a_group_that_holds_the_query_stands_out_against_random_rows():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = np.eye(3)[y] * 2 + rng.normal(size=(60, 3))
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    rows = fi.Rows(x=x, y=y)
    tape = fi.train(pt.recipe(data=rows, model=pt.made(lambda: nn.Linear(3, 3)), epochs=10))
    first = np.flatnonzero(y == 0)
    query = fi.mean_loss(x[first[:10]], y[first[:10]], name="class 0")
    groups = {"the same rows": first[:10].tolist(), "other class": np.flatnonzero(y == 1)[:10].tolist()}
    found = fi.estimate(tape, query, "untrac", groups).data
    assert found.change.values[0, 0] > 0 > found.change.values[1, 0]
    assert found.against_controls.values[0, 0] > 2 and found.against_controls.values[1, 0] < 0


def test_an_ascent_without_end_is_refused_in_words():
    with pytest.raises(TrainingError) as caught:
        fi.estimate(one_number(), QUERY, "untrac", steps=400, rate=30.0)
    assert_parts(caught.value, "stay finite while a loss is raised", "400 steps", "without a bound", "rate=3")
