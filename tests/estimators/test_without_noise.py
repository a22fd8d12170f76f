"""Scores against something that does not vary: controls, rows and features that are all alike."""

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
from finfluence.errors import ConfigError, NotSupportedError
from finfluence.estimators import check_number
from finfluence.estimators.first_order import step_influence
from finfluence.estimators.influence_functions import kernel_products
from finfluence.runs import seeded
from four_parts import assert_parts


def small(
    rows: int = 3,
    optimizer: fi.SGD | None = None,
    x: torch.Tensor | None = None,
    y: torch.Tensor | None = None,
) -> fi.Tape:
    with seeded(0):
        model, drawn = nn.Linear(2, 2).double(), torch.randn(rows, 2).double()
    recipe = fi.Recipe(
        data=fi.Rows(x=drawn if x is None else x, y=torch.arange(rows) % 2 if y is None else y), model=model,
        optimizer=optimizer or fi.SGD(lr=0.1), batch_size=1, epochs=2,
        loss=lambda m, b: nn.functional.cross_entropy(m(b["x"]), b["y"], reduction="none"),
    )  # fmt: skip
    return fi.train(recipe, seed=1)


def alike(rows: int, *others: float) -> fi.Tape:
    x = torch.cat([torch.full((rows, 2), 0.1), *(torch.full((1, 2), o) for o in others)]).double()
    return small(len(x), x=x, y=torch.zeros(len(x), dtype=torch.int64))


@pytest.mark.parametrize("method", ["untrac", "untrac-inv", "mirrored"])
def test_controls_that_do_not_differ_tell_nothing(method):
    """Copies are where their controls are, not a rounding error of it away; what differs from all of them is unknown."""
    same = fi.estimate(alike(5), fi.own_loss([0]), method, controls=3)
    assert not same.data.against_controls.values.any()
    if method == "untrac":
        odd = fi.estimate(alike(5, 3.0), fi.own_loss([0]), method, [5], controls=2, seed=1)
        assert np.isnan(odd.data.against_controls.item()) and np.isfinite(odd.data.score.item())


@pytest.mark.parametrize("seed", range(4))
def test_controls_of_untrac_inv_are_different_rows(seed):
    """Of three rows, two drawn one by one would be the same in a third of all seeds."""
    tape = small()
    found = fi.estimate(tape, fi.own_loss([0]), "untrac-inv", controls=2, seed=seed)
    assert np.isfinite(found.data.against_controls.values).all()
    many = fi.estimate(tape, fi.own_loss([0]), "untrac-inv", controls=50, seed=seed)
    assert np.isfinite(many.data.against_controls.values).all()


def test_batches_without_noise_are_refused_and_rounding_is_no_influence():
    copies = np.array([[0.1], [0.1], [0.1], [3.0]])
    with pytest.raises(NotSupportedError) as caught:
        step_influence(copies, [np.array([3])], 2)
    assert_parts(
        caught.value, "act on the query in different ways", "without which all rows act alike",
        "a single row is left", "method='replay'",
    )  # fmt: skip
    assert np.isfinite(step_influence(copies, [np.array([0])], 2)).all()
    equal = np.full((6, 1), 0.1) + 1e-16 * np.array([[0.0], [1], [0], [1], [0], [0]])
    assert not step_influence(equal, [np.array([k]) for k in range(6)], 2).any()
    assert step_influence(np.array([[1.0], [1.1], [0.9], [3e5]]), [np.array([3])], 2) < -1e5  # no rounding
    with pytest.raises(NotSupportedError, match="a single row is left"):
        fi.estimate(small(2), fi.own_loss([0]), "fine")


def test_features_that_depend_on_each_other_need_damping():
    rows = torch.randn(9, 2, generator=torch.Generator().manual_seed(0)).double()
    features = torch.cat([rows, -rows], 1)  # as of the two rows of a softmax's weight
    with pytest.raises(NotSupportedError) as caught:
        kernel_products(features, features[:1], 0.0)
    assert_parts(
        caught.value, "damping above zero", "4 dimensions for 9 rows", "parameters that do the same", "leave damping out"
    )  # fmt: skip
    assert kernel_products(features, features[:1], 0.01).shape == (1, 9)
    assert kernel_products(rows, rows[:1], 0.0).shape == (1, 9)
    with pytest.raises(NotSupportedError, match="damping above zero"):
        fi.estimate(small(8), fi.own_loss([0]), "trak", damping=0.0)


def test_dampening_without_momentum_is_none():
    """As in torch, where the buffer that it damps is not kept: the damping is one over the rates, 6 × .1."""
    for optimizer in (
        fi.SGD(lr=0.1),
        fi.SGD(lr=0.1, dampening=0.5),
        fi.SGD(lr=0.1, momentum=0.5, dampening=0.5),
    ):
        found = fi.estimate(small(optimizer=optimizer), fi.own_loss([0]), "if-explicit")
        assert found.provenance.details["damping"] == pytest.approx(1 / 0.6)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -float("inf")])
def test_numbers_are_finite(value):
    with pytest.raises(ConfigError) as caught:
        check_number("length", value, above=0.0)
    assert_parts(
        caught.value, "length to be a finite number above 0", repr(value), "a sign is wrong", "leave"
    )
    with pytest.raises(ConfigError, match="finite number"):
        check_number("length", value)
