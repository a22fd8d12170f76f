r"""Formulas of docstrings as MathML: found by a griffe extension, put into the pages by a hook, without any script.

A docstring writes ``:math:`\mu``` within a sentence and ``.. math:: \mu`` on lines of its own. Markdown would mangle
both, so each is carried through it as one word of hexadecimal digits.
"""

import re
from typing import Any

import griffe
from latex2mathml.converter import convert

_INLINE = re.compile(r":math:`([^`]+)`")
_DISPLAY = re.compile(r"^([ ]*)\.\. math::[ ]*(.*(?:\n(?:\1[ ]+\S.*))*)", re.MULTILINE)
_WORD = re.compile(r"MATH(inline|block)x([0-9a-f]+)x")


def _word(kind: str, latex: str) -> str:
    return f"MATH{kind}x{' '.join(latex.split()).encode().hex()}x"


def carried(text: str) -> str:
    """Return a docstring with its formulas as words that Markdown leaves alone."""
    text = _DISPLAY.sub(lambda m: f"{m[1]}{_word('block', m[2])}", text)
    return _INLINE.sub(lambda m: _word("inline", m[1]), text)


class Formulas(griffe.Extension):
    """Carry the formulas of all docstrings of a package."""

    def on_package(self, *, pkg: griffe.Module, loader: Any, **_: Any) -> None:
        """Rewrite the docstrings in place, once they are loaded."""
        waiting: list[Any] = [pkg]
        while waiting:
            found = waiting.pop()
            if found.docstring is not None:
                found.docstring.value = carried(found.docstring.value)
            waiting += [m for m in found.members.values() if not m.is_alias]


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Write the formulas of a page."""
    return _WORD.sub(lambda m: convert(bytes.fromhex(m[2]).decode(), display=m[1]), html)
