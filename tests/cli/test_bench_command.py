"""`finfluence bench` as a person types it."""

import importlib.util
import json
import shutil

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
    index = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert '<a href="mislabels-digits/page.html">' in index and "found best by" in index
    assert f"all experiments: {tmp_path / 'out' / 'index.html'}" in done.output
    assert "Nothing was measured anew" in run(*words).output


def test_why_a_method_has_no_numbers_is_said_whole(tmp_path):
    words = ["--rows", 40, "--seeds", 1, "--methods", "retrain,own-loss", "--out", tmp_path / "out"]
    done = run("mislabels", *words)
    assert done.exit_code == 0, done.output
    assert "\nretrain: left out: about " in done.output
    assert "more than 500 trainings and 4 GiB; include it by --most 4" in done.output


def test_without_jinja2_there_are_tables_and_words_instead_of_pages(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jinja2" else found(name))
    done = run("mislabels", "--rows", 40, "--seeds", 1, "--methods", "random", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert (
        "No page was made, because jinja2 is not installed: pip install 'finfluence[report]'" in done.output
    )
    assert not list((tmp_path / "out").rglob("*.html"))
    assert (tmp_path / "out" / "mislabels-digits" / "tables.md").exists()


def test_a_hostile_verdict_is_escaped_in_the_index(tmp_path):
    words = ["--rows", 40, "--seeds", 1, "--methods", "random", "--out", tmp_path / "out"]
    assert run("mislabels", *words).exit_code == 0
    other = tmp_path / "out" / "a & b"
    shutil.copytree(tmp_path / "out" / "mislabels-digits", other)
    (other / "bench.json").write_text(json.dumps({"verdict": "<script>alert(1)</script>"}), encoding="utf-8")
    assert run("mislabels", *words).exit_code == 0
    index = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "<script>" not in index and "&lt;script&gt;" in index and 'href="a%20%26%20b/page.html"' in index


@pytest.mark.parametrize(("words", "said"), [
    (["mislabel"], "did you mean 'mislabels'"), ([], "nothing was named"),
    (["mislabels", "--data", "digist"], "did you mean 'digits'"),
    (["mislabels", "--methods", "replay,own-los"], "did you mean 'own-loss'"), (["mislabels", "--share", 2], "--share to be"),
])  # fmt: skip
def test_a_mistyped_word_ends_with_code_2(words, said, tmp_path):
    done = run(*words, "--out", tmp_path / "out")
    assert done.exit_code == 2 and said in done.stderr and "Traceback" not in done.output
    assert not (tmp_path / "out").exists()
