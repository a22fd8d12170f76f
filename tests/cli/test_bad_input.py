"""Bad input: exit code 2, the four parts of a message, and nothing left behind."""

import errno
import os
import resource
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from finfluence.cli import app
from small_data import blobs, blobs_csv, image_folder

QUICK = ["--runs", "1", "--epochs", "2", "--no-proof"]


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(out, *arguments):
    """Return the message of a scan that must be refused before it starts, without line breaks."""
    done = run("scan", *arguments, "--out", out, *QUICK)
    assert done.exit_code == 2, done.output
    text = " ".join(done.output.split())
    for part in ("expected", "got:", "likely cause:", "next step:"):
        assert part in text
    assert not out.exists() or not any(out.iterdir())
    return text


@pytest.fixture
def source(tmp_path):
    return blobs_csv(tmp_path, n=60, wrong=2)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_missing_file(tmp_path, out, source):
    text = refused(out, tmp_path / "tran.csv", "--target", "label")
    assert "tran.csv does not exist; did you mean 'train.csv'?" in text


def test_missing_target(out, source):
    assert "the target column 'lable'" in (text := refused(out, source, "--target", "lable"))
    assert "did you mean 'label'?" in text
    assert "name it by --target" in refused(out, source)


def test_one_class(tmp_path, out):
    pd.DataFrame({"x": range(30), "label": "a"}).to_csv(tmp_path / "one.csv", index=False)
    assert "at least two different values of the target 'label'" in refused(
        out, tmp_path / "one.csv", "--target", "label"
    )


def test_nan_features(tmp_path, out):
    x = np.ones((40, 2))
    x[3, 1] = np.nan
    np.savez(tmp_path / "bad.npz", x=x, y=np.arange(40) % 2)
    assert "expected finite numbers in 'x' got: nan at position [3, 1]" in refused(out, tmp_path / "bad.npz")


def test_ids_that_repeat(tmp_path, out):
    frame, _ = blobs(60, 2)
    frame.assign(key=np.arange(60) // 2).to_csv(tmp_path / "ids.csv", index=False)
    assert "a different id in every row of column 'key'" in refused(
        out, tmp_path / "ids.csv", "--target", "label", "--id", "key"
    )


def test_fewer_rows_than_a_batch(out, source):
    text = refused(out, source, "--target", "label", "--batch-size", "64")
    assert "expected at least 64 training rows, one batch got: 48 training rows" in text


def test_held_out_file_with_other_columns(tmp_path, out, source):
    blobs(40, 0, seed=3)[0].rename(columns={"d": "D"}).to_csv(tmp_path / "val.csv", index=False)
    text = refused(out, source, "--target", "label", "--holdout", tmp_path / "val.csv")
    assert "it lacks 'd' and has 'D' in addition; did you mean 'D'?" in text


def test_unreadable_image(tmp_path, out):
    folder = image_folder(tmp_path, n=4)
    (folder / "dark" / "03.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    assert "03.png cannot be decoded" in refused(out, folder)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--model", "mpl", "did you mean 'mlp'?"),
        ("--model", "no.such:thing", "a module 'no.such'"),
        ("--model", "jobs.scan.factories:tinny", "did you mean jobs.scan.factories:tiny?"),
        ("--model", "jobs.scan.factories:nothing", "to return an nn.Module"),
        ("--model", "jobs.scan.factories:narrow", "to outputs (2, 2)"),
        ("--model", "cnn", "images for --model cnn"),
        ("--optimizer", "adam", "did you mean 'adamw'?"),
        ("--query", "per_class", "did you mean 'per-class'?"),
        ("--fdr", "10", "--fdr to be a number between 0 and 1"),
        ("--lr", "-1", "--lr to be a positive number"),
        ("--seed", "-3", "--seed to be a whole number of at least 0"),
        ("--holdout-fraction", "20", "a hold-out fraction between 0 and 1"),
        ("--task", "regresion", "task to be one of"),
    ],
)
def test_unknown_values(out, source, option, value, words):
    assert words in refused(out, source, "--target", "label", option, value)


def test_unknown_option(out, source):
    done = run("scan", source, "--target", "label", "--out", out, "--epoch", "3")
    assert done.exit_code == 2 and "--epochs" in done.output


def test_out_folder_of_another_run_or_of_the_user(tmp_path, source):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    done = run("scan", source, "--target", "label", "--out", mine, *QUICK)
    assert (
        done.exit_code == 2 and "'thesis.txt'" in done.output and "nothing in it was touched" in done.output
    )
    assert [p.name for p in mine.iterdir()] == ["thesis.txt"]
    assert run("scan", source, "--target", "label", "--out", tmp_path / "o", *QUICK).exit_code == 0
    again = run("scan", source, "--target", "label", "--out", tmp_path / "o", *QUICK)
    assert again.exit_code == 2 and "a finished scan" in again.output and "--resume" in again.output
    taken = run("scan", source, "--target", "label", "--out", source, *QUICK)
    assert taken.exit_code == 2 and "a file of that name" in taken.output


def test_out_folder_that_cannot_be_made(tmp_path, source):
    (tmp_path / "file").write_text("x")
    done = run("scan", source, "--target", "label", "--out", tmp_path / "file" / "out", *QUICK)
    assert (
        done.exit_code == 2
        and "a folder that can be written" in done.output
        and "Not a directory" in done.output
    )


