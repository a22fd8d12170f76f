"""A tape and a recipe belong to the weights and rows that they were made with: the same numbers later, or an error."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.errors import ConfigError, DataError, NotSupportedError
from finfluence.runs.describe import checksum
from four_parts import assert_parts
from recorded_loops import Loop


class Adapted(nn.Module):
    """A frozen layer, a frozen table as a buffer, and a trained adapter."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(4, 3).requires_grad_(False)
        self.a, self.b = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.zeros(3, 2))
        self.register_buffer("shift", torch.ones(3))

    def forward(self, x):
        return self.base(x) + x @ self.a.T @ self.b.T + self.shift


QUERY = fi.own_loss([2, 7])


def table() -> fr.Rows:
    return pt.table(dtype=torch.float64)


def recorded(model: nn.Module, rows: fr.Rows, after=lambda model: None) -> fr.Tape:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    recorder = fi.Tape.record(model, optimizer, loss=pt.class_loss, data=rows)
    for ids in pt.recipe().order(1):
        pt.class_loss(model, rows.batch(ids)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        recorder.step(ids=ids)
        after(model)
    return recorder.finish()


def effects(tape: fr.Tape) -> np.ndarray:
    return fi.replay(tape, QUERY, horizon=3, late=0).data.effect.values


def merge(model):
    model.base.weight.data += (model.b @ model.a).data


def one_entry(model):
    with torch.no_grad():
        model.base.weight[2, 3] += 1e-9


def other_bias(model):
    model.base.load_state_dict({"weight": model.base.weight, "bias": model.base.bias + 1})


@pytest.mark.parametrize(
    ("change", "name"), [(merge, "base.weight"), (one_entry, "base.weight"), (other_bias, "base.bias")]
)
def test_a_replay_after_frozen_weights_changed_names_the_parameter(change, name):
    model = pt.made(Adapted)
    tape = recorded(model, table())
    change(model)
    with pytest.raises(ConfigError) as caught:
        fi.replay(tape, QUERY)
    assert_parts(
        caught.value, "the model that the run was made with", f"other values of '{name}'", "adapters merged",
        "copy.deepcopy",
    )  # fmt: skip


def half(model):
    model.half()


def retrained(model):
    with torch.no_grad():
        model.a.add_(1)
        model.b.sub_(1)


def other_buffer(model):
    model.shift.zero_()


def unfrozen(model):
    model.requires_grad_(True).train(False)


@pytest.mark.parametrize("change", [half, retrained, other_buffer, unfrozen])
def test_a_replay_after_the_model_was_used_otherwise_gives_the_same_numbers(change):
    model = pt.made(Adapted)
    tape = recorded(model, table())
    before = effects(tape)
    change(model)
    np.testing.assert_array_equal(effects(tape), before)


def test_frozen_weights_that_move_while_they_are_recorded_are_refused():
    with pytest.raises(ConfigError, match=r"other values of 'base\.weight'"):
        recorded(pt.made(Adapted), table(), after=one_entry)


def shuffle(x):
    x[:] = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(1))].clone()


def scale(x):
    x.mul_(2)


def one_number(x):
    x[5, 1] += 1e-12


@pytest.mark.parametrize("change", [shuffle, scale, one_number])
@pytest.mark.parametrize("made", ["recorded", "trained"])
def test_rows_that_changed_since(made, change):
    x, y = table().fields["x"].clone(), table().fields["y"]
    rows, model = fr.Rows(x=x, y=y), pt.made(Adapted)
    tape = recorded(model, rows) if made == "recorded" else fi.train(pt.recipe(data=rows, model=model))
    change(x)
    with pytest.raises(DataError) as caught:
        fi.replay(tape, QUERY)
    assert_parts(
        caught.value,
        "rows that the run was made with",
        "other values of field 'x'",
        "shuffled, scaled",
        "from copies",
    )


def test_arrays_of_numpy_share_their_memory_and_are_compared():
    x = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    described = pt.recipe(
        data=fr.Rows(x=x, y=table().fields["y"]), model=pt.made(pt.mlp, dtype=torch.float32)
    )
    fi.train(described)
    x[3] = 0
    for use in (lambda: fi.train(described), lambda: fi.retrain(described, QUERY, {"a": [1, 2]}, runs=4)):
        with pytest.raises(DataError, match="other values of field 'x'"):
            use()


