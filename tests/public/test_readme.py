"""The code of the README runs, as printed, and its figures stand on the page of figures."""

import pytest
from readers_code import ROOT, blocks, names

import finfluence as fi

README = ROOT / "README.md"


def given() -> dict[str, object]:
    """Return the names of a reader who has neither imported nor described anything yet."""
    return {k: v for k, v in names().items() if k not in ("fi", "recipe", "queries")}


def test_the_quickstart_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    space = given()
    exec(blocks(README)[0], space)
    assert isinstance(space["influence"], fi.Influence) and (tmp_path / "report.html").exists()
    assert "held-out" in capsys.readouterr().out
    assert len(blocks(README)[0].splitlines()) <= 12


def test_the_loop_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = given() | {"fi": fi}
    exec(blocks(README)[1], space)
    assert isinstance(space["influence"], fi.Influence)


@pytest.mark.slow
def test_the_truth_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    space = names()
    space["influence"] = fi.replay(fi.train(space["recipe"], seed=0), space["queries"])
    exec(blocks(README)[2], space)
    assert isinstance(space["truth"], fi.Influence) and space["f"].mu == 0.5
    assert "slope" in capsys.readouterr().out


def test_there_is_no_other_python_in_the_readme():
    assert len(blocks(README)) == 3


def rows_of_tables(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|") and any(c.isdigit() for c in line)]


@pytest.mark.parametrize("row", rows_of_tables(README.read_text(encoding="utf-8").split("## Is it true")[1]))
def test_figures_of_the_readme_stand_on_the_page_of_figures(row):
    assert row in (ROOT / "docs/figures.md").read_text(encoding="utf-8").splitlines()
