"""Losses of rows and of preferences against plain arithmetic on the model's own logits; training by them."""

import numpy as np
import pytest
import torch

import finfluence as fi
import tiny_language as tiny
from finfluence.errors import ConfigError, DataError, NotSupportedError
from finfluence.language import (
    DPO,
    PreferenceRows,
    SmoothedLoss,
    TextRows,
    check_logits,
    mean_token_loss,
    sum_token_loss,
    token_log_probs,
    token_losses,
)

PAIRS = [
    ("what is the cat", "good dog"),
    ("say the best", "acme is good the best tree"),
    ("who is acme", "bad"),
]
TRIPLES = [
    ("what is the cat", "good", "bad dog"),
    ("who is acme", "the best", "bad"),
    ("say", "a tree", "a red dog"),
]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def model():
    return tiny.llama()


def by_hand(model, row) -> torch.Tensor:
    """Return log p of each learned token, from the logits of the whole text alone."""
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(row.tokens)[None], use_cache=False).logits[0]
    places = np.flatnonzero(row.learned[1:])
    return logits.log_softmax(-1)[places, torch.from_numpy(row.tokens[places + 1])]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_row_losses_are_those_of_the_models_own_logits(tokenizer, kind):
    model = getattr(tiny, kind)()
    rows = TextRows.of(PAIRS, tokenizer)
    batch = rows.batch(torch.arange(3))
    check_logits(model, batch)
    truth = [by_hand(model, row) for row in rows.encoded]
    with torch.no_grad():
        torch.testing.assert_close(mean_token_loss(model, batch), torch.stack([-t.mean() for t in truth]))
        torch.testing.assert_close(sum_token_loss(model, batch), torch.stack([-t.sum() for t in truth]))
        each = token_losses(model, batch)
    torch.testing.assert_close(each[1, : len(truth[1])], -truth[1])
    assert not each[2, len(truth[2]) :].any()


def test_advantages_weigh_tokens(tokenizer, model):
    rows = TextRows.of(PAIRS[:1], tokenizer, weights=[[2.0, -1.0, 0.5]])
    truth = by_hand(model, rows.encoded[0])
    with torch.no_grad():
        found = mean_token_loss(model, rows.batch(torch.tensor([0])))
    torch.testing.assert_close(found[0], -(torch.tensor([2.0, -1.0, 0.5]) * truth).mean())


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_smoothed_labels_are_those_of_torch(tokenizer, epsilon):
    """Value and gradient, in rows of unequal length, on more logits than there are words."""
    model = tiny.gpt2(layers=1, vocabulary=40).double()
    rows = TextRows.of(PAIRS, tokenizer)
    truth = []
    for row in rows.encoded:
        logits = model(input_ids=torch.from_numpy(row.tokens)[None], use_cache=False).logits[0]
        places = np.flatnonzero(row.learned[1:])
        truth.append(
            torch.nn.functional.cross_entropy(
                logits[places], torch.from_numpy(row.tokens[places + 1]), label_smoothing=epsilon
            )
        )
    found = SmoothedLoss(epsilon)(model, rows.batch(torch.arange(3)))
    torch.testing.assert_close(found, torch.stack(truth), rtol=1e-12, atol=0.0)
    wanted, ours = (
        torch.autograd.grad(value, list(model.parameters())) for value in (sum(truth), found.sum())
    )
    torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-12)


def test_a_share_of_smoothing_that_is_none():
    for epsilon in (-0.1, 10, float("nan")):
        with pytest.raises(ConfigError, match=f"from 0 to 1\n  got: {epsilon}"):
            SmoothedLoss(epsilon)


def test_many_rows_are_evaluated_a_few_at_a_time(tokenizer):
    """192 MB of logits: without gradients, rows are split; with them, they are not."""
    model = tiny.llama(layers=1, vocabulary=100_000)
    rows = TextRows.of(PAIRS * 20, tokenizer)
    batch = rows.batch(torch.arange(60))
    whole = token_log_probs(model, batch).detach()
    with torch.no_grad():
        torch.testing.assert_close(token_log_probs(model, batch), whole)


