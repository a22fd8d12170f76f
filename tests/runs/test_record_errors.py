"""What cannot be recorded or replayed is refused, each in its own words."""

import json
import time
from itertools import count

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.errors import ConfigError, DataError, NotSupportedError, StorageError, TrainingError
from four_parts import assert_parts
from recorded_loops import LOOPS, Checkpointed, Loop, dropping, whole

SGD = whole(torch.optim.SGD, lr=0.1)


def begin(model=None, optimizer=None, loss=pt.class_loss, data=None, **options):
    model = pt.made(pt.mlp) if model is None else model
    optimizer = SGD(model) if optimizer is None else optimizer
    return (
        model,
        optimizer,
        fi.Tape.record(model, optimizer, loss, pt.table() if data is None else data, **options),
    )


def descend(model, optimizer, ids, rows=None, loss=pt.class_loss) -> None:
    loss(model, (rows or pt.table()).batch(torch.as_tensor(ids))).mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def recorded(order, rows=12, **options):
    model, optimizer, tape = begin(**options)
    for ids in order:
        descend(model, optimizer, ids, pt.table(rows))
        tape.step(ids=ids)
    return tape


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
        "can be taken again",
        "NaN or infinite values at step",
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


UNSAID = {
    "clip norm": ("clips the norm", "pass clip_norm=0.4 to Tape.record"),
    "clip value": ("by value", "pass clip_value=0.05 to Tape.record"),
}


@pytest.mark.parametrize("name", UNSAID)
def test_clipping_that_was_not_said(name):
    loop = LOOPS[name]
    with pytest.raises(TrainingError) as caught:
        loop.run(record=True, clip_norm=None, clip_value=None)[1].finish()
    assert_parts(caught.value, "can be taken again", "a gradient at step 0 that differs by", *UNSAID[name])


def broken(change, ids=lambda t, order: order[t], **options):
    """A loop in which `change(model, optimizer, batch, t)` takes the step."""
    rows, order = pt.table(), [o.tolist() for o in pt.recipe(epochs=4).order(0)]
    model, optimizer, tape = begin(**options)
    for t, step in enumerate(order):
        change(model, optimizer, rows.batch(torch.tensor(step)), t)
        optimizer.zero_grad()
        tape.step(ids=ids(t, order))
    with pytest.raises(TrainingError) as caught:
        tape.finish()
    return caught.value


def plain(model, optimizer, batch, t, loss=pt.class_loss, factor=1.0):
    (factor * loss(model, batch).mean()).backward()
    optimizer.step()


def test_the_self_check_names_step_size_and_cause():
    summed = broken(lambda m, o, b, t: plain(m, o, b, t, factor=4.0))
    assert_parts(
        summed, "can be taken again", "a gradient at step 0 that differs by 75.0%", "times 4", "weights=[4]"
    )
    smooth = broken(
        lambda m, o, b, t: plain(
            m, o, b, t, lambda m, b: nn.functional.cross_entropy(m(b["x"]), b["y"], label_smoothing=0.5)
        )
    )
    assert_parts(
        smooth,
        "can be taken again",
        "step 0",
        "another loss than the one given",
        "compare loss(model, batch)",
    )
    shifted = broken(plain, ids=lambda t, order: order[(t + 1) % len(order)])
    assert_parts(
        shifted,
        "can be taken again",
        "a gradient at step",
        "",
        "ids of the batch that the optimiser has just used" if "named at" in str(shifted) else "compare",
    )
    late = broken(lambda m, o, b, t: plain(m, o, b, t, factor=2.0 if t > 2 else 1.0))
    assert_parts(late, "can be taken again", "at step 3 that differs by 50.0%", "times 2", "weights=[2]")


def test_the_self_check_sees_parameters_that_move_by_themselves():
    def averaged(model, optimizer, batch, t):
        plain(model, optimizer, batch, t)
        with torch.no_grad():
            model[0].weight.mul_(0.9)

    error = broken(averaged)
    assert_parts(
        error,
        "can be taken again",
        "parameters that move after the optimiser's step",
        "averaged weights",
        "only the optimiser",
    )


