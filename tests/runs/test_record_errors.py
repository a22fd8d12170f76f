"""What cannot be recorded or replayed is refused, each in its own words."""

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.errors import ConfigError, DataError, NotSupportedError, TrainingError
from four_parts import assert_parts
from recorded_loops import SGD, begin, descend, dropping, recorded


@pytest.mark.parametrize(
    ("ids", "got"),
    [([1, 99], "1 unknown at step 0, first 99"), (["1", "2"], "first '1'"), ([1.5], "first 1.5")],
)
def test_unknown_ids(ids, got):
    model, optimizer, tape = begin()
    descend(model, optimizer, [0, 1])
    with pytest.raises(DataError) as caught:
        tape.step(ids=ids)
    assert_parts(
        caught.value, "ids of rows of data=", got, "another type (7 is not '7')", "use ids such as 0, 1, 2"
    )


def test_named_ids():
    rows = fr.Rows(x=pt.table().fields["x"], y=pt.table().fields["y"], ids=[f"r{i}" for i in range(12)][::-1])
    model, optimizer, tape = begin(data=rows)
    for ids in ([0, 5], [3, 1]):
        descend(model, optimizer, ids, rows)
        tape.step(ids=[f"r{11 - i}" for i in ids])
    assert [tape.finish().at(t).rows.tolist() for t in (0, 1)] == [[0, 5], [3, 1]]
    descend(model, optimizer, [0])
    with pytest.raises(ConfigError) as caught:
        tape.step(ids=["r0"])
    assert_parts(
        caught.value, "being recorded", "finished", "before the training went on", "after the last step"
    )


def test_missing_ids():
    model, optimizer, tape = begin()
    descend(model, optimizer, [0, 1])
    with pytest.raises(DataError) as caught:
        tape.step(ids=[])
    assert_parts(caught.value, "ids of the rows of step 0", "none", "came out empty", 'ids=batch["id"]')


def shuffled(rows: int, epochs: int = 4) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [b for _ in range(epochs) for b in rng.permutation(rows).reshape(-1, 4).tolist()]


def test_ids_missing_from_every_epoch():
    with pytest.raises(DataError) as caught:
        recorded(shuffled(48), data=pt.table(60), rows=60).finish()
    assert_parts(
        caught.value, "use all 60 rows", "epochs of 48 rows; 12 rows are in none, such as id 48", "a part of the data",
        "the rows that the loader reads",
    )  # fmt: skip


def test_a_row_twice_in_an_epoch():
    for step, twice in ((20, 18), (20, 20)):
        order = shuffled(60)
        order[step] = [*order[step][:3], order[twice][0]]
        with pytest.raises(DataError) as caught:
            recorded(order, data=pt.table(60), rows=60).finish()
        assert_parts(
            caught.value, "each row at most once in an epoch",
            f"row {order[twice][0]} at step {twice} and again at step {step}", "draws with replacement",
            "sampling='independent'",
        )  # fmt: skip
    options = {"data": pt.table(60), "rows": 60}
    assert not recorded(order, sampling="independent", **options).finish().reshuffled
    with pytest.raises(DataError, match="each row at most once"):
        recorded([[0, 1], [2, 2], [3, 4]], sampling="reshuffle").finish()


def test_epochs_left_early_are_named():
    rng = np.random.default_rng(0)
    order = [b for _ in range(5) for b in rng.permutation(12)[:8].reshape(2, 4).tolist()]
    tape = recorded(order, steps_per_epoch=2).finish()
    assert tape.epochs == [range(e, e + 2) for e in range(0, 10, 2)] and tape.reshuffled
    with pytest.raises(DataError, match="each row at most once"):
        recorded(order, steps_per_epoch=3).finish()


@pytest.mark.parametrize(
    ("options", "word"), [({"sampling": "random"}, "sampling"), ({"steps_per_epoch": 0}, "steps_per_epoch")]
)
def test_sampling_words(options, word):
    with pytest.raises(ConfigError) as caught:
        begin(**options)
    assert_parts(caught.value, word, repr(next(iter(options.values()))), "mistyped", "read off the ids")


