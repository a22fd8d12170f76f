"""The code of the README runs, as printed, and its figures stand on the page of figures."""

import pytest
from readers_code import ROOT, blocks, names

import finfluence as fi

README = ROOT / "README.md"


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    quickstart, loop, truth = blocks(README)
    space = {k: v for k, v in names().items() if k not in ("fi", "recipe", "queries")}
    for number, block in enumerate((quickstart, loop, truth)):
        folder = tmp_path / str(number)  # the loop's tape must not meet that of the recipe
        folder.mkdir()
        monkeypatch.chdir(folder)
        influence = space.get("influence")
        exec(block, space)
        if block is loop:
            assert isinstance(space["influence"], fi.Influence)
            space |= {"influence": influence, "queries": names()["queries"]}
    assert (tmp_path / "0/report.html").exists()
    assert isinstance(space["truth"], fi.Influence) and space["f"].mu == 0.5
    printed = capsys.readouterr().out
    assert "held-out" in printed and "slope" in printed


def rows_of_tables(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|") and any(c.isdigit() for c in line)]


@pytest.mark.parametrize("row", rows_of_tables(README.read_text(encoding="utf-8").split("## Is it true")[1]))
def test_figures_of_the_readme_stand_on_the_page_of_figures(row):
    assert row in (ROOT / "docs/figures.md").read_text(encoding="utf-8").splitlines()
