"""A transformers Trainer's training, recorded by the callback, against the plain loop on the same batches."""

import builtins
import copy
import importlib
import re
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
from finfluence.runs import seeded
from four_parts import assert_parts
from small_trainer import ACCUMULATION, EPOCHS, MICRO, collator, contents, items, trainer


class Read(torch.utils.data.Dataset):
    """Rows that note in which order they are read."""

    def __init__(self, rows):
        self.rows, self.order = rows, []

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, k):
        self.order.append(k)
        return self.rows[k]


def gpt2():
    model = tl.gpt2()
    config = copy.deepcopy(model.config)
    config.update({"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0})
    made = transformers.GPT2LMHeadModel(config)
    made.load_state_dict(model.state_dict())
    return made


MODELS = {"llama": tl.llama, "gpt2": gpt2}


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
    rows = fi.lm.TextRows(encoded)
    tape = fr.Tape.record(model, optimizer, loss=fi.lm.mean_token_loss, data=rows, out=out, clip_norm=0.5)
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
            learned = [
                np.array([float((b != -100).sum()) for b in batch["labels"][:, 1:]]) for batch in batches
            ]
            tape.step(parts, weights=[counts / float(total) for counts in learned])
            schedule.step()
            optimizer.zero_grad()
    return model, tape.finish()


def states(tape):
    return [tape.state(t) for t in range(tape.steps + 1)]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.quick(1)
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


def padding_on_the_left(rows):
    tokenizer = tl.tokenizer()
    tokenizer.padding_side = "left"
    return transformers.DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100)(rows)


def test_padding_on_the_left_is_the_same_training_where_positions_are_relative(tmp_path):
    tapes = []
    for collate in (collator(), padding_on_the_left):
        recorded = TapeCallback()
        trainer(tmp_path, tl.llama(), recorded, collate=collate).train()
        assert "with the same result" in recorded.tape.notes[0]
        tapes.append(recorded.tape)
    right, left = tapes
    assert [right.at(t).rows.tolist() for t in range(4)] == [left.at(t).rows.tolist() for t in range(4)]
    for ours, theirs in zip(states(left), states(right), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    assert not torch.equal(left.state(), right.state()), "the batches were padded alike"


def test_padding_on_the_left_where_positions_are_counted_from_it(tmp_path):
    with pytest.raises(NotSupportedError) as caught:
        trainer(tmp_path, gpt2(), TapeCallback(), collate=padding_on_the_left).train()
    assert_parts(
        caught.value, "wherever it stands", "logits that differ", "pads on the left", 'padding_side = "right"'
    )


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
        ("neftune_noise_alpha", 5.0, "depends on how a batch is padded"),
    ],
)
def test_options_that_a_tape_does_not_hold(option, value, cause, tmp_path):
    with pytest.raises(NotSupportedError) as caught:
        trainer(tmp_path, tl.llama(), TapeCallback(), **{option: value}).train()
    assert_parts(caught.value, f"without {option}", f"{option}={value!r}", cause, "fi.Tape.record")


def begin(**args):
    arguments = types.SimpleNamespace(**{"world_size": 1, "n_gpu": 1, **args})
    state = types.SimpleNamespace(global_step=0)
    TapeCallback().on_train_begin(arguments, state, None, model=None, train_dataloader=None, optimizer=None)


pytestmark = pytest.mark.filterwarnings(
    "ignore:.*gradient_checkpointing:FutureWarning"
)  # peft's use of transformers


def lora(model, **options):
    peft = pytest.importorskip("peft")
    with seeded(1):
        return peft.get_peft_model(
            model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], **options)
        )


