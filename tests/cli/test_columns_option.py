"""`scan FILE --columns` prints how each column is read, and stops; what was decided reaches the screen of a scan."""

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from finfluence.cli import app


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(0)
    n = 80
    pd.DataFrame(
        {
            "n": rng.permutation(n),
            "price": [f"{v:.2f}".replace(".", ",") for v in rng.uniform(0, 99, n)],
            "gap": ["" if i % 5 == 0 else i % 17 for i in range(n)],
            "label": ["a", "b"] * (n // 2),
        }
    ).to_csv(tmp_path / "d.csv", sep=";", index=False)
    return tmp_path / "d.csv"


@pytest.mark.parametrize("options", [(), ("--target", "label")])
def test_columns_are_printed_and_nothing_is_written(source, options):
    before = set(source.parent.iterdir())
    done = run("scan", source, "--columns", *options)
    assert done.exit_code == 0, done.output
    lines = {line.split()[0]: " ".join(line.split()) for line in done.output.splitlines()}
    assert "not used: it numbers the rows" in lines["n"]
    assert "price number decimal comma" in lines["price"]
    assert " % " in lines["gap"]
    assert ("target" in lines["label"]) == bool(options)
    assert set(source.parent.iterdir()) == before


def test_a_scan_without_a_folder_is_refused(source):
    done = run("scan", source, "--target", "label")
    assert done.exit_code == 2
    assert "a folder for the results is needed" in " ".join(done.output.replace("│", " ").split())


def test_images_have_no_columns():
    done = run("scan", "digits", "--columns")
    assert done.exit_code == 2
    assert "expected a table for --columns" in done.output


def test_what_was_decided_is_on_the_screen_and_in_the_report(source, tmp_path):
    out = tmp_path / "o"
    done = run(
        "scan", source, "--target", "label", "--out", out, "--runs", "1", "--epochs", "2", "--no-proof"
    )
    assert done.exit_code == 0, done.output
    assert "note: columns not used: 'n' (it numbers the rows" in done.output
    assert "note: missing cells were replaced by the median, with a mark: 'gap'" in done.output
    assert "How each column was read" in (out / "report.html").read_text(encoding="utf-8")