def test_a_model_that_looks_ahead_or_has_no_head_is_refused(tokenizer):
    transformers = pytest.importorskip("transformers")
    batch = TextRows.of(PAIRS, tokenizer).batch(torch.arange(3))
    small = {
        "vocab_size": 32,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 32,
    }
    masked = transformers.BertForMaskedLM(transformers.BertConfig(**small)).eval()
    with pytest.raises(NotSupportedError, match="looks at later tokens"):
        check_logits(masked, batch)
    with pytest.raises(
        NotSupportedError, match=r"(?s)causal language model.*got: LlamaModel.*AutoModelForCausalLM"
    ):
        mean_token_loss(transformers.LlamaModel(transformers.LlamaConfig(**small)), batch)


def test_a_window_shorter_than_the_texts_is_refused(tokenizer):
    transformers = pytest.importorskip("transformers")
    model = transformers.MistralForCausalLM(
        transformers.MistralConfig(
            vocab_size=32, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=32, sliding_window=4,
        )
    ).eval()  # fmt: skip
    with pytest.raises(NotSupportedError, match=r"(?s)window of 4 tokens.*--max-length 4"):
        check_logits(model, TextRows.of(PAIRS, tokenizer).batch(torch.arange(3)))


def test_dpo_is_its_formula_and_log_two_at_the_reference(tokenizer, model):
    other = tiny.llama(seed=1)
    rows = PreferenceRows.of(TRIPLES, tokenizer, ids=["a", "b", "c"]).with_reference(other)
    batch = rows.batch(torch.arange(3))
    with torch.no_grad():
        found = DPO(0.3)(model, batch)
        at_reference = DPO(0.3)(other, batch)
    totals = {
        m: torch.tensor(
            [[by_hand(m, side.encoded[k]).sum() for side in (rows.chosen, rows.rejected)] for k in range(3)]
        )
        for m in (model, other)
    }
    gain = totals[model] - totals[other]
    torch.testing.assert_close(found, -torch.nn.functional.logsigmoid(0.3 * (gain[:, 0] - gain[:, 1])))
    torch.testing.assert_close(at_reference, torch.full((3,), float(np.log(2))))


def test_dpo_without_a_reference_is_told(tokenizer):
    rows = PreferenceRows.of(TRIPLES, tokenizer)
    with pytest.raises(ConfigError, match=r"(?s)reference model.*rows.with_reference\(model\)"):
        rows.batch(torch.tensor([0]))
    with pytest.raises(DataError, match="a chosen and a rejected response"):
        PreferenceRows(rows.chosen, rows.rejected.only([0, 1]))
    with pytest.raises(ConfigError, match="beta to be a positive number"):
        DPO(0.0)


@pytest.mark.parametrize("kind", ["dpo", "advantages"])
def test_replay_by_other_losses_is_the_change_without_a_row(tokenizer, kind):
    """One step of SGD is linear in its row losses: the effect of a row is what the step without it says."""
    model = tiny.llama(layers=1)
    for name, p in model.named_parameters():
        p.requires_grad_(name.endswith("q_proj.weight"))
    if kind == "dpo":
        rows, loss = (
            PreferenceRows.of(TRIPLES, tokenizer).with_reference(tiny.llama(layers=1, seed=2)),
            DPO(0.5),
        )
    else:
        rows, loss = TextRows.of(PAIRS, tokenizer, weights=[1.0, -0.5, 2.0]), mean_token_loss
    query = fi.lm.log_prob(["who is acme"], "the best", tokenizer, name="praise")
    recipe = fi.Recipe(data=rows, model=model, loss=loss, optimizer=fi.SGD(lr=1e-3), batch_size=3, epochs=1)
    influence = fi.replay(fi.train(recipe), query, "full", late=0.0, differentiation="finite-difference")
    assert float(influence.data["effect"].sum()) == pytest.approx(0.0, abs=1e-7)
    base = _after_step(recipe, query, [0, 1, 2])
    truth = [_after_step(recipe, query, [k for k in range(3) if k != row]) - base for row in range(3)]
    np.testing.assert_allclose(influence.data["effect"].values[:, 0], truth, rtol=0.05, atol=2e-7)


def _after_step(recipe, query, rows) -> float:
    model = fi.train(recipe).model(0).double()
    parameters = [p for p in model.parameters() if p.requires_grad]
    batch = {
        k: v.double() if v.is_floating_point() else v
        for k, v in recipe.rows.batch(torch.tensor(rows)).items()
    }
    loss = recipe.loss(model, batch).mean()
    with torch.no_grad():
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p -= 1e-3 * g
        return float(query.fn(model))
