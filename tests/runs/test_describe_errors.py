"""What no training can use is refused when it is described, in four parts."""

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.errors import ConfigError, DataError, NotSupportedError, TrainingError
from four_parts import assert_parts


def refused(kind, parts, call, *args, **kwargs):
    with pytest.raises(kind) as caught:
        call(*args, **kwargs)
    assert_parts(caught.value, *parts)


def test_rows():
    x = np.ones((3, 2))
    refused(
        DataError, ("all with one entry per row", "x: 3 rows, y: 2 rows", "different selections", "same rows"),
        fr.Rows, x=x, y=[0, 1],
    )  # fmt: skip
    refused(DataError, ("at least one field", "no field", "different selections", "same rows"), fr.Rows)
    refused(
        DataError,
        ("numbers in field 'x'", "an array of <U1", "texts or objects", "encode them"),
        fr.Rows,
        x=["a", "b"],
    )
    bad = x.copy()
    bad[1, 0] = np.nan
    refused(
        DataError, ("finite numbers in field 'x'", "in 1 rows, first at position 1", "missing values", "impute or drop"),
        fr.Rows, x=bad,
    )  # fmt: skip
    refused(
        DataError, ("finite numbers in field 'weight'", "first at position 0", "division by zero", "drop these rows"),
        fr.Rows, x=x, weight=torch.tensor([float("inf"), 1, 1]),
    )  # fmt: skip
    refused(
        DataError,
        ("one id for each of 3 rows", "2 ids", "different selections", "ids=None"),
        fr.Rows,
        x=x,
        ids=["a", "b"],
    )
    refused(
        DataError, ("unique row ids", "1 ids used more than once, such as 'a'", "not a key", "none to number"),
        fr.Rows, x=x, ids=["a", "b", "a"],
    )  # fmt: skip
    refused(DataError, ("fi.Rows(x=…, y=…)", "ndarray", "bare array", "wrap arrays"), fr.as_rows, x)


def test_rows_keep_their_types_and_ids():
    rows = fr.Rows(
        x=np.ones((3, 2)), y=np.array([0, 1, 2], dtype=np.int64), flag=[True, False, True], ids=[7, 5, 6]
    )
    batch = rows.batch(torch.tensor([2, 0]))
    assert (
        batch["x"].dtype == torch.float32
        and batch["y"].tolist() == [2, 0]
        and batch["flag"].dtype == torch.bool
    )
    assert batch["id"].tolist() == [2, 0] and rows.ids.tolist() == [7, 5, 6]
    assert fr.Rows(x=torch.ones(2, 1, dtype=pt.DOUBLE)).fields["x"].dtype == pt.DOUBLE


def test_content_decides_the_digest():
    def make(**changes):
        return fr.Rows(**{"x": np.eye(3), "y": np.arange(3), "ids": None, **changes}).digest()

    base = make()
    assert base == make() and len(base) == 16
    others = [make(y=np.arange(3.0)), make(x=2 * np.eye(3)), make(ids=["a", "b", "c"]), make(z=np.arange(3))]
    assert len({base, *others}) == 5


@pytest.mark.parametrize("rows", [1, 3])
def test_a_vector_as_a_column_has_the_digest_of_its_copy(rows):
    column = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    assert column.strides == (4, 0)
    assert fr.Rows(x=column).digest() == fr.Rows(x=column.ravel().reshape(rows, 1).copy()).digest()


class Items(torch.utils.data.Dataset):
    def __init__(self, form):
        self.form, self.fields = form, pt.table().fields

    def __len__(self):
        return 12

    def __getitem__(self, i):
        x, y = self.fields["x"][i], self.fields["y"][i]
        return {"tuple": (x, y), "dict": {"x": x, "y": y}, "named": {"x": x, "y": y, "id": f"row {i}"}}[
            self.form
        ]


@pytest.mark.parametrize("form", ["tuple", "dict", "named"])
def test_a_dataset_trains_like_the_same_arrays(form):
    described = pt.recipe(data=Items(form))
    assert torch.equal(fi.train(described).state(), fi.train(pt.recipe()).state())
    assert described.rows.ids[3] == ("row 3" if form == "named" else 3)
    assert described.rows.digest() == pt.recipe(data=Items(form)).rows.digest()
    longer = (torch.zeros(2), torch.zeros(2), torch.zeros(2))
    assert sorted(fr.as_rows([longer, longer]).batch(torch.tensor([0]))) == ["0", "1", "2", "id"]


def test_a_mapping_of_arrays_is_rows():
    assert len(pt.recipe(data={"x": pt.table().fields["x"], "y": pt.table().fields["y"]}).rows) == 12


