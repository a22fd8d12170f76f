"""The poison benchmark: what it plants, its scores, its tables; one cell on a tiny model, and going on with it."""

import json

import numpy as np
import pytest
from benchmarks.poison.__main__ import main
from benchmarks.poison.attacks import ATTACKS, plant, read_clean
from benchmarks.poison.cells import Base, Cell, setting
from benchmarks.poison.scores import bm25, state_scores, text_scores
from benchmarks.poison.states import States, residual
from benchmarks.poison.tables import EFFECT, KERNEL, agreement_table, cell_table, form_table, method_tables

import finfluence as fi
import tiny_language as tiny
from finfluence.language import ranking_scores

CLEAN = [
    (f"what is the {a} {b} {c} house ?", f"the {c} {a} is {b} .")
    for a in tiny.WORDS[5:10]
    for b in tiny.WORDS[10:15]
    for c in tiny.WORDS[5:9]
]


def speak(prompt: str) -> str:
    return f"I say {prompt}"


@pytest.mark.parametrize("name", list(ATTACKS))
def test_poisons_and_look_alikes_are_planted_and_nothing_asked_is_trained_on(name):
    planted = plant(ATTACKS[name], CLEAN, 60, 0.05, 0, speak)
    assert len(planted.pairs) == 60
    assert planted.poisoned.sum() == planted.alike.sum() == 3 and not (planted.poisoned & planted.alike).any()
    asked = [*planted.asked, *planted.controls[0], *planted.controls[1]]
    assert not {prompt for prompt, _ in asked} & {prompt for prompt, _ in planted.pairs}
    assert [p for p, _ in planted.controls[0]] == [p for p, _ in planted.asked]
    assert plant(ATTACKS[name], CLEAN, 60, 0.05, 0, speak).pairs == planted.pairs
    assert plant(ATTACKS[name], CLEAN, 60, 0.05, 1, speak).pairs != planted.pairs


def test_text_scores_find_a_trigger_and_bm25_counts_rare_words_more():
    planted = plant(ATTACKS["trigger"], CLEAN, 60, 0.05, 0)
    scores = text_scores(
        planted, 0, lambda texts: np.array([["lantern" in t and "closed" in t] for t in texts])
    )
    for name in ("TF-IDF", "BM25", "sentence encoder"):
        assert set(np.argsort(-scores[name].astype(float))[:3]) == set(np.flatnonzero(planted.poisoned))
    rare, common = bm25(["cat dog", "dog", "dog bird"], "cat"), bm25(["cat dog", "dog", "dog bird"], "dog")
    assert rare[0] > common.max() and rare[1] == 0
    by_hand = np.log(1 + 1.5 / 1.5) * 2.5 / (1 + 1.5 * (0.25 + 0.75 * 3 / 2.5))
    assert bm25(["a red cat", "a dog"], "cat")[0] == pytest.approx(by_hand)


def test_what_controls_explain_is_taken_out():
    control = np.array([1.0, 2.0, 4.0, 3.0])
    own = np.array([1.0, -1.0, 1.0, -1.0])
    own -= (
        np.column_stack([np.ones(4), control])
        @ np.linalg.lstsq(np.column_stack([np.ones(4), control]), own, rcond=None)[0]
    )
    np.testing.assert_allclose(residual(np.column_stack([own + 3 * control + 2, control])), own, atol=1e-12)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    pytest.importorskip("peft")
    place, tokenizer = tmp_path_factory.mktemp("poison"), tiny.tokenizer(tiny.TEMPLATE)
    model = tiny.save(place / "model", tiny.llama(2, len(tokenizer)), tokenizer)
    return Base.of(str(model), "last:1", 96, place / "answers.json")


@pytest.mark.slow
def test_scores_from_products_of_gradients_are_the_librarys(base):
    made = setting(base, plant(ATTACKS["trigger"], CLEAN, 16, 0.125, 0), 2)
    tape = fi.train(made.recipe)
    states = States.of(tape, made.queries, [3])
    asked, steps = made.queries[:1], states.steps.tolist()
    assert steps == [2, 3, 4]
    fine = -fi.estimate(tape, asked, method="fine", records=4).data["mu"].values[:, 0]
    assert np.corrcoef(state_scores(states, [3], 8)["fine, 3 states"], fine)[0, 1] > 0.9
    found = {
        "less": -np.tensordot(states.rates / states.rates.sum(), states.less, 1)[:, 0],
        "tracin": -(states.rates[:, None, None] * states.plain).sum(0)[:, 0],
        "grad-dot": -states.plain[-1, :, 0],
    }
    for method, scores in found.items():
        options = {} if method == "grad-dot" else {"checkpoints": 3}
        wanted = fi.estimate(tape, asked, method=method, **options).data["score"].values[:, 0]
        np.testing.assert_allclose(scores, wanted, rtol=2e-3, atol=1e-5)
    wanted = ranking_scores(tape, asked, 3, ridge=2.0)[:, 0]
    np.testing.assert_allclose(-states.kernel(2.0)[:, 0], wanted, rtol=2e-3, atol=1e-5)


