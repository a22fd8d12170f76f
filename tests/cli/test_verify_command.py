"""`finfluence verify` as a person types it, and where its outcome shows afterwards."""

import json
import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from finfluence.cli import app
from finfluence.jobs.scan import ScanOptions, run_scan
from finfluence.verification import Verification
from small_data import QUICK, blobs_csv


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def verified(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify-command")
    run_scan(
        ScanOptions(
            source=blobs_csv(folder, n=100, wrong=6),
            target="label",
            out=folder / "out",
            model="mlp",
            weight_decay=0.01,
            **QUICK,
        )
    )
    shutil.copytree(folder / "out", folder / "before")
    done = run("verify", folder / "out", "--subsets", "8", "--runs", "12")
    assert done.exit_code == 0, done.output
    return folder, done.output


@pytest.fixture
def out(verified, tmp_path):
    shutil.copytree(verified[0] / "out", tmp_path / "out")
    return tmp_path / "out"


def given(monkeypatch, out, verdict, sentence):
    """Let the next verification end in this."""
    done = replace(Verification.load(out / "verification.json"), verdict=verdict, sentence=sentence)
    monkeypatch.setattr("finfluence.verification.verify", lambda *_, **__: done)
    return run("verify", out)


def test_it_says_the_cost_before_and_the_figures_after(verified):
    folder, output = verified
    lines = output.splitlines()
    told = next(i for i, line in enumerate(lines) if line.startswith("8 subsets of "))
    assert "2 from the top, 2 from the bottom, 2 from the middle, 2 random. 108 trainings" in lines[told]
    assert (
        "12 on all rows and 12 without each subset, in pairs under common random numbers, about "
        in lines[told]
    )
    assert told < lines.index("retrain: done")
    for name in ("slope", "effect slope", "Pearson", "Spearman", "spread ratio", "coverage"):
        assert any(line.startswith(name) for line in lines)
    assert "95 % interval" in output and "at best" in output
    assert lines[-1] == f"Report: {folder / 'out/report.html'}"


def test_a_scan_that_named_nothing_offers_its_list_before_a_verification(verified):
    folder, _ = verified
    assert f"finfluence show {folder / 'before'} --review" in run("show", folder / "before").output
    assert "finfluence verify" not in run("show", folder / "out").output


def test_a_failure_is_told_by_every_command(out, tmp_path, monkeypatch):
    said = "VERIFICATION FAILED: The order is not to be trusted."
    assert said in given(monkeypatch, out, "failed", "The order is not to be trusted.").output
    shown = run("show", out).output
    assert shown.count(said) == 1 and shown.index(said) < shown.index("95 % interval")
    assert said in run("show", out, "--quiet").output
    assert said in run("clean", out, "--to", tmp_path / "c.csv", "--action", "review").output
    assert said in run("clean", out, "--to", tmp_path / "d.csv", "--action", "review", "--quiet").output


def test_a_passed_one_is_a_plain_line(out, tmp_path, monkeypatch):
    said = "Verified against retraining: Trust the order."
    assert said in given(monkeypatch, out, "passed", "Trust the order.").output
    assert said in run("show", out).output and said not in run("show", out, "--quiet").output
    assert said in run("clean", out, "--to", tmp_path / "c.csv", "--action", "review").output


def test_quiet_prints_the_verdict_alone(out, monkeypatch):
    done = Verification.load(out / "verification.json")
    monkeypatch.setattr("finfluence.verification.verify", lambda *_, **__: done)
    assert len(run("verify", out, "--quiet").output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--subsets", "3"], ["at least 4 subsets", "got: 3", "ask for 24"]),
        (["--runs", "2"], ["at least 10 trainings without each subset", "got: 2", "ask for 100"]),
        (
            ["--budget", "soon"],
            ["a budget of time above zero, such as 90s, 10m", "got: 'soon'", "another unit"],
        ),
        (["--query", "heldout"], ["a query to verify among 'held-out'", "did you mean 'held-out'?"]),
        (
            ["--subsets", "400"],
            ["enough rows with an estimate for 300 subsets", "got: 80 rows", "fewer subsets"],
        ),
    ],
)
def test_options_that_cannot_be(out, options, words):
    done = run("verify", out, *options)
    assert done.exit_code == 2, done.output
    text = " ".join(done.output.split())
    for word in (*words, "expected", "likely cause:", "next step:"):
        assert word in text


def test_a_budget_is_held_against_the_measured_cost(out):
    (cost,) = out.glob("verify/cost-*.json")
    assert 0 < json.loads(cost.read_text())["seconds_each"] < 60
    cost.write_text('{"seconds_each": 0.5}')
    small = run("verify", out, "--budget", "20s")
    assert (
        small.exit_code == 2 and "a budget of at least 60 s for 8 subsets with 10 trainings" in small.output
    )
    assert "one training takes 0.5 s here" in small.output and "raise the budget" in small.output


def test_folders_without_a_finished_scan(out, tmp_path):
    (out / "scan.json").unlink()
    for path, words in (
        (tmp_path / "no", "no such folder"),
        (tmp_path, "no run.yaml"),
        (out, "one that was interrupted"),
    ):
        done = run("verify", path)
        assert done.exit_code == 2 and words in done.output


def test_ctrl_c_says_how_to_go_on(out, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("finfluence.verification.verify", interrupted)
    done = run("verify", out)
    assert done.exit_code == 130
    assert (
        f"Stopped. The same command goes on; finished trainings are kept in {out / 'verify'}." in done.output
    )


def test_help_names_the_defaults():
    text = " ".join(run("verify", "--help").output.replace("│", " ").split())
    assert "whether their order and their size can be trusted" in text
    assert "[default: 24]" in text and "[default: 100]" in text and "such as 90s, 10m or 1h30m" in text
