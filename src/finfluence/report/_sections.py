"""A page of sections, each a table with a chart: for whatever is measured and compared."""

from collections.abc import Sequence
from dataclasses import dataclass

from finfluence.report._render import page_of
from finfluence.report._svg import Svg


@dataclass(frozen=True)
class Section:
    """One section of a page.

    Attributes
    ----------
    title : str
        Its heading.
    columns : sequence of str
        Headings of the table.
    rows : sequence of sequences of str
        Its cells, as they are shown.
    text : sequence of str
        Paragraphs above the table.
    chart : Svg, optional
        Of `lines` or `levels`.
    links : sequence of str
        Where the first cell of each row leads, a path relative to the page; none if empty.
    """

    title: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    text: Sequence[str] = ()
    chart: Svg | None = None
    links: Sequence[str] = ()


def render_sections(title: str, verdict: str, sections: Sequence[Section], notes: Sequence[str] = ()) -> str:
    """Return a page of tables and charts that needs nothing else: no network, no script, no other file.

    Parameters
    ----------
    title : str
        What was measured.
    verdict : str
        The heading.
    sections : sequence of Section
        In their order. All texts are treated as hostile, and escaped.
    notes : sequence of str
        Below the tables: how it was made.

    Returns
    -------
    str

    Raises
    ------
    ConfigError
        jinja2 is not installed.

    Examples
    --------
    >>> page = render_sections("toy", "1 < 2", [Section("Values", ["name", "value"], [["<b>", "1"]])])
    >>> "&lt;b&gt;" in page, "<b>" in page, "1 &lt; 2" in page
    (True, False, True)
    """
    return page_of("sections.html.j2", title=title, verdict=verdict, sections=sections, notes=notes)


def markdown(section: Section) -> str:
    r"""Return a section as Markdown, without its chart.

    Returns
    -------
    str

    Examples
    --------
    >>> print(markdown(Section("Values", ["name", "value"], [["a|b", "1"]], ["Said."])))
    ## Values
    <BLANKLINE>
    Said.
    <BLANKLINE>
    | name | value |
    |---|---|
    | a\|b | 1 |
    <BLANKLINE>
    """
    parts = [f"## {section.title}", *section.text]
    if section.columns:
        table = [list(section.columns), *section.rows]
        cells = ["| " + " | ".join(_cell(c) for c in row) + " |" for row in table]
        parts.append("\n".join([cells[0], "|" + "---|" * len(section.columns), *cells[1:]]))
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