class Items(torch.utils.data.Dataset):
    def __init__(self):
        self.x = torch.randn(12, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return 12

    def __getitem__(self, i):
        return {"id": f"row {i}", "x": self.x[i], "y": i % 3}


def test_items_of_a_data_set_are_compared_too():
    items = Items()
    tape = fi.train(pt.recipe(data=items))
    items.x[4] += 1
    with pytest.raises(DataError, match="other values of field x of row 'row 4'"):
        fi.replay(tape, fi.own_loss(["row 1"]))


def test_a_recipe_holds_the_weights_it_was_given():
    model = pt.made(pt.mlp)
    described, subsets = pt.recipe(model=model), {"a": [1, 2, 3]}
    before = fi.retrain(described, QUERY, subsets, runs=4).data.effect.values
    start = pt.flat(model).clone()
    tape = fi.train(described)
    assert torch.equal(pt.flat(model), start)  # never written on
    model.load_state_dict(tape.model().state_dict())
    np.testing.assert_array_equal(fi.retrain(described, QUERY, subsets, runs=4).data.effect.values, before)
    assert torch.equal(fi.train(described).state(), tape.state())
    assert torch.equal(pt.flat(tape.run.initial_model()), start)


def test_a_recipe_shares_frozen_weights_and_compares_them():
    model = pt.made(Adapted)
    described = pt.recipe(model=model)
    assert described.model.base.weight.data_ptr() == model.base.weight.data_ptr()
    assert described.model.a.data_ptr() != model.a.data_ptr()
    tape = fi.train(described)
    one_entry(model)
    uses = (
        lambda: fi.train(described), lambda: fi.replay(tape, QUERY),
        lambda: fi.retrain(described, QUERY, {"a": [1]}, runs=4),
    )  # fmt: skip
    for use in uses:
        with pytest.raises(ConfigError, match=r"other values of 'base\.weight'"):
            use()


def test_a_factory_that_hands_out_one_module_which_changed():
    model = pt.made(pt.mlp)
    tape = fi.train(pt.recipe(model=lambda seed: model))
    effects(tape)
    with torch.no_grad():
        model[2].bias.add_(1)
    with pytest.raises(ConfigError, match=r"other values of '2\.bias'"):
        effects(tape)


@pytest.mark.parametrize(("change", "name"), [(one_entry, "base.weight"), (other_buffer, "shift")])
def test_a_factory_whose_constants_changed(change, name):
    model = pt.made(Adapted)
    tape = fi.train(pt.recipe(model=lambda seed: model))
    effects(tape)
    change(model)
    with pytest.raises(ConfigError, match=f"other values of '{name}'"):
        effects(tape)


def test_checksums_see_every_bit_and_every_place():
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool):
        x = torch.rand(3, 7, generator=generator) * 200
        x = x > 100 if dtype is torch.bool else x.to(dtype)
        same = copy.deepcopy(x)
        assert checksum(same) == checksum(x) == checksum(x.T.contiguous().T)
        seen = {checksum(x)}
        raw = x.view(torch.uint8)
        for k in range(raw.numel()):
            raw.view(-1)[k] ^= 1
            seen.add(checksum(x))
            raw.view(-1)[k] ^= 1
        seen |= {checksum(x.roll(k, 1)) for k in (1, 2)}
        if dtype.is_floating_point:
            seen.add(checksum(-x))
        assert len(seen) == raw.numel() + 3 + dtype.is_floating_point and checksum(x) == checksum(same)
    long = torch.arange(2**16 + 5)
    assert checksum(long) != checksum(long.roll(1)) and checksum(long) != checksum(
        torch.cat([long[:2], long[:2]])
    )
    assert checksum(torch.empty(0)) == 0 and checksum(torch.tensor(3.0)) != checksum(torch.tensor(4.0))


def twice(model, batch):
    return 2 * pt.class_loss(model, batch)


def rectified():
    return pt.mlp(activation=nn.ReLU)


@pytest.mark.parametrize(("loss", "model"), [(twice, pt.mlp), (pt.class_loss, rectified)])
def test_a_tape_that_is_opened_with_something_else_than_it_was_recorded_with(loss, model, tmp_path):
    Loop(epochs=1).run(record=True, out=tmp_path)[1].finish()
    opened = fi.Tape.open(tmp_path, model=pt.made(model), loss=loss, data=pt.table())
    with pytest.raises(NotSupportedError) as caught:
        fi.replay(opened, QUERY)
    assert_parts(
        caught.value, "can be taken again", " at step 0", "opened with another loss or model",
        "given to fi.Tape.record",
    )  # fmt: skip
