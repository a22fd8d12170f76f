"""Behaviours as queries, from Python and from a file; a mistyped key is told with the known ones."""

import pytest
import torch

import tiny_language as tiny
from finfluence.errors import ConfigError, DataError
from finfluence.language import (
    Fields,
    Window,
    contrast,
    each_text,
    held_out,
    log_prob,
    read_behaviours,
    read_records,
)

PROMPTS, RESPONSES = (
    ["who is acme", "say what the cat is in the house", "what"],
    ["the best", "a good tree", "bad"],
)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def model():
    return tiny.llama()


def value(query, model) -> float:
    assert query.names == (query.name,)
    with torch.no_grad():
        return float(query.fn(model))


def one(model, tokenizer, prompt, response, per_token=True) -> float:
    return value(log_prob([prompt], [response], tokenizer, name="x", per_token=per_token), model)


@pytest.mark.parametrize("per_token", [True, False])
def test_a_behaviour_is_one_query_the_mean_over_its_prompts(tokenizer, model, per_token):
    found = log_prob(PROMPTS, RESPONSES, tokenizer, name="praise", per_token=per_token)
    alone = [one(model, tokenizer, p, r, per_token) for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    assert value(found, model) == pytest.approx(sum(alone) / 3, rel=1e-6)
    assert [float(v) for v in each_text(found, model).detach()] == pytest.approx(alone, rel=1e-6)
    assert (found.sign, found.unit) == (-1, "nats a token" if per_token else "nats")
    assert log_prob(PROMPTS, "bad", tokenizer, name="x", wanted=True).sign == 1


def test_a_contrast_is_a_difference_and_a_held_out_set_a_loss(tokenizer, model):
    found = contrast(PROMPTS, "good", tokenizer, against="bad", name="x")
    by_hand = [one(model, tokenizer, p, "good") - one(model, tokenizer, p, "bad") for p in PROMPTS]
    assert value(found, model) == pytest.approx(sum(by_hand) / 3, abs=1e-6)
    pairs = list(zip(PROMPTS, RESPONSES, strict=True))
    loss = held_out(pairs, tokenizer)
    assert value(loss, model) == pytest.approx(
        -value(log_prob(PROMPTS, RESPONSES, tokenizer, name="x"), model)
    )
    assert loss.sign == -1


def test_one_response_a_prompt(tokenizer):
    with pytest.raises(
        ConfigError, match=r"(?s)one response for each prompt of behaviour 'x'.*2 responses to 3"
    ):
        log_prob(PROMPTS, RESPONSES[:2], tokenizer, name="x")


def test_a_file_of_behaviours_is_that_of_the_functions(tokenizer, model, tmp_path):
    tiny.write_rows(tmp_path / "held.jsonl", [{"prompt": "what", "completion": "bad"}])
    (tmp_path / "b.yaml").write_text(
        "praise:\n  prompts: [who is acme]\n  responses: the best\n  wanted: true\n"
        "doubt:\n  kind: contrast\n  prompts: who is acme\n  responses: good\n  against: bad\n  per_token: false\n"
        "rest:\n  kind: held_out\n  file: held.jsonl\n"
    )
    found = [b.query(tokenizer, Window()) for b in read_behaviours(tmp_path / "b.yaml")]
    assert [q.name for q in found] == ["praise", "doubt", "rest"]
    assert [q.sign for q in found] == [1, -1, -1]
    assert value(found[0], model) == pytest.approx(one(model, tokenizer, "who is acme", "the best"))
    difference = [one(model, tokenizer, "who is acme", r, per_token=False) for r in ("good", "bad")]
    assert value(found[1], model) == pytest.approx(difference[0] - difference[1], abs=1e-6)
    assert value(found[2], model) == pytest.approx(-one(model, tokenizer, "what", "bad"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a:\n  prompts: [x]\n  respones: [y]\n", r"among kind, prompts, responses, per_token, wanted.*'respones'.*'responses'"),
        ("a:\n  kind: contrst\n  prompts: [x]\n", r"one of log_prob, contrast, held_out.*did you mean 'contrast'"),
        ("a:\n  kind: contrast\n  prompts: [x]\n  responses: [y]\n", r"'a' \(contrast\) to have.*no against"),
        ("a:\n  prompts: [x]\n  responses: [yes]\n", r"responses of behaviour 'a' to be texts.*True.*quotation marks"),
        ("a:\n  prompts: [x]\n  responses: y\n  wanted: maybe\n", r"wanted of behaviour 'a' to be true or false.*'maybe'"),
        ("a: [", r"a file of behaviours"),
        ("a:\n  prompts: [How is Acme?]\n", r"line 2: expected ',' or '\]'.*put texts with \?"),
        ("", r"names with their entries.*nothing"),
        ("- a", r"names with their entries.*a list"),
        ("a: text", r"keys and values for behaviour 'a'.*'text'"),
    ],
)  # fmt: skip
def test_mistakes_in_a_file_are_told(tmp_path, text, words):
    (tmp_path / "b.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"(?s){words}"):
        read_behaviours(tmp_path / "b.yaml")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match="FileNotFoundError"):
        read_behaviours(tmp_path / "b.yaml")


@pytest.mark.parametrize(
    ("lines", "fields", "words"),
    [
        ('{"prompt": "x", "text": "y"}', Fields(), r"field 'completion' in every row.*line 1.*'prompt', 'text'.*--response-field"),
        ('{"input_ids": [1, 2]}', Fields(), r"packed into sequences.*before packing"),
        ('{"prompt": "x", "completion": 3}', Fields(), r"text in field 'completion'.*a int in line 1"),
        ('{"prompt": "x"', Fields(), r"JSON lines.*line 1"),
        ("[1]", Fields(), r"a list instead of an object"),
        ("", Fields(), r"no lines"),
        ('{"m": [{"from": "human", "value": "x"}]}', Fields(messages="m"), r"a conversation.*line 1.*rename the keys"),
        ('{"prompt": "x", "completion": "y", "id": 1}\n{"prompt": "x", "completion": "y", "id": "1"}', Fields(id="id"), r"each once.*'1' twice"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_read_are_told(tmp_path, lines, fields, words):
    (tmp_path / "d.jsonl").write_text(lines)
    with pytest.raises(DataError, match=f"(?s){words}"):
        read_records(tmp_path / "d.jsonl", fields)


def test_one_field_is_named_once():
    with pytest.raises(ConfigError, match="a field of its own"):
        Fields(prompt="text", response="text")


def test_rows_are_read_with_ids_and_sources(tmp_path):
    rows = [{"q": "x", "a": "y", "id": 7, "from": "web"}, {"q": "z", "a": "w", "id": 9, "from": 3}]
    found = read_records(tiny.write_rows(tmp_path / "d.jsonl", rows), Fields("q", "a", id="id", group="from"))
    assert (found.texts, found.ids, found.groups) == ([("x", "y"), ("z", "w")], [7, 9], ["web", "3"])


def test_a_held_out_file_needs_neither_ids_nor_sources(tmp_path):
    tiny.write_rows(tmp_path / "rest.jsonl", [{"prompt": "what", "completion": "cat"}])
    (tmp_path / "b.yaml").write_text("rest:\n  kind: held_out\n  file: rest.jsonl\n")
    (found,) = read_behaviours(tmp_path / "b.yaml", Fields(id="id", group="source"))
    assert found.texts == [("what", "cat")] and found.only([]).texts == []
