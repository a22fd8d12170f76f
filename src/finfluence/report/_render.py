"""Content in, one HTML file out."""

import base64
import functools
import hashlib
import os
from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING

from finfluence._extras import require
from finfluence._files import write_text
from finfluence.report._schema import ReportContent
from finfluence.report._text import visible
from finfluence.report._validate import validated
from finfluence.report._view import view

if TYPE_CHECKING:
    import jinja2

_SCRIPTS = ("normal.js", "tradeoff.js", "rows.js", "page.js")


def render(content: ReportContent | Mapping[str, object]) -> str:
    """Return the report as one HTML page that needs nothing else: no network, no other file.

    Everything that comes from `content` is treated as hostile: it is escaped, characters that hide or reorder
    text are shown by code point, and the page forbids itself every script but its own.

    Parameters
    ----------
    content
        `ReportContent`, or a plain dictionary with the same fields, nested in the same way.

    Returns
    -------
    str
        The page. The same content gives the same page, byte for byte.

    Raises
    ------
    ConfigError
        The content contradicts the schema, or jinja2 is not installed.

    Examples
    --------
    >>> page = render({"title": "toy", "verdict": "Nothing can be told from training noise."})
    >>> page.startswith("<!doctype html>"), "<script>alert" in page
    (True, False)
    """
    variables = view(validated(content))
    style, script = _asset("report.css"), "\n".join(_asset(name) for name in _SCRIPTS)
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    template = _environment().get_template("report.html.j2")
    return template.render(variables, style=style, script=script, policy=policy)


def page_of(template: str, **variables: object) -> str:
    """Return a page without scripts from one of the templates, in the style of the report.

    Returns
    -------
    str

    Raises
    ------
    ConfigError
        jinja2 is not installed.
    """
    style = _asset("report.css")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; base-uri 'none'; form-action 'none'"
    )
    return _environment().get_template(template).render(variables, style=style, policy=policy)


def write_report(content: ReportContent | Mapping[str, object], path: str | os.PathLike[str]) -> None:
    """Render `content` and write it to `path` in one step: the old page or the new one, never half.

    Raises
    ------
    ConfigError
        As `render`.
    StorageError
        The file cannot be written; what stood there is unchanged.
    """
    write_text(path, render(content))


def _environment() -> "jinja2.Environment":
    jinja2 = require("jinja2", "writes the report page", "report")
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _finalize(value: object) -> object:
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return visible(value)
    return "" if value is None else value


@functools.cache
def _asset(name: str) -> str:
    return resources.files("finfluence.report").joinpath("templates", name).read_text(encoding="utf-8")


def _hash(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode("ascii")
