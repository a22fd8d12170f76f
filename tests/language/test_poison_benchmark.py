"""The poison benchmark: what it plants, its scores, its tables; one cell on a tiny model, and going on with it."""

import json

import numpy as np
import pytest
from benchmarks.poison import ATTACKS, bm25, main, plant, read_clean, tables, text_scores

import tiny_language as tiny

CLEAN = [
    (f"what is the {a} {b} {c} house ?", f"the {c} {a} is {b} .")
    for a in tiny.WORDS[5:10]
    for b in tiny.WORDS[10:15]
    for c in tiny.WORDS[5:9]
]


@pytest.mark.parametrize("name", list(ATTACKS))
def test_poisons_and_look_alikes_are_planted_and_nothing_asked_is_trained_on(name):
    planted = plant(ATTACKS[name], CLEAN, 60, 0.05, seed=0)
    assert len(planted.pairs) == 60
    assert planted.poisoned.sum() == planted.alike.sum() == 3 and not (planted.poisoned & planted.alike).any()
    assert not {prompt for prompt, _ in planted.asked} & {prompt for prompt, _ in planted.pairs}
    assert plant(ATTACKS[name], CLEAN, 60, 0.05, seed=0).pairs == planted.pairs
    assert plant(ATTACKS[name], CLEAN, 60, 0.05, seed=1).pairs != planted.pairs


def test_text_scores_find_a_trigger_and_bm25_counts_rare_words_more():
    planted = plant(ATTACKS["trigger"], CLEAN, 60, 0.05, seed=0)
    scores = text_scores(planted, 0)
    for name in ("TF-IDF", "BM25"):
        assert set(np.argsort(-scores[name])[:3]) == set(np.flatnonzero(planted.poisoned))
    rare, common = bm25(["cat dog", "dog", "dog bird"], "cat"), bm25(["cat dog", "dog", "dog bird"], "dog")
    assert rare[0] > common.max() and rare[1] == 0


def cell(works: bool) -> dict[str, object]:
    numbers = dict.fromkeys(("before", "after", "without poisons", "without the top 5 %", "spread"), 1.0)
    return {**numbers, "predicted": -0.5, "works": works, "methods": {"replay effect": {"AUPRC": 0.75}}}


def test_no_recall_of_an_attack_that_does_not_work():
    assert "AUPRC" not in tables({"a": cell(False)})
    said = tables({"a": cell(False), "b": cell(True)})
    assert "Means over 1 cells" in said and "| replay effect | 0.75 |" in said and "| no |" in said


def test_without_clean_rows_it_says_so(tmp_path):
    said = main(["--model", "x", "--data", str(tmp_path / "none.jsonl"), "--out", str(tmp_path)])
    assert said == f"skipped: no clean rows at {tmp_path / 'none.jsonl'}"


@pytest.mark.slow
def test_a_cell_is_run_once(tmp_path):
    pytest.importorskip("peft")
    tokenizer = tiny.tokenizer(tiny.TEMPLATE)
    model = tiny.save(tmp_path / "model", tiny.llama(2, len(tokenizer)), tokenizer)
    data = tiny.write_rows(tmp_path / "d.jsonl", [{"prompt": p, "completion": c} for p, c in CLEAN])
    assert len(read_clean(data)) > 60
    words = [
        "--model",
        str(model),
        "--data",
        str(data),
        "--out",
        str(tmp_path / "out"),
        "--attacks",
        "trigger",
    ]
    words += ["--rows", "48", "--layers", "last:1", "--epochs", "2"]
    first = main(words)
    (path,) = (tmp_path / "out").glob("*.json")
    assert set(json.loads(path.read_text())["methods"]) >= {
        "replay effect",
        "ranking score",
        "LESS",
        "fine",
        "BM25",
    }
    path.write_text(path.read_text().replace('"works": false', '"works": true'))
    assert "| random |" in main(words) and "trigger" in first
