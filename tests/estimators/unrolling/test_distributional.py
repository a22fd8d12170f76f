"""Distributional TDA: closed forms, what replay says of one run, and retraining."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

import finfluence as fi
import plain_training as pt
from finfluence.errors import NotSupportedError
from finfluence.estimators.unrolling import ekfac_shifts, unrolled_shifts, wasserstein
from finfluence.runs.describe import find_subsets
from four_parts import assert_parts

WEIGHT = fi.Query(lambda m: m.weight.sum(), name="weight", sign=1)


def quadratic(batch_size: int = 4, epochs: int = 50, rate: float = 0.1) -> fi.Recipe:
    """½(θ − y)² for y = 0, 0, 0, 4, from zero."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    return fi.Recipe(
        data=fi.Rows(x=torch.ones(4, 1).double(), y=torch.tensor([0.0, 0, 0, 4]).double()), model=model,
        loss=pt.square_loss, optimizer=fi.SGD(lr=rate), batch_size=batch_size, epochs=epochs,
    )  # fmt: skip


def test_the_response_of_full_batches_is_exact():
    """θ_T = .9948462; removing the 4 leaves zero. As an influence function: −1, damped by a tenth."""
    tape = fi.train(quadratic())
    values, shifts = unrolled_shifts(tape, [WEIGHT], find_subsets(tape, [3]), 4)
    assert values[0] == pytest.approx(0.9948462, abs=1e-7)
    assert shifts[0, 0] == pytest.approx(-0.9948462, abs=1e-7)
    _, shifts = ekfac_shifts(tape, [WEIGHT], find_subsets(tape, [3]), 4)
    assert shifts[0, 0] == pytest.approx(-1 / 1.1, abs=1e-3)


def test_of_one_run_it_is_what_replay_says_online():
    tape = fi.train(pt.recipe())
    queries = [fi.own_loss([0]), fi.Query(lambda m: m[0].bias.sum(), name="bias")]
    replayed = fi.replay(
        tape, queries, horizon=3, late=0.0, differentiation="exact", groups="linear"
    ).data.effect.values
    _, shifts = unrolled_shifts(tape, queries, find_subsets(tape, None), 12)
    assert replayed.std() > 1e-4
    np.testing.assert_allclose(shifts, replayed, rtol=1e-8, atol=1e-13)


def test_distance_of_two_normal_laws():
    z = norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    assert wasserstein(z, 0.5 + 2 * z[::-1]) == pytest.approx(1.1180340, abs=1e-4)


def test_contrasts_are_those_of_the_runs():
    found = fi.estimate(quadratic(2, 20), WEIGHT, "d-tda", [0, 3], runs=6)
    before = np.array(found.provenance.query_values)[:, 0]
    data = found.data.isel(subset=1, query=0)
    after_mean = before.mean() + data.effect.item()
    assert after_mean == pytest.approx(0.0, abs=0.25)
    spread = np.sqrt(before.var(ddof=1) + data.variance_change.item() / 2)
    assert data.spread.item() == pytest.approx(spread) and data.mu.item() == pytest.approx(
        data.effect / spread
    )
    # no two laws are nearer than their means
    assert data.wasserstein.item() >= abs(data.effect.item())
    assert data.lower.item() < data.mu.item() < data.upper.item() < 0
    assert found.provenance.covers == ("batch order",) and len(found.provenance.seeds) == 6


@pytest.mark.slow
def test_the_law_without_a_row_is_that_of_retraining():
    """A mean by small batches: effect, spread and variance, against trainings without the row."""
    recipe = quadratic(2, 30, 0.3)
    found = fi.estimate(recipe, WEIGHT, "d-tda", [3], runs=20).data.isel(subset=0, query=0)
    truth = fi.retrain(recipe, WEIGHT, [3], runs=100, seed=5).data.isel(subset=0, query=0)
    assert found.effect.item() == pytest.approx(truth.effect.item(), rel=0.1)
    assert found.variance_change.item() < 0  # three equal rows leave no noise


@pytest.mark.slow
@pytest.mark.parametrize("response", ["unrolled", "ekfac"])
def test_a_network_against_retraining(response):
    recipe = replace(pt.recipe(data=pt.table(40)), batch_size=8, epochs=20)
    x, y = torch.randn(30, 4, generator=torch.Generator().manual_seed(1)).double(), torch.arange(30) % 3
    query = fi.mean_loss(x, y, name="held-out")
    found = fi.estimate(recipe, query, "d-tda", runs=6, response=response).data.effect.values[:, 0]
    truth = fi.retrain(recipe, query, design="paired", runs=6).data.effect.values[:, 0]
    assert np.corrcoef(found, truth)[0, 1] > (0.8 if response == "unrolled" else 0.5)


def test_trainings_that_do_not_differ_are_refused_in_words():
    with pytest.raises(NotSupportedError) as caught:
        fi.estimate(quadratic(), WEIGHT, "d-tda", runs=2)
    assert_parts(
        caught.value, "differ between trainings", "'weight'", "batches of all rows", "use method='source'"
    )
