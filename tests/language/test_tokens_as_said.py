"""Which tokens a row has, and which of them are learned: pieces, blanks, ends, and what a chat template does to them."""

import json
from datetime import date

import pytest

import tiny_language as tl
from finfluence.errors import ConfigError, DataError
from finfluence.language import (
    AS_OF,
    Behaviour,
    Window,
    asked,
    before_answers,
    encode,
    held_out,
    log_prob,
    read_records,
)
from four_parts import assert_parts

TALK = [{"role": "user", "content": "what"}, {"role": "assistant", "content": "bad say good"}]


def sentencepiece(prepend="first"):
    """Return a tokenizer that writes blanks as ▁ and puts one before every text, as Llama 2's does."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    merges = [
        ("t", "h"),
        ("th", "e"),
        ("▁", "the"),
        ("c", "a"),
        ("ca", "t"),
        ("▁", "cat"),
        ("i", "s"),
        ("▁", "is"),
    ]
    words = [
        "<unk>",
        "<s>",
        "</s>",
        *"▁abcdefghijklmnopqrstuvwxyz.0\n",
        *dict.fromkeys(a + b for a, b in merges),
    ]
    raw = Tokenizer(models.BPE({w: k for k, w in enumerate(words)}, merges, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=prepend, split=False)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.mark.parametrize("prepend", ["first", "always"])
@pytest.mark.parametrize(
    ("prompt", "response", "words"),
    [
        ("the cat", " is", "<s> ▁the ▁cat | ▁is </s>"),
        ("the cat", "is", "<s> ▁the ▁cat | is </s>"),
        ("the cat ", "is", "<s> ▁the ▁cat ▁ | is </s>"),
        ("the ca", "t", "<s> ▁the ▁ ca | t </s>"),
    ],
)
def test_a_blank_of_the_tokenizer_stands_before_the_prompt_only(prepend, prompt, response, words):
    tokenizer = sentencepiece(prepend)
    (row,) = encode([(prompt, response)], tokenizer).rows
    first = int(row.learned.argmax())
    said = [
        " ".join(tokenizer.convert_ids_to_tokens(part.tolist()))
        for part in (row.tokens[:first], row.tokens[first:])
    ]
    assert " | ".join(said) == words and row.learned[first:].all()


def test_a_text_that_holds_its_end_has_one():
    tokenizer = tl.tokenizer()
    rows = encode([("the", "good <eos>"), ("the", "good"), ("the <eos>", "good")], tokenizer).rows
    assert rows[0].tokens.tolist() == rows[1].tokens.tolist()
    assert rows[2].tokens.tolist()[-2:] == rows[0].tokens.tolist()[-2:]


def test_a_template_that_leaves_out_part_of_an_answer():
    template = tl.TEMPLATE.replace("m['content']", "m['content'].split('say')[-1]")
    with pytest.raises(ConfigError) as caught:
        encode([TALK], tl.tokenizer(template), ids=["r7"])
    assert_parts(
        caught.value,
        "every turn as it stands",
        "row 'r7', of whose assistant turn",
        "thoughts",
        "what the template keeps",
    )


def test_a_template_that_leaves_out_a_role():
    template = tl.TEMPLATE.replace(
        "{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}"
    )
    with pytest.raises(ConfigError, match="of whose system turn it leaves something out"):
        encode([[{"role": "system", "content": "say good"}, *TALK]], tl.tokenizer(template))
    assert (
        len(encode([[{"role": "system", "content": " say good "}, *TALK]], tl.tokenizer(tl.TEMPLATE)).rows)
        == 1
    )


def test_what_a_template_writes_before_an_answer_is_told():
    template = tl.TEMPLATE.replace(
        "{{ m['content'] }}", "{% if m['role'] == 'assistant' %}the {% endif %}{{ m['content'] }}"
    )
    assert before_answers(tl.tokenizer(template)) == "the "
    assert before_answers(tl.tokenizer(tl.TEMPLATE)) == ""


def test_a_template_that_writes_the_date_writes_the_same_one_on_another_day():
    template = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %} " + tl.TEMPLATE
    tokenizer = tl.tokenizer(template)
    tokenizer.add_tokens([f"{AS_OF:%Y}"])
    (row,) = encode([TALK], tokenizer).rows
    assert date.today() > AS_OF and tokenizer.convert_tokens_to_ids(f"{AS_OF:%Y}") in row.tokens


def test_what_stands_before_an_answer_and_what_ends_it():
    tokenizer = tl.tokenizer(tl.TEMPLATE)
    before, end = asked("what", tokenizer)
    assert (
        tokenizer.decode(before) == "<|user|> what <|end|> <|assistant|>"
        and tokenizer.decode(end) == "<|end|>"
    )
    plain = sentencepiece()
    assert plain.convert_ids_to_tokens(asked("the", plain)[0]) == ["<s>", "▁the"] and asked("", plain) == (
        [1],
        2,
    )


def test_a_text_of_a_behaviour_is_told_as_such():
    for response, expected, cause in (
        ("", "a response", "missing cells"),
        ("good " * 600, "of at most 512", "longer"),
    ):
        with pytest.raises(DataError) as caught:
            log_prob(["the"], response, tl.tokenizer(), name="praise")
        assert_parts(caught.value, expected, "text 1 of behaviour praise", cause, "")
    with pytest.raises(DataError, match="text 1 of behaviour rest"):
        held_out([("the", "")], tl.tokenizer(), name="rest")


def test_behaviours_are_as_long_as_rows_may_be():
    asked_of = Behaviour(
        "praise", "contrast", {"prompts": ["the"], "responses": "good " * 600, "against": "bad"}
    )
    assert asked_of.query(tl.tokenizer(), Window(700)).name == "praise"
    with pytest.raises(DataError, match="at most 512"):
        asked_of.query(tl.tokenizer(), Window(64))


def test_a_key_that_stands_twice_in_a_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "a", "completion": "b"})[:-1] + ', "prompt": "c"}\n')
    with pytest.raises(DataError) as caught:
        read_records(path)
    assert_parts(caught.value, "a file of JSON lines", "line 1: 'prompt' twice", "", "one JSON object")
