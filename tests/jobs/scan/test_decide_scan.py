"""decide: the action that does best on rows that took no part is recommended, and nothing where nothing surely does."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from finfluence.cli import app
from finfluence.errors import ConfigError, StorageError
from finfluence.jobs.scan import DecideOptions, ScanOptions, decide_scan, run_scan

FAST = {"target": "label", "runs": 1, "epochs": 15, "proof": False, "model": "mlp"}
RUNS = 8


def table(path: Path, seed: int, n: int, flipped: float, distance: float = 2.0) -> Path:
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    x = rng.normal(size=(n, 4)) + distance * (y[:, None] - 0.5)
    wrong = rng.random(n) < flipped
    frame = pd.DataFrame(x.round(3), columns=list("abcd"))
    frame["label"] = np.where(y ^ wrong, "yes", "no")
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noisy")
    source, held = table(folder / "train.csv", 0, 400, 0.15), table(folder / "held.csv", 1, 300, 0.0)
    run_scan(ScanOptions(source=source, holdout=held, out=folder / "out", **FAST))
    return folder / "out"


@pytest.fixture(scope="module")
def advice(noisy):
    return decide_scan(noisy, DecideOptions(runs=RUNS))


@pytest.mark.slow
def test_wrong_labels_are_worth_mending(advice):
    tried = {t["action"]: t for t in advice.tried}
    assert set(tried) == {"drop", "relabel", "reweight", "mitigate"} and advice.left_out == {}
    assert advice.action in tried and tried[advice.action]["better"] and not tried[advice.action]["harms"]
    good = [t for t in advice.tried if t["better"] and not t["harms"]]
    assert tried[advice.action]["loss"] == min(t["loss"] for t in good)
    assert advice.sentence.startswith("Recommended: ") and "took no part" in advice.sentence
    assert "lowers the held-out log loss by" in tried[advice.action]["did"]
    assert tried["mitigate"]["runs"] == 5 and tried["drop"]["runs"] > 5
    assert advice.unlabelled is None
    for did in advice.tried:
        accuracy = next(d for d in did["differences"] if d["metric"] == "held-out accuracy")
        assert abs(accuracy["value"]) < 0.3 and did["loss"] < 3


@pytest.mark.slow
def test_intervals_hold_for_all_actions_together(advice):
    loss = [d for t in advice.tried for d in t["differences"] if d["metric"] == "held-out log loss"]
    assert [d["name"] for d in loss] == [f"{t['action']} − original" for t in advice.tried]
    assert all(d["lower"] < d["value"] < d["upper"] for d in loss)


@pytest.mark.slow
def test_the_same_call_gives_the_same_and_is_written_down(noisy, advice):
    trained = len(list((noisy / "proof").glob("*.safetensors")))
    again = decide_scan(noisy, DecideOptions(runs=RUNS))
    assert (again.action, again.tried) == (advice.action, advice.tried)
    assert len(list((noisy / "proof").glob("*.safetensors"))) == trained
    assert json.loads((noisy / "decision.json").read_text())["action"] == advice.action


@pytest.mark.slow
def test_the_command_prints_each_action_and_ends_in_the_recommendation(noisy, advice):
    shown = CliRunner().invoke(app, ["decide", str(noisy), "--runs", str(RUNS)])
    assert shown.exit_code == 0
    text = " ".join(shown.output.split())
    assert " ".join(advice.sentence.split()) in text
    assert "drop (" in text and "mitigate (" in text
    page = (noisy / "report.html").read_text()
    assert "Decision" in page and "beside keeping" in page
    told = " ".join(CliRunner().invoke(app, ["show", str(noisy), "--top", "1"]).output.split())
    assert "Decision: " + " ".join(advice.sentence.split()) in told
    assert (f"--action {advice.action}" in text) == (advice.action in ("drop", "relabel"))
    quiet = CliRunner().invoke(app, ["decide", str(noisy), "--runs", str(RUNS), "--quiet"])
    assert " ".join(quiet.output.split()) == " ".join(advice.sentence.split())


@pytest.mark.slow
def test_where_nothing_is_wrong_the_file_is_kept(tmp_path):
    source, held = table(tmp_path / "t.csv", 2, 300, 0.0, 3.0), table(tmp_path / "h.csv", 3, 200, 0.0, 3.0)
    run_scan(ScanOptions(source=source, holdout=held, out=tmp_path / "out", **FAST))
    found = decide_scan(tmp_path / "out", DecideOptions(runs=4))
    assert found.action == "keep"
    assert "keep the file as it is" in found.sentence
    assert found.left_out["mitigate"].startswith("no row is named")


@pytest.mark.slow
def test_a_regression_has_actions_too(tmp_path):
    rng = np.random.default_rng(4)
    frame = pd.DataFrame(rng.normal(size=(260, 3)).round(3), columns=list("abc"))
    frame["label"] = (frame["a"] + 0.1 * rng.normal(size=260)).round(3)
    frame.loc[rng.choice(260, 12, replace=False), "label"] += 8.0
    frame.to_csv(tmp_path / "r.csv", index=False)
    run_scan(ScanOptions(source=tmp_path / "r.csv", out=tmp_path / "out", task="regression", **FAST))
    found = decide_scan(tmp_path / "out", DecideOptions(runs=3))
    assert found.action in {"keep", "drop", "relabel", "reweight"}
    assert {*(t["action"] for t in found.tried), *found.left_out} >= {
        "drop",
        "relabel",
        "reweight",
        "mitigate",
    }


@pytest.mark.slow
def test_without_labels_the_same_is_estimated_and_decides_nothing(noisy, advice):
    new = pd.read_csv(table(noisy.parent / "new.csv", 7, 250, 0.0)).drop(columns="label")
    new.to_csv(noisy.parent / "new.csv", index=False)
    found = decide_scan(noisy, DecideOptions(unlabelled=noisy.parent / "new.csv", runs=RUNS))
    assert (found.action, found.tried) == (advice.action, advice.tried)
    assert {v["name"] for v in found.unlabelled["versions"]} == {
        "original",
        *(t["action"] for t in found.tried),
    }
    assert found.sentence.startswith(advice.sentence) and "On 250 rows without labels" in found.sentence
    for version in found.unlabelled["versions"]:
        for method in found.unlabelled["methods"]:
            accuracy = version["accuracy"][method]
            assert 0 <= accuracy["lower"] <= accuracy["value"] <= accuracy["upper"] <= 1
    assert json.loads((noisy / "decision.json").read_text())["unlabelled"]["labelled_rows"] == 150
    shown = CliRunner().invoke(
        app, ["decide", str(noisy), "--runs", str(RUNS), "--unlabelled", str(noisy.parent / "new.csv")]
    )
    text = " ".join(shown.output.split())
    assert shown.exit_code == 0 and "the estimated accuracy without labels" in text and "FI060" in text
    assert "accuracy without labels, estimated" in (noisy / "report.html").read_text()


@pytest.mark.slow
def test_bad_calls_are_told(tmp_path, noisy):
    with pytest.raises(ConfigError, match="at least two trainings"):
        DecideOptions(runs=1)
    with pytest.raises(StorageError):
        decide_scan(tmp_path)
    assert not (tmp_path / "scan.log").exists()
    shown = CliRunner().invoke(app, ["decide", str(noisy), "--runs", "1"])
    assert shown.exit_code == 2 and "leave --runs out" in " ".join(shown.output.split())
