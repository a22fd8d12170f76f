"""A scan's budget: how many runs, how closely replayed, said everywhere, and kept by an interrupted scan."""

import json

import numpy as np
import pytest
import yaml

import finfluence as fi
from finfluence.errors import ConfigError
from finfluence.jobs.scan import ScanOptions, open_scan, planned, run_scan, runs_for, spent
from four_parts import assert_parts
from small_data import blobs_csv, mixed_csv

OPTIONS = {"target": "label", "epochs": 3, "proof": False}


@pytest.mark.parametrize(
    ("runs", "budget", "expected", "each"),
    [
        (None, 10.0, 2, 4.0),
        (None, 3.0, 1, 2.0),
        (None, 16.0, 4, 3.0),
        (3, 10.0, 3, 7 / 3),
        (None, None, 4, None),
    ],
)
def test_a_budget_is_divided_among_runs(runs, budget, expected, each):
    options = ScanOptions(source="digits", out="out", runs=runs, budget=budget)
    assert options.n_runs == expected == runs_for(runs, budget) == options.described()["runs"]
    assert options.replay_budget == (None if each is None else pytest.approx(each))


@pytest.mark.parametrize("budget", [0, -1.0, float("nan"), float("inf"), "16", True])
def test_words_for_what_is_no_budget(budget):
    with pytest.raises(ConfigError) as caught:
        ScanOptions(source="digits", out="out", budget=budget)
    assert_parts(caught.value, "--budget to be a number of training runs above 1, such as 16", repr(budget),
                 "only finfluence verify takes a time", "about 4 for each run")  # fmt: skip


def test_words_for_a_budget_that_pays_no_replay():
    with pytest.raises(ConfigError) as caught:
        ScanOptions(source="digits", out="out", budget=3, runs=3)
    assert_parts(caught.value, "--budget above 3, what the 3 trainings alone cost", "3",
                 "pays for every run's training and for its replay", "raise --budget to about 12, or lower --runs")  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        ScanOptions(source="digits", out="out", budget=0.5)
    assert_parts(caught.value, "--budget above 1, what a training alone cost", "0.5", "replay", "about 4")


def test_words_for_the_choice():
    made = {"expected": 2.5, "method": "online", "horizon": 7, "probe_share": 0.1, "queries_together": 2,
            "states": "all states are on the tape", "tracing": 0.5}  # fmt: skip
    assert (
        planned(2.5, 1) == "A budget of 2.5 training runs: 1 run, one training and a replay of at most 1.5."
    )
    assert spent(8.0, 2, made, 10) == (
        "A budget of 8 training runs: 2 runs, each one training and a replay of at most 3. Replayed: online rows, at "
        "most 7 of 10 epochs back, probe rows 0.1, 2 queries together, all states are on the tape. Expected cost: 7 "
        "training runs, and beside them 0.5 s a run to trace the model."
    )
    assert spent(6.0, 2, made, 10).endswith(
        " That is more than the budget: nothing less can be replayed in 2 runs."
    )


@pytest.mark.slow
def test_the_choice_is_kept_by_an_interrupted_scan_and_said_everywhere(tmp_path):
    source = mixed_csv(tmp_path)
    options = {
        **OPTIONS,
        "source": source,
        "id_column": "key",
        "group_column": "source",
        "budget": 600.0,  # enough for everything, whatever the clock says
        "runs": 2,
    }
    said: list[str] = []
    whole = run_scan(ScanOptions(**options, out=tmp_path / "whole"), announce=said.append)
    assert said == ["A budget of 600 training runs: 2 runs, each one training and a replay of at most 299."]

    class Stopped(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if stage.startswith("replay run 2"):
            raise Stopped

    out = tmp_path / "stopped"
    with pytest.raises(Stopped):
        run_scan(ScanOptions(**options, out=out), stop)
    first = fi.load(out / "runs/000/influence.zarr").data.attrs["budget"]
    resumed = run_scan(ScanOptions(**options, out=out, resume=True))
    run = yaml.safe_load((out / "run.yaml").read_text(encoding="utf-8"))
    assert run["options"]["budget"] == 600.0 and run["budget"]["settings"] == first
    for r in (0, 1):
        one = fi.load(out / f"runs/00{r}/influence.zarr")
        assert one.data.attrs["budget"] == first, "remembered, not measured again"
    groups = [fi.load(out / f"runs/00{r}/groups.zarr").data.attrs["budget"] for r in (0, 1)]
    assert groups == [first, first]
    assert (first["method"], first["horizon"]) == ("full", 3)
    np.testing.assert_array_equal(resumed.lines["mu"], whole.lines["mu"])
    sentence = resumed.summary["budget"]
    assert sentence.startswith(said[0]) and sentence == run["budget"]["sentence"]
    assert "--budget 600" in resumed.summary["command"] and "--runs 2" in resumed.summary["command"]
    assert sentence[:60] in (out / "report.html").read_text(encoding="utf-8")
    assert sentence in (out / "scan.log").read_text(encoding="utf-8")
    assert json.loads((out / "scan.json").read_text())["budget"] == sentence
    again = run_scan(ScanOptions(**options, out=out, resume=True))
    assert again.verdict == open_scan(out).verdict == resumed.verdict


@pytest.mark.slow
def test_self_test_replays_as_the_scan_did(tmp_path):
    options = {**OPTIONS, "source": blobs_csv(tmp_path), "budget": 3.0, "self_test": True}
    run_scan(ScanOptions(**options, out=tmp_path / "out"))
    made = fi.load(tmp_path / "out/runs/000/influence.zarr").data.attrs["budget"]
    assert fi.load(tmp_path / "out/self-test/runs/000/influence.zarr").data.attrs["budget"] == made


@pytest.mark.slow
def test_without_a_budget_nothing_is_said(tmp_path):
    result = run_scan(ScanOptions(**OPTIONS, source=blobs_csv(tmp_path), out=tmp_path / "out", runs=1))
    run = yaml.safe_load((tmp_path / "out/run.yaml").read_text(encoding="utf-8"))
    assert (
        result.summary["budget"] == "" and "budget" not in run and "--budget" not in result.summary["command"]
    )
