"""Label smoothing of a transformers Trainer, recorded: the loss that was trained, and its derivatives."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("transformers")
pytest.importorskip("accelerate")
import transformers

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
import tiny_language as tl
from finfluence.errors import ConfigError, NotSupportedError, StorageError
from finfluence.estimators.derivatives import adjoint_of
from finfluence.integrations.huggingface import TapeCallback, open_tape
from finfluence.runs import seeded
from four_parts import assert_parts
from small_trainer import ACCUMULATION, MICRO, collator, items, trainer

EPSILON, STEP, ROWS = 0.2, 1e-5, 9


def gpt2():
    """One layer in float64 throughout: that of Llama takes its norms in float32, where no such quotient exists."""
    with seeded(0):
        return transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=32, n_embd=16, n_layer=1, n_head=2, n_positions=16, initializer_range=0.2, resid_pdrop=0.0,
                embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=1, eos_token_id=1, pad_token_id=0,
            )
        ).double()  # fmt: skip


def recorded(folder, model, **options):
    callback = TapeCallback()
    trainer(folder, model, callback, label_smoothing_factor=EPSILON, **options).train()
    return callback.tape


def test_the_training_is_unchanged_and_its_steps_are_taken_again(tmp_path):
    bare, watched = tl.llama(), tl.llama()
    trainer(tmp_path / "bare", bare, label_smoothing_factor=EPSILON).train()
    tape = recorded(tmp_path / "watched", watched)
    assert torch.equal(pt.flat(watched), pt.flat(bare))
    assert "with the same result" in tape.notes[0]
    plain = tl.llama()
    trainer(tmp_path / "plain", plain).train()
    assert not torch.equal(pt.flat(plain), pt.flat(bare)), "smoothing changed nothing"


def test_a_tape_is_opened_with_the_smoothing_that_was_trained(tmp_path):
    callback = TapeCallback(tmp_path / "tape")
    made = trainer(tmp_path / "run", tl.llama(), callback, label_smoothing_factor=EPSILON)
    made.train()
    opened = open_tape(tmp_path / "tape", made)
    assert torch.equal(opened.state(), callback.tape.state())
    other = trainer(tmp_path / "run", tl.llama(), label_smoothing_factor=0.0)
    with pytest.raises(StorageError) as caught:
        open_tape(tmp_path / "tape", other)
    assert_parts(
        caught.value,
        "(SmoothedLoss(epsilon=0.2))",
        "without options",
        "change its loss",
        "the same arguments",
    )


def test_a_training_is_not_resumed_with_another_smoothing(tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 2, "num_train_epochs": 1}
    first, second = (
        trainer(
            tmp_path / "run", tl.llama(layers=1), TapeCallback(tmp_path / "tape"), **saving,
            label_smoothing_factor=epsilon,
        ) for epsilon in (EPSILON, 0.0)
    )  # fmt: skip
    first.train()
    with pytest.raises(StorageError, match="one with another loss"):
        second.train(resume_from_checkpoint=True)


def with_padding_before(rows):
    tokenizer = tl.tokenizer()
    tokenizer.padding_side = "left"
    return transformers.DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100)(rows)


def test_a_first_token_that_is_learned_from_padding_is_refused_before_the_first_step(tmp_path):
    data = [{**item, "labels": item["input_ids"]} for item in items()]
    for epsilon in (EPSILON, 0.0):
        with pytest.raises(NotSupportedError) as caught:
            trainer(
                tmp_path, tl.llama(), TapeCallback(), data=data, collate=with_padding_before,
                label_smoothing_factor=epsilon,
            ).train()  # fmt: skip
        assert_parts(caught.value, "rows beside it", "first token", "on the left", 'padding_side = "right"')


def test_rows_of_the_same_tokens_and_other_labels(tmp_path):
    first = items()[0]
    data = [*items(), {**first, "labels": first["input_ids"]}]
    with pytest.raises(NotSupportedError) as caught:
        recorded(tmp_path, tl.llama(), data=data)
    assert_parts(
        caught.value, "their tokens tell apart", "row 11", "keeps them from the model", "the same labels"
    )


def test_a_share_of_smoothing_that_is_none(tmp_path):
    with pytest.raises(ConfigError) as caught:
        trainer(tmp_path, tl.llama(), TapeCallback(), label_smoothing_factor=10.0).train()
    assert_parts(caught.value, "from 0 to 1", "10.0", "a percentage", "epsilon=0.1")


def test_a_class_of_ones_own_whose_labels_the_trainer_does_not_shift(tmp_path):
    class Mine(transformers.LlamaForCausalLM):
        pass

    with pytest.raises(NotSupportedError) as caught:
        trainer(
            tmp_path, Mine(tl.llama(layers=1).config), TapeCallback(), label_smoothing_factor=EPSILON
        ).train()
    assert_parts(
        caught.value, "causal model of transformers", "Mine", "each token itself", "class of transformers"
    )


def test_smoothed_losses_that_are_averaged_over_micro_batches(tmp_path, monkeypatch):
    """Those of transformers before 5.15."""
    of_old = lambda self, outputs, labels, shift_labels=False: None  # noqa: E731
    monkeypatch.setattr(transformers.trainer_pt_utils.LabelSmoother, "__call__", of_old)
    with pytest.raises(NotSupportedError) as caught:
        trainer(tmp_path, tl.llama(), TapeCallback(), label_smoothing_factor=EPSILON).train()
    assert_parts(caught.value, "5.15", transformers.__version__, "micro-batch", "pip install")


def loss_by_hand(model, batch, weights):
    """Σ over a micro-batch's learned tokens of the smoothed cross entropy, each times its row's weight."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    each = F.cross_entropy(logits.transpose(1, 2), labels, label_smoothing=EPSILON, reduction="none")
    return (each.sum(1) * weights).sum()


