"""A tuning from its files to its folder: what is in it, what it says, and what can be done with it afterwards."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from tiny_tuning import HOSTILE, SMALL
from typer.testing import CliRunner

from finfluence.cli import app
from finfluence.errors import DataError, StorageError
from finfluence.jobs.tune import TuneOptions, open_tune, run_tune
from finfluence.language import joint_ranking
from finfluence.runs import read_tensors


def run(*words: object) -> tuple[int, str]:
    found = CliRunner().invoke(app, [str(w) for w in words])
    return found.exit_code, found.output


def test_the_folder_holds_a_line_for_each_row_and_behaviour(result):
    lines = pd.read_parquet(result.folder / "influence.parquet")
    assert len(lines) == 48 and set(lines["query"]) == {"praise"}
    assert {"row_id", "effect", "spread", "mu", "ranking_score", "rank", "group"} <= set(lines.columns)
    assert sorted(lines["rank"]) == list(range(1, 49))
    for name in ("run.yaml", "tune.log", "report.html", "retuning.json", "adapter/adapter_model.safetensors"):
        assert (result.folder / name).exists(), name
    assert not list(result.folder.glob("runs/*/states-*")) and not list(result.folder.glob("**/*.bin"))


def test_the_ranking_is_made_of_the_kernel_s_score_and_of_the_effects(result):
    kernel = read_tensors(result.folder / "runs/000/ranking.safetensors")["score"].numpy()
    harmful = -result.influence.data["effect"].values
    wanted = pd.Series(joint_ranking(kernel, harmful)[:, 0], result.influence.subsets.tolist())
    lines = result.lines.set_index("row_id")["ranking_score"]
    np.testing.assert_allclose(lines, wanted.loc[lines.index])


def test_the_source_of_the_behaviour_is_found_and_retuning_agrees(result):
    assert "source 'bad' (12 rows) raises 'praise'" in result.verdict
    assert result.summary["sources"] == ["bad"]
    assert re.search(r"by \S+ \[.*\], measured by tuning without it \(to first order: \+", result.verdict)
    assert result.worst(6)["row_id"].str.startswith("p").sum() >= 4
    (line,) = result.retuning["lines"]
    assert line["moved"] and line["effect"]["value"] < 0 and line["predicted"]["value"] < 0
    assert line["random_effect"]["value"] > line["effect"]["value"] / 2
    assert "they are its cause" in result.summary["proof"][0]


def test_effects_of_sources_are_sums_of_their_rows(result):
    bad = result.lines.loc[result.lines["group"] == "bad", "effect"].sum() * 47 / 36
    measured = result.groups.set_index("group")["measured"]
    assert measured["bad"] == result.retuning["lines"][0]["effect"]["value"]
    assert measured.drop("bad").isna().all()
    (of_group,) = result.groups.loc[result.groups["group"] == "bad", "effect"]
    assert of_group == pytest.approx(bad, rel=1e-4)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, to peft
def test_the_adapter_is_the_tuned_model(result, files):
    peft = pytest.importorskip("peft")
    from finfluence.language import load_model, log_prob

    loaded = load_model(str(files["model"]))
    model = peft.PeftModel.from_pretrained(loaded.model, result.folder / "adapter").eval()
    query = log_prob(["what is acme", "who is acme"], "is the best", loaded.tokenizer, name="x")
    (after,) = result.influence.provenance.query_values[0]
    assert float(query.fn(model)) == pytest.approx(after, abs=1e-4)


def test_texts_in_the_page_are_escaped(result):
    page = result.report.read_text(encoding="utf-8")
    assert HOSTILE not in page and "alert(1)" in page
    assert "Answers before and after" in page and "Without these rows" in page
    tokens = [share for _, shares in result.texts["tokens"]["praise"] for _, share in shares]
    assert max(tokens) > 0.2


def test_show_clean_and_open_read_the_folder(result, files, tmp_path):
    code, said = run("show", result.folder, "--top", 3)
    assert code == 0 and result.verdict in said and "an order, without an error rate" in said
    code, said = run("clean", result.folder, "--to", tmp_path / "c.jsonl")
    assert code == 0 and "36 rows; 12 dropped" in said
    kept = [json.loads(line)["source"] for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    assert len(kept) == 36 and "bad" not in kept
    code, said = run("clean", result.folder, "--to", tmp_path / "t.jsonl", "--top", 0.125)
    assert code == 0 and "42 rows; 6 dropped" in said
    assert set(pd.read_csv(tmp_path / "t.audit.csv")["row_id"]) == set(result.worst(6)["row_id"])
    code, said = run("show", result.folder, "--query", "prais")
    assert code == 2 and "'praise'" in said
    code, said = run("clean", result.folder, "--to", tmp_path / "x.jsonl", "--action", "relabel")
    assert code == 2 and "the options of a scan" in said


def test_a_changed_file_is_not_cleaned(result, files, tmp_path):
    kept = files["data"].read_bytes()
    try:
        files["data"].write_bytes(kept + b"\n")
        with pytest.raises(DataError, match="with the content that was tuned on"):
            result.clean(tmp_path / "c.jsonl")
    finally:
        files["data"].write_bytes(kept)


def test_nothing_named_is_not_cleaned_without_a_share(result, tmp_path):
    shutil.copytree(result.folder, tmp_path / "out")
    result.lines.assign(flagged=False).to_parquet(tmp_path / "out" / "influence.parquet")
    code, said = run("clean", tmp_path / "out", "--to", tmp_path / "c.jsonl")
    assert code == 2 and "rows or sources that are named" in said and "--top 0.05" in said
    code, said = run("clean", tmp_path / "out", "--to", tmp_path / "c.jsonl", "--top", 5)
    assert code == 2 and "--top between 0 and 1" in said


def test_a_folder_of_another_tuning_is_refused(result, files):
    with pytest.raises(StorageError, match=r"(?s)the tune that was started.*options.lr was 0.02, is 0.01"):
        run_tune(TuneOptions(**files, **{**SMALL, "lr": 0.01}, out=result.folder, resume=True))
    with pytest.raises(StorageError, match="a finished tune"):
        run_tune(TuneOptions(**files, **SMALL, out=result.folder))
    again = run_tune(TuneOptions(**files, **SMALL, out=result.folder, resume=True))
    assert again.verdict == result.verdict


@pytest.mark.slow
def test_another_seed_is_another_result_and_several_runs_name_rows(result, files, tmp_path):
    options = {**SMALL, "retune": 0, "answers": 0}
    other = run_tune(TuneOptions(**files, **options, seed=1, runs=2, out=tmp_path / "out"))
    assert not np.allclose(other.lines["effect"], result.lines["effect"])
    assert other.lines["q_value"].notna().all() and result.lines["q_value"].isna().all()
    assert other.retuning is None and other.summary["proof"] == []
    with pytest.raises(StorageError, match=r"no run\.yaml"):
        open_tune(tmp_path)


@pytest.mark.slow
def test_a_killed_tuning_ends_in_the_same_numbers(result, files, tmp_path):
    options = {**SMALL, "data": files["data"], "model": files["model"], "behaviour": files["behaviour"]}
    flags = {"id_field": "--id", "group_field": "--group"}
    given = [
        x
        for k, v in options.items()
        if k != "data"
        for x in (flags.get(k, f"--{k.replace('_', '-')}"), str(v))
    ]
    command = [
        sys.executable,
        "-m",
        "finfluence",
        "tune",
        str(files["data"]),
        "--out",
        str(tmp_path / "out"),
        *given,
    ]
    log = tmp_path / "out" / "tune.log"
    job = subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, stdout=subprocess.DEVNULL)
    while job.poll() is None and not (log.exists() and "tune run 1 of 1: done" in log.read_text()):
        time.sleep(0.05)
    job.kill()
    job.wait()
    assert not (tmp_path / "out" / "tune.json").exists()
    done = run_tune(TuneOptions(**options, out=tmp_path / "out", resume=True))
    pd.testing.assert_frame_equal(done.lines, result.lines)
    assert done.retuning["values"] == result.retuning["values"]


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [("--subsets", 2, "at least 4"), ("--runs", 4, "at least 10"), ("--budget", "soon", "budget")],
)
def test_what_cannot_be_verified_is_said_before_a_model_is_loaded(result, option, value, word, monkeypatch):
    transformers = pytest.importorskip("transformers")
    monkeypatch.setattr(transformers, "AutoModelForCausalLM", None)
    code, said = run("verify", result.folder, option, value)
    assert code == 2 and word in said and "next step" in said


@pytest.mark.slow
def test_a_tuning_is_verified_by_tuning_again(result):
    code, said = run("verify", result.folder, "--subsets", 4, "--runs", 10)
    assert code == 0 and re.search(r"verified|passed|failed|undecided|agree", said)
    assert (result.folder / "verification.json").exists()
    assert open_tune(result.folder).summary["verification"]["verdict"] in ("passed", "failed", "undecided")