def test_the_self_check_knows_autocast_and_modes():
    def cast(model, optimizer, batch, t):
        with torch.autocast("cpu", torch.bfloat16):
            losses = pt.class_loss(model, batch)
        losses.mean().backward()
        optimizer.step()

    single = {"model": pt.made(pt.mlp, dtype=torch.float32), "data": pt.table(dtype=torch.float32)}
    rows = single["data"]

    def run(model, optimizer, batch, t):
        cast(model, optimizer, {k: v.float() if v.is_floating_point() else v for k, v in batch.items()}, t)

    assert len(rows) == 12
    assert_parts(
        broken(run, **single),
        "can be taken again",
        "step 0",
        "under autocast in torch.bfloat16",
        "inside the loss",
    )


def stopped(tmp_path, monkeypatch, steps=9):
    monkeypatch.setattr(time, "monotonic", count(step=60).__next__)  # a minute passes at every look
    loop = Loop(whole(torch.optim.AdamW, lr=0.02))
    rows, model = loop.data(), loop.start()
    optimizer = loop.optimizer(model)
    tape = fi.Tape.record(model, optimizer, loop.loss, rows, out=tmp_path)
    for ids in loop.order()[:steps]:
        descend(model, optimizer, ids, rows)
        tape.step(ids=ids)
    return loop, tape, pt.flat(model)


def test_an_unfinished_tape_is_read_up_to_its_last_whole_step(tmp_path, monkeypatch):
    loop, tape, reached = stopped(tmp_path, monkeypatch)
    given = {"model": loop.start(), "loss": loop.loss, "data": loop.data()}
    with pytest.raises(StorageError) as caught:
        fr.Tape.open(tmp_path, **given)
    assert_parts(
        caught.value, f"a whole tape in {tmp_path}", "9 whole steps", "before tape.finish()", "partial=True"
    )
    opened = fr.Tape.open(tmp_path, **given, partial=True)
    assert opened.steps == 9 and torch.equal(opened.state()[: opened.layout.size], reached)
    assert (
        "up to step 9, and was not checked" in fi.replay(opened, fi.own_loss([0])).data.attrs["findings"][0]
    )
    tape.finish()
    assert fr.Tape.open(tmp_path, **given).notes[0].startswith("self-check")


@pytest.mark.parametrize(("name", "left"), [("steps-0000000005", 5), ("kept-0000000005", 9)])
def test_a_truncated_file_costs_what_is_in_it(tmp_path, monkeypatch, name, left):
    loop, tape, _ = stopped(tmp_path, monkeypatch)
    states = [tape.finish().state(t).clone() for t in range(10)]
    path = tmp_path / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    given = {"model": loop.start(), "loss": loop.loss, "data": loop.data()}
    with pytest.raises(StorageError) as caught:
        fr.Tape.open(tmp_path, **given)
    assert_parts(
        caught.value,
        f"a whole tape in {tmp_path}",
        f"cannot be read: {path.name}",
        "cut short",
        "partial=True",
    )
    opened = fr.Tape.open(tmp_path, **given, partial=True)
    assert opened.steps == left
    assert all(torch.equal(opened.state(t), states[t]) for t in range(left + 1))


def test_a_tape_of_something_else(tmp_path):
    loop = LOOPS["tied"]
    loop.run(record=True, out=tmp_path)[1].finish()
    given = {"model": loop.start(), "loss": loop.loss, "data": loop.data()}
    other = loop.start()
    with torch.no_grad():
        other.frozen.weight.add_(1)
    for change, word in (
        ({"model": other}, "model"), ({"data": pt.table(11)}, "data"), ({"data": pt.table(seed=9)}, "data"),
        ({"model": pt.made(lambda: Checkpointed())}, "model"),
    ):  # fmt: skip
        with pytest.raises(StorageError) as caught:
            fr.Tape.open(tmp_path, **{**given, **change})
        assert_parts(caught.value, f"the {word} that the tape in {tmp_path}", "", "", f"pass the same {word}")
    with pytest.raises(ConfigError) as caught:
        fr.Tape.open(tmp_path, model=loop.start())
    assert_parts(
        caught.value, "a recipe, or model=, loss= and data=", "not all", "neither code nor rows", "was given"
    )
    with pytest.raises(StorageError, match="another program or version"):
        fr.Tape.open(tmp_path, pt.recipe())
    with pytest.raises(StorageError) as caught:
        begin(out=tmp_path)
    assert_parts(caught.value, "an empty or new folder", "another run", "used before", "fi.Tape.open")
    head = json.loads((tmp_path / "tape.json").read_text())
    (tmp_path / "tape.json").write_text(json.dumps({**head, "version": 99}))
    with pytest.raises(StorageError) as caught:
        fr.Tape.open(tmp_path, **given)
    assert_parts(
        caught.value,
        f"a recorded loop in {tmp_path}",
        "another program",
        "made by fi.train",
        "with its recipe",
    )


