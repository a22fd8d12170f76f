"""A Trainer's fit, recorded by the callback, against the plain loop on the same batches: the same bits."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("lightning")
import lightning.pytorch as L
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.plugins import MixedPrecision
from lightning_modules import Items, Module, batches_of, fit, trainer

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.integrations.lightning import RecordTape
from finfluence.runs import seeded
from finfluence.runs.steps import untouched
from recorded_loops import LOOPS, Loop, whole

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]
SGD = torch.optim.SGD
OPTIONS = {
    "sgd": {},
    "groups": {},
    "one cycle": {},
    "clip norm": {"gradient_clip_val": 0.4},
    "clip value": {"gradient_clip_val": 0.05, "gradient_clip_algorithm": "value"},
    "accumulation": {"accumulate_grad_batches": 2},
    "dropout": {},
    "dropout in micro-batches": {"accumulate_grad_batches": 2},
}
QUERY = fi.own_loss([2, 7])


def recorder(loop: Loop, **options) -> RecordTape:
    return RecordTape(loop.loss, loop.data(), **options)


def assert_same_states(ours: fr.Tape, theirs: fr.Tape | fr.TapeRecorder) -> None:
    theirs = fr.finished(theirs)
    assert ours.steps == theirs.steps and ours.epochs == theirs.epochs
    assert all(torch.equal(ours.state(t), theirs.state(t)) for t in range(ours.steps + 1))


def assert_same_tapes(ours: fr.Tape, theirs: fr.Tape | fr.TapeRecorder) -> None:
    assert_same_states(ours, theirs)
    a, b = (fi.replay(tape, QUERY, seed=0).data for tape in (ours, theirs))
    for name in ("effect", "spread", "mu", "se", "own_loss"):
        np.testing.assert_array_equal(a[name].values, b[name].values, err_msg=name)
    assert a.attrs["findings"] == b.attrs["findings"] and a.attrs["seeds"] == b.attrs["seeds"]


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.quick(3)
def test_the_plain_loop_and_the_trainer_leave_the_same_tape(name):
    loop = LOOPS[name]
    trained, tape = loop.run(record=True, start=Module(loop))
    recorded = recorder(loop)
    module = fit(loop, recorded, **OPTIONS[name])
    assert torch.equal(pt.flat(module), pt.flat(trained))
    assert_same_tapes(recorded.tape, tape)


@pytest.mark.parametrize("name", ["accumulation", "dropout", "one cycle"])
def test_the_training_does_not_change_by_one_bit(name):
    loop, states = LOOPS[name], []

    class Last(L.Callback):
        def on_train_end(self, trainer, module):
            (optimizer,) = trainer.optimizers
            held = [v.clone() for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
            states.append([*held, torch.get_rng_state(), pt.flat(module).clone()])
            assert recorded not in trainer.callbacks or recorded.tape.steps == trainer.global_step

    recorded = recorder(loop)
    options = {**OPTIONS[name], "validate": True, "num_sanity_val_steps": 2}
    plain, watched = fit(loop, Last(), **options), fit(loop, recorded, Last(), **options)
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True)) and len(states[0]) > 1
    assert plain.seen == watched.seen == 10 + 4 * 12
    assert [m.training for m in plain.modules()] == [m.training for m in watched.modules()]
    assert (
        not watched._forward_pre_hooks and np.isfinite(fi.replay(recorded.tape, QUERY).data.mu.values).all()
    )


def test_an_accumulated_step_that_the_epoch_cuts_short():
    """Three batches an epoch, two a step: the second step is half a batch's mean loss, as the Trainer divides it."""
    loop = Loop(whole(SGD, lr=0.1, momentum=0.9))
    recorded = recorder(loop)
    module = fit(loop, recorded, accumulate_grad_batches=2)
    rows, plain = loop.data(), Module(loop)
    optimizer = loop.optimizer(plain)
    tape = fi.Tape.record(plain, optimizer, loop.loss, rows)
    order = iter(loop.order())
    for size in [2, 1] * loop.epochs:
        parts = [next(order) for _ in range(size)]
        for part in parts:
            (loop.loss(plain, rows.batch(part)).mean() / 2).backward()
        optimizer.step()
        optimizer.zero_grad()
        tape.step(ids=parts, weights=[0.5] * size)
    assert recorded.tape.steps == 8 and torch.equal(pt.flat(module), pt.flat(plain))
    assert_same_tapes(recorded.tape, tape)


def test_accumulation_that_begins_later():
    loop = LOOPS["sgd"]
    recorded = recorder(loop)
    fit(loop, recorded, GradientAccumulationScheduler({0: 1, 2: 2}))
    tape, parts = recorded.tape, batches_of(loop)
    assert [len(e) for e in tape.epochs] == [3, 3, 2, 2] and "taken again, with the same" in tape.notes[0]
    assert tape.at(6).rows.tolist() == [*parts[6].tolist(), *parts[7].tolist()]


@pytest.mark.filterwarnings("ignore:.*returned `None`")
def test_batches_without_a_loss_are_left_out():
    """training_step returns None for the second batch of a step: the step is half the mean loss of the first."""

    class Choosy(Module):
        def training_step(self, batch, index):
            return None if index == 1 else super().training_step(batch, index)

    loop = LOOPS["accumulation"]
    recorded = recorder(loop)
    fit(loop, recorded, module=Choosy(loop), accumulate_grad_batches=2)
    rows = [recorded.tape.at(t).rows.tolist() for t in (0, 1)]
    parts = batches_of(loop)
    assert rows == [parts[0].tolist(), [*parts[2].tolist(), *parts[3].tolist()]]


