"""The rules of the house that no linter knows: size of files, arguments of functions, privacy of packages, its picture."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from readers_code import ROOT
from tools import house

LINES = 600
ARGUMENTS = 7
# What users call with keywords: everything else takes an options object.
FACADE = {
    "contrast",
    "scan",
    "replay",
    "retrain",
    "plan",
    "train",
    "verify",
    "Tape.record",
    "Influence.build",
}
SOURCES = sorted((ROOT / "src/finfluence").rglob("*.py"))
AROUND = sorted(
    {p for d in ("tests", "benchmarks", "examples", "tools") for p in (ROOT / d).rglob("*.py")}
    - {Path(__file__)}
)
PRIVATE = re.compile(r"^finfluence(?:\.\w+)*\._[a-z]\w*")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def where(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    """Return the dotted name of a source, and of a package for its `__init__`."""
    parts = list(path.relative_to(ROOT / "src").with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def functions(
    body: ast.AST, prefix: str = ""
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """Return (qualified name, function, whether it is a method) of everything below a node."""
    for node in ast.iter_child_nodes(body):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield prefix + node.name, node, isinstance(body, ast.ClassDef)
            yield from functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")
        else:
            yield from functions(node, prefix)


def count(function: ast.FunctionDef | ast.AsyncFunctionDef, method: bool) -> int:
    """Return the number of arguments, self and cls excluded."""
    given = function.args
    static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in function.decorator_list)
    listed = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    return len(listed) - (method and not static)


def is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a function is a command, whose arguments are the options that a person types."""
    return any(ast.unparse(d).startswith("app.command") for d in function.decorator_list)


def imports(path: Path) -> Iterator[str]:
    """Return every module of this project that a file imports, also by a string for `monkeypatch` or `importlib`."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{a.name}" for a in node.names)
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and PRIVATE.match(node.value):
            yield node.value


def private(name: str) -> str | None:
    """Return the private module in a dotted name, if any.

    >>> private("finfluence.runs._tape.Tape"), private("finfluence.runs")
    ('finfluence.runs._tape', None)
    """
    found = PRIVATE.match(name)
    return found[0] if found else None


def intrusions(path: Path, module: str) -> set[str]:
    """Return the private modules that a file imports from a package that it is not in."""
    found = {p for name in imports(path) if (p := private(name))}
    return {p for p in found if not f"{module}.".startswith(p.rpartition(".")[0] + ".")}


def test_files_are_small_enough_to_read():
    long = {where(p): n for p in SOURCES if (n := len(p.read_text(encoding="utf-8").splitlines())) > LINES}
    assert not long


def test_functions_take_few_arguments():
    many = {
        f"{where(path)}: {name}": n
        for path in SOURCES
        for name, node, method in functions(tree(path))
        if (n := count(node, method)) > ARGUMENTS and name not in FACADE and not is_command(node)
    }
    assert set(many) <= MANY_ARGUMENTS, sorted(set(many) - MANY_ARGUMENTS)


def test_no_package_reaches_into_another():
    found = {f"{where(p)}: {m}" for p in SOURCES for m in intrusions(p, module_of(p))}
    assert not found


def test_nobody_around_reaches_into_a_package():
    found = {f"{where(p)}: {m}" for p in AROUND for m in intrusions(p, "")}
    assert not found


@pytest.mark.parametrize(("name", "is_private"), [
    ("finfluence.runs._tape.Tape", "finfluence.runs._tape"), ("finfluence.runs.Tape", None), ("finfluence._seeds", "finfluence._seeds"),
    ("finfluence.__version__", None), ("numpy._core", None),
])  # fmt: skip
def test_what_counts_as_private(name, is_private):
    assert private(name) == is_private


def test_the_picture_of_the_house_is_up_to_date():
    assert house.PICTURE.read_text(encoding="utf-8") == house.draw(), "python -m tools.house draws it again"


# The chapters of the report, each an argument of the function that joins them; to become one value.
MANY_ARGUMENTS = {"src/finfluence/jobs/scan/_report_content.py: content"}
