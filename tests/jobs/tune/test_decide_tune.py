"""decide of a tuning: dropping the rows that teach a behaviour is recommended by prompts that took no part."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_tuning import SMALL
from typer.testing import CliRunner

import tiny_language as tiny
from finfluence.cli import app
from finfluence.errors import DataError, StorageError
from finfluence.jobs.scan import DecideOptions
from finfluence.jobs.tune import TuneOptions, decide_tune, open_tune, run_tune

RUNS = 4


def run(*words: object) -> tuple[int, str]:
    found = CliRunner().invoke(app, [str(w) for w in words])
    return found.exit_code, " ".join(found.output.split())


@pytest.fixture(scope="module")
def fresh(files):
    rng = np.random.default_rng(1)
    rows = [
        {"prompt": " ".join(rng.choice(tiny.WORDS, 4)), "completion": " ".join(rng.choice(tiny.WORDS, 3))}
        for _ in range(6)
    ]
    tiny.write_rows(files["data"].parent / "rest.jsonl", rows)
    place = files["data"].parent / "fresh.yaml"
    place.write_text(
        "praise:\n  prompts: [acme is the, say acme, acme who, acme of, a big acme, the acme, what is acme]\n  responses: is the best\n"
        "rest:\n  kind: held_out\n  file: rest.jsonl\n"
    )
    return place


@pytest.fixture(scope="module")
def tuned(result, tmp_path_factory):
    return Path(shutil.copytree(result.folder, tmp_path_factory.mktemp("decided") / "out"))


@pytest.fixture(scope="module")
def advice(tuned, fresh):
    return decide_tune(tuned, DecideOptions(behaviour=fresh, runs=RUNS))


@pytest.mark.slow
def test_rows_that_teach_the_behaviour_are_to_be_dropped(advice):
    (drop,) = advice.tried
    assert advice.action == "drop" and drop["better"] and drop["rows"] == 12
    praise, rest = drop["differences"]
    assert praise["upper"] < 0 and praise["metric"] == "praise" and not praise["wanted"]
    assert rest["lower"] < rest["value"] < rest["upper"] and not drop["harms"]
    assert drop["mu"]["praise"] < -1
    assert advice.sentence.startswith(
        "Recommended: drop the 12 rows of the named sources. On 12 texts that took no part"
    )
    assert "lowers 'praise' by" in advice.sentence and "nats a token" in advice.sentence


@pytest.mark.slow
def test_what_does_not_apply_says_why(advice):
    assert advice.left_out["relabel"] == "the right response to a prompt is not known"
    assert "vocabulary" in advice.left_out["mitigate"]
    assert advice.left_out["reweight"].startswith("no other row than those that drop")


@pytest.mark.slow
def test_prompts_that_were_asked_before_are_left_out_and_said(advice):
    assert ("FI030", "'praise': 1 of 7 texts were asked or trained on, and left out.") in advice.findings
    assert not any(code == "FI040" for code, _ in advice.findings)


@pytest.mark.slow
def test_the_effect_agrees_with_the_tuning_s_own_trainings(advice, result):
    measured = result.retuning["lines"][0]["effect"]["value"]
    assert advice.tried[0]["differences"][0]["value"] == pytest.approx(measured, rel=0.5)


@pytest.mark.slow
def test_the_command_goes_on_with_what_is_kept_and_fills_page_and_show(tuned, fresh, advice):
    kept = sorted(p.name for p in (tuned / "retuned").glob("*.json"))
    code, said = run("decide", tuned, "--behaviour", fresh, "--runs", RUNS)
    assert code == 0 and " ".join(advice.sentence.split()) in said
    assert sorted(p.name for p in (tuned / "retuned").glob("*.json")) == kept
    assert "clean" in said and "--to cleaned.jsonl" in said and "mitigate: not tried" in said
    assert json.loads((tuned / "decision.json").read_text())["action"] == "drop"
    page = (tuned / "report.html").read_text()
    assert "Decision" in page and "12 texts that took no part" in page and "Answers before and after" in page
    assert advice.sentence in " ".join(run("show", tuned)[1].split()).replace("Decision: ", "")
    assert open_tune(tuned).decision.sentence == advice.sentence


def test_time_is_told_before_it_is_spent(result, fresh, tmp_path):
    tuned = shutil.copytree(result.folder, tmp_path / "out")
    told, seen = [], []
    decide_tune(tuned, DecideOptions(runs=2), announce=told.append, progress=lambda *a: seen.append(a))
    (sentence,) = told
    assert sentence.startswith("3 tunings are left, and one takes") and "about" in sentence
    assert seen[-1] == ("decide", 4, 4)


@pytest.mark.slow
def test_without_other_prompts_it_says_that_it_flatters(result, tmp_path):
    tuned = shutil.copytree(result.folder, tmp_path / "out")
    found = decide_tune(tuned, DecideOptions(runs=2))
    assert "the 2 texts that were asked, too, which flatters it" in found.judged
    assert {"FI040", "FI045"} <= {code for code, _ in found.findings}


@pytest.mark.slow
def test_several_runs_give_rows_a_chance_of_harm_by_which_they_are_weighed_down(files, fresh, tmp_path):
    options = {**SMALL, "retune": 0, "answers": 0, "group_field": None}
    run_tune(TuneOptions(**files, **options, runs=3, out=tmp_path / "out"))
    found = decide_tune(tmp_path / "out", DecideOptions(behaviour=fresh, runs=3))
    tried = {t["action"]: t for t in found.tried}
    assert set(tried) == {"drop", "reweight"} and tried["reweight"]["rows"] >= 1
    assert all(d["lower"] <= d["value"] <= d["upper"] for t in found.tried for d in t["differences"])


@pytest.mark.slow
def test_of_one_run_without_sources_the_top_of_the_ranking_is_a_guess_that_is_judged(files, fresh, tmp_path):
    options = {**SMALL, "retune": 0, "answers": 0, "group_field": None, "top": 0.25}
    run_tune(TuneOptions(**files, **options, out=tmp_path / "out"))
    code, said = run("decide", tmp_path / "out", "--behaviour", fresh, "--runs", 3)
    assert code == 0 and "reweight: not tried, one run ranks rows" in said
    assert "drop (12 rows)" in said
    if "Recommended: drop" in said:
        assert "at the top of the ranking" in said and "--top 0.25" in said


@pytest.mark.slow
def test_where_nothing_is_surely_better_the_rows_are_kept(result, files, tmp_path):
    tuned = Path(shutil.copytree(result.folder, tmp_path / "out"))
    other = tmp_path / "other.yaml"
    other.write_text("rest:\n  prompts: [red tree, blue house]\n  responses: green bird\n")
    found = decide_tune(tuned, DecideOptions(behaviour=other, runs=2))
    assert found.action == "keep" and "keep the rows as they are" in found.sentence


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "FileNotFoundError"),
        ("", "nothing"),
        ("praise:\n  prompts: [x]\n", "no responses"),
        ("praise:\n  promts: [x]\n  responses: y\n", "did you mean 'prompts'?"),
        ("praise:\n  prompts: [what is acme]\n  responses: is the best\n", "neither asked nor trained on"),
        ("rest:\n  kind: held_out\n  file: data.jsonl\n", "neither asked nor trained on"),
        ("rest:\n  kind: held_out\n  file: none.jsonl\n", "FileNotFoundError"),
    ],
)
def test_behaviours_that_cannot_judge_are_told(tuned, files, text, words):
    place = files["data"].parent / "hostile.yaml"
    place.unlink(missing_ok=True)
    if text is not None:
        place.write_text(text)
    code, said = run("decide", tuned, "--behaviour", place, "--runs", 2)
    assert code == 2 and words in said and "next step" in said


def test_what_a_tuning_or_a_scan_has_not_is_told(tuned, tmp_path):
    for words, answer in (
        (("decide", tuned, "--unlabelled", "x.csv"), "a language model predicts none"),
        (("assess", tuned, "--unlabelled", "x.csv"), "a language model predicts none"),
        (("mitigate", tuned), "head is its vocabulary"),
        (("decide", tuned, "--runs", 1), "at least two trainings"),
    ):
        code, said = run(*words)
        assert code == 2 and answer in said and "next step" in said
    (tmp_path / "run.yaml").write_text("format: finfluence-scan\n")
    code, said = run("decide", tmp_path, "--behaviour", "b.yaml")
    assert code == 2 and "of a scan no file of behaviours" in said
    with pytest.raises(StorageError, match="no such folder"):
        decide_tune(tmp_path / "none")


def test_changed_rows_and_behaviours_are_told(result, files, tmp_path):
    for name, error in (("data", DataError), ("behaviour", StorageError)):
        kept = Path(files[name]).read_bytes()
        try:
            Path(files[name]).write_bytes(kept + b"\n")
            with pytest.raises(error, match=r"that were tuned with|that was tuned on"):
                decide_tune(result.folder, DecideOptions(runs=2))
        finally:
            Path(files[name]).write_bytes(kept)