def test_a_dataset_whose_items_change():
    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, i):
            return torch.randn(4, dtype=pt.DOUBLE), i % 3

    data = Noisy()
    model, optimizer, tape = begin(data=data)
    descend(model, optimizer, [0, 1])
    with pytest.raises(DataError) as caught:
        tape.step(ids=[0, 1])
    assert_parts(
        caught.value, "the same at every call", "differs between two calls", "augments", "batch=batch"
    )
    with pytest.raises(ConfigError) as caught:
        tape.step(ids=[0, 1], batch=(1, 2))
    assert_parts(
        caught.value, "the dict of fields", "2 of type int for 1 micro-batches", "a tuple", 'batch={"x": x'
    )


def test_a_loss_of_one_number():
    with pytest.raises(ConfigError) as caught:
        begin(loss=lambda m, b: pt.class_loss(m, b).mean())
    assert_parts(caught.value, "one number per row", "a tensor of shape ()", "averages", "reduction='none'")


def test_a_loss_that_depends_on_other_rows():
    with pytest.raises(NotSupportedError) as caught:
        begin(loss=lambda m, b: pt.class_loss(m, {**b, "x": b["x"] - b["x"].mean(0)}))
    assert_parts(
        caught.value,
        "does not depend on the other rows",
        "for row 0 among others and",
        "contrastive",
        "mask padding",
    )


def test_a_loss_that_is_not_a_number():
    with pytest.raises(DataError) as caught:
        begin(loss=lambda m, b: pt.class_loss(m, b) + torch.where(b["id"] == 1, torch.nan, 0.0))
    assert_parts(caught.value, "a finite loss of each row", "nan for row 1", "missing values", "impute")


def test_training_that_diverges():
    model = pt.made(lambda: nn.Linear(4, 1))
    optimizer, rows = torch.optim.SGD(model.parameters(), lr=1e30), pt.table()
    tape = fi.Tape.record(model, optimizer, pt.square_loss, rows)
    for ids in pt.recipe(epochs=20).order(0):
        descend(model, optimizer, ids, rows, pt.square_loss)
        tape.step(ids=ids)
    with pytest.raises(TrainingError) as caught:
        tape.finish()
    assert_parts(
        caught.value,
        "losses, gradients and parameters are finite",
        "a loss of inf at step",
        "diverged",
        "lower the learning rate",
    )


def test_step_without_a_step():
    model, optimizer, tape = begin()
    with pytest.raises(TrainingError) as caught:
        tape.step(ids=[0])
    assert_parts(
        caught.value,
        "before each tape.step",
        "none since step -1",
        "before optimizer.step(), or a gradient scaler",
        "scaler=…",
    )
    descend(model, optimizer, [0, 1])
    tape.step(ids=[0, 1])
    with pytest.raises(TrainingError) as caught:
        tape.step(ids=[0, 1])
    assert_parts(
        caught.value,
        "before each tape.step",
        "whose ids are passed again",
        "called twice",
        "call tape.step once",
    )
    with pytest.raises(TrainingError, match="gradient scaler skipped the step"):
        tape.step(ids=[2, 3])


def test_a_step_that_is_not_named():
    model, optimizer, tape = begin()
    for ids in ([0, 1], [2, 3]):
        descend(model, optimizer, ids)
    for action in (lambda: tape.step(ids=[2, 3]), tape.finish):
        with pytest.raises(TrainingError) as caught:
            action()
        assert_parts(
            caught.value, "after every step", "after step -1", "without tape.step", "tape.finish() where"
        )
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks


def test_nothing_recorded():
    with pytest.raises(ConfigError) as caught:
        fi.replay(begin()[2], fi.own_loss([0]))
    assert_parts(
        caught.value, "a recorded training step", "none", "never called", "after each optimizer.step()"
    )


class Lion(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})


@pytest.mark.parametrize(
    ("cls", "cause"), [(Lion, "sign of the gradient"), (torch.optim.RMSprop, "not written down here")]
)
def test_unknown_optimizers(cls, cause):
    model = pt.made(pt.mlp)
    with pytest.raises(NotSupportedError) as caught:
        begin(model, cls(model.parameters()))
    assert_parts(
        caught.value,
        "torch.optim.Adam, torch.optim.AdamW, torch.optim.Muon, torch.optim.SGD",
        cls.__name__,
        cause,
        "train with one of those",
    )


