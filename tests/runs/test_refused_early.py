"""What cannot be trained here is refused in words before the first step, and leaves no trace."""

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.errors import ConfigError, DataError, NotSupportedError, StorageError, TrainingError
from four_parts import assert_parts
from recorded_loops import Loop

TOKENS = fr.Rows(x=torch.arange(60).reshape(12, 5) % 9, y=torch.arange(12) % 3)


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 4, dtype=torch.complex128))

    def forward(self, x):
        return (x.to(torch.complex128) @ self.w.T).abs()


class Keeps(nn.Module):
    """Keeps its last output, with the graph."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 3)
        self.last = self.body(torch.ones(4))

    def forward(self, x):
        return self.body(x)


class Locked(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.generator = nn.Linear(4, 3), (i for i in range(3))


def bag():
    return nn.Sequential(nn.EmbeddingBag(9, 3, sparse=True, mode="sum"))


def embedding():
    return nn.Sequential(nn.Embedding(9, 3, sparse=True), nn.Flatten(), nn.Linear(15, 3))


def weight_norm():
    with pytest.warns(FutureWarning):
        return nn.Sequential(nn.Linear(4, 5), nn.utils.weight_norm(nn.Linear(5, 3)))


MODELS = {
    "sparse embedding": (embedding, TOKENS, "dense gradients", "of '0' (Embedding with sparse=True)", "sparse=False"),
    "sparse bag": (bag, TOKENS, "dense gradients", "of '0' (EmbeddingBag with sparse=True)", "sparse=False"),
    "complex": (Complex, pt.table(), "real trained parameters", "'w' of torch.complex128", "two real parameters"),
    "old weight norm": (
        weight_norm, pt.table(), "parameters, buffers or constants", "'1.weight', computed from others with a graph, "
        "by torch's old WeightNorm", "torch.nn.utils.parametrizations.weight_norm",
    ),
    "kept output": (Keeps, pt.table(), "parameters, buffers or constants", "'last', computed", "value.detach()"),
    "lazy": (
        lambda: nn.Sequential(nn.LazyLinear(5), nn.Linear(5, 3)), pt.table(), "parameters that have values",
        "'0.weight' of a lazy layer", "before the optimiser is made",
    ),
    "no values": (lambda: pt.mlp().to("meta"), pt.table(), "that have values", "'0.weight' on device meta", "load its weights"),
    "a generator inside": (Locked, pt.table(), "can be copied", "TypeError: cannot pickle 'generator'", "outside"),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("way", ["record", "recipe"])
def test_models(name, way, tmp_path):
    make, rows, expected, got, next_step = MODELS[name]
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(NotSupportedError) as caught:
        if way == "record":
            fi.Tape.record(model, optimizer, loss=pt.class_loss, data=rows, out=tmp_path / "new")
        else:
            fi.train(pt.recipe(model=model, data=rows), out=tmp_path / "new")
    assert_parts(caught.value, expected, got, "", next_step)
    assert not (tmp_path / "new").exists()
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks


def test_frozen_sparse_and_complex_parameters_are_no_hindrance():
    model = embedding()
    model[0].weight.requires_grad_(False)
    head = torch.optim.SGD(model[2].parameters(), lr=0.1)
    recorder = fi.Tape.record(model, head, loss=pt.class_loss, data=TOKENS)
    for ids in pt.recipe().order(0):
        pt.class_loss(model, TOKENS.batch(ids)).mean().backward()
        head.step()
        head.zero_grad()
        recorder.step(ids=ids)
    assert recorder.finish().steps == 9


def sparse_loss(model, batch):
    rows = nn.functional.embedding(batch["y"], model.weight, sparse=True)
    return rows.square().sum(1)


def test_a_sparse_gradient_that_only_the_loss_knows_of_leaves_the_users_step_alone():
    model, rows = pt.made(lambda: nn.Linear(4, 3, bias=False)), pt.table()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = fi.Tape.record(model, optimizer, loss=sparse_loss, data=rows)
    before = model.weight.detach().clone()
    sparse_loss(model, rows.batch(torch.arange(4))).mean().backward()
    optimizer.step()  # no error here
    assert not torch.equal(model.weight, before)
    with pytest.raises(NotSupportedError) as caught:
        recorder.step(ids=range(4))
    assert_parts(caught.value, "dense gradients", "sparse ones of 'weight' at step 0", "", "sparse=False")


def test_a_parameter_that_becomes_another_dtype_leaves_the_users_step_alone():
    loop = Loop()
    model, rows = loop.start(), loop.data()
    optimizer = loop.optimizer(model)
    recorder = fi.Tape.record(model, optimizer, loss=loop.loss, data=rows)
    model[0].weight.grad = torch.zeros_like(model[0].weight)
    optimizer.param_groups[0]["betas"] = optimizer.param_groups[0].pop(
        "momentum"
    )  # a step that cannot be read
    with pytest.raises(KeyError):  # torch's own, not ours
        optimizer.step()
    with pytest.raises(NotSupportedError) as caught:
        recorder.step(ids=[0])
    assert_parts(
        caught.value, "a step of the optimiser that can be read", "KeyError at step 0", "replaced", "before"
    )


ARRAYS = {
    "big-endian": (np.arange(6).reshape(3, 2).astype(">i4"), torch.int32),
    "big-endian floats": (np.arange(6.0).reshape(3, 2).astype(">f8"), torch.float32),
    "unsigned": (np.arange(6, dtype=np.uint16).reshape(3, 2), torch.int32),
    "unsigned long": (np.arange(6, dtype=np.uint64).reshape(3, 2), torch.int64),
    "bytes": (np.arange(6, dtype=np.uint8).reshape(3, 2), torch.uint8),
    "half": (np.arange(6, dtype=np.float16).reshape(3, 2), torch.float32),
    "read-only and turned": (np.broadcast_to(np.arange(2), (3, 2)), torch.int64),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_any_numbers_become_tensors_of_their_values(name):
    array, dtype = ARRAYS[name]
    field = fr.Rows(x=array).batch(torch.tensor([2, 0]))["x"]
    assert field.dtype is dtype and field.tolist() == array[[2, 0]].tolist()


@pytest.mark.parametrize(
    ("value", "expected", "got", "next_step"),
    [
        ([[1, 2], [3]], "rows of one shape in field 'x'", "inhomogeneous", "pad them"),
        (5, "one entry per row in field 'x'", "a single number", "repeat it"),
        (torch.eye(3).to_sparse(), "a dense tensor in field 'x'", "sparse_coo", "to_dense()"),
        (np.array([2**63], dtype=np.uint64), "below 2⁶³ in field 'x'", "9223372036854775808", "number them"),
        (np.ones(3, dtype=complex), "numbers in field 'x'", "complex128", "encode them"),
    ],
)
def test_arrays_that_are_no_rows(value, expected, got, next_step):
    with pytest.raises(DataError) as caught:
        fr.Rows(x=value)
    assert_parts(caught.value, expected, got, "", next_step)


def test_queries_over_named_fields_alone():
    assert fi.mean_loss(input_ids=np.eye(3), name="q").names == ("q",)
    assert fi.each_loss(input_ids=np.eye(3)).names == ("loss[0]", "loss[1]", "loss[2]")


LOSSES = {
    "cross-entropy": (
        nn.CrossEntropyLoss(),
        'cross_entropy(model(batch["x"]), batch["y"], reduction="none")',
    ),
    "squares": (nn.MSELoss(), 'mse_loss(model(batch["x"])[:, 0], batch["y"], reduction="none")'),
    "a name": ("cross_entropy", 'cross_entropy(model(batch["x"]), batch["y"], reduction="none")'),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_that_are_none(name):
    loss, line = LOSSES[name]
    model = pt.made(pt.mlp)
    for use in (
        lambda: pt.recipe(loss=loss),
        lambda: fi.Tape.record(
            model, torch.optim.SGD(model.parameters(), lr=0.1), loss=loss, data=pt.table()
        ),
    ):
        with pytest.raises(ConfigError) as caught:
            use()
        assert_parts(
            caught.value,
            "loss(model, batch) -> Tensor[B]",
            type(loss).__name__ if name != "a name" else name,
            "",
            line,
        ) if name != "a name" else assert_parts(caught.value, "loss(model", "'cross_entropy'", "", line)


def test_an_estimator_of_scikit_learn_as_model():
    linear = pytest.importorskip("sklearn.linear_model")
    for model in (linear.LogisticRegression(), linear.LogisticRegression):
        with pytest.raises(ConfigError) as caught:
            pt.recipe(model=model)
        assert_parts(
            caught.value, "an nn.Module, or callable(seed)", "LogisticRegression, an estimator with fit", "gradient steps",
            "nn.Linear(features, classes)",
        )  # fmt: skip
    with pytest.raises(ConfigError, match="LogisticRegression, an estimator"):
        fi.Tape.record(linear.LogisticRegression(), None, loss=pt.class_loss, data=pt.table())
    with pytest.raises(ConfigError, match="got: str"):
        pt.recipe(model="resnet")
    with pytest.raises(ConfigError) as caught:
        fi.Tape.record(lambda seed: nn.Linear(4, 3), None, loss=pt.class_loss, data=pt.table())
    assert_parts(
        caught.value, "the nn.Module that the loop trains", "function", "as a Recipe", "the module itself"
    )


def triples(named: bool):
    x, y = pt.table().fields["x"], pt.table().fields["y"]
    return [(x[i], y[i], torch.ones((), dtype=pt.DOUBLE)) for i in range(12)] if not named else [
        {"x": x[i], "y": y[i], "mask": torch.ones((), dtype=pt.DOUBLE)} for i in range(12)
    ]  # fmt: skip


def test_items_of_three():
    """The error says how the fields are called; with these names the loss works."""
    model = pt.made(pt.mlp)
    for use in (
        lambda: fi.train(pt.recipe(data=triples(False))),
        lambda: fi.Tape.record(
            model, torch.optim.SGD(model.parameters(), lr=0.1), pt.class_loss, triples(False)
        ),
    ):
        with pytest.raises(ConfigError) as caught:
            use()
        assert_parts(
            caught.value, "a dict with the fields '0', '1', '2', 'id'", "one that asks for 'x'", "tuples of more than two",
            'write batch["0"], batch["1"], … in the loss',
        )  # fmt: skip

    def loss(model, batch):
        return nn.functional.cross_entropy(model(batch["0"]), batch["1"], reduction="none") * batch["2"]

    by_place = fi.train(pt.recipe(data=triples(False), loss=loss))
    assert torch.equal(by_place.state(), fi.train(pt.recipe(data=triples(True))).state())


@pytest.mark.parametrize(
    ("loss", "got"),
    [
        (lambda m, b: m(b["x"].reshape(-1))[:1], "RuntimeError"),
        (lambda m, b: m(*b), "TypeError"),
        (lambda m, b: b.x, "AttributeError: 'dict' object has no attribute 'x'"),
    ],
)
def test_a_loss_for_another_kind_of_batch(loss, got):
    with pytest.raises(ConfigError) as caught:
        fi.train(pt.recipe(loss=loss))
    assert_parts(
        caught.value,
        "a dict with the fields 'x', 'y', 'id'",
        got,
        "another kind of batch",
        "loss(model, rows",
    )


def test_a_recording_that_fails_at_its_start_leaves_no_folder(tmp_path):
    loop, out = Loop(), tmp_path / "run"
    model, rows = loop.start(), loop.data()
    optimizer = loop.optimizer(model)
    recorder = fi.Tape.record(model, optimizer, loss=loop.loss, data=rows, out=out)
    loop.loss(model, rows.batch(torch.arange(4))).mean().backward()
    optimizer.step()
    with pytest.raises(DataError):
        recorder.step(ids=[99])
    with pytest.raises(DataError):
        recorder.finish()
    assert not out.exists()
    with pytest.raises(TrainingError):
        fi.Tape.record(model, optimizer, loss=loop.loss, data=rows, out=out).step(ids=[0])
    assert not out.exists()
    whole = loop.run(record=True, out=out)[1].finish()
    assert out.exists() and whole.folder == out


def test_two_recordings_into_one_folder(tmp_path):
    """Neither has written anything when the other begins: the second to write is refused."""
    loop = Loop()
    late = fi.Tape.record(
        model := loop.start(), loop.optimizer(model), loss=loop.loss, data=loop.data(), out=tmp_path
    )
    loop.run(record=True, out=tmp_path)[1].finish()
    assert late.steps == 0
    with pytest.raises(StorageError, match="an empty or new folder"):
        fi.Tape.record(model, loop.optimizer(model), loss=loop.loss, data=loop.data(), out=tmp_path)


def of_the_largest_two(model, batch):
    losses = pt.class_loss(model, batch)
    return torch.where(losses >= losses.topk(2).values.min(), losses, 0.0)


def batch_statistics():
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, track_running_stats=False), nn.Linear(5, 3))


@pytest.mark.parametrize(
    ("model", "loss", "got"),
    [
        (pt.mlp, of_the_largest_two, "RuntimeError for row 0 alone: selected index k out of range"),
        (batch_statistics, pt.class_loss, "ValueError for row 0 alone: Expected more than 1 value"),
    ],
)
def test_losses_that_fail_on_one_row(model, loss, got):
    model = pt.made(model)
    with pytest.raises(NotSupportedError) as caught:
        fi.Tape.record(model, torch.optim.SGD(model.parameters(), lr=0.1), loss=loss, data=pt.table())
    assert_parts(caught.value, "of one row by itself", got, "ranks the rows of a batch", "with that row only")


@pytest.mark.parametrize("first", [True, False])
def test_dropout_that_is_turned_on_or_off_on_the_way(first):
    model = pt.made(lambda: nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)))
    optimizer, rows = torch.optim.SGD(model.parameters(), lr=0.1), pt.table()
    tape = fi.Tape.record(model, optimizer, loss=pt.class_loss, data=rows)
    with pytest.raises(NotSupportedError) as caught:
        for training in (first, not first):
            pt.class_loss(model.train(training), rows.batch(torch.arange(4))).mean().backward()
            optimizer.step()
            tape.step(ids=torch.arange(4))
    modes = ("evaluation", "training") if first else ("training", "evaluation")
    got = f"{modes[0]} mode at step 1, and {modes[1]} mode at the first"
    assert_parts(
        caught.value, "in the same mode at every step", got, "left the mode changed", "model.train()"
    )
