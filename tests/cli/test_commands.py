"""The commands as a person types them."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import MISSING, fields

import pandas as pd
import pytest
from typer.main import get_command
from typer.testing import CliRunner

import finfluence
from finfluence.cli import app, safe
from finfluence.jobs.scan import ScanOptions, VerifyOptions
from small_data import blobs_csv, mixed_csv

QUICK = ["--runs", "1", "--epochs", "3", "--no-proof"]
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    done = run(
        "scan",
        mixed_csv(folder),
        "--target",
        "label",
        "--id",
        "key",
        "--out",
        folder / "out",
        "--query",
        "per-class",
        *QUICK,
    )
    assert done.exit_code == 0, done.output
    return folder, done.output


def test_scan_ends_in_verdict_table_and_next_command(scanned):
    folder, output = scanned
    assert re.search(r"(\d+ of \d+ rows|Nothing can be told from training noise)", output)
    assert "95 % interval" in output and "own loss" in output
    assert "mu > 0: removing the rows raises 'held-out' [nats], so the rows help" in output
    assert "Spread over batch order, from 1 training run" in output
    assert "Nothing can be told" in output and "The list for review begins with" in output
    assert output.rstrip().splitlines()[-1] == f"  finfluence show {folder / 'out'} --review --top 100"


def test_no_control_characters_and_no_markup_reach_the_terminal(scanned):
    folder, output = scanned
    shown = run("show", folder / "out", "--top", "200").output
    for text in (output, shown):
        assert not CONTROL.search(text)
    assert r"esc \x1b[31m" in shown and "[red]x[/red]" in shown and "[yes]" in shown


def test_show_other_queries_and_suggest_near_names(scanned):
    folder, _ = scanned
    assert (
        "Worst rows for class [yes]:"
        in run("show", folder / "out", "--query", "class [yes]", "--top", "3").output
    )
    wrong = run("show", folder / "out", "--query", "heldout")
    assert wrong.exit_code == 2 and "did you mean 'held-out'?" in wrong.output


def test_clean_writes_the_same_columns_and_an_audit(scanned, tmp_path):
    folder, _ = scanned
    done = run("clean", folder / "out", "--to", tmp_path / "c.csv", "--action", "review")
    assert done.exit_code == 0 and "150 rows; 0 dropped, 0 relabelled" in done.output
    assert "Held-out rows are in the file as they were" in done.output
    assert "start like a formula" not in done.output or "--escape-formulas" in done.output
    assert (tmp_path / "c.csv").read_bytes() == (folder / "mixed.csv").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.audit.csv", "c.csv"]


@pytest.mark.slow
def test_quiet_prints_the_verdict_alone(tmp_path):
    done = run(
        "scan",
        blobs_csv(tmp_path, n=80, wrong=4),
        "--target",
        "label",
        "--out",
        tmp_path / "o",
        "--quiet",
        *QUICK,
    )
    assert done.exit_code == 0 and len(done.output.strip().splitlines()) == 1


@pytest.mark.slow
def test_the_demo_counts_what_it_planted(tmp_path):
    done = run("demo", "--short", "--out", tmp_path / "demo")
    assert done.exit_code == 0, done.output
    found = re.search(
        r"(\d+) of 70 planted errors were found .* of (\d+) named rows (\d+) are no planted errors",
        done.output,
    )
    assert found is not None
    right, named, wrong = map(int, found.groups())
    assert right + wrong == named and right >= 40 and wrong <= 0.1 * named
    assert len(pd.read_csv(tmp_path / "demo/digits-cleaned.csv")) <= 700
    assert "Trained again, 6 times each" in " ".join(done.output.split())
    assert done.output.rstrip().splitlines()[-1] == f"  finfluence verify {tmp_path / 'demo/scan'}"
    again = run("demo", "--out", tmp_path / "demo")
    assert again.exit_code == 2 and "an earlier demo" in again.output


def test_help_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys, finfluence, finfluence.cli\n"
        "print([m for m in ('torch', 'pandas', 'numpy', 'sklearn') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    help_text = run("scan", "--help").output
    assert "covers the batch order" in " ".join(help_text.replace("│", " ").split())


def test_version():
    assert run("--version").output.startswith("finfluence 0.")


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_loses_nothing(tmp_path):
    source = blobs_csv(tmp_path, n=400, wrong=20)
    command = [
        "scan",
        str(source),
        "--target",
        "label",
        "--out",
        str(tmp_path / "o"),
        "--runs",
        "1",
        "--model",
        "mlp",
        "--epochs",
        "600",
        "--no-proof",
    ]
    # a shell lets what it starts in the background ignore SIGINT
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = f"{heard}; from finfluence.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", script, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "o/runs/000/tape.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert (
        f"Stopped. The same command with --resume goes on; everything finished so far is in {tmp_path / 'o'}."
        in errors
    )
    assert "Traceback" not in errors
    assert "interrupted" in (tmp_path / "o/scan.log").read_text()


def test_safe_text():
    assert safe("\x07\u200b") == r"\x07\u200b" and safe("x" * 20, 5) == "xxxx…"


def test_python_m_finfluence_is_the_command():
    command = [sys.executable, "-m", "finfluence", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout == f"finfluence {finfluence.__version__}\n"
    usage = subprocess.run([*command[:3], "--help"], capture_output=True, text=True, check=False).stdout
    assert "Usage: finfluence " in usage


def test_the_shell_completes_commands_and_options():
    usage = run("--help").output
    assert "--install-completion" in usage and "--show-completion" in usage

    def completed(typed):
        asked = {
            "_FINFLUENCE_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(typed.count(" ")),
        }
        return CliRunner().invoke(app, [], env=asked, prog_name="finfluence").output.split()

    assert completed("finfluence ver") == ["verify"]
    assert {"--holdout", "--holdout-fraction"} <= set(completed("finfluence scan --hold"))


def test_clean_asks_before_it_replaces_an_earlier_file(scanned, tmp_path):
    command = ["clean", scanned[0] / "out", "--to", tmp_path / "c.csv", "--action", "review"]
    assert run(*command).exit_code == 0
    cleaned = (tmp_path / "c.csv").read_bytes()
    for path in tmp_path.iterdir():
        path.write_text(f"precious {path.name}")
    refused = run(*command)
    words = " ".join(refused.output.split())
    assert refused.exit_code == 2 and "c.csv is there already and c.audit.csv is there already" in words
    assert "nothing was changed" in words and "--force" in words
    for path in tmp_path.iterdir():
        assert path.read_text() == f"precious {path.name}"
    assert run(*command, "--force").exit_code == 0
    assert (tmp_path / "c.csv").read_bytes() == cleaned
    assert "precious" not in (tmp_path / "c.audit.csv").read_text()


@pytest.mark.parametrize(("name", "options"), [("scan", ScanOptions), ("verify", VerifyOptions)])
def test_the_command_has_the_options_of_python_and_their_defaults(name, options):
    command = get_command(app).commands[name]
    typed = {
        parameter.name: parameter
        for parameter in command.params
        if parameter.name not in ("help", "quiet", "columns")
    }
    assert set(typed) - {"out"} == {field.name for field in fields(options)} - {"out"}
    for field in fields(options):
        if field.default is not MISSING and not isinstance(field.default, tuple):
            assert typed[field.name].default == field.default
