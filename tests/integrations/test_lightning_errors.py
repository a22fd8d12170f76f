"""Trainings that the callback refuses: what it says, and when."""

import builtins
import importlib
import sys

import pytest
import torch
from torch import nn

pytest.importorskip("lightning")
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning_modules import Module, fit, trainer

import plain_training as pt
from finfluence.errors import ConfigError, DataError, NotSupportedError, TrainingError
from finfluence.integrations.lightning import RecordTape
from four_parts import assert_parts
from recorded_loops import LOOPS, Loop, whole

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]
LOOP = LOOPS["sgd"]


def recorder(loop: Loop = LOOP, **options) -> RecordTape:
    return RecordTape(options.pop("loss", loop.loss), options.pop("data", loop.data()), **options)


def test_no_fit():
    with pytest.raises(ConfigError) as caught:
        _ = recorder().tape
    assert_parts(
        caught.value,
        "a training that was recorded",
        "none",
        "not among the Trainer's callbacks",
        "trainer.fit with",
    )


def test_manual_optimisation():
    class Manual(Module):
        def __init__(self, loop):
            super().__init__(loop)
            self.automatic_optimization = False

        def configure_optimizers(self):
            return [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(2)]

    with pytest.raises(ConfigError) as caught:
        fit(LOOP, recorder(), module=Manual(LOOP))
    assert_parts(
        caught.value,
        "automatic optimisation and one optimiser",
        "manual optimisation, with 2 optimisers",
        "out of the Trainer's sight",
        "call fi.Tape.record and tape.step in training_step",
    )


def test_several_processes():
    class Two(SingleDeviceStrategy):
        handles_gradient_accumulation = True

    with pytest.raises(NotSupportedError) as caught:
        fit(LOOP, recorder(), strategy=Two("cpu"))
    assert_parts(
        caught.value,
        "a Trainer with one process",
        "1 processes, strategy Two",
        "its own process only",
        "devices=1",
    )


def test_other_precisions():
    with pytest.raises(NotSupportedError) as caught:
        fit(LOOP, recorder(), precision="bf16-true")
    assert_parts(
        caught.value,
        "precision 32-true, 64-true, bf16-mixed, 16-mixed",
        "'bf16-true'",
        "not been shown",
        "bf16-mixed",
    )


def test_mixed_precision_without_autocast_in_the_loss():
    loop = Loop(whole(torch.optim.SGD, lr=0.1), dtype=torch.float32)
    with pytest.raises(ConfigError) as caught:
        fit(loop, recorder(loop), precision="bf16-mixed")
    assert_parts(
        caught.value,
        "the Trainer's autocast in torch.bfloat16 inside",
        "other values under autocast",
        "autocast around training_step",
        "torch.autocast('cpu', torch.bfloat16)",
    )


@pytest.mark.parametrize(
    ("item", "got"),
    [((torch.zeros(4), 1), "of type list"), ({"x": torch.zeros(4), "y": 1}, "of type dict with x, y")],
)
def test_batches_without_ids(item, got):
    with pytest.raises(ConfigError) as caught:
        trainer(recorder()).fit(Module(LOOP), torch.utils.data.DataLoader([item] * 4))
    assert_parts(
        caught.value,
        'the ids of their rows, batch["id"]',
        got,
        "items of the data set have no id",
        "ids=lambda batch",
    )


@pytest.mark.filterwarnings("ignore:.*returned `None`")
def test_a_step_without_a_loss():
    class Silent(Module):
        def training_step(self, batch, index):
            return None

    with pytest.raises(NotSupportedError) as caught:
        fit(LOOP, recorder(), module=Silent(LOOP))
    assert_parts(
        caught.value,
        "a loss for at least one batch of every step",
        "none at step 0",
        "training_step returned None",
        "leave such batches out",
    )


def test_unknown_ids_end_the_fit_and_are_told_again():
    recorded = recorder(ids=lambda batch: batch["id"] + 100)
    with pytest.raises(DataError, match="unknown at step 0"):
        fit(LOOP, recorded)
    with pytest.raises(DataError, match="unknown at step 0"):
        _ = recorded.tape


def test_a_training_that_cannot_be_replayed_ends_well_and_says_so():
    """training_step sums over rows: the fit goes through, with a warning, and the tape is refused."""

    class Summed(Module):
        def training_step(self, batch, index):
            return self.loss(self, batch).sum()

    recorded = recorder()
    with pytest.warns(UserWarning, match=r"cannot be replayed: expected a loop that can be taken again"):
        module = fit(LOOP, recorded, module=Summed(LOOP))
    assert torch.isfinite(pt.flat(module)).all()
    with pytest.raises(TrainingError, match="gradient times 4: the loop sums over rows"):
        _ = recorded.tape
    fit(LOOP, recorded)
    assert recorded.tape.steps == 12


def test_dropout_outside_the_modules_forward():
    class Around(Module):
        def training_step(self, batch, index):
            return nn.functional.cross_entropy(self.net(batch["x"]), batch["y"])

    loop = LOOPS["dropout"]
    with pytest.raises(NotSupportedError) as caught:
        fit(loop, recorder(loop), module=Around(loop))
    assert_parts(
        caught.value,
        "a forward pass of the recorded model in training mode",
        "0 at step 0",
        "calls parts of the model",
        "call the recorded model itself",
    )


def test_lightning_is_not_installed(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "lightning":
            raise ModuleNotFoundError("No module named 'lightning'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "finfluence.integrations.lightning")
    with pytest.raises(ConfigError) as caught:
        importlib.import_module("finfluence.integrations.lightning")
    assert_parts(
        caught.value,
        "the library 'lightning'",
        "No module named 'lightning'",
        "extra 'lightning'",
        "pip install 'finfluence[lightning]'",
    )
