"""The truncation rule: what an epoch further back may weigh, per query, in units of the schedule's noise."""

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.estimators.replay import GROWTH, RISE, TruncationRule, truncation_for

NAN = float("nan")


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=pt.DOUBLE)


def accepts(horizon: TruncationRule, epoch: int, variance, profile, error=None) -> list[bool]:
    zero = torch.zeros(len(variance), dtype=pt.DOUBLE)
    return horizon.accepts(
        epoch, column(*variance), zero if error is None else column(*error), profile
    ).tolist()


def test_decides_for_every_query_by_itself():
    rule = TruncationRule((1.0, 1.0, 1.0), None)
    profile = torch.tensor([[NAN] * 4, [NAN] * 4, [1.0, 1.0, 1.0, 1.0]], dtype=pt.DOUBLE)
    assert accepts(rule, 1, (0.1, GROWTH, GROWTH * 1.01, NAN), profile) == [True, True, False, False]
    profile[1] = column(0.01, 0.5, 0.5, 0.5)
    below, above = 0.01 * RISE, 0.01 * RISE * 1.01
    assert accepts(rule, 0, (below, 1.0, 3.0, 3.1), profile) == [True, True, True, False]
    assert accepts(rule, 0, (above, 1.0, 3.0, 3.1), profile) == [False, True, True, False]


def test_last_epoch_needs_only_to_be_finite():
    rule = TruncationRule((1.0, 1.0), None)
    profile = torch.full((2, 3), NAN, dtype=pt.DOUBLE)
    assert accepts(rule, 1, (5.0, float("inf"), NAN), profile) == [True, False, False]


def test_noise_is_measured_in_squared_rates():
    """A tenfold rate brings a hundredfold noise: not a sign of growth."""
    profile = torch.tensor([[NAN], [1.0]], dtype=pt.DOUBLE)
    assert accepts(TruncationRule((100.0, 1.0), None), 0, (250.0,), profile) == [True]
    assert accepts(TruncationRule((1.0, 1.0), None), 0, (250.0,), profile) == [False]


def test_an_uncertain_variance_is_given_the_benefit_of_two_standard_errors():
    rule, profile = TruncationRule((1.0, 1.0), None), torch.tensor([[NAN], [1.0]], dtype=pt.DOUBLE)
    assert accepts(rule, 0, (5.0,), profile, error=(1.01,)) == [True]
    assert accepts(rule, 0, (5.0,), profile, error=(0.99,)) == [False]


def test_a_given_number_of_epochs_is_covered():
    rule = TruncationRule((1.0,) * 4, 2)
    profile = torch.full((4, 2), 1.0, dtype=pt.DOUBLE)
    assert [accepts(rule, e, (1e9, NAN), profile) for e in (3, 2, 1, 0)] == [[True, False]] * 2 + [
        [False, False]
    ] * 2


def test_noise_of_a_recipe():
    described = pt.recipe(schedule="linear", epochs=2)
    rates = [1 - t / 6 for t in range(6)]
    rule = truncation_for("auto", described.noise)
    assert rule.epochs is None
    np.testing.assert_allclose(rule.noise, [sum(r * r for r in rates[:3]), sum(r * r for r in rates[3:])])
    assert truncation_for(2, described.noise).epochs == 2


def test_an_unstable_beginning_is_left_out_and_said():
    """Rates above the stability limit in the first epochs multiply λ by −4 a step there; ten stable epochs follow."""
    model = nn.Linear(1, 1, bias=False, dtype=pt.DOUBLE)
    rows = fr.Rows(x=torch.ones(12, 1, dtype=pt.DOUBLE), y=torch.arange(12, dtype=pt.DOUBLE))

    def schedule(step: int, total: int) -> float:
        return 25.0 if step < 9 else 1.0

    recipe = fr.Recipe(
        data=rows, model=model, loss=pt.square_loss, optimizer=fr.SGD(lr=0.2), batch_size=4, epochs=13,
        schedule=schedule,
    )  # fmt: skip
    level = fi.Query(lambda m: m.weight.sum(), name="level", sign=1)
    tape = fi.train(recipe)
    found = fi.replay(tape, level, method="full", late=0)
    walked = found.data.attrs["horizon"][0]
    assert 10 <= walked <= 12
    (note,) = [f for f in found.data.attrs["findings"] if "epochs of training" in f]
    assert f"fewer than the 13 epochs of training for 'level' {walked}" in note and note in repr(found)
    by_hand = fi.replay(tape, level, method="full", horizon=walked, late=0)
    np.testing.assert_array_equal(found.data.effect.values, by_hand.data.effect.values)
    everything = fi.replay(tape, level, method="full", horizon=13)
    assert everything.data.spread.values[0, 0] > 2 * found.data.spread.values[0, 0]
    assert np.isnan(found.data.attrs["spread_profile"][0][: 13 - walked]).all()


@pytest.mark.slow
def test_stable_training_is_followed_to_its_start():
    for method in ("full", "online"):
        found = fi.replay(fi.train(pt.recipe(epochs=6)), fi.own_loss([0, 1]), method=method)
        assert found.data.attrs["horizon"] == [6, 6] and not found.data.attrs["findings"]


def test_one_epoch_gives_no_error_of_its_own():
    found = fi.replay(fi.train(pt.recipe()), fi.own_loss([0]), horizon=1).data
    assert (
        np.isfinite(found.effect).all() and np.isnan(found.effect_se).all() and np.isnan(found.p_value).all()
    )


def test_a_response_that_is_not_finite_says_nothing():
    """A query of slope 1e300 has a variance beyond float64: NaN, never zeros, and the other query is unharmed."""
    calm = fi.Query(lambda m: m.weight.sum(), name="calm")
    steep = fi.Query(lambda m: 1e300 * m.weight.sum(), name="steep")
    rows = fr.Rows(x=torch.ones(12, 1, dtype=pt.DOUBLE), y=torch.arange(12, dtype=pt.DOUBLE))
    model = nn.Linear(1, 1, bias=False, dtype=pt.DOUBLE)
    recipe = pt.recipe(data=rows, model=model, loss=pt.square_loss, optimizer=fr.SGD(lr=0.1))
    found = fi.replay(fi.train(recipe), [calm, steep]).data
    assert np.isfinite(found.effect.sel(query="calm")).all() and found.attrs["horizon"] == [3, 0]
    for name in ("effect", "spread", "mu", "se", "p_value"):
        assert np.isnan(found[name].sel(query="steep")).all(), name
    assert any("nothing can be said of 'steep'" in note for note in found.attrs["findings"])
