"""Turn-over dropout: masks, gradients behind them, and what a run with them says."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import finfluence as fi
import plain_training as pt
from finfluence.errors import ConfigError, NotSupportedError
from finfluence.estimators.resampling import TurnOver, row_numbers, sub_networks
from four_parts import assert_parts


class Net(nn.Module):
    """Turn-over dropout behind the first and the last hidden layer, without biases behind them."""

    def __init__(self, width: int = 64, p: float = 0.5) -> None:
        super().__init__()
        self.first, self.hidden = nn.Linear(6, width), nn.Linear(width, width, bias=False)
        self.last = nn.Linear(width, 3, bias=False)
        self.early, self.late = TurnOver(p, seed=1), TurnOver(p, seed=2)

    def forward(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        return self.last(self.late(self.hidden(self.early(self.first(x).relu(), rows)).relu(), rows))


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch["x"], batch["id"]), batch["y"], reduction="none")


def recipe(epochs: int = 40, **changes: object) -> fi.Recipe:
    """Sixty rows of three classes that barely overlap, ten of them flipped: those must be learnt by heart."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = np.c_[np.eye(3)[y] * 2, np.zeros((60, 3))] + rng.normal(size=(60, 6)) * 0.7
    y[:10] = (y[:10] + 1) % 3
    rows = fi.Rows(x=torch.from_numpy(x), y=torch.from_numpy(y))
    options: dict[str, object] = {
        "data": rows, "model": pt.made(Net), "loss": loss, "optimizer": fi.SGD(lr=0.2), "batch_size": 10,
        "epochs": epochs,
    }  # fmt: skip
    return fi.Recipe(**{**options, **changes})  # type: ignore[arg-type]


def test_masks_are_fair_fixed_and_of_their_row():
    layer = TurnOver(0.5, seed=3)
    masks = layer.mask(torch.arange(5000), 64)
    assert torch.equal(masks[[7, 4999]], layer.mask(torch.tensor([7, 4999]), 64))
    share = masks.double().mean(1)
    assert share.mean().item() == pytest.approx(0.5, abs=0.005) and share.std().item() == pytest.approx(
        0.0624, abs=0.003
    )
    assert len(masks.unique(dim=0)) == 5000
    assert (
        masks != TurnOver(0.5, seed=4).mask(torch.arange(5000), 64)
    ).double().mean().item() == pytest.approx(0.5, abs=0.01)
    late = TurnOver(0.25).mask(torch.arange(2**40, 2**40 + 2000), 64).double()
    assert late.mean().item() == pytest.approx(0.25, abs=0.01)
    alike = np.corrcoef(late.numpy())[np.triu_indices(2000, 1)]
    assert abs(alike.mean()) < 1e-3 and alike.std() == pytest.approx(1 / np.sqrt(63), rel=0.02)


@pytest.mark.parametrize("p", [0.5, 0.2])
def test_seen_and_unseen_masks_are_complements(p):
    layer, x = TurnOver(p), torch.rand(3, 4, 32).double() + 1
    layer.asked = (9, True)
    seen = layer(x)
    layer.asked = (9, False)
    unseen = layer(x)
    torch.testing.assert_close(p * seen + (1 - p) * unseen, x)
    assert ((seen == 0) != (unseen == 0)).all()
    layer.asked = None
    torch.testing.assert_close(layer.train()(x, torch.tensor([9, 1, 9]))[[0, 2]], seen[[0, 2]])
    assert layer.eval()(x, torch.tensor([9, 1, 9])) is x and layer.train()(x) is x


def test_units_that_are_off_get_no_gradient():
    model = pt.made(Net).train()
    x, y = torch.randn(1, 6).double(), torch.tensor([1])
    loss(model, {"x": x, "y": y, "id": torch.tensor([5])}).sum().backward()
    early, late = (layer.mask(torch.tensor([5]), 64)[0] for layer in (model.early, model.late))
    assert (model.hidden.weight.grad[:, ~early] == 0).all() and (model.last.weight.grad[:, ~late] == 0).all()
    assert (model.hidden.weight.grad[~late] == 0).all() and (model.first.weight.grad[~early] == 0).all()
    assert model.last.weight.grad[:, late].any() and model.first.weight.grad[early].any()