def test_groups_that_differ_in_more_than_numbers():
    model = pt.made(pt.mlp)
    first, *others = model.parameters()
    optimizer = torch.optim.SGD(
        [{"params": [first]}, {"params": others, "nesterov": True}], lr=0.1, momentum=0.9
    )
    with pytest.raises(NotSupportedError) as caught:
        begin(model, optimizer)
    assert_parts(caught.value, "one value of nesterov", "False, True", "in numbers", "the same nesterov")


def test_parameters_that_cannot_be_recorded():
    model = pt.made(pt.mlp)
    with pytest.raises(NotSupportedError) as caught:
        begin(model, SGD(pt.made(pt.mlp)))
    assert_parts(
        caught.value, "the model's own parameters", "4 of its 4", "another model", "model.parameters()"
    )
    for parameters, got in (
        (["nothing"], "'nothing'"), (["0.weight"], "'0.bias' is trained"), ([], "trained"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            begin(model, parameters=parameters)
        assert got in str(caught.value) and "parameters=" in str(caught.value)
    model[0].requires_grad_(False)
    with pytest.raises(ConfigError) as caught:
        begin(model, parameters=lambda name: True)
    assert_parts(
        caught.value,
        "exactly what the optimiser trains",
        "'0.weight' is not trained",
        "cannot be replayed",
        "freeze",
    )


@pytest.mark.parametrize("options", [{"clip_norm": 0}, {"clip_value": -1.0}, {"clip_norm": True}])
def test_clipping_words(options):
    ((name, value),) = options.items()
    with pytest.raises(ConfigError) as caught:
        begin(**options)
    assert_parts(caught.value, f"{name} to be a number above 0", repr(value), "mistyped", "leave")
    with pytest.raises(ConfigError, match="clip_norm or clip_value"):
        begin(clip_norm=1.0, clip_value=1.0)


@pytest.mark.parametrize("weights", [[np.array([0.0, 1.0])], [np.array([-0.5, 1.0])], [0.0]])
def test_rows_that_do_not_count_or_are_climbed(weights):
    model, optimizer, tape = begin()
    descend(model, optimizer, [0, 1])
    with pytest.raises(ConfigError) as caught:
        tape.step(ids=[[0, 1]], weights=weights)
    assert_parts(
        caught.value,
        "weights above 0 at step 0",
        "[",
        "masked",
        "leave rows of weight 0 out of ids and weights",
    )


def test_weights_words():
    model, optimizer, tape = begin()
    descend(model, optimizer, [0, 1])
    with pytest.raises(ConfigError) as caught:
        tape.step(ids=[[0], [1]], weights=[1.0])
    assert_parts(
        caught.value, "for each of 2 micro-batches at step 0", "[1.0]", "cut differently", "weights=[…]"
    )


def test_buffers_that_training_writes_on():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 3)
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            self.count += 1
            return self.head(x)

    with pytest.raises(NotSupportedError) as caught:
        begin(pt.made(Counting))
    assert_parts(caught.value, "in its parameters only", "buffer 'count'", "power iterations", "without them")


def test_dropout_beside_the_recorded_model():
    def parts(model, batch):
        return nn.functional.cross_entropy(
            model[3](model[2](model[1](model[0](batch["x"])))), batch["y"], reduction="none"
        )

    model = pt.made(dropping)
    model, optimizer, tape = begin(model, loss=parts)
    descend(model, optimizer, [0, 1], loss=parts)
    with pytest.raises(NotSupportedError) as caught:
        tape.step(ids=[0, 1])
    assert_parts(
        caught.value,
        "a forward pass of the recorded model",
        "0 at step 0",
        "calls parts",
        "call the recorded model itself",
    )


def test_layers_skipped_at_some_steps():
    class Skipping(nn.Module):
        def __init__(self):
            super().__init__()
            self.always, self.sometimes, self.deep = nn.Linear(4, 3), nn.Linear(4, 3), True

        def forward(self, x):
            return self.always(x) + (self.sometimes(x) if self.deep else 0)

    model, optimizer, tape = begin(pt.made(Skipping))
    descend(model, optimizer, [0, 1, 2])
    tape.step(ids=[0, 1, 2])
    model.deep = False
    descend(model, optimizer, [3, 4])
    with pytest.raises(NotSupportedError) as caught:
        tape.step(ids=[3, 4])
    assert_parts(
        caught.value,
        "the same parameters at every step",
        "'sometimes.weight'",
        "skips layers",
        "record each phase",
    )
