"""Rows, behaviours and chat templates that are not as one hopes: read as they are, or refused in words."""

import json

import pytest

import tiny_language as tl
from finfluence.errors import ConfigError, DataError
from finfluence.language import Fields, encode, read_behaviours, read_records
from four_parts import assert_parts

TURNS = [{"role": "user", "content": "what"}, {"role": "assistant", "content": "good"}]


def file(folder, text):
    path = folder / "rows.jsonl"
    path.write_text(text, encoding="utf-8")
    return path


def line(**fields):
    return json.dumps(fields, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("letter", ["\u2028", "\u2029", "\u0085"])
def test_line_separators_inside_a_text_end_no_line(letter, tmp_path):
    path = file(
        tmp_path, line(prompt=f"a{letter}b", completion="c") + "\n" + line(prompt="d", completion="e")
    )
    assert read_records(path).texts == [(f"a{letter}b", "c"), ("d", "e")]


def test_half_a_character_is_told_by_its_line(tmp_path):
    half = "\\ud83d"
    for row, fields in (
        (f'{{"prompt": "a{half}", "completion": "b"}}', Fields()),
        (f'{{"prompt": "a", "completion": "b", "id": "{half}"}}', Fields(id="id")),
        (f'{{"prompt": "a", "completion": "b", "from": "{half}"}}', Fields(group="from")),
        (f'{{"m": [{{"role": "assistant", "content": "{half}"}}]}}', Fields(messages="m")),
    ):
        with pytest.raises(DataError) as caught:
            read_records(file(tmp_path, row), fields)
        assert_parts(
            caught.value, "whole characters", "line 1 of rows.jsonl", "cut in two", "write the character"
        )


def test_a_line_of_a_hundred_thousand_brackets(tmp_path):
    deep = "[" * 100_000
    with pytest.raises(DataError, match=r"line 1: .*nested"):
        read_records(file(tmp_path, f'{{"prompt": "a", "completion": "b", "x": {deep}'))


@pytest.mark.parametrize("value", [["a"], {"a": 1}, ""])
def test_a_source_that_is_no_name(value, tmp_path):
    path = file(tmp_path, line(prompt="a", completion="b", source=value))
    with pytest.raises(DataError) as caught:
        read_records(path, Fields(group="source"))
    assert_parts(caught.value, "a text or a number in 'source'", f"{value!r} in line 1", "no name", "--group")


@pytest.mark.parametrize(
    ("turn", "found"),
    [
        ({"content": [{"type": "text", "text": "a"}]}, "a list as content of turn 1"),
        ({"content": None, "tool_calls": [{}]}, "NoneType as content of turn 1"),
        ({"content": "a", "tool_calls": [{"name": "f"}]}, "'tool_calls' in turn 1"),
        ({"content": "a", "reasoning_content": "b"}, "'reasoning_content' in turn 1"),
        ({"content": "a", "role": "developer"}, "'developer' as role of turn 1"),
        ({"from": "gpt", "value": "a", "role": None}, "no role in turn 1"),
    ],
)
def test_turns_of_more_than_role_and_text(turn, found, tmp_path):
    """What a template would write, and we would leave out without a word, is refused."""
    path = file(tmp_path, line(messages=[TURNS[0], {"role": "assistant", **turn}]))
    with pytest.raises(DataError) as caught:
        read_records(path, Fields(messages="messages"))
    assert_parts(caught.value, "a conversation", f"line 1 of rows.jsonl: {found}", "tool calls", "two fields")


def test_further_keys_that_say_nothing_are_left_alone(tmp_path):
    turns = [TURNS[0], {**TURNS[1], "tool_calls": None, "reasoning_content": "", "name": "bot"}]
    assert read_records(file(tmp_path, line(messages=turns)), Fields(messages="messages")).texts == [TURNS]


REFUSING = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
    + tl.TEMPLATE
)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (REFUSING, "no system turns"),
        ("{% for m in %}", "Expected an expression"),
        ("{{ messages[9].role }}", ""),
    ],
)
def test_a_template_that_raises_names_the_row(template, said):
    with pytest.raises(ConfigError) as caught:
        encode([[{"role": "system", "content": "a"}, *TURNS]], tl.tokenizer(template), ids=["r7"])
    assert_parts(caught.value, "a chat template that writes row 'r7'", said, "roles", "two fields")


def test_a_conversation_that_the_assistant_begins():
    with pytest.raises(DataError) as caught:
        encode([TURNS, TURNS[1:]], tl.tokenizer(tl.TEMPLATE), ids=["a", "b"])
    assert_parts(caught.value, "begins with the user", "row 'b'", "was cut", "put what it answers")


def test_a_generation_prompt_that_answers_do_not_begin_with():
    template = tl.TEMPLATE.replace("<|assistant|>{% endif %}", "<|assistant|> say {% endif %}")
    with pytest.raises(ConfigError, match="opens a thought"):
        encode([TURNS], tl.tokenizer(template))


def behaviours(folder, text):
    (folder / "b.yaml").write_text(text, encoding="utf-8")
    return read_behaviours(folder / "b.yaml")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("p: {prompts: a, responses: b}\np: {prompts: c, responses: d}\n", "line 2: 'p' twice"),
        ("p:\n  prompts: a\n  prompts: b\n  responses: c\n", "line 3: 'prompts' twice"),
        ("1: {prompts: a, responses: b}\n'1': {prompts: c, responses: d}\n", "line 2: '1' twice"),
    ],
)
def test_a_name_that_stands_twice_loses_no_behaviour(text, found, tmp_path):
    with pytest.raises(ConfigError) as caught:
        behaviours(tmp_path, text)
    assert_parts(caught.value, "each name once", found, "", "another name")


def test_merged_behaviours_are_no_duplicates(tmp_path):
    found = behaviours(
        tmp_path, "p: &p {prompts: a, responses: b}\nq:\n  <<: *p\n  responses: c\nr:\n  <<: [*p]\n"
    )
    assert [b.options["responses"] for b in found] == ["b", "c", "b"]


@pytest.mark.parametrize("name", ["~", "''", "' '"])
def test_a_behaviour_without_a_name(name, tmp_path):
    with pytest.raises(ConfigError, match="a name for every behaviour"):
        behaviours(tmp_path, f"{name}: {{prompts: a, responses: b}}\n")


@pytest.mark.parametrize("kind", ["[log_prob]", "{a: b}", "~"])
def test_a_kind_that_is_no_word(kind, tmp_path):
    with pytest.raises(ConfigError, match="kind of behaviour 'p' to be one of"):
        behaviours(tmp_path, f"p: {{kind: {kind}, prompts: a, responses: b}}\n")


def test_half_a_character_in_a_behaviour(tmp_path):
    with pytest.raises(ConfigError, match="whole characters"):
        behaviours(tmp_path, 'p: {prompts: ["a\\ud83d"], responses: b}\n')
