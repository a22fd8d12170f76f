"""A finished scan, verified: the outcome stands wherever the scan is shown."""

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest
import yaml

import finfluence as fi
from finfluence.errors import ConfigError, DataError, StorageError
from finfluence.jobs.scan import ScanOptions, VerifyOptions, open_scan, run_scan, verify_scan
from finfluence.result import removal_interval
from finfluence.verification import Verification
from small_data import QUICK, blobs_csv

ASKED = VerifyOptions(subsets=8, runs=12)


@pytest.fixture(scope="module")
def verified(tmp_path_factory):
    """A scan on two queries and a group column of its own, verified; and what was told on the way."""
    folder = tmp_path_factory.mktemp("verified")
    source = blobs_csv(folder, n=120, wrong=8)
    options = ScanOptions(
        source=source, target="label", out=folder / "out", queries=("per-class", "own"), **QUICK
    )
    run_scan(options)
    shutil.copytree(folder / "out", folder / "before")
    plans, stages = [], []
    done = verify_scan(
        folder / "out", ASKED, announce=plans.append, progress=lambda stage, d, total: stages.append(stage)
    )
    return folder, done, plans[0], list(dict.fromkeys(stages))


def test_the_outcome_is_written_everywhere(verified):
    folder, done, plan, stages = verified
    out = folder / "out"
    assert (
        stages == ["measure", "retrain"]
        and plan.trainings == plan.runs_with + 8 * 12
        and plan.runs_with == {"leave-out": 34, "paired": 12}[plan.design]
    )
    assert done.made["queries"] == ["held-out", "class cat", "class dog"] and len(done.to_frame()) == 24
    assert Verification.load(out / "verification.json").to_frame().equals(done.to_frame())
    summary = open_scan(out).summary
    assert summary["verification"]["sentence"] == done.sentence and summary["verification"]["seed"] == 0
    codes = [code for code, _ in summary["findings"] if code.startswith("FI05")]
    assert (
        codes
        == {"passed": [], "failed": ["FI050"], "undecided": ["FI051"], "order-only": ["FI052"]}[done.verdict]
    )
    stored = fi.load(out / "influence.zarr")
    noted = dict(stored.data.attrs["verification"])
    assert len(noted.pop("pairs")["kind"]) == 3 * 4 and noted == json.loads(json.dumps(done.outcome()))
    assert done.sentence in repr(stored)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Against the truth" in page and done.sentence[:40] in page and "At best" in page
    assert (
        f"{plan.trainings} trainings: {plan.runs_with} on all rows and 12 without each of 8 subsets" in page
    )


def test_it_says_what_removing_the_named_rows_does(verified):
    folder, done, _, _ = verified
    lines = pd.read_parquet(folder / "out/influence.parquet")
    held_out = lines[lines["query"] == "held-out"]
    named = held_out.loc[held_out["suggested_action"].isin(["drop", "relabel", "review"]), "row_id"].tolist()
    assert named
    predicted = fi.load(folder / "out/influence.zarr").predict(named, "held-out")["effect"].iloc[0]
    told = removal_interval(done.points, "held-out", predicted, len(named))
    assert told.groups == 4 and told.sentence.removesuffix(".") in done.findings
    assert "at least 9 retrained groups" in (folder / "out/report.html").read_text(encoding="utf-8")


def test_with_enough_groups_the_verdict_ends_in_what_removal_does(verified, tmp_path, monkeypatch):
    folder, done, _, _ = verified
    shutil.copytree(folder / "out", tmp_path / "out")
    more = replace(done, points=pd.concat([done.points] * 3, ignore_index=True))
    monkeypatch.setattr("finfluence.verification.verify", lambda *_, **__: more)
    told = verify_scan(tmp_path / "out").made["removal"]
    result = open_scan(tmp_path / "out")
    assert "by what became of the estimates of 12 groups" in told
    assert result.verdict == f"{result.summary['verdict']} {told}"
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert (
        told.split(" (80 %")[0] in page.split("<main")[-1].split("<section")[0] + page.split("<h1")[1][:3000]
    )
    lines = pd.read_parquet(tmp_path / "out/influence.parquet")
    chosen = result.influence.select(query="held-out", interval="feedback")
    assert chosen.attrs["removal"]["held-out"].groups == 12 and set(chosen["row_id"]) <= set(lines["row_id"])


def test_the_rest_of_the_scan_is_as_it_was(verified):
    folder = verified[0]
    for name in ("influence.parquet", "run.yaml"):
        assert (folder / "out" / name).read_bytes() == (folder / "before" / name).read_bytes()
    before, after = (open_scan(folder / name).summary for name in ("before", "out"))
    assert {k: v for k, v in after.items() if k not in ("verification", "findings")} == {
        k: v for k, v in before.items() if k != "findings"
    }
    old, new = ((folder / n / "report.html").read_text(encoding="utf-8") for n in ("before", "out"))
    for part in ('<section id="rows"', '<section id="distribution"'):
        assert (
            old.partition(part)[2].partition("</section>")[0]
            == new.partition(part)[2].partition("</section>")[0]
        )
    assert fi.load(folder / "out/influence.zarr").data.equals(fi.load(folder / "before/influence.zarr").data)