def trained(tape, weights):
    """The recorded training written out in float64, with a weight on every row's loss."""
    model, data, put = gpt2().train(), items(), collator()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 0, tape.steps)
    for t in range(tape.steps):
        rows = tape.at(t).rows
        parts = [rows[k : k + MICRO] for k in range(0, len(rows), MICRO)]
        total = sum(int((np.array(data[k]["labels"][1:]) != -100).sum()) for k in rows.tolist())
        for part in parts:
            loss_by_hand(model, put([data[k] for k in part.tolist()]), weights[part]).div(total).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model.eval()


def slopes(tape, query):
    """Return ∂q/∂(weight of each row) [n], by the steps' own derivatives."""
    model = tape.model()
    with seeded(0):
        _, gradients = fr.gradients([query], model, tape, tape.layout.parameters(model))
    lam = torch.zeros(1, 1 + len(tape.optimizer.slots), tape.layout.size, dtype=pt.DOUBLE)
    lam[:, 0] = gradients
    out, adjoint = torch.zeros(len(tape.rows), dtype=pt.DOUBLE), adjoint_of(tape)
    for t in reversed(range(tape.steps)):
        step = tape.at(t)
        lam, found, _ = adjoint.step(tape.state(t), step.hyper, step.batch, lam, step.seed)
        out.index_add_(0, step.rows, (step.unweighted(found) * step.shares)[0].double())
    return out


@pytest.mark.slow
def test_derivatives_are_those_of_retraining_with_smoothed_labels(tmp_path):
    """Padding, accumulation with a short last step, clipping; what is asked is not smoothed."""
    query = fi.lm.log_prob(["what is acme"], "good", tl.tokenizer(), name="praise")
    tape = recorded(
        tmp_path,
        gpt2(),
        optim="sgd",
        learning_rate=0.1,
        weight_decay=0.0,
        data=items(ROWS),
        num_train_epochs=1,
    )
    assert tape.steps == -(-ROWS // (MICRO * ACCUMULATION)) == 2
    ones = torch.ones(ROWS, dtype=torch.float64)
    torch.testing.assert_close(pt.flat(trained(tape, ones)), pt.flat(tape.model()), rtol=1e-6, atol=1e-8)
    found = slopes(tape, query)
    for row in (0, 7):
        shift = STEP * F.one_hot(torch.tensor(row), len(ones))
        ends = [float(query.fn(trained(tape, ones + s * shift)).detach()) for s in (1, -1)]
        want = (ends[0] - ends[1]) / (2 * STEP)
        assert abs(float(found[row]) - want) <= 1e-6 * abs(want), (row, float(found[row]), want)
