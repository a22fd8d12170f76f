"""The pages: their code runs, their commands exist, the files they name exist, what is generated is written from the code."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
from readers_code import ROOT, blocks, names
from typer.main import get_command

from finfluence.cli import app

PAGES = sorted((ROOT / "docs").rglob("*.md"))
MARKDOWN = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
COMMANDS = get_command(app).commands


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent.name == "tutorial" and blocks(p)], ids=name)
def test_the_code_of_a_tutorial_runs_from_nothing(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    for block in blocks(page):
        exec(block, space)


DEAR = ("scan.md", "after-the-verdict.md")  # whole scans


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(p, id=name(p), marks=pytest.mark.slow if p.name in DEAR else ())
        for p in PAGES
        if p.parent.name == "how-to" and blocks(p)
    ],
)
def test_the_code_of_a_how_to_runs_with_the_readers_own(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = names()
    if not any("fi.Tape.record(" in block for block in blocks(page)):
        exec("tape = fi.train(recipe, seed=0)", space)
    for block in blocks(page):
        exec(block, space)


def typed() -> list[tuple[str, list[str]]]:
    """Return every finfluence command of the pages as (page, words)."""
    found = []
    for page in MARKDOWN:
        for block in blocks(page, "sh"):
            lines = [re.sub(r"\s#.*", "", line) for line in block.replace("\\\n", " ").splitlines()]
            found += [(name(page), shlex.split(x)) for x in lines if x.startswith("finfluence ")]
    return found


@pytest.mark.parametrize(("page", "words"), typed())
def test_commands_of_the_pages_exist(page, words):
    if words[1].startswith("-"):
        assert words[1] in ("--version", "--help")
        return
    known = [o for p in COMMANDS[words[1]].params for o in [*p.opts, *p.secondary_opts]] + ["--help"]
    assert not [w for w in words[2:] if w.startswith("--") and w not in known]


def test_files_named_in_sources_and_pages_exist():
    """Paths such as docs/explanation/replay.md or tests/stats/test_coverage.py, in any file of the project."""
    named = re.compile(r"\b(?:docs|tests|benchmarks|examples|tools)/[\w/.-]+\.(?:md|py|svg)\b")
    sources = [
        p for d in ("src", "tests", "benchmarks", "examples", "tools") for p in (ROOT / d).rglob("*.py")
    ]
    lost = {
        f"{name(page)}: {path}"
        for page in [*MARKDOWN, *sources]
        for path in named.findall(page.read_text(encoding="utf-8"))
        if not (ROOT / path).exists()
    }
    assert not lost


def test_the_estimator_to_copy_from_is_the_one_that_is_tested():
    shown = blocks(ROOT / "CONTRIBUTING.md", "py")
    assert shown == [(ROOT / "tests/conformance/toy.py").read_text(encoding="utf-8")]


ENDS = (".py", "/__main__.py")


def test_benchmarks_named_in_pages_exist():
    modules = {
        m for p in MARKDOWN for m in re.findall(r"python -m\s+([\w.]+)", p.read_text(encoding="utf-8"))
    }
    known = {m for m in modules if m.startswith(("benchmarks.", "tools."))}
    assert known
    missing = {m for m in known if not any((ROOT / (m.replace(".", "/") + end)).exists() for end in ENDS)}
    assert not missing


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("[!_]*.py")), ids=name)
def test_benchmarks_can_be_imported(path):
    """No test runs them: at least nothing that they import has gone."""
    assert importlib.import_module(f"benchmarks.{path.stem}").__doc__