def test_gradient_checkpointing_and_autocast_over_adapters(tmp_path):
    """The tape is that of the training as it is; by how much rounding moves its gradients is said."""
    new = hasattr(transformers.TrainingArguments, "activation_checkpointing")
    options = {"activation_checkpointing" if new else "gradient_checkpointing": True, "bf16": True}
    model, plain = lora(tl.llama()), lora(tl.llama())
    model.enable_input_require_grads()
    recorded = TapeCallback()
    trainer(tmp_path, model, recorded, **options).train()
    trainer(tmp_path, plain, **options).train()
    tape, (said, *_) = recorded.tape, recorded.tape.notes
    assert torch.equal(pt.flat(model), pt.flat(plain)) and tape.layout.size == sum(
        p.numel() for p in model.parameters() if p.requires_grad
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    assert torch.equal(tape.state()[: tape.layout.size], torch.cat([p.detach().reshape(-1) for p in trained]))
    found = re.search(r"up to ([0-9.]+)%, as sums in bfloat16 may. Derivatives .* up to ([0-9.]+)%", said)
    assert float(found[1]) <= 5 and float(found[2]) <= 25


def test_several_devices():
    for sizes in ({"world_size": 2}, {"n_gpu": 2}):
        with pytest.raises(NotSupportedError) as caught:
            begin(**sizes)
        assert_parts(
            caught.value, "one process on one device", "2", "its own process", "CUDA_VISIBLE_DEVICES"
        )


@pytest.mark.parametrize("option", ["fp16", "torch_compile", "deepspeed", "fsdp", "use_liger_kernel"])
def test_options_that_need_other_machines(option):
    with pytest.raises(NotSupportedError) as caught:
        begin(**{option: True})
    assert_parts(caught.value, f"without {option}", f"{option}=True", "not been shown", f"leave {option} out")


def test_another_trainer_of_trl():
    kind = type("GRPOConfig", (), {"__module__": "trl.trainer.grpo_config"})
    with pytest.raises(NotSupportedError) as caught:
        TapeCallback().on_train_begin(kind(), None, None, model=None, train_dataloader=None, optimizer=None)
    assert_parts(
        caught.value, "TRL's SFTTrainer or DPOTrainer", "GRPOConfig", "not been shown", "one of these"
    )


def test_prompt_tuning(tmp_path):
    peft = pytest.importorskip("peft")
    made = peft.get_peft_model(
        tl.llama(), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    )
    with pytest.raises(NotSupportedError) as caught:
        trainer(tmp_path, made, TapeCallback()).train()
    assert_parts(caught.value, "such as LoRA", "PromptTuningConfig", "before each text", "use LoraConfig")


def test_dropout(tmp_path):
    with pytest.raises(NotSupportedError) as caught:
        trainer(tmp_path, tl.gpt2(), TapeCallback()).train()
    assert_parts(caught.value, "without dropout", "drop", "how a batch is padded", "config to 0")


def with_positions(rows):
    return {**collator()(rows), "position_ids": torch.zeros(1, 1)}


def padding(tokens, mask, labels):
    made = {"input_ids": tokens, "attention_mask": mask, "labels": labels}
    return lambda rows: {name: torch.tensor([value]) for name, value in made.items()}


with_padding_between = padding([8, 0, 9], [1, 0, 1], [-100, -100, 9])
with_labels_on_padding = padding([0, 8, 9], [0, 1, 1], [0, -100, 9])
of_padding_alone = padding([0, 0, 0], [0, 0, 0], [-100, -100, -100])
learned_from_padding = padding([0, 8, 9], [0, 1, 1], [-100, 8, 9])


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
        *(
            (
                collate,
                NotSupportedError,
                ("labels −100", "row of padding alone", "holes", "mask padding alone"),
            )
            for collate in (with_padding_between, with_labels_on_padding, of_padding_alone)
        ),
        (
            learned_from_padding,
            NotSupportedError,
            ("rows beside it", "first token is learned", "on the left", 'padding_side = "right"'),
        ),
        (with_other_labels, NotSupportedError, ("own tokens", "other labels", "mlm=True", "mlm=False")),
        (
            without_labels,
            NotSupportedError,
            ("called with input_ids", "no labels", "makes no labels", "the loss to"),
        ),
        (packed, DataError, ("as they are", "row 0 of its batch", "packs", "before training")),
    ],
)
@pytest.mark.quick(3)
def test_batches_that_do_not_tell_their_rows(collate, kind, parts, tmp_path):
    recorded = TapeCallback()
    with pytest.raises(kind) as caught:
        trainer(tmp_path, tl.llama(), recorded, collate=collate).train()
    recorded.end()
    assert_parts(caught.value, *parts)


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