def test_a_tape_on_disk_is_opened_with_the_module(tmp_path):
    loop = LOOPS["groups"]
    recorded = recorder(loop, out=tmp_path / "run")
    module = fit(loop, recorded)
    opened = fi.Tape.open(tmp_path / "run", model=module, loss=loop.loss, data=loop.data())
    assert_same_states(opened, recorded.tape)


def test_batches_of_tuples_and_ids_by_a_function():
    class Tuples(Items):
        def __getitem__(self, i):
            return (*tuple(v[i] for v in self.rows.fields.values()), f"row {i}")

    class OfTuples(Module):
        def training_step(self, batch, index):
            return super().training_step({"x": batch[0], "y": batch[1]}, index)

    loop = LOOPS["sgd"]
    rows = fi.Rows(**loop.data().fields, ids=[f"row {i}" for i in range(12)])
    recorded = RecordTape(loop.loss, rows, ids=lambda batch: batch[2])
    loader = torch.utils.data.DataLoader(Tuples(loop.data()), batch_size=4)
    trainer(recorded, max_epochs=2).fit(OfTuples(loop), loader)
    assert recorded.tape.at(4).rows.tolist() == [4, 5, 6, 7]


def test_items_that_change_are_stored_as_seen():
    class Noisy(Items):
        def __getitem__(self, i):
            item = super().__getitem__(i)
            return {**item, "x": item["x"] + torch.randn(4, dtype=item["x"].dtype)}

    loop = LOOPS["sgd"]
    items = Noisy(loop.data())
    recorded = RecordTape(loop.loss, items, batches=True)
    with seeded(0):
        trainer(recorded, max_epochs=2).fit(Module(loop), torch.utils.data.DataLoader(items, batch_size=4))
    assert recorded.tape.steps == 6 and "self-check" in recorded.tape.notes[0]


def test_what_the_user_says_of_clipping_goes_before_the_trainers():
    class Clipping(Module):
        def configure_gradient_clipping(
            self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None
        ):
            nn.utils.clip_grad_norm_(self.parameters(), 0.4)

    loop = LOOPS["clip norm"]
    recorded = recorder(loop, clip_norm=0.4)
    fit(loop, recorded, module=Clipping(loop), gradient_clip_val=7.0)
    assert_same_states(recorded.tape, loop.run(record=True, start=Module(loop))[1])


def under(dtype: torch.dtype):
    def loss(model, batch):
        with torch.autocast("cpu", dtype):
            return nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")

    return loss


def test_double_precision():
    loop = LOOPS["sgd"]
    recorded = recorder(loop)
    fit(loop, recorded, precision="64-true")
    assert_same_states(recorded.tape, loop.run(record=True, start=Module(loop))[1])


def test_mixed_precision_is_the_plain_loop_with_autocast_in_its_loss():
    loop = Loop(whole(SGD, lr=0.1), loss=under(torch.bfloat16), dtype=torch.float32)
    recorded = recorder(loop)
    module = fit(loop, recorded, module=Module(loop, pt.class_loss), precision="bf16-mixed")
    trained, tape = loop.run(record=True, start=Module(loop))
    assert torch.equal(pt.flat(module), pt.flat(trained))
    assert_same_tapes(recorded.tape, tape)


def test_steps_that_a_gradient_scaler_skips_are_counted():
    """float16 gradients scaled by 2^40 overflow until the scaler has backed off."""
    loop = Loop(whole(SGD, lr=0.1), loss=under(torch.float16), dtype=torch.float32, epochs=12)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, growth_interval=1000)
    recorded = recorder(loop)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    fit(loop, recorded, module=Module(loop, pt.class_loss), plugins=[plugin])
    skipped = 36 - recorded.tape.steps
    assert 0 < skipped < 30
    assert f"{skipped} steps that the gradient scaler skipped are left out" in recorded.tape.notes


@pytest.mark.parametrize("hook", ["on_train_batch_start", "training_step"])
def test_a_fit_that_is_broken_off_leaves_its_steps(hook):
    """Also where the optimiser's step has begun: the Trainer calls training_step inside it, as its closure."""

    def cut(self, batch, index):
        if self.global_step == 7:
            raise RuntimeError("power cut")
        return getattr(Module, hook)(self, batch, index)

    loop = LOOPS["momentum"]
    recorded = recorder(loop)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(loop, recorded, module=type("Broken", (Module,), {hook: cut})(loop))
    plain = loop.run(record=True, start=Module(loop))[1].finish()
    assert recorded.tape.steps == 7
    assert all(torch.equal(recorded.tape.state(t), plain.state(t)) for t in range(8))


def test_a_second_fit_is_a_second_tape():
    loop = LOOPS["sgd"]
    recorded = recorder(loop)
    fit(loop, recorded)
    first = recorded.tape
    fit(loop, recorded)
    assert recorded.tape is not first
    assert_same_states(recorded.tape, first)


@pytest.mark.slow
def test_the_example(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # the example sets it
    place = Path(__file__).parents[2] / "examples" / "record_lightning.py"
    spec = importlib.util.spec_from_file_location("record_lightning", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with untouched(0):
        plain, nothing = module.main(epochs=1, record=False)
        trained, influence = module.main(epochs=1)
    assert nothing is None and torch.equal(pt.flat(plain), pt.flat(trained))
    assert influence.data.attrs["findings"][0] == (
        "self-check: steps 0, 1, 3, 10 of 20 taken again, with the same result"
    )
