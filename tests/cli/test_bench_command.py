"""`finfluence bench` as a person types it."""

import pytest
from typer.testing import CliRunner

from finfluence.cli import app


def run(*arguments):
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def test_the_list_names_experiments_data_and_methods():
    done = run("--list")
    assert done.exit_code == 0
    for word in ("mislabels", "digits", "fashion-mnist", "replay", "out-of-fold-loss", "apt-get install"):
        assert word in done.output


def test_from_the_command_to_the_tables(tmp_path):
    words = [
        "mislabels",
        "--rows",
        40,
        "--seeds",
        1,
        "--methods",
        "own-loss,random",
        "--out",
        tmp_path / "out",
    ]
    done = run(*words)
    assert done.exit_code == 0, done.output
    assert "Wrong labels of digits are found best by" in done.output and "average precision" in done.output
    assert f"Tables: {tmp_path / 'out' / 'mislabels-digits' / 'tables.md'}" in done.output
    assert "Measured anew: 2 answers" in done.output
    assert "Nothing was measured anew" in run(*words).output


@pytest.mark.parametrize(("words", "said"), [
    (["mislabel"], "did you mean 'mislabels'"), ([], "nothing was named"),
    (["mislabels", "--data", "digist"], "did you mean 'digits'"),
    (["mislabels", "--methods", "replay,own-los"], "did you mean 'own-loss'"), (["mislabels", "--share", 2], "--share to be"),
])  # fmt: skip
def test_a_mistyped_word_ends_with_code_2(words, said, tmp_path):
    done = run(*words, "--out", tmp_path / "out")
    assert done.exit_code == 2 and said in done.stderr and "Traceback" not in done.output
    assert not (tmp_path / "out").exists()
