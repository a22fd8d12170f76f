"""SOURCE against its formula, the run that it approximates, and its two limits."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import finfluence as fi
import plain_training as pt
from finfluence.estimators.unrolling import response_to


def quadratic(rate: float = 0.1, steps: int = 50, **options: float) -> tuple[fi.Tape, fi.Query]:
    """½(θ − y)² for y = 0, 0, 0, 4 by full batches from zero: curvature 1, gradients θ − y."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    recipe = fi.Recipe(
        data=fi.Rows(x=torch.ones(4, 1).double(), y=torch.tensor([0.0, 0, 0, 4]).double()), model=model,
        loss=pt.square_loss, optimizer=fi.SGD(lr=rate, **options), batch_size=4, epochs=steps,
    )  # fmt: skip
    return fi.train(recipe), fi.Query(lambda m: m.weight.sum(), name="weight", sign=1)


def test_responses_to_curvature():
    found = response_to(torch.tensor([0.0, 0.01, 1.0, 10.0]).double(), 5.0)
    np.testing.assert_allclose(found, [5, 4.877058, 0.993262, 0.1], atol=1e-6)
    exact = [sum(0.1 * (1 - 0.1 * s) ** t for t in range(50)) for s in (0.01, 1.0)]
    np.testing.assert_allclose(exact, [4.879437, 0.994846], atol=1e-6)
    np.testing.assert_allclose(found[1:3], exact, rtol=2e-3)


def test_two_segments_by_hand():
    """σ = (2, .5), κ = (1, 2), q = 1, ḡ = (3, −1)."""
    later = response_to(torch.tensor([0.5]).double(), 2.0) * -1
    earlier = response_to(torch.tensor([2.0]).double(), 1.0) * np.exp(-2.0 * 0.5) * 3
    np.testing.assert_allclose([earlier.item(), later.item()], [0.4771386, -1.2642411], atol=1e-7)


@pytest.mark.parametrize("segments", [1, 2, 5])
def test_a_quadratic_is_unrolled(segments):
    tape, query = quadratic()
    found = fi.estimate(tape, query, "source", segments=segments, checkpoints=1)
    ends = [part[-1] for part in found.provenance.details["segments"]]
    assert ends == [50 * (k + 1) // segments for k in range(segments)]
    np.testing.assert_allclose(found.provenance.details["integrated_rates"], 5 / segments)
    x, asked, y = np.zeros(4), 1.0, np.array([0.0, 0, 0, 4])
    for end in ends[::-1]:
        x += (1 - np.exp(-5 / segments)) * asked * (tape.state(end).item() - y)
        asked *= np.exp(-5 / segments)
    np.testing.assert_allclose(found.data.score[:, 0], x / 4, rtol=1e-9)
    effects = (x - x.mean()) / 3
    np.testing.assert_allclose(found.data.predicted_effect[:, 0], effects, rtol=1e-9)
    without, _ = quadratic()
    assert effects[3] == pytest.approx(
        -without.state().item(), abs=0.01
    )  # training on three zeros ends in zero


def test_it_lies_between_tracin_and_an_influence_function():
    tape, query = quadratic(rate=1e-4, steps=20)
    short = fi.estimate(tape, query, "source", segments=1, checkpoints=4).data.score.values
    tracin = fi.estimate(tape, query, "tracin", checkpoints=4).data.score.values
    np.testing.assert_allclose(short * 4, 5 * tracin, rtol=2e-3)  # κ = 20 η, TracIn sums four states
    tape, query = quadratic(rate=0.5, steps=80)
    long = fi.estimate(tape, query, "source", segments=1, checkpoints=1).data.score.values
    ends = fi.estimate(tape, query, "if-explicit", damping=0.0).data.score.values
    np.testing.assert_allclose(long, ends, rtol=1e-6)


def test_momentum_and_decay_are_part_of_the_segment():
    tape, query = quadratic(rate=0.02, steps=200, momentum=0.8, weight_decay=0.5)
    found = fi.estimate(tape, query, "source", segments=1, checkpoints=1)
    np.testing.assert_allclose(found.provenance.details["integrated_rates"], [200 * 0.02 / 0.2])
    effect = found.data.predicted_effect.values[3, 0]
    assert effect == pytest.approx(-4 / 3 * 3 / 4 / 1.5, rel=1e-3)  # first order of 1/1.5 → 0, as of a mean


def test_it_predicts_retraining_of_a_network():
    """Forty rows by full batches: the effect of leaving out each row, exactly retrained."""
    rows = pt.table(40)
    x, y = torch.randn(30, 4, generator=torch.Generator().manual_seed(1)).double(), torch.arange(30) % 3

    def trained(kept: list[int]) -> fi.Tape:
        data = fi.Rows(**{k: v[kept] for k, v in rows.fields.items()})
        options = {"batch_size": len(kept), "epochs": 60, "optimizer": fi.SGD(lr=0.3)}
        return fi.train(pt.recipe(data=data, **options))

    tape = trained(list(range(40)))
    query = fi.mean_loss(x, y, name="held-out")
    whole = loss_of(tape, x, y)
    truth = [loss_of(trained([k for k in range(40) if k != i]), x, y) - whole for i in range(40)]
    found = fi.estimate(tape, query, "source").data.predicted_effect.values[:, 0]
    ends = fi.estimate(tape, query, "if-ekfac").data.predicted_effect.values[:, 0]
    assert np.corrcoef(found, truth)[0, 1] > 0.85 > np.corrcoef(ends, truth)[0, 1] > 0.7
    assert 0.8 < np.polyfit(found, truth, 1)[0] < 1.25


def loss_of(tape: fi.Tape, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return nn.functional.cross_entropy(tape.model()(x), y).item()
