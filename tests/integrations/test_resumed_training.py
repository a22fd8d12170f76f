"""A transformers Trainer that is resumed from a checkpoint: its tape is that of the training that never stopped."""

import time

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")
import transformers

import plain_training as pt
import tiny_language as tl
from finfluence.errors import ConfigError, StorageError
from finfluence.integrations.huggingface import TapeCallback, open_tape
from four_parts import assert_parts
from small_trainer import contents, items, trainer

SAVING = {"save_strategy": "steps", "save_steps": 3, "num_train_epochs": 4}


class Killed(RuntimeError):
    pass


class Kill(transformers.TrainerCallback):
    """Breaks the training off after a step, as a machine that goes away does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)  # nothing is written because time has passed


def trained(folder, tape, *others, resume=None, **options):
    model, recorded = tl.llama(), TapeCallback(tape)
    made = trainer(folder, model, recorded, *others, **{**SAVING, **options})
    made.train(resume_from_checkpoint=resume)
    return model, recorded, made


@pytest.mark.parametrize("killed", [5, pytest.param(7, marks=pytest.mark.slow)])
def test_the_resumed_tape_is_that_of_the_training_that_never_stopped(killed, tmp_path):
    model, recorded, _ = trained(tmp_path / "whole", tmp_path / "a")
    with pytest.raises(Killed):
        trained(tmp_path / "parts", tmp_path / "b", Kill(killed))
    found = transformers.trainer_utils.get_last_checkpoint(str(tmp_path / "parts"))
    assert found.endswith(f"-{killed // 3 * 3}")
    again, resumed, made = trained(tmp_path / "parts", tmp_path / "b", resume=found)
    assert torch.equal(pt.flat(again), pt.flat(model))
    assert resumed.tape.steps == recorded.tape.steps == 8
    assert contents(tmp_path / "b") == contents(tmp_path / "a")
    opened = open_tape(tmp_path / "b", made)
    assert torch.equal(opened.state(4), recorded.tape.state(4))


def test_a_longer_training_goes_on_from_the_last_checkpoint(tmp_path):
    trained(tmp_path / "run", tmp_path / "tape", num_train_epochs=3, lr_scheduler_type="constant")
    _, recorded, _ = trained(tmp_path / "run", tmp_path / "tape", resume=True, lr_scheduler_type="constant")
    assert recorded.tape.steps == 8 and len(recorded.tape.epochs) == 4


@pytest.mark.slow
def test_copies_of_a_row_are_named_in_turn_also_after_the_training_is_resumed(tmp_path):
    data = [*items(), items()[3], items()[3]]
    with pytest.warns(UserWarning, match=r"3 rows stand in the data more than once.*such as 3 and 11"):
        _, recorded, _ = trained(tmp_path / "whole", tmp_path / "a", data=data)
    with pytest.warns(UserWarning, match="named in turn"), pytest.raises(Killed):
        trained(tmp_path / "parts", tmp_path / "b", Kill(5), data=data)
    with pytest.warns(UserWarning, match="named in turn"):
        trained(tmp_path / "parts", tmp_path / "b", resume=True, data=data)
    assert contents(tmp_path / "b") == contents(tmp_path / "a")
    for epoch in recorded.tape.epochs:
        drawn = torch.cat([recorded.tape.at(t).rows for t in epoch])
        assert sorted(drawn.tolist()) == list(range(13))


@pytest.mark.slow
def test_what_was_not_kept_is_not_gone_on_with(tmp_path):
    trained(tmp_path / "run", None, max_steps=3)
    with pytest.raises(ConfigError) as caught:
        trained(tmp_path / "run", None, resume=True)
    assert_parts(caught.value, "a tape on disk", "at step 3", "has ended", "without resume_from_checkpoint")
    with pytest.raises(StorageError, match="no such file"):
        trained(tmp_path / "run", tmp_path / "none", resume=True)


@pytest.mark.slow
def test_the_tape_of_another_training_is_not_gone_on_with(tmp_path):
    trained(tmp_path / "one", tmp_path / "tape", max_steps=3)
    trained(tmp_path / "other", None, max_steps=3, seed=9)
    with pytest.raises(StorageError) as caught:
        trained(tmp_path / "other", tmp_path / "tape", resume=True)
    assert_parts(
        caught.value, "as they were when the tape", "others", "of another training", "another folder"
    )
    with pytest.raises(StorageError, match="another data"):
        trained(tmp_path / "one", tmp_path / "tape", resume=True, data=items(10))


@pytest.mark.parametrize(
    "options",
    [
        {"eval_strategy": "steps", "eval_steps": 1, "eval_on_start": True},
        {"dataloader_num_workers": 1},
        {"train_sampling_strategy": "group_by_length"},
        {"max_steps": 5, "dataloader_drop_last": True},
    ],
    ids=str,
)
@pytest.mark.quick(2)
def test_what_needs_no_word(options, tmp_path):
    model, recorded = tl.llama(), TapeCallback()
    made = trainer(tmp_path, model, recorded, **{"num_train_epochs": 2, **options})
    made.train()
    tape = recorded.tape
    assert "with the same result" in tape.notes[0] and tape.steps == made.state.global_step
    assert torch.equal(tape.state()[: tape.layout.size], pt.flat(model))


@pytest.mark.slow
def test_one_callback_for_two_trainings(tmp_path):
    recorded = TapeCallback()
    tapes = []
    for seed in (1, 2):
        trainer(tmp_path, tl.llama(), recorded, seed=seed).train()
        tapes.append(recorded.tape)
    assert not torch.equal(tapes[0].state(), tapes[1].state())
    kept = TapeCallback(tmp_path / "tape")
    trainer(tmp_path, tl.llama(), kept).train()
    with pytest.raises(StorageError) as caught:
        trainer(tmp_path, tl.llama(), kept).train()
    assert_parts(caught.value, "an empty or new folder", "another run", "used before", "another folder")