def test_again_it_reads_what_is_there_and_replaces_the_outcome(verified, tmp_path):
    folder, done, _, _ = verified
    shutil.copytree(folder / "out", tmp_path / "out")
    plans = []
    again = verify_scan(tmp_path / "out", ASKED, announce=plans.append)
    assert plans[0].left == 0 and "108 trainings (all there already), 12 on all" in plans[0].sentence
    for name in ("verification.json", "report.html", "scan.json"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / "out" / name).read_bytes()
    assert again.figures == done.figures


def test_a_failed_one_is_an_error_in_the_report(verified, tmp_path, monkeypatch):
    folder, done, _, _ = verified
    shutil.copytree(folder / "out", tmp_path / "out")
    failed = replace(done, verdict="failed", sentence="The order is not to be trusted: made up.")
    monkeypatch.setattr("finfluence.verification.verify", lambda *_, **__: failed)
    verify_scan(tmp_path / "out")
    summary = open_scan(tmp_path / "out").summary
    expected = ["FI050", "VERIFICATION FAILED: The order is not to be trusted: made up."]
    assert (
        summary["findings"][0] == expected and sum(c.startswith("FI05") for c, _ in summary["findings"]) == 1
    )
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert '<li class="error"><span class="badge">error</span><p>VERIFICATION FAILED' in page
    assert '<span class="outcome failed">failed</span>' in page
    assert "VERIFICATION FAILED" in repr(fi.load(tmp_path / "out/influence.zarr"))
    monkeypatch.setattr(
        "finfluence.verification.verify",
        lambda *_, **__: replace(done, verdict="passed", sentence="Trust it."),
    )
    verify_scan(tmp_path / "out")
    assert not any(c.startswith("FI05") for c, _ in open_scan(tmp_path / "out").summary["findings"])


def test_one_query_can_be_asked_and_an_unknown_one_not(verified, tmp_path, monkeypatch):
    folder, done, _, _ = verified
    shutil.copytree(folder / "out", tmp_path / "out")
    asked = []
    monkeypatch.setattr(
        "finfluence.verification.verify", lambda *a, **_: asked.append([q.names[0] for q in a[2]]) or done
    )
    verify_scan(tmp_path / "out", VerifyOptions(queries=("class dog",)))
    assert asked == [["class dog"]]
    with pytest.raises(
        ConfigError, match=r"a query to verify among 'held-out'[\s\S]*did you mean 'class dog'"
    ):
        verify_scan(tmp_path / "out", VerifyOptions(queries=("class dg",)))


def test_what_cannot_be_verified(verified, tmp_path):
    folder = verified[0]
    with pytest.raises(StorageError, match=r"the folder of a scan[\s\S]*no such folder"):
        verify_scan(tmp_path / "nowhere")
    shutil.copytree(folder / "before", tmp_path / "out")
    path = tmp_path / "out/run.yaml"
    text = path.read_text()
    path.write_text(text.replace("recipe_digest: ", "recipe_digest: x"))
    with pytest.raises(
        StorageError, match=r"the training that was scanned \(recipe x[\s\S]*run.yaml was edited"
    ):
        verify_scan(tmp_path / "out", ASKED)
    run = yaml.safe_load(text)
    path.write_text(yaml.safe_dump({**run, "options": {**run["options"], "telepathy": 1}}))
    with pytest.raises(StorageError, match=r"the options of a scan in[\s\S]*telepathy[\s\S]*another version"):
        verify_scan(tmp_path / "out", ASKED)
    path.write_text(text)
    source = folder / "train.csv"
    whole = source.read_text()
    try:
        source.write_text(whole + "1,2,3,4,cat\n")
        with pytest.raises(DataError) as caught:
            verify_scan(tmp_path / "out", ASKED)
    finally:
        source.write_text(whole)
    words = str(caught.value)
    assert (
        "train.csv with the content that was scanned (SHA-256" in words
        and "the data was changed since" in words
    )
    assert "got: SHA-256" in words and "restore the file, or scan it again into another folder" in words
    (tmp_path / "out/scan.json").unlink()
    with pytest.raises(StorageError, match=r"one that was interrupted[\s\S]*--resume"):
        verify_scan(tmp_path / "out", ASKED)


def test_own_losses_are_verified_by_removing_each_row(verified, tmp_path):
    shutil.copytree(verified[0] / "before", tmp_path / "out")
    plans = []
    done = verify_scan(
        tmp_path / "out", VerifyOptions(subsets=8, runs=10, queries=("own",)), announce=plans.append
    )
    assert plans[0].trainings == 90 and "in pairs under common random numbers" in plans[0].sentence
    frame = done.to_frame()
    assert done.made["queries"] == ["own"] and len(frame) == 8 and (frame["size"] == 1).all()
    assert (
        done.made["design"] == "paired" and (frame["true_effect"] > 0).mean() > 0.5
    )  # a row lowers its own loss
    assert done.sentence in open_scan(tmp_path / "out").summary["verification"]["sentence"]
    with pytest.raises(ConfigError) as caught:
        verify_scan(tmp_path / "out", VerifyOptions(subsets=8, runs=10, queries=("own", "held-out")))
    for words in ("--query own alone", "'own', 'held-out'", "by removing each of them", "verify twice"):
        assert words in str(caught.value)