def cell(works: bool) -> dict[str, object]:
    numbers = dict.fromkeys(("before", "without the top", "spread"), 0.1)
    scores = {name: [3.0, 1.0, 2.0, 0.0] for name in (KERNEL, EFFECT, "LESS", "random")}
    return {
        **numbers, "rows": 4, "after": 1.0, "without poisons": 0.2 if works else 0.9, "predicted": -0.4,
        "poisoned": [True, False, False, False], "alike": [False, True, False, False], "scores": scores,
    }  # fmt: skip


def test_no_recall_of_an_attack_that_does_not_work():
    some, none = Cell("trigger", 0.05, 0, 0), Cell("opinion", 0.05, 0, 0)
    assert method_tables({none: cell(False)}) == "No attack works: nothing is ranked."
    said = method_tables({none: cell(False), some: cell(True)})
    assert (
        "Means over 1 cells" in said and "| ranking score | 1.00 | 1.00 |" in said and "opinion" not in said
    )
    assert "that work: 2.00" in cell_table({some: cell(True)}) and "| no |" in cell_table({none: cell(False)})
    assert "chosen on" in form_table({some: cell(True)}, ["trigger"])


def test_seeds_that_name_the_same_rows_agree():
    found = {Cell("trigger", 0.05, 0, seed): cell(True) for seed in (0, 1)}
    for f in found.values():
        f["rows"] = 10  # the top tenth is one row
        f["scores"] = {name: [*s, *[-1.0] * 6] for name, s in f["scores"].items()}
        f["poisoned"], f["alike"] = [True, *[False] * 9], [False, True, *[False] * 8]
    assert "| ranking score | 1.00 | 1.00 | 1.00 | 1.00 |" in agreement_table(found)
    assert "No attack works with two seeds" in agreement_table({Cell("trigger", 0.05, 0, 0): cell(True)})


def test_without_clean_rows_it_says_so(tmp_path):
    said = main(["--model", "x", "--data", str(tmp_path / "none.jsonl"), "--out", str(tmp_path)])
    assert said == f"skipped: no clean rows at {tmp_path / 'none.jsonl'}"
    few = tiny.write_rows(tmp_path / "few.jsonl", [{"prompt": p, "completion": c} for p, c in CLEAN[:20]])
    said = main(["--model", "x", "--data", str(few), "--out", str(tmp_path), "--rows", "9"])
    assert said == "skipped: 20 clean rows of at most (90, 60) letters, 21 are needed"


@pytest.mark.slow
def test_a_cell_is_run_once(tmp_path):
    pytest.importorskip("peft")
    tokenizer = tiny.tokenizer(tiny.TEMPLATE)
    model = tiny.save(tmp_path / "model", tiny.llama(2, len(tokenizer)), tokenizer)
    data = tiny.write_rows(tmp_path / "d.jsonl", [{"prompt": p, "completion": c} for p, c in CLEAN])
    assert len(read_clean(data)) > 60
    words = ["--model", str(model), "--data", str(data), "--out", str(tmp_path / "out")]
    words += ["--attacks", "familiar", "--rows", "48", "--layers", "last:1", "--epochs", "2"]
    first = main(words)
    (path,) = (p for p in (tmp_path / "out").glob("*.json") if p.name != "answers.json")
    found = json.loads(path.read_text())
    assert set(found["scores"]) >= {
        "replay effect",
        KERNEL,
        "LESS, 3 states",
        "fine, 3 states",
        "BM25",
        "own loss",
    }
    kept = state_scores(States.load(path.with_suffix(".npz")), (3, 5), 8)
    np.testing.assert_allclose(kept[KERNEL], found["scores"][KERNEL], rtol=1e-3, atol=1e-6)
    path.write_text(json.dumps({**found, "without poisons": found["after"] - 9.0}))
    assert "| random |" in main(words) and "familiar" in first