def test_recipe():
    for name in ("batch_size", "epochs"):
        for value in (0, -1, 2.0, True, "4"):
            refused(
                ConfigError, (f"{name} to be a whole number of at least 1", repr(value), "mistyped", f"set {name} to 1"),
                pt.recipe, **{name: value},
            )  # fmt: skip
    assert type(pt.recipe(batch_size=np.int64(4)).batch_size) is int
    refused(
        ConfigError, ("fi.SGD, fi.Adam or fi.AdamW", "Adam", "mistyped", "a description"),
        pt.recipe, optimizer=torch.optim.Adam([nn.Parameter(torch.ones(1))]),
    )  # fmt: skip
    refused(
        ConfigError,
        ("'reshuffle' or 'independent'", "'shuffle'", "mistyped", "one of the two"),
        pt.recipe,
        sampling="shuffle",
    )
    refused(
        ConfigError, ("constant, linear, cosine or a callable", "'step'", "mistyped", "callable(step, total_steps)"),
        pt.recipe, schedule="step",
    )  # fmt: skip
    refused(
        DataError, ("at least 13 rows (one batch)", "12 rows", "larger than the data", "lower batch_size to 3"),
        pt.recipe, batch_size=13,
    )  # fmt: skip


def test_optimizers():
    refused(
        ConfigError,
        ("SGD(lr=…) to be zero or positive and finite", "lr=-0.1", "sign or a unit", "≥ 0"),
        fr.SGD,
        lr=-0.1,
    )
    refused(
        ConfigError, ("AdamW(weight_decay=…)", "weight_decay=inf", "sign or a unit", "≥ 0"),
        fr.AdamW, weight_decay=float("inf"),
    )  # fmt: skip
    refused(
        ConfigError, ("Adam(betas=…)", "betas=(0.9, nan)", "sign", "≥ 0"), fr.Adam, betas=(0.9, float("nan"))
    )
    for wrong in ({"momentum": 0.0}, {"momentum": 0.9, "dampening": 0.1}):
        refused(
            ConfigError, ("momentum > 0 and dampening = 0 with nesterov=True", "momentum=", "defined only there", "nesterov=False"),
            fr.SGD, nesterov=True, **wrong,
        )  # fmt: skip


@pytest.mark.parametrize("seed", [1.5, "0", -1, True])
def test_seeds(seed):
    refused(
        ConfigError,
        ("seed to be a whole number ≥ 0", repr(seed), "float or a text", "seed=0"),
        fi.train,
        pt.recipe(),
        seed=seed,
    )


def test_numpy_seeds_are_seeds():
    assert torch.equal(fi.train(pt.recipe(), seed=np.int64(3)).state(), fi.train(pt.recipe(), seed=3).state())


def test_models():
    refused(
        ConfigError, ("callable(seed) -> nn.Module", "returned NoneType", "return statement", "return the module"),
        fi.train, pt.recipe(model=lambda seed: None),
    )  # fmt: skip
    frozen = pt.made(pt.mlp).requires_grad_(False)
    refused(
        NotSupportedError, ("trainable parameters", "Sequential with none", "requires_grad=False", "unfreeze"),
        fi.train, pt.recipe(model=frozen),
    )  # fmt: skip
    mixed = pt.made(pt.mlp)
    mixed[2].float()
    refused(
        NotSupportedError, ("one dtype on one device", "torch.float32 on cpu, torch.float64 on cpu", "cast or moved", "one dtype"),
        fi.train, pt.recipe(model=mixed),
    )  # fmt: skip
    normed = pt.made(lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))
    refused(
        NotSupportedError, ("does not depend on the other rows", "BatchNorm1d in training mode at '1'", "mixes the rows", "GroupNorm"),
        fi.train, pt.recipe(model=normed),
    )  # fmt: skip
    assert fi.train(pt.recipe(model=normed.eval())).steps == 9


@pytest.mark.parametrize("layer", [
    lambda: nn.Sequential(nn.Unflatten(1, (2, 2)), nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten(), nn.Linear(4, 3)),
    lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)),
])  # fmt: skip
def test_buffers_that_training_writes_are_refused(layer):
    refused(
        NotSupportedError, ("changes in its parameters only", "writes on buffer '", "running statistics", "track_running_stats=False"),
        fi.train, pt.recipe(model=pt.made(layer)),
    )  # fmt: skip


def test_losses():
    def mean(model, batch):
        return pt.class_loss(model, batch).mean()

    refused(
        ConfigError, ("one number per row: a tensor of shape (4,)", "a tensor of shape ()", "averages over the batch", "reduction='none'"),
        fi.train, pt.recipe(loss=mean),
    )  # fmt: skip
    refused(
        ConfigError, ("a tensor of shape (4,)", "float", "averages", "reduction='none'"),
        fi.train, pt.recipe(loss=lambda m, b: 1.0),
    )  # fmt: skip


def test_divergence_names_the_step(tmp_path):
    described = pt.recipe(
        data=fr.Rows(x=torch.ones(12, 1, dtype=pt.DOUBLE), y=torch.zeros(12, dtype=pt.DOUBLE)), loss=pt.square_loss,
        model=pt.made(lambda: nn.Linear(1, 1)), optimizer=fr.SGD(lr=1e3), epochs=60,
    )  # fmt: skip
    with pytest.raises(TrainingError) as caught:
        fi.train(described, out=tmp_path)
    assert_parts(
        caught.value,
        "a finite training loss at every step",
        "at step ",
        "learning rate (1000) is too high",
        "tenfold",
    )
    model = pt.made(lambda: nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e3)
    _, losses = pt.plain(described, model, described.order(0), optimizer)
    first = next(t for t, loss in enumerate(losses) if not np.isfinite(loss))
    assert f"at step {first} of 180" in str(caught.value)