@pytest.mark.parametrize(
    ("optimizer", "lr", "words"),
    [
        ("sgd", "1e6", "a finite training loss at every step"),
        ("adamw", "1e6", "a finite training loss at every step"),
        ("adamw", "300", "too high: the training diverged"),
    ],
)
@pytest.mark.quick(1)
def test_diverging_training(out, source, optimizer, lr, words):
    done = run(
        "scan", source, "--target", "label", "--out", out, "--lr", lr, "--optimizer", optimizer,
        "--model", "mlp", "--weight-decay", "0.01", *QUICK,
    )  # fmt: skip
    assert done.exit_code == 2 and words in done.output and "tenfold" in done.output


def test_clean_and_show_want_a_finished_and_whole_scan(tmp_path, source):
    for path, words in ((tmp_path / "nowhere", "no such folder"), (tmp_path, "no run.yaml of this program")):
        for command in (["show", path], ["clean", path, "--to", tmp_path / "c.csv"]):
            done = run(*command)
            assert done.exit_code == 2 and words in done.output and "the folder of a scan" in done.output
    assert run("scan", source, "--target", "label", "--out", tmp_path / "o", *QUICK).exit_code == 0
    lines = tmp_path / "o" / "influence.parquet"
    lines.write_bytes(lines.read_bytes()[:-40])
    done = run("show", tmp_path / "o")
    assert done.exit_code == 2 and "expected influence.parquet, whole, in the scan folder" in done.output
    assert "make it again: delete influence.parquet and scan.json there" in " ".join(done.output.split())
    (tmp_path / "o" / "scan.json").unlink()
    done = run("show", tmp_path / "o")
    assert done.exit_code == 2 and "one that was interrupted" in done.output and "--resume" in done.output


def test_clean_refuses_a_changed_source_and_a_foreign_goal(tmp_path, source):
    assert run("scan", source, "--target", "label", "--out", tmp_path / "o", *QUICK).exit_code == 0
    done = run("clean", tmp_path / "o", "--to", source)
    assert done.exit_code == 2 and "the source is never overwritten" in done.output
    done = run("clean", tmp_path / "o", "--to", tmp_path / "c.csv", "--action", "dorp")
    assert done.exit_code == 2 and "action to be one of" in done.output
    source.write_text(source.read_text() + "1,2,3,4,cat\n")
    done = run("clean", tmp_path / "o", "--to", tmp_path / "c.csv")
    assert done.exit_code == 2 and "the data was changed since" in done.output
    assert not (tmp_path / "c.csv").exists()


def test_full_disk_while_saving(tmp_path, source, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "o/report.html"))

    with monkeypatch.context() as patch:
        patch.setattr("finfluence.report.write_report", full)
        done = run("scan", source, "--target", "label", "--out", tmp_path / "o", *QUICK)
    assert done.exit_code == 2 and "No space left on device" in done.output and "--resume" in done.output
    assert (
        run("scan", source, "--target", "label", "--out", tmp_path / "o", "--resume", *QUICK).exit_code == 0
    )


@pytest.mark.slow
def test_files_that_may_not_grow(tmp_path):
    source = blobs_csv(tmp_path, n=400, wrong=20)
    command = ["scan", str(source), "--target", "label", "--out", str(tmp_path / "o"), *QUICK]
    script = "from finfluence.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, *command], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "the disk is full" in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path / "o").rglob("*.part"))
    resumed = run(*command, "--resume")
    assert resumed.exit_code == 0, resumed.output


def test_our_own_faults_name_the_log(tmp_path, source, monkeypatch):
    monkeypatch.setattr("finfluence.report.write_report", lambda *_: 1 / 0)
    done = run("scan", source, "--target", "label", "--out", tmp_path / "o", *QUICK)
    assert done.exit_code == 1
    assert "ZeroDivisionError" in done.output and str(tmp_path / "o/scan.log") in done.output
    assert "Traceback" not in done.output and "Traceback" in (tmp_path / "o/scan.log").read_text()


def test_two_scans_in_one_folder(tmp_path, source):
    fcntl = pytest.importorskip("fcntl")
    assert run("scan", source, "--target", "label", "--out", tmp_path / "o", *QUICK).exit_code == 0
    (tmp_path / "o/scan.json").unlink()
    with (tmp_path / "o/scan.log").open("a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        done = run("scan", source, "--target", "label", "--out", tmp_path / "o", "--resume", *QUICK)
    assert done.exit_code == 2 and "no other scan at work" in done.output


def test_an_array_of_one_value_is_refused_in_words(tmp_path, out):
    np.savez(tmp_path / "flat.npz", x=np.ones((40, 2)), y=np.arange(40) % 2)
    assert "features that differ between rows" in refused(out, tmp_path / "flat.npz")


def test_a_budget_that_is_none(out, source):
    assert "only finfluence verify takes a time" in refused(
        out, source, "--target", "label", "--budget", "10m"
    )
    assert "above 1, such as 16 got: nan" in refused(out, source, "--target", "label", "--budget", "nan")
    assert "--budget above 1, what a training alone cost got: 0.5" in refused(
        out, source, "--target", "label", "--budget", "0.5"
    )
