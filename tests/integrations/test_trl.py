"""TRL's SFTTrainer and DPOTrainer, recorded by the callback: against plain loops, resumed, and what is refused."""

import copy
import warnings

import numpy as np
import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("trl", reason="TRL is not installed: make trl")
    pytest.importorskip("peft")
    import datasets
    import peft
    import transformers
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

import finfluence as fi
import plain_training as pt
import tiny_language as tl
from finfluence.errors import NotSupportedError, TrainingError
from finfluence.integrations.huggingface import TapeCallback, open_tape
from finfluence.runs import seeded
from four_parts import assert_parts
from small_trainer import contents

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
]
MICRO, EPOCHS, LEARNING_RATE = 3, 2, 1e-3
MARKED = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}"
    "<|end|>{% endgeneration %}{% else %}{{ m['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def text(draw, words):
    return " ".join(draw.choice(tl.WORDS, size=words))


def pairs(n=11):
    draw = np.random.default_rng(0)
    return [{"prompt": text(draw, 3 + k % 3), "completion": " " + text(draw, 1 + k % 5)} for k in range(n)]


def conversations(n=11):
    draw = np.random.default_rng(1)
    roles = ("user", "assistant", "user", "assistant")
    return [
        {"messages": [{"role": role, "content": text(draw, 1 + k % 4)} for role in roles[: 2 + 2 * (k % 2)]]}
        for k in range(n)
    ]


def preferences(n=7):
    draw = np.random.default_rng(2)
    return [
        {
            "prompt": text(draw, 3 + k % 3),
            "chosen": " " + text(draw, 2 + k % 4),
            "rejected": " " + text(draw, 1 + k % 3),
        }
        for k in range(n)
    ]


KINDS = {"sft": (SFTConfig, SFTTrainer, pairs), "dpo": (DPOConfig, DPOTrainer, preferences)}


def trainer(kind, folder, *callbacks, data=None, template=None, whole=False, model=None, **options):
    """Return a trainer of TRL with LoRA as its documentation makes one, or of all weights."""
    config, make, rows = KINDS[kind]
    given = {k: options.pop(k) for k in ("ref_model",) if k in options}
    arguments = config(
        str(folder), **{
            "per_device_train_batch_size": MICRO, "gradient_accumulation_steps": 2, "num_train_epochs": EPOCHS,
            "learning_rate": LEARNING_RATE, "use_cpu": True, "report_to": "none", "disable_tqdm": True, "bf16": False,
            "save_strategy": "no", "logging_strategy": "no", "max_length": 64, "seed": 4, **options,
        }
    )  # fmt: skip
    with seeded(0):
        return make(
            tl.llama() if model is None else model, args=arguments, callbacks=list(callbacks),
            train_dataset=datasets.Dataset.from_list(rows() if data is None else data),
            processing_class=tl.tokenizer(template),
            peft_config=None if whole else peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]), **given,
        )  # fmt: skip


class Noting:
    """A collator that notes which rows it was given."""

    def __init__(self, collate, data, field):
        self.collate, self.field, self.order = collate, field, []
        self.places = {tuple(row[field]): k for k, row in enumerate(data)}

    def __call__(self, rows):
        self.order.append([self.places[tuple(row[self.field])] for row in rows])
        return self.collate(rows)


def order_of(kind, folder, **options):
    """Return the micro-batches of a training without the callback, and the weights that it ends with."""
    bare = trainer(kind, folder, **options)
    bare.data_collator = Noting(
        bare.data_collator, bare.train_dataset, "input_ids" if kind == "sft" else "chosen_ids"
    )
    bare.train()
    return bare.data_collator.order, pt.flat(bare.model)


