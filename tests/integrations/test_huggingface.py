"""A transformers Trainer's training, recorded by the callback, against the plain loop on the same batches."""

import builtins
import copy
import importlib
import sys
import types

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")
import transformers

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
import tiny_language as tl
from finfluence.errors import ConfigError, DataError, NotSupportedError, TrainingError
from finfluence.integrations.huggingface import TapeCallback
from four_parts import assert_parts

EPOCHS, MICRO, ACCUMULATION = 2, 3, 2


def items(n: int = 11) -> list[dict[str, list[int]]]:
    """Texts of unequal length, of which the second half is learned; 11 rows leave a short micro-batch and step."""
    draw = np.random.default_rng(0)
    texts = [draw.integers(7, 32, size=5 + k % 4).tolist() for k in range(n)]
    return [{"input_ids": t, "labels": [-100] * (len(t) // 2) + t[len(t) // 2 :]} for t in texts]


class Read(torch.utils.data.Dataset):
    """Rows that note in which order they are read."""

    def __init__(self, rows):
        self.rows, self.order = rows, []

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, k):
        self.order.append(k)
        return self.rows[k]


def collator():
    return transformers.DataCollatorForSeq2Seq(tl.tokenizer(), label_pad_token_id=-100)


def gpt2():
    model = tl.gpt2()
    config = copy.deepcopy(model.config)
    config.update({"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0})
    made = transformers.GPT2LMHeadModel(config)
    made.load_state_dict(model.state_dict())
    return made


MODELS = {"llama": tl.llama, "gpt2": gpt2}


def trainer(folder, model, *callbacks, kind=None, data=None, collate=None, **options):
    arguments = transformers.TrainingArguments(
        str(folder), **{
            "num_train_epochs": EPOCHS, "per_device_train_batch_size": MICRO, "learning_rate": 3e-3, "seed": 4,
            "gradient_accumulation_steps": ACCUMULATION, "weight_decay": 0.1, "max_grad_norm": 0.5, "use_cpu": True,
            "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no", **options,
        }
    )  # fmt: skip
    return (kind or transformers.Trainer)(
        model, arguments, train_dataset=items() if data is None else data,
        data_collator=collate or collator(), callbacks=list(callbacks),
    )  # fmt: skip


def plain_loop(model, order, out):
    """The Trainer's training written out: mean over a step's tokens, clipping, AdamW in two groups, linear decay."""
    model, data, put = model.train(), items(), collator()
    decayed = [p for n, p in model.named_parameters() if p.ndim > 1]
    others = [p for n, p in model.named_parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=3e-3,
        fused=True,
    )
    steps = EPOCHS * -(-len(data) // (MICRO * ACCUMULATION))
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 0, steps)
    encoded = [fi.lm.Encoded(np.array(d["input_ids"]), np.array(d["labels"]) != -100) for d in data]
    rows = fi.lm.TextRows(encoded, batch_size=MICRO)
    tape = fr.Tape.record(model, optimizer, loss=fi.lm.sum_token_loss, data=rows, out=out, clip_norm=0.5)
    for epoch in range(EPOCHS):
        now = order[epoch * len(data) : (epoch + 1) * len(data)]
        micro = [now[k : k + MICRO] for k in range(0, len(now), MICRO)]
        for k in range(0, len(micro), ACCUMULATION):
            parts = micro[k : k + ACCUMULATION]
            batches = [put([data[i] for i in part]) for part in parts]
            total = sum((b["labels"][:, 1:] != -100).sum() for b in batches)
            for batch in batches:
                model(**batch, num_items_in_batch=total).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            tape.step(parts, weights=[len(part) / float(total) for part in parts])
            schedule.step()
            optimizer.zero_grad()
    return model, tape.finish()


def states(tape):
    return [tape.state(t) for t in range(tape.steps + 1)]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", MODELS)
def test_the_plain_loop_and_the_trainer_leave_the_same_tape(name, tmp_path):
    read = Read(items())
    bare = MODELS[name]()
    trainer(tmp_path / "bare", bare, data=read).train()
    looped, theirs = plain_loop(MODELS[name](), read.order, tmp_path / "plain")
    model, recorded = MODELS[name](), TapeCallback(tmp_path / "tape")
    trainer(tmp_path / "watched", model, recorded).train()
    assert torch.equal(pt.flat(model), pt.flat(bare)), "the training itself is changed"
    assert torch.equal(pt.flat(model), pt.flat(looped))
    ours = recorded.tape
    assert ours.steps == theirs.steps == 4 and ours.epochs == theirs.epochs
    assert all(torch.equal(a, b) for a, b in zip(states(ours), states(theirs), strict=True))
    assert contents(tmp_path / "tape") == contents(tmp_path / "plain")


def test_nothing_is_left_on_the_model_and_ids_are_the_users(tmp_path):
    model, recorded = tl.llama(), TapeCallback(ids=[f"row {k}" for k in range(11)])
    watched = trainer(tmp_path, model, recorded)
    watched.train()
    assert not model._forward_pre_hooks
    assert recorded.tape.rows.ids.tolist()[:2] == ["row 0", "row 1"]


def test_no_training():
    with pytest.raises(ConfigError) as caught:
        _ = TapeCallback().tape
    assert_parts(caught.value, "a training that was recorded", "none", "was not called", "recorded.end()")


@pytest.mark.parametrize(
    ("option", "value", "cause"),
    [
        ("label_smoothing_factor", 0.1, "smooths labels"),
        ("neftune_noise_alpha", 5.0, "noise is added"),
        ("bf16", True, "under autocast"),
    ],
)
def test_options_that_a_tape_does_not_hold(option, value, cause, tmp_path):
    with pytest.raises(NotSupportedError) as caught:
        trainer(tmp_path, tl.llama(), TapeCallback(), **{option: value}).train()
    assert_parts(caught.value, f"without {option}", f"{option}={value!r}", cause, "fi.Tape.record")


def begin(**changed):
    arguments = types.SimpleNamespace(**{"world_size": 1, "n_gpu": 1, **changed.pop("args", {})})
    state = types.SimpleNamespace(global_step=changed.pop("global_step", 0))
    TapeCallback().on_train_begin(arguments, state, None, model=None, train_dataloader=None, optimizer=None)


def test_gradient_checkpointing(tmp_path):
    new = hasattr(transformers.TrainingArguments, "activation_checkpointing")
    option = {"activation_checkpointing" if new else "gradient_checkpointing": True}
    with pytest.raises(NotSupportedError) as caught:
        trainer(tmp_path, tl.llama(), TapeCallback(), **option).train()
    assert_parts(
        caught.value, "without gradient checkpointing", "Llama", "activation_checkpointing", "leave it out"
    )


def test_several_devices():
    for sizes in ({"world_size": 2}, {"n_gpu": 2}):
        with pytest.raises(NotSupportedError) as caught:
            begin(args=sizes)
        assert_parts(
            caught.value, "one process on one device", "2", "its own process", "CUDA_VISIBLE_DEVICES"
        )


@pytest.mark.parametrize("option", ["fp16", "torch_compile", "deepspeed", "fsdp"])
def test_options_that_need_other_machines(option):
    with pytest.raises(NotSupportedError) as caught:
        begin(args={option: True})
    assert_parts(caught.value, f"without {option}", f"{option}=True", "not been shown", f"leave {option} out")


def test_a_resumed_training():
    with pytest.raises(NotSupportedError) as caught:
        begin(global_step=7)
    assert_parts(caught.value, "from its first step", "step 7", "no tape", "without resume_from_checkpoint")


def test_a_trainer_of_trl():
    kind = type("SFTConfig", (), {"__module__": "trl.trainer.sft_config"})
    with pytest.raises(NotSupportedError) as caught:
        TapeCallback().on_train_begin(kind(), None, None, model=None, train_dataloader=None, optimizer=None)
    assert_parts(
        caught.value, "a Trainer of transformers", "SFTConfig", "not been shown", "transformers.Trainer"
    )


def test_dropout(tmp_path):
    with pytest.raises(NotSupportedError) as caught:
        trainer(tmp_path, tl.gpt2(), TapeCallback()).train()
    assert_parts(caught.value, "without dropout", "drop", "how a batch is padded", "config to 0")


def with_positions(rows):
    return {**collator()(rows), "position_ids": torch.zeros(1, 1)}


def with_padding_before(rows):
    return transformers.DataCollatorForSeq2Seq(tl.tokenizer(), padding="longest")(rows) | (
        {"attention_mask": torch.tensor([[0, 1, 1]]), "input_ids": torch.tensor([[0, 8, 9]]),
         "labels": torch.tensor([[-100, 8, 9]])}
    )  # fmt: skip


def with_other_labels(rows):
    made = collator()(rows)
    return {**made, "labels": torch.where(made["labels"] < 0, made["labels"], 8)}


def packed(rows):
    made = {k: torch.tensor([[value for row in rows for value in row[k]]]) for k in rows[0]}
    return {**made, "attention_mask": torch.ones_like(made["input_ids"])}


def without_labels(rows):
    return {k: v for k, v in collator()(rows).items() if k != "labels"}


@pytest.mark.parametrize(
    ("collate", "kind", "parts"),
    [
        (
            with_positions,
            NotSupportedError,
            ("one text a row", "position_ids", "packed", "collator that pads"),
        ),
        (with_padding_before, NotSupportedError, ("padding behind", "before", "on the left", "padding_side")),
        (with_other_labels, NotSupportedError, ("own tokens", "other labels", "mlm=True", "mlm=False")),
        (
            without_labels,
            NotSupportedError,
            ("called with input_ids", "no labels", "makes no labels", "the loss to"),
        ),
        (packed, DataError, ("as they are", "row 0 of its batch", "packs", "before training")),
    ],
)
def test_batches_that_do_not_tell_their_rows(collate, kind, parts, tmp_path):
    recorded = TapeCallback()
    with pytest.raises(kind) as caught:
        trainer(tmp_path, tl.llama(), recorded, collate=collate).train()
    recorded.end()
    assert_parts(caught.value, *parts)


def test_rows_that_are_the_same(tmp_path):
    with pytest.raises(DataError) as caught:
        trainer(tmp_path, tl.llama(), TapeCallback(), data=[*items(), items()[3]]).train()
    assert_parts(caught.value, "rows that differ", "rows 3 and 11", "stands twice", "keep one of each")


def test_ids_of_another_number(tmp_path):
    with pytest.raises(DataError) as caught:
        trainer(tmp_path, tl.llama(), TapeCallback(ids=["a"])).train()
    assert_parts(
        caught.value, "an id for each of 11 rows", "1 ids", "another split", "order of train_dataset"
    )


def test_a_stream(tmp_path):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(items())

    with pytest.raises(NotSupportedError) as caught:
        trainer(tmp_path, tl.llama(), TapeCallback(), data=Stream(), max_steps=2).train()
    assert_parts(caught.value, "a data set with a length", "", "cannot be read again", "streaming=True")


def test_a_loss_of_ones_own_is_found_out(tmp_path):
    class Doubled(transformers.Trainer):
        def compute_loss(self, *given, **options):
            return 2 * super().compute_loss(*given, **options)

    recorded = TapeCallback()
    with pytest.warns(UserWarning, match="cannot be replayed"):
        trainer(tmp_path, tl.llama(), recorded, kind=Doubled, max_grad_norm=0.0).train()
    with pytest.raises(TrainingError, match="step 0"):
        _ = recorded.tape


def test_transformers_is_not_installed(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "transformers":
            raise ModuleNotFoundError("No module named 'transformers'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "finfluence.integrations.huggingface")
    with pytest.raises(ConfigError) as caught:
        importlib.import_module("finfluence.integrations.huggingface")
    assert_parts(
        caught.value,
        "the library 'transformers'",
        "No module named 'transformers'",
        "extra 'lm'",
        "pip install 'finfluence[lm]'",
    )