def test_a_recorded_loop_has_no_recipe():
    tape = Loop().run(record=True)[1].finish()
    with pytest.raises(ConfigError) as caught:
        _ = tape.recipe
    assert_parts(caught.value, "a tape of fi.train", "a recorded loop", "training again", "fi.Recipe")


WEIGHTS = torch.tensor([1.0, 5.0, 2.0], dtype=pt.DOUBLE)


def row_weighted(model, batch):
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"], weight=WEIGHTS, reduction="none")


def class_weighted(steps=4, weights=None, sizes=(4, 4, 4, 4), clip=None, **options):
    """A loop that averages as torch's weighted cross-entropy does: by the sum of the weights of the batch's classes."""
    rows = pt.table(16)
    model, optimizer, tape = begin(loss=row_weighted, data=rows, sampling="independent", **options)
    start = 0
    for size in sizes[:steps]:
        ids = torch.arange(start, start + size)
        start += size
        batch = rows.batch(ids)
        nn.functional.cross_entropy(model(batch["x"]), batch["y"], weight=WEIGHTS).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        tape.step(ids=ids, weights=None if weights is None else [weights(ids, batch["y"])])
    return tape


def test_class_weights_get_advice_that_works():
    with pytest.raises(TrainingError) as caught:
        class_weighted().finish()
    assert_parts(
        caught.value, "can be taken again", "a gradient at step 0", "times another number at every step",
        "weights=[len(ids) / w[y].sum()]",
    )  # fmt: skip
    assert "at step 0" in str(caught.value) and "class weights" in str(caught.value)
    followed = class_weighted(weights=lambda ids, y: len(ids) / WEIGHTS[y].sum().item()).finish()
    assert followed.notes[0].startswith("self-check: steps 0, 1, 3 of 4 taken again")
    with pytest.raises(TrainingError, match="times another number at every step"):
        class_weighted(weights=lambda ids, y: 0.5).finish()


def test_a_single_step_leaves_all_explanations_open():
    with pytest.raises(TrainingError) as caught:
        class_weighted(steps=1).finish()
    assert_parts(
        caught.value, "can be taken again", "step 0", "sum of class weights",
        "weights=[len(ids) / w[y].sum()] for class weights",
    )  # fmt: skip


def scaled_loop(share, sizes=3):
    model, optimizer, tape = begin()
    for ids in ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]):
        (share * pt.class_loss(model, pt.table().batch(torch.tensor(ids))).mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
        tape.step(ids=ids)
    return tape


@pytest.mark.parametrize(("share", "cause"), [(0.25, "the loop divides the loss"), (4.0, "sums over rows")])
def test_one_factor_at_every_step_is_a_weight(share, cause):
    with pytest.raises(TrainingError) as caught:
        scaled_loop(share).finish()
    assert_parts(caught.value, "can be taken again", "step 0", cause, f"weights=[{share:.4g}]")
    assert "clip" not in str(caught.value)


def test_clipping_of_some_steps_is_told_from_weights():
    """Steps that are not longer than the limit are whole; the others have its length."""
    model, optimizer, tape = begin()
    norms = []
    for ids in ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [3, 2, 1, 0]):
        pt.class_loss(model, pt.table().batch(torch.tensor(ids))).mean().backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 0.3)))
        optimizer.step()
        optimizer.zero_grad()
        tape.step(ids=ids)
    assert max(norms) > 0.3
    with pytest.raises(TrainingError) as caught:
        tape.finish()
    assert_parts(
        caught.value, "can be taken again", "a gradient", "never longer than 0.3", "pass clip_norm=0.3"
    )