def test_queries():
    tape = fi.train(pt.recipe())
    x, y = tape.recipe.rows.fields["x"], tape.recipe.rows.fields["y"]

    def ask(*queries):
        return lambda: fi.replay(tape, list(queries))

    refused(
        ConfigError, ("sign of query 'q' to be −1", "0", "which direction harms", "sign=+1 for an accuracy"),
        fi.Query, lambda m: m, "q", sign=0,
    )  # fmt: skip
    refused(
        ConfigError, ("query 'q' to return one number", "(12, 3)", "one value per row", "fi.each_loss"),
        ask(fi.Query(lambda m: m(x), "q")),
    )  # fmt: skip
    refused(
        ConfigError, ("query 'q' to return one number", "float", "a Python number", "take its mean"),
        ask(fi.Query(lambda m: 1.0, "q")),
    )  # fmt: skip
    refused(
        ConfigError, ("query 'q' to be finite", "inf", "logarithm of zero", "bound the query"),
        ask(fi.Query(lambda m: m(x).sum() / 0, "q")),
    )  # fmt: skip
    refused(
        ConfigError, ("query 'accuracy' to be differentiable", "without a gradient", "an accuracy, an argmax", "fi.retrain"),
        ask(fi.Query(lambda m: (m(x).argmax(1) == y).double().mean(), "accuracy", sign=1)),
    )  # fmt: skip
    refused(ConfigError, ("one or more queries", "none", "used twice", "its own name"), ask())
    refused(ConfigError, ("one or more queries", "none", "used twice", "its own name"), ask(fi.own_loss([])))
    refused(
        ConfigError, ("one or more queries", "'a' twice", "default name", "its own name"),
        ask(fi.mean_loss(x, y, name="a"), fi.mean_loss(x, y, name="a")),
    )  # fmt: skip
    refused(
        ConfigError, ("one or more queries", "objects of type function", "bare function", "fi.Query(fn, name=…)"),
        ask(lambda m: m),
    )  # fmt: skip
    refused(
        ConfigError,
        (
            "ids of training rows in fi.own_loss",
            "1 unknown, first 12",
            "positions were passed",
            "ids such as 0, 1, 2",
        ),
        ask(fi.own_loss([3, 12])),
    )
    refused(
        ConfigError, ("ids of training rows", "first -1", "positions", "ids such as"), ask(fi.own_loss([-1]))
    )
    refused(
        ConfigError,
        ("ids of training rows", "first '3'", "7 is not '7'", "ids such as"),
        ask(fi.own_loss(["3"])),
    )
    refused(
        ConfigError,
        ("one name for each of 12 rows", "1 names", "filtered", "name every row"),
        fi.each_loss,
        x,
        y,
        names=["a"],
    )
    refused(
        ConfigError, ("one number per row: a tensor of shape (1,)", "shape ()", "averages", "reduction='none'"),
        lambda: list(fi.mean_loss(x[:1], y[:1]).values(tape.model(), pt.recipe(loss=lambda m, b: m(b["x"]).sum()))),
    )  # fmt: skip


def test_queries_give_the_numbers_of_the_model_in_evaluation_mode():
    def dropping():
        return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))

    described = pt.recipe(model=pt.made(dropping))
    tape = fi.train(described)
    x, y = described.rows.fields["x"], described.rows.fields["y"]
    model = tape.model().eval()
    each = nn.functional.cross_entropy(model(x), y, reduction="none").detach().numpy()
    model.train()
    values, slopes = fr.gradients(
        [fi.mean_loss(x, y), fi.each_loss(x[:2], y[:2]), fi.own_loss([5])], model, described,
        tape.stepper.layout.parameters(model),
    )  # fmt: skip
    np.testing.assert_allclose(values, [each.mean(), each[0], each[1], each[5]], rtol=1e-12)
    assert slopes.shape == (4, tape.stepper.layout.size) and model.training and model[1].training
    assert not any(p.grad is not None for p in model.parameters())


def test_own_losses_are_asked_for_by_id():
    rows = pt.table()
    named = fr.Rows(**rows.fields, ids=[f"r{i}" for i in range(12)][::-1])
    by_place, by_id = fi.own_loss([3, 7]), fi.own_loss(np.array(["r8", "r4"]))
    assert by_id.names == ("own loss[r8]", "own loss[r4]")
    model = pt.made(pt.mlp)
    plain, other = (pt.recipe(data=data) for data in (rows, named))
    assert torch.equal(by_place.values(model, plain), by_id.values(model, other))
    with pytest.raises(ConfigError, match="first 3"):
        by_place.values(model, other)
