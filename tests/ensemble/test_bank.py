"""A bank of retrained models: trained once, kept, asked anything."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
from finfluence.ensemble import ModelBank, RunSpec, Workers, train_many
from finfluence.errors import ConfigError, NotSupportedError, StorageError
from finfluence.runs import seeded


def row_loss(model, batch):
    return (model(batch["x"])[:, 0] - batch["y"]) ** 2


def network(seed):
    with seeded(seed):
        return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))


@pytest.fixture
def recipe():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(12, 2)).astype(np.float32), rng.normal(size=12).astype(np.float32)
    return fi.Recipe(
        data=fi.Rows(x=x, y=y), model=network, loss=row_loss, optimizer=fi.SGD(lr=0.1), batch_size=4, epochs=2
    )


RUNS = [RunSpec(s, s, keep) for s in (0, 1) for keep in (None, np.arange(7))]


def test_values_are_those_of_training_anew(recipe, tmp_path):
    x, y = torch.ones(3, 2), torch.zeros(3)
    queries = [fi.mean_loss(x, y, name="mean"), fi.each_loss(x, y)]
    bank = ModelBank(recipe, tmp_path, "small")
    wanted = train_many(recipe, RUNS, queries).values
    assert bank.values(RUNS, queries).tobytes() == wanted.tobytes()
    assert bank.trained == len(bank) == 4 and len(np.unique(wanted[:, 0])) == 4


def dropping(seed):
    with seeded(seed):
        return nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5), nn.Linear(3, 1))


def test_values_are_those_of_training_anew_one_by_one(recipe, tmp_path):
    alone = replace(recipe, model=dropping)
    queries = [fi.mean_loss(torch.ones(3, 2), torch.zeros(3), name="mean")]
    bank = ModelBank(alone, tmp_path, "small")
    assert "dropout" in str(bank.one_by_one)
    assert (
        bank.values(RUNS, queries).tobytes()
        == train_many(alone, RUNS, queries, Workers("serial")).values.tobytes()
    )


def test_a_bank_is_found_by_its_hash_whoever_named_it(recipe, tmp_path):
    first = ModelBank(recipe, tmp_path, "mine")
    first.parameters(RUNS)
    other = ModelBank(recipe, tmp_path, "yours")
    assert other.folder == first.folder and not other.missing(RUNS)


@pytest.mark.slow
def test_more_files_than_are_held_open(recipe, tmp_path):
    bank = ModelBank(recipe, tmp_path, "small")
    many = [RunSpec(s, s) for s in range(6)]
    each = [bank.parameters([run]) for run in many]
    assert torch.equal(ModelBank(recipe, tmp_path, "small").parameters(many), torch.cat(each))


class HalfDrawn(nn.Sequential):
    """A network whose first layer is drawn anew for each seed, and never trained."""

    def __init__(self):
        super().__init__(nn.Linear(2, 3), nn.Linear(3, 1))
        self[0].requires_grad_(False)


def half_drawn(seed):
    with seeded(seed):
        return HalfDrawn()


def test_what_is_drawn_and_never_trained_is_refused(recipe, tmp_path):
    with pytest.raises(
        NotSupportedError,
        match=r"(?s)frozen parameters and buffers.*some that differ between seeds.*seed of its own",
    ):
        ModelBank(replace(recipe, model=half_drawn), tmp_path, "half")


def test_what_is_kept_is_not_trained_again_whoever_asks(recipe, tmp_path):
    first = ModelBank(recipe, tmp_path, "small").parameters(RUNS[:2])
    bank = ModelBank(recipe, tmp_path, "small")
    assert [run.init_seed for run in bank.missing(RUNS)] == [1, 1] and len(bank) == 2
    assert torch.equal(bank.parameters(RUNS)[:2], first) and bank.trained == 2
    assert bank.values(RUNS[:1], [fi.mean_loss(np.ones((1, 2)), np.ones(1))]).shape == (1, 1)
    assert bank.trained == 2


def test_another_recipe_is_another_bank(recipe, tmp_path):
    bank, other = (ModelBank(r, tmp_path, "small") for r in (recipe, replace(recipe, epochs=3)))
    bank.parameters(RUNS[:1])
    assert bank.folder != other.folder and bank.folder.name.startswith("small-") and other.missing(RUNS[:1])
    said = json.loads((bank.folder / "bank.json").read_text())
    assert said["name"] == "small" and said["hash"] == bank.hash and said["recipe"]["epochs"] == 2


def test_an_interruption_loses_one_batch_at_most(recipe, tmp_path):
    many = [RunSpec(s, s) for s in range(70)]

    def stop(stage, done, total):
        assert (stage, done, total) == ("bank", 64, 70)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ModelBank(recipe, tmp_path, "small").parameters(many, stop)
    assert len(ModelBank(recipe, tmp_path, "small").missing(many)) == 6


def test_a_run_that_diverged_is_kept_as_such(recipe, tmp_path):
    wild = replace(recipe, optimizer=fi.SGD(lr=1e30), epochs=5)
    bank = ModelBank(wild, tmp_path, "wild")
    assert bank.parameters(RUNS[:1]).isnan().all() and not bank.missing(RUNS[:1])


def test_a_damaged_file_is_named(recipe, tmp_path):
    bank = ModelBank(recipe, tmp_path, "small")
    bank.parameters(RUNS[:1])
    path = next(bank.folder.glob("models-*"))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(StorageError, match=r"(?s)a whole file of retrained models.*delete this one file"):
        ModelBank(recipe, tmp_path, "small")


class Normalised(nn.Module):
    """Frozen batch normalisation: buffers that training reads and leaves alone."""

    def __init__(self, seed):
        super().__init__()
        with seeded(seed):
            self.first, self.norm, self.last = nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)
        self.norm.running_mean.copy_(torch.tensor([0.1, -0.2, 0.3]))
        self.norm.eval()

    def forward(self, x):
        return self.last(self.norm(self.first(x)).tanh())


def test_buffers_that_training_leaves_alone_are_those_of_training_anew(recipe, tmp_path):
    recipe = replace(recipe, model=Normalised)
    queries = [fi.mean_loss(torch.ones(3, 2), torch.zeros(3), name="mean"), fi.own_loss([0, 5])]
    bank = ModelBank(recipe, tmp_path, "normalised")
    wanted = train_many(recipe, RUNS, queries).values
    assert bank.values(RUNS, queries).tobytes() == wanted.tobytes() and len(np.unique(wanted[:, 0])) == 4


def test_buffers_that_training_writes_on_are_refused(recipe, tmp_path):
    class Counting(Normalised):
        def forward(self, x):
            self.norm.running_mean += 0.1
            return super().forward(x)

    with pytest.raises(
        ConfigError,
        match=r"(?s)changes 'norm.running_mean'.*own forward pass writes on it in evaluation mode",
    ):
        ModelBank(replace(recipe, model=Counting), tmp_path, "counting").parameters(RUNS[:1])


def test_buffers_that_differ_between_seeds_are_refused(recipe, tmp_path):
    class Drawn(Normalised):
        def __init__(self, seed):
            super().__init__(seed)
            self.norm.running_mean.add_(0.1 * seed)

    with pytest.raises(
        NotSupportedError, match=r"(?s)frozen parameters and buffers.*some that differ between seeds"
    ):
        ModelBank(replace(recipe, model=Drawn), tmp_path, "drawn")
