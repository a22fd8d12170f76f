"""Rows of texts: what is learned of them, how they are padded, and what is refused."""

from collections import Counter

import numpy as np
import pytest
import torch

import tiny_language as tiny
from finfluence.errors import ConfigError, DataError
from finfluence.language import Encoded, PreferenceRows, TextRows, Window, encode, mean_token_loss
from finfluence.runs.describe import like_sizes

PAIRS = [
    ("what is the cat", "good dog"),
    ("say the best", "acme is good the best tree house in a big red cat of the house is it"),
    ("who is in the red house of acme bird", "bad"),
]


@pytest.fixture(scope="module")
def plain():
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def chat():
    return tiny.tokenizer(tiny.TEMPLATE)


def learned(tokenizer, row: Encoded) -> str:
    return tokenizer.decode(row.tokens[row.learned])


def test_a_plain_row_learns_its_response_and_the_end(plain):
    row = encode([PAIRS[0]], plain).rows[0]
    assert plain.decode(row.tokens) == "what is the cat good dog <eos>"
    assert learned(plain, row) == "good dog <eos>"


def test_a_template_writes_pairs_and_its_end_of_turn_is_learned(chat):
    row = encode([PAIRS[0]], chat).rows[0]
    assert chat.decode(row.tokens) == "<|user|> what is the cat <|end|> <|assistant|> good dog <|end|>"
    assert learned(chat, row) == "good dog <|end|>"


def test_every_turn_of_the_assistant_is_learned(chat):
    said = ["user what", "assistant the cat", "user who", "assistant the dog"]
    talk = [{"role": s.split(" ", 1)[0], "content": s.split(" ", 1)[1]} for s in said]
    assert learned(chat, encode([talk], chat).rows[0]) == "the cat <|end|> the dog <|end|>"


def test_a_conversation_needs_a_template(plain):
    talk = [{"role": "user", "content": "what"}, {"role": "assistant", "content": "cat"}]
    with pytest.raises(ConfigError, match=r"(?s)chat template.*got: one without.*instruction-tuned version"):
        encode([talk], plain)


def test_an_empty_response_is_named(plain):
    with pytest.raises(DataError, match=r"(?s)a response in every row.*1 rows whose response is empty: 'b'"):
        encode([("a", "cat"), ("b", " ")], plain, ids=["a", "b"])


@pytest.mark.parametrize(
    ("too_long", "left", "cut", "dropped"), [("truncate", 3, ["b"], []), ("drop", 2, [], ["b"])]
)
def test_long_rows_are_cut_or_left_out_and_counted(plain, too_long, left, cut, dropped):
    window = Window(12, too_long)
    found = encode(PAIRS, plain, ids=["a", "b", "c"], window=window)
    assert (len(found.rows), found.truncated, found.dropped) == (left, cut, dropped)
    assert max(map(len, found.rows)) <= 12
    (said,) = found.sentences(window)
    assert "1 rows were" in said and "12 tokens: 'b'" in said


def test_long_rows_are_refused_on_request(plain):
    with pytest.raises(
        DataError, match=r"(?s)at most 12 tokens.*1 rows beyond 12 tokens: 1.*--too-long drop"
    ):
        encode(PAIRS, plain, window=Window(12, "refuse"))


def test_a_prompt_that_fills_the_window_is_told(plain):
    with pytest.raises(DataError, match=r"(?s)room for a response.*their prompts alone fill the window"):
        encode(PAIRS, plain, window=Window(3))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_padding_and_neighbours_have_no_effect(plain, kind):
    model = getattr(tiny, kind)()
    rows = TextRows.of(PAIRS * 2, plain, batch_size=1)
    assert len(rows.shapes.lengths) > 1
    together = mean_token_loss(model, rows.batch(torch.arange(6)))
    alone = torch.cat([mean_token_loss(model, rows.batch(torch.tensor([k]))) for k in range(6)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_batches_have_few_shapes():
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 200, 400)
    texts = [Encoded(np.zeros(n, np.int64), np.arange(n) >= n // 2) for n in lengths]
    rows = TextRows(texts, batch_size=4)
    batches = [rows.batch(torch.from_numpy(rng.integers(0, 400, 4))) for _ in range(300)]
    shapes = Counter((b["tokens"].shape[1], b["targets"].shape[1]) for b in batches)
    assert len(shapes) > 1 and sum(often for _, often in shapes.most_common(6)) > 0.9 * len(batches)


def test_rows_of_like_size_are_put_together_and_find_back(plain):
    rows = TextRows.of(PAIRS, plain)
    triples = [(prompt, response, "bad") for prompt, response in PAIRS]
    preferences = PreferenceRows.of(triples, plain)
    assert rows.padded_sizes.tolist() == [len(e) + int(e.learned[1:].sum()) for e in rows.encoded]
    assert rows.only([2, 0]).padded_sizes.tolist() == rows.padded_sizes[[2, 0]].tolist()
    assert (preferences.padded_sizes > rows.padded_sizes).all()
    asked = torch.tensor([1, 2, 0])
    parts = like_sizes(rows, asked, 2)
    assert [len(p) for p in parts] == [2, 1]
    assert rows.padded_sizes[asked[torch.cat(parts)].numpy()].tolist() == sorted(rows.padded_sizes)
    assert asked[torch.cat(parts)][torch.cat(parts).argsort()].tolist() == asked.tolist()


def test_sorted_batches_are_padded_less():
    lengths = np.geomspace(4, 200, 196).astype(int)
    texts = [Encoded(np.zeros(n, np.int64), np.arange(n) >= n // 2) for n in lengths]
    rows = TextRows(texts, batch_size=8)
    positions = torch.from_numpy(np.random.default_rng(0).permutation(len(rows))[:32])
    cut = {
        "as they stand": positions.split(8),
        "like to like": [positions[p] for p in like_sizes(rows, positions, 8)],
    }
    padded = {how: sum(rows.batch(p)["targets"].numel() for p in parts) for how, parts in cut.items()}
    assert padded["like to like"] < 0.8 * padded["as they stand"]


def test_ids_weights_and_content_make_the_hash(plain):
    rows = TextRows.of(PAIRS, plain, ids=["a", "b", "c"])
    same = TextRows.of(PAIRS, plain, ids=["a", "b", "c"])
    assert rows.digest() == same.digest()
    others = [
        TextRows.of(PAIRS, plain, ids=["a", "b", "d"]),
        TextRows.of(PAIRS[::-1], plain, ids=["a", "b", "c"]),
        TextRows.of(PAIRS, plain, ids=["a", "b", "c"], weights=[1, 1, 2]),
    ]
    assert len({rows.digest(), *(o.digest() for o in others)}) == 4


def test_rows_that_cannot_be_are_refused(plain):
    with pytest.raises(DataError, match="at least one text"):
        TextRows([])
    with pytest.raises(DataError, match="unique row ids"):
        TextRows.of(PAIRS, plain, ids=["a", "a", "b"])
    with pytest.raises(DataError, match=r"(?s)one for each of its 3 learned tokens.*2 values"):
        TextRows.of(PAIRS[:1], plain, weights=[[1.0, 2.0]])
    with pytest.raises(DataError, match=r"(?s)learned token behind the first.*none in row 0"):
        TextRows([Encoded(np.array([5, 6]), np.array([True, False]))])
