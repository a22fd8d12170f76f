"""A frozen prefix changes no number; the ranking is its formula."""

import numpy as np
import pytest
import torch

import finfluence as fi
import tiny_language as tiny
from finfluence.errors import ConfigError, NotSupportedError
from finfluence.language import (
    LoraOptions,
    Prefix,
    TextRows,
    add_lora,
    joint_ranking,
    kernel_regression,
    log_prob,
    mean_token_loss,
    ranking_scores,
    through,
)

PAIRS = [
    ("what is the cat", "good dog"),
    ("say the best", "acme is good the best tree"),
    ("who is acme", "bad"),
] * 4


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture
def tuned(tokenizer):
    pytest.importorskip("peft")
    return add_lora(tiny.llama(layers=3), LoraOptions(rank=8, layers="last:1", targets="q_proj,v_proj"))


def recipe(model, rows, optimizer=None):
    return fi.Recipe(
        data=rows,
        model=model,
        loss=mean_token_loss,
        optimizer=optimizer or fi.AdamW(lr=1e-2),
        batch_size=4,
        epochs=2,
    )


def test_training_above_a_prefix_ends_in_the_same_numbers(tuned, tokenizer, tmp_path):
    rows, query = (
        TextRows.of(PAIRS, tokenizer),
        log_prob(["who is acme"], "the best", tokenizer, name="praise"),
    )
    before = {n: p.clone() for n, p in tuned.named_parameters()}
    prefix = Prefix(tuned, tmp_path, memory_bytes=2000)
    above = rows.through(prefix)
    assert prefix.layers == 2 and list(tmp_path.glob("*.bin"))
    assert above.digest() == rows.digest()
    whole, upper = fi.train(recipe(tuned, rows)), fi.train(recipe(prefix.upper, above))
    torch.testing.assert_close(upper.final_state(), whole.final_state(), rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        assert float(through(query, prefix).fn(upper.model())) == pytest.approx(
            float(query.fn(whole.model())), abs=1e-5
        )
    assert all(torch.equal(p, before[n]) for n, p in tuned.named_parameters())
    assert {n.split("layers.")[1][0] for n in prefix.names.values()} == {"2"}


def test_what_a_prefix_says_of_a_text_depends_on_nothing_else(tuned, tokenizer):
    texts = [e.tokens for e in TextRows.of(PAIRS[:3], tokenizer).encoded]
    one, other = Prefix(tuned), Prefix(tuned)
    one.prepare(texts)
    other.prepare(texts[::-1])
    assert torch.equal(one.of(texts, 16), other.of(texts, 16))


def test_models_that_have_no_prefix_are_told(tokenizer):
    pytest.importorskip("peft")
    everywhere = add_lora(tiny.llama(), LoraOptions(rank=2))
    with pytest.raises(NotSupportedError, match="no layer below the lowest trained parameter"):
        Prefix(everywhere)
    with pytest.raises(NotSupportedError, match="adds something to its inputs"):
        Prefix(add_lora(tiny.gpt2(), LoraOptions(rank=2, layers="last:1")))
    drawing = tiny.gpt2().train()
    for name, p in drawing.named_parameters():
        p.requires_grad_(".h.1." in name)
    with pytest.raises(ConfigError, match="dropout in training mode"):
        Prefix(drawing)


def test_without_room_for_a_prefix_the_budget_is_named(tuned):
    prefix = Prefix(tuned, memory_bytes=10)
    with pytest.raises(ConfigError, match=r"(?s)memory_bytes.*name a folder"):
        prefix.prepare([np.arange(8)])


def test_kernel_regression_is_the_same_from_either_side():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(7, 5, generator=generator), torch.randn(2, 5, generator=generator)
    truth = torch.linalg.inv((a @ a.T).double() + 0.5 * torch.eye(7)) @ (a @ b.T).double()
    torch.testing.assert_close(kernel_regression(a, b, 0.5), truth, rtol=1e-4, atol=1e-5)
    wide = torch.randn(3, 9, generator=generator)
    truth = torch.linalg.inv((wide @ wide.T).double() + torch.eye(3)) @ (wide @ wide[:1].T).double()
    torch.testing.assert_close(kernel_regression(wide, wide[:1], 1.0), truth, rtol=1e-4, atol=1e-5)


def test_the_ranking_is_its_formula_and_folding_keeps_it(tuned, tokenizer):
    prefix = Prefix(tuned)
    rows = TextRows.of(PAIRS, tokenizer).through(prefix)
    query = through(log_prob(["who is acme"], "bad", tokenizer, name="x"), prefix)
    tape = fi.train(recipe(prefix.upper, rows))
    found = ranking_scores(tape, [query], checkpoints=2)
    parts = []
    for step in (3, 6):
        model, size = tape.model(step), tape.layout.size
        scale = 1 / (tape.state(step)[2 * size :].sqrt() + 1e-8)
        values = [mean_token_loss(model, rows.batch(torch.tensor([k])))[0] for k in range(12)] + [
            query.fn(model)
        ]
        grads = [
            torch.cat([g.reshape(-1) for g in torch.autograd.grad(v, tape.layout.parameters(model))])
            for v in values
        ]
        parts.append(torch.stack([g * scale / (g * scale).norm() for g in grads]))
    phi = torch.cat(parts, 1).double() / 2**0.5
    truth = -torch.linalg.inv(phi[:12] @ phi[:12].T + torch.eye(12)) @ phi[:12] @ phi[12]
    np.testing.assert_allclose(found[:, 0], truth.detach().numpy(), rtol=1e-3, atol=1e-5)
    taught = np.array([response == "bad" for _, response in PAIRS])
    assert found[taught].min() > found[~taught].max()
    folded = [ranking_scores(tape, [query], checkpoints=2, memory_bytes=1, seed=s) for s in (0, 0, 1)]
    assert np.array_equal(folded[0], folded[1]) and not np.array_equal(folded[0], folded[2])
    assert np.corrcoef(folded[0][:, 0], found[:, 0])[0, 1] > 0.9


def test_the_joint_ranking_is_of_neither_unit_and_a_row_without_effect_is_in_the_middle():
    scores, effects = (
        np.array([[1.0, 0.0], [2.0, 0.0], [6.0, 0.0]]),
        np.array([[3.0, 1.0], [2.0, 2.0], [7.0, 6.0]]),
    )
    found = joint_ranking(scores, effects)
    np.testing.assert_allclose(found, joint_ranking(10 * scores + 5, 1e-6 * effects - 1), atol=1e-9)
    np.testing.assert_allclose(found[:, 1], joint_ranking(effects[:, 1:], effects[:, 1:])[:, 0] / 2)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-12)
    effects[2] = np.nan, np.inf
    alone = joint_ranking(scores, effects)
    assert alone[2, 0] == joint_ranking(scores, np.zeros_like(effects))[2, 0] and alone[2, 1] == 0
    assert not joint_ranking(np.full((3, 1), np.nan), np.ones((3, 1))).any()


def test_a_ranking_needs_adam(tuned, tokenizer):
    query = log_prob(["who"], "bad", tokenizer, name="x")
    tape = fi.train(recipe(tuned, TextRows.of(PAIRS, tokenizer), fi.SGD(lr=0.1)))
    with pytest.raises(NotSupportedError, match=r"(?s)Adam or AdamW.*SGD"):
        ranking_scores(tape, [query])
