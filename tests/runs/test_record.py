"""A recorded loop has the numbers of the loop without a tape, and any of its states can be taken again."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.runs import seeded
from recorded_loops import LOOPS, Loop, whole


def inside(model: nn.Module) -> list[str]:
    """Everything that hangs on a model's modules, hooks too."""
    return [
        f"{name}.{key}:{sorted(map(str, value)) if isinstance(value, dict) else type(value).__name__}"
        for name, module in model.named_modules() for key, value in vars(module).items()
    ]  # fmt: skip


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.quick(9)
def test_training_is_the_same_to_the_bit_and_can_be_taken_again(name):
    loop = LOOPS[name]
    plain, _ = loop.run()
    recorded, tape = loop.run(record=True)
    assert torch.equal(pt.flat(plain), pt.flat(recorded)) and not torch.equal(
        pt.flat(plain), pt.flat(loop.start())
    )
    tape = tape.finish()
    assert inside(plain) == inside(recorded)
    assert tape.steps == len(loop.order()) and tape.recorded
    dense = [tape.state(t) for t in range(tape.steps + 1)]
    sparse = loop.run(record=True, snapshot_bytes=1)[1].finish()
    assert len(sparse.checkpoints.steps) < tape.steps
    for t, state in enumerate(dense):
        assert torch.equal(sparse.state(t), state), t
    assert torch.equal(pt.flat(tape.model()), pt.flat(recorded))
    assert tape.epochs == [
        range(e, e + len(dense) // loop.epochs) for e in range(0, tape.steps, len(dense) // loop.epochs)
    ]
    assert tape.reshuffled and tape.notes[0].startswith("self-check: steps 0, 1, 3")


def test_recorded_sgd_is_the_tape_of_train():
    described = pt.recipe(data=Loop().data(), model=Loop().start(), epochs=4)
    trained = fi.train(described, seed=5)
    tape = Loop().run(record=True)[1].finish()
    assert all(torch.equal(tape.state(t), trained.state(t)) for t in range(13))
    assert tape.epochs == trained.epochs and tape.batch_size == 4
    np.testing.assert_allclose(tape.noise, np.array(trained.noise) * 0.01)


def test_random_numbers_of_the_loop_are_left_alone():
    """Recording draws nothing from the generators of torch, NumPy and Python, whatever the data set and the model do."""
    import random

    class Augmenting(torch.utils.data.Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, i):
            noise = torch.rand(4) + np.random.rand() + random.random()
            return {"x": noise, "y": i % 3}

    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    fi.Tape.record(model, torch.optim.SGD(model.parameters(), lr=0.1), pt.class_loss, Augmenting())
    after = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    assert torch.equal(before[0], after[0]) and (before[1] == after[1]).all() and before[2] == after[2]


def test_augmented_batches_are_stored_as_seen(tmp_path):
    class Augmenting(torch.utils.data.Dataset):
        def __init__(self):
            self.rows = pt.table(12)

        def __len__(self):
            return 12

        def __getitem__(self, i):
            x = self.rows.fields["x"][i]
            return {
                "x": x + 0.1 * torch.randn(4, dtype=pt.DOUBLE),
                "y": self.rows.fields["y"][i],
                "id": f"r{i}",
            }

    data, model = Augmenting(), pt.made(pt.mlp)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    tape = fi.Tape.record(model, optimizer, pt.class_loss, data, out=tmp_path, snapshot_bytes=1)
    with seeded(1):
        for _ in range(3):
            for batch in torch.utils.data.DataLoader(data, 4, shuffle=True):
                pt.class_loss(model, batch).mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                tape.step(ids=batch["id"], batch=batch)
    tape = tape.finish()
    assert torch.equal(tape.state()[: tape.layout.size], pt.flat(model))
    opened = fr.Tape.open(tmp_path, model=pt.made(pt.mlp), loss=pt.class_loss, data=data)
    assert all(torch.equal(opened.state(t), tape.state(t)) for t in range(10))
    assert tape.rows.ids.tolist() == [f"r{i}" for i in range(12)] and "augmentation" in tape.uncovered()


def test_a_fine_tuned_part_is_all_that_a_state_holds():
    model = pt.made(lambda: nn.Sequential(nn.Linear(4, 50), nn.GELU(), nn.Linear(50, 3)))
    model[0].requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    rows = pt.table()
    tape = fi.Tape.record(
        model, optimizer, pt.class_loss, rows, parameters=lambda name: name.startswith("2.")
    )
    for ids in pt.recipe().order(0):
        pt.class_loss(model, rows.batch(ids)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        tape.step(ids=ids)
    tape = tape.finish()
    assert tape.layout.names == ["2.weight", "2.bias"] and len(tape.state()) == 3 * 153
    shared = dict(tape.working.named_parameters())["0.weight"]
    assert shared.data_ptr() == model[0].weight.data_ptr() and not shared.requires_grad


@pytest.mark.parametrize("warm", [1, 3])
@pytest.mark.parametrize(
    "optimizer",
    [whole(torch.optim.AdamW, lr=0.02), whole(torch.optim.SGD, lr=0.1, momentum=0.9, dampening=0.5)],
)
def test_recording_may_begin_in_the_middle(optimizer, warm):
    rows, model = pt.table(), pt.made(pt.mlp)
    order, optim = pt.recipe(epochs=5).order(0), optimizer(model)
    tape = None
    for t, ids in enumerate(order):
        if t == 3 * warm:
            tape = fi.Tape.record(model, optim, pt.class_loss, rows, snapshot_bytes=1)
        pt.class_loss(model, rows.batch(ids)).mean().backward()
        optim.step()
        optim.zero_grad()
        if tape is not None:
            tape.step(ids=ids)
    tape = tape.finish()
    assert tape.steps == len(order) - 3 * warm
    kept = tape.checkpoints[0]
    assert (kept[tape.layout.size :] != 0).any()
    assert torch.equal(tape.state()[: tape.layout.size], pt.flat(model))
    tape.run.set_state(0, kept)
    for t in range(tape.steps):
        tape.run.run_step(t)
    again = torch.empty(len(kept), dtype=pt.DOUBLE)
    tape.run.get_state(again)
    assert torch.equal(again, tape.state())


def test_the_model_may_change_after_the_last_step():
    rows, model = pt.table(), pt.made(pt.mlp)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    tape = fi.Tape.record(model, optimizer, pt.class_loss, rows)
    for ids in pt.recipe().order(0):
        pt.class_loss(model, rows.batch(ids)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        tape.step(ids=ids)
    trained = pt.flat(model).clone()
    model.load_state_dict(pt.made(pt.mlp, seed=9).state_dict())
    tape = tape.finish()
    assert torch.equal(tape.state()[: tape.layout.size], trained)


def test_a_gradient_scaler_skips_a_step():
    def loss(model, batch):
        return 8 * pt.class_loss(model, batch)

    rows, model = pt.table(dtype=torch.float32), pt.made(pt.mlp, dtype=torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
    tape = fi.Tape.record(model, optimizer, loss, rows, scaler=scaler)
    for ids in pt.recipe(epochs=40).order(0):
        scaler.scale(loss(model, rows.batch(ids)).mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        tape.step(ids=ids)
    tape = tape.finish()
    assert 100 <= tape.steps < 120
    assert any("steps that the gradient scaler skipped are left out" in note for note in tape.notes)
    assert torch.equal(tape.state()[: tape.layout.size], pt.flat(model))


def test_autocast_inside_the_loss():
    def loss(model, batch):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(batch["x"])
        return nn.functional.cross_entropy(logits.float(), batch["y"], reduction="none")

    loop = Loop(whole(torch.optim.AdamW, lr=0.02), loss=loss, dtype=torch.float32)
    plain, _ = loop.run()
    recorded, tape = loop.run(record=True, snapshot_bytes=1)
    assert torch.equal(pt.flat(plain), pt.flat(recorded))
    tape = tape.finish()
    assert torch.equal(tape.state()[: tape.layout.size], pt.flat(recorded))


def test_the_mode_is_that_of_the_first_step():
    model = pt.made(lambda: nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 3)))
    rows, optimizer = pt.table(), torch.optim.SGD(model.parameters(), lr=0.1)
    tape = fi.Tape.record(model, optimizer, pt.class_loss, rows)
    model.eval()
    for ids in pt.recipe().order(0):
        pt.class_loss(model, rows.batch(ids)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        tape.step(ids=ids)
    tape = tape.finish()
    assert not tape.stochastic and not tape.working.training


def test_same_training_with_or_without_a_tape_in_a_folder(tmp_path):
    loop = LOOPS["dropout"]
    _, memory = loop.run(record=True)
    _, folder = loop.run(record=True, out=tmp_path / "a")
    memory, folder = memory.finish(), folder.finish()
    opened = fr.Tape.open(tmp_path / "a", model=loop.start(), loss=loop.loss, data=loop.data())
    for tape in (folder, opened):
        assert all(torch.equal(tape.state(t), memory.state(t)) for t in range(memory.steps + 1))
        assert tape.identity() == memory.identity() and tape.digest() == memory.digest()
        assert tape.stochastic and tape.notes == memory.notes
    other = copy.deepcopy(loop)
    other.seed = 6
    assert other.run(record=True)[1].finish().identity() != memory.identity()
    assert other.run(record=True)[1].finish().digest() == memory.digest()