def test_the_difference_is_that_of_the_two_sub_networks():
    tape = fi.train(recipe(epochs=2))
    assert torch.equal(row_numbers(tape, torch.arange(60)), torch.arange(60))
    model = tape.model().eval()
    seen, unseen = sub_networks(tape, model, [fi.own_loss([4])], 4)
    batch = tape.batch(torch.tensor([4]))
    with torch.no_grad():
        assert loss(model.train(), batch).item() == pytest.approx(seen[0], rel=1e-12)
    flipped = []
    for layer in (model.early, model.late):
        kept = layer.mask(torch.tensor([4]), 64)[0]
        flipped.append((~kept).double() / 0.5)
    with torch.no_grad():
        hidden = model.hidden(model.first(batch["x"]).relu() * flipped[0]).relu() * flipped[1]
        expected = nn.functional.cross_entropy(model.last(hidden), batch["y"]).item()
    assert unseen[0] == pytest.approx(expected, rel=1e-12)


def test_rows_are_missed_by_the_part_that_never_saw_them():
    """The own loss of flipped rows is larger without them; before training nothing is."""
    tape = fi.train(recipe())
    asked = list(range(10))
    found = fi.estimate(tape, fi.own_loss(asked), "turn-over", asked).data
    own = np.diag(found.effect.values)
    assert own.mean() > 0.5 and (own > 0).sum() >= 8
    apart = found.effect.values[~np.eye(10, dtype=bool)]
    assert abs(apart.mean()) < own.mean() / 3
    fresh = fi.estimate(
        fi.train(recipe(optimizer=fi.SGD(lr=0.0), epochs=1)), fi.own_loss(asked), "turn-over", asked
    )
    null = np.diag(fresh.data.effect.values)
    assert abs(null.mean()) < 3 * np.diag(fresh.data.effect_se.values).mean() / np.sqrt(10)


def test_the_error_is_that_of_masks_that_no_row_had():
    """Of an untrained network masks are all there is: p-values of all rows are uniform."""
    tape = fi.train(recipe(optimizer=fi.SGD(lr=0.0), epochs=1))
    x = torch.randn(1, 6, generator=torch.Generator().manual_seed(3)).double()
    found = fi.estimate(tape, fi.mean_loss(x, torch.tensor([1]), name="one"), "turn-over").data
    p = found.p_value.values[:, 0]
    assert 0.35 < p.mean() < 0.65 and 0 < (p < 0.2).mean() < 0.4
    pair = fi.estimate(
        tape, fi.mean_loss(x, torch.tensor([1]), name="one"), "turn-over", {"two": [0, 1]}
    ).data
    assert pair.effect.item() == pytest.approx(found.effect.values[:2].sum())
    assert pair.effect_se.item() == pytest.approx(found.effect_se.values[0, 0] * np.sqrt(2.04 / 1.01))


def test_a_model_that_is_not_told_its_rows_is_refused_in_words():
    blind = fi.train(
        recipe(epochs=1, loss=lambda m, b: nn.functional.cross_entropy(m(b["x"]), b["y"], reduction="none"))
    )
    for tape, got in (
        (blind, "a layer without them"),
        (fi.train(pt.recipe()), "Sequential without such a layer"),
    ):
        with pytest.raises(NotSupportedError) as caught:
            fi.estimate(tape, fi.own_loss([0]), "turn-over")
        assert_parts(caught.value, "TurnOver layers", got, "before training", 'batch["id"]')
    with pytest.raises(ConfigError) as caught:
        TurnOver(50)
    assert_parts(caught.value, "p above 0 and below 1", "50", "percentage", "p=0.5")
