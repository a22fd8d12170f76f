"""What the documentation site is made of: pages written from the code, formulas, nothing from a network."""

import importlib
import importlib.util
from types import ModuleType, SimpleNamespace

import pytest
from readers_code import ROOT
from typer.main import get_command

import finfluence as fi
import finfluence.labels
import finfluence.stats
import finfluence.tradeoff
from finfluence.cli import app


def hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/_hooks/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    return hook("pages")


def test_the_reference_holds_every_public_name(pages):
    text = pages.top_level()
    assert [name for name in fi.__all__ if f"::: finfluence.{name}\n" not in text] == []


def test_the_table_of_methods_stands_where_a_page_asks_for_it(pages):
    asked = (ROOT / "docs/how-to/choose-a-method.md").read_text(encoding="utf-8")
    text = pages.on_page_markdown(asked, None, None, None)
    assert [m.name for m in fi.methods() if f"\n| `{m.name}` |" not in text] == []


@pytest.mark.parametrize("path", hook("pages").BESIDE)
def test_what_functions_return_and_take_is_in_the_reference(pages, path):
    package, _, name = path.rpartition(".")
    assert name in importlib.import_module(package).__all__ and f"::: {path}\n" in pages.top_level()


PACKAGES = [finfluence.labels, finfluence.stats, finfluence.tradeoff]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.__name__)
def test_the_reference_of_a_package_holds_its_functions_and_classes(pages, package):
    text = pages.package(package.__name__, "explanation/x.md")
    functions = [
        n
        for n in package.__all__
        if callable(getattr(package, n)) and hasattr(getattr(package, n), "__code__")
    ]
    assert functions and [n for n in functions if f"::: {package.__name__}.{n}\n" not in text] == []


def test_the_reference_of_commands_holds_every_option(pages):
    text = pages.commands()
    for name, command in get_command(app).commands.items():
        assert f"## finfluence {name}\n" in text
        for option in (o for p in command.params if p.param_type_name == "option" for o in p.opts):
            assert f"`{option}`" in text, (name, option)
    assert "| `--out` | Folder for all results" in text and "| required |" in text


@pytest.mark.parametrize(("tag", "fine"), [
    ('<script src="assets/x.js"></script>', True), ('<a href="https://example.org">x</a>', True),
    ('<script src="https://example.org/x.js"></script>', False), ('<link href="//example.org/x.css">', False),
])  # fmt: skip
def test_a_page_loads_nothing_from_a_network(pages, tag, fine):
    page = SimpleNamespace(file=SimpleNamespace(src_uri="index.md"))
    if fine:
        assert pages.on_post_page(tag, page, None) == tag
    else:
        with pytest.raises(Exception, match=r"index\.md loads something from a network"):
            pages.on_post_page(tag, page, None)


def test_formulas_pass_through_markdown():
    formulas = hook("formulas")
    text = "Return :math:`\\mu_i`.\n\n    .. math:: a\n              + b\n\n    End."
    carried = formulas.carried(text)
    assert "math" not in carried.replace("MATH", "") and carried.endswith("\n\n    End.")
    html = formulas.on_page_content(carried, None, None, None)
    assert html.count("<math") == 2 and 'display="block"' in html and "<mi>&#x003BC;</mi>" in html