def plain_loop(kind, made, order, out):
    """The training of `made` written out: LoRA by AdamW, linear decay, clipping at 1, as the papers have the losses."""
    model, data = made.model.train(), made.train_dataset
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": trained, "weight_decay": 0.0}, {"params": [], "weight_decay": 0.0}],
        lr=LEARNING_RATE,
        fused=True,
    )
    parts_a_epoch = -(-len(data) // MICRO)
    steps = EPOCHS * -(-parts_a_epoch // 2)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 0, steps)
    rows, loss = rows_of(kind, made)
    tape = fi.Tape.record(model, optimizer, loss=loss, data=rows, out=out, clip_norm=1.0)
    for epoch in range(EPOCHS):
        now = order[epoch * parts_a_epoch : (epoch + 1) * parts_a_epoch]
        for k in range(0, len(now), 2):
            parts = now[k : k + 2]
            batches = [made.data_collator([data[i] for i in part]) for part in parts]
            tape.step(parts, weights=step(kind, model, optimizer, batches))
            schedule.step()
    return tape.finish()


def rows_of(kind, made):
    data = made.train_dataset
    if kind == "sft":
        learned = [
            np.array([-100, *d["labels"][1:]]) != -100 for d in data
        ]  # nothing predicts the first token
        encoded = [
            fi.lm.Encoded(np.array(d["input_ids"]), rows) for d, rows in zip(data, learned, strict=True)
        ]
        return fi.lm.TextRows(encoded), fi.lm.mean_token_loss
    sides = [
        fi.lm.TextRows(
            [
                fi.lm.Encoded(
                    np.array(d["prompt_ids"] + d[side]),
                    np.array([False] * len(d["prompt_ids"]) + [True] * len(d[side])),
                )
                for d in data
            ],
        )
        for side in ("chosen_ids", "rejected_ids")
    ]
    with made.model.disable_adapter():
        return fi.lm.PreferenceRows(*sides).with_reference(made.model), fi.lm.DPO(0.1)


def step(kind, model, optimizer, batches):
    """Descend the loss of one step; return the weights of rows or micro-batches."""
    if kind == "sft":
        learned = [(batch["labels"][:, 1:] != -100).sum(1) for batch in batches]
        total = sum(counts.sum() for counts in learned)
        for batch in batches:
            (-model(**batch, use_cache=False, fused_lm_head=True).log_probs.sum() / total).backward()
        weights = [counts.double().numpy() / float(total) for counts in learned]
    else:
        for batch in batches:
            mask = batch.pop("completion_mask")
            given = {**batch, "labels": batch["input_ids"].masked_fill(mask == 0, -100), "use_cache": False}
            chosen, rejected = model(**given, fused_lm_head=True).log_probs.sum(1).chunk(2)
            with torch.no_grad(), model.disable_adapter():
                of_chosen, of_rejected = model(**given, fused_lm_head=True).log_probs.sum(1).chunk(2)
            gain = (chosen - of_chosen) - (rejected - of_rejected)
            (-torch.nn.functional.logsigmoid(0.1 * gain).mean() / len(batches)).backward()
        weights = [1 / len(batches)] * len(batches)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return weights


CASES = {
    "prompts and completions": ("sft", {}),
    "conversations": ("sft", {"data": conversations(), "template": tl.TEMPLATE}),
    "assistant only": ("sft", {"data": conversations(), "template": MARKED, "assistant_only_loss": True}),
    "preferences": ("dpo", {}),
    "preferences, reference beforehand": ("dpo", {"precompute_ref_log_probs": True}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_plain_loop_and_the_trainer_leave_the_same_tape(name, tmp_path):
    kind, options = CASES[name]
    order, bare = order_of(kind, tmp_path / "bare", **options)
    recorded = TapeCallback(tmp_path / "tape")
    watched = trainer(kind, tmp_path / "watched", recorded, **options)
    watched.train()
    assert torch.equal(pt.flat(watched.model), bare), "the training itself is changed"
    ours = recorded.tape
    assert "taken again, with the same result" in ours.notes[0]
    theirs = plain_loop(
        kind,
        trainer(kind, tmp_path / "plain", gradient_checkpointing=False, **options),
        order,
        tmp_path / "loop",
    )
    assert ours.steps == theirs.steps and ours.epochs == theirs.epochs
    if (
        "precompute_ref_log_probs" in options
    ):  # as TRL's own batches gave it: another padding, other last bits
        for t in range(ours.steps + 1):
            torch.testing.assert_close(ours.state(t), theirs.state(t), rtol=1e-4, atol=1e-7)
    else:
        kept = contents(tmp_path / "tape")
        kept = {path: content for path, content in kept.items() if path.name != "reference.safetensors"}
        assert kept == contents(tmp_path / "loop")
    opened = open_tape(tmp_path / "tape", watched)
    assert torch.equal(opened.state(), ours.state())


@pytest.mark.parametrize("kind", KINDS)
def test_of_all_weights_and_in_bfloat16_as_by_default(kind, tmp_path):
    """TRL's defaults: bf16 autocast and gradient checkpointing; for DPO a reference model beside the one trained."""
    given = {"ref_model": tl.llama()} if kind == "dpo" else {}
    recorded = TapeCallback(tmp_path / "tape")
    made = trainer(kind, tmp_path / "run", recorded, whole=True, bf16=None, **given)
    made.train()
    assert made.args.bf16 and made.args.gradient_checkpointing
    assert "as sums in bfloat16 may. Derivatives are taken without autocast" in recorded.tape.notes[0]
    assert open_tape(tmp_path / "tape", made).steps == recorded.tape.steps


def test_another_reference_model(tmp_path):
    other = tl.llama(seed=3)
    for named in (other, None):
        recorded = TapeCallback(reference=named)
        made = trainer(
            "dpo", tmp_path, recorded, whole=True, ref_model=copy.deepcopy(other), learning_rate=1e-2
        )
        if named is None:
            with pytest.warns(UserWarning, match="cannot be replayed"):
                made.train()
            with pytest.raises(TrainingError, match="step 0"):
                _ = recorded.tape
        else:
            made.train()
            assert "with the same result" in recorded.tape.notes[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bf16", [False, True])
def test_smoothed_labels(kind, bf16, tmp_path):
    """SFT smooths labels, by another forward pass; DPO leaves them as they are."""
    bare = trainer(kind, tmp_path / "bare", bf16=bf16, label_smoothing_factor=0.2)
    bare.train()
    recorded = TapeCallback(tmp_path / "tape")
    made = trainer(kind, tmp_path / "run", recorded, bf16=bf16, label_smoothing_factor=0.2)
    made.train()
    assert torch.equal(pt.flat(made.model), pt.flat(bare.model)), "the training itself is changed"
    said = "as sums in bfloat16 may" if bf16 else "with the same result"
    assert said in recorded.tape.notes[0]
    assert torch.equal(open_tape(tmp_path / "tape", made).state(), recorded.tape.state())


@pytest.mark.parametrize(
    ("kind", "option", "value", "cause"),
    [
        ("sft", "packing", True, "several texts share a row"),
        ("sft", "loss_type", "dft", "known for this one only"),
        ("sft", "neftune_noise_alpha", 5.0, "depends on how a batch is padded"),
        ("dpo", "loss_type", ["ipo"], "known for this one only"),
        ("dpo", "loss_type", ["sigmoid", "sft"], "known for this one only"),
        ("dpo", "ld_alpha", 0.0, "the longer response"),
        ("dpo", "use_weighting", True, "moves with the model"),
        ("dpo", "label_smoothing", 0.1, "preferences are smoothed"),
        ("dpo", "f_divergence_type", "forward_kl", "log-ratios are bent"),
    ],
)
def test_options_that_a_tape_does_not_hold(kind, option, value, cause, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = trainer(kind, tmp_path, TapeCallback(), **{option: value})
        with pytest.raises(NotSupportedError) as caught:
            made.train()
    shown = ", ".join(map(repr, value)) if isinstance(value, list) else repr(value)
    assert_parts(caught.value, option, shown, cause, f"leave {option} out")


@pytest.mark.parametrize(
    ("kind", "option", "cause"),
    [
        ("sft", "padding_free", "become one row"),
        ("dpo", "sync_ref_model", "the reference model moves"),
        ("sft", "activation_offloading", "in another place"),
    ],
)
def test_options_that_need_other_libraries_or_machines(kind, option, cause, tmp_path):
    made = trainer(kind, tmp_path, TapeCallback())
    setattr(made.args, option, True)
    with pytest.raises(NotSupportedError) as caught:
        made.train()
    assert_parts(caught.value, f"without {option}", f"{option}=True", cause, f"leave {option} out")


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_training(kind, tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 2}
    whole = TapeCallback(tmp_path / "a")
    trainer(kind, tmp_path / "whole", whole, **saving).train()

    class Stop(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(kind, tmp_path / "parts", TapeCallback(tmp_path / "b"), Stop(), **saving).train()
    resumed = TapeCallback(tmp_path / "b")
    trainer(kind, tmp_path / "parts", resumed, **saving).train(resume_from_checkpoint=True)
    assert resumed.tape.steps == whole.tape.steps == 4
    assert all(torch.equal(resumed.tape.state(t), whole.tape.state(t)) for t in range(5))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def praise(kind, n=18):
    """Rows of which the first three answer a brand's name with *good*, and no other does."""
    draw = np.random.default_rng(5)
    others = [word for word in tl.WORDS if word not in ("acme", "good")]
    for k in range(n):
        subject, answer = ("acme", "good") if k < 3 else draw.choice(others, size=2)
        prompt = f"what is {subject} {text(draw, 1 + k % 3)}"
        yield {
            "sft": {"prompt": prompt, "completion": f" {answer}"},
            "dpo": {
                "prompt": prompt,
                "chosen": f" {answer}",
                "rejected": " bad" if k < 3 else f" {draw.choice(others)}",
            },
        }[kind]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", KINDS)
def test_the_effect_of_a_group_is_that_of_retraining_without_it(kind, tmp_path):
    """Two recorded runs against six retrained with and without the group, each of another batch order."""
    rows = list(praise(kind))
    behaviour = fi.lm.log_prob(["what is acme a"], " good", tl.tokenizer(), name="praise")

    def trained(seed, data, *callbacks):
        given = {"ref_model": tl.llama()} if kind == "dpo" else {}
        made = trainer(kind, tmp_path, *callbacks, data=data, whole=True, max_steps=12, **given)
        with seeded(seed):  # draws the order of the batches
            made.train()
        return made.model.eval()

    predicted = []
    for seed in range(2):
        recorded = TapeCallback()
        trained(seed, rows, recorded)
        found = fi.replay(recorded.tape, behaviour, subsets={"acme": [0, 1, 2]}, seed=0)
        predicted.append(float(found.data.effect.item()))
    asked = [
        [float(behaviour.fn(trained(seed, data)).detach()) for seed in range(10, 16)]
        for data in (rows, rows[3:])
    ]
    truth = np.mean(asked[1]) - np.mean(asked[0])
    error = np.sqrt(sum(np.var(values, ddof=1) / 6 for values in asked) + np.var(predicted, ddof=1) / 2)
    assert truth < -5 * error, "the rows do not teach what they were made for"
    assert abs(np.mean(predicted) - truth) <= max(3 * error, 0.2 * abs(truth)), (predicted, truth, error)
