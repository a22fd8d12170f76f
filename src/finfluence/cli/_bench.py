"""A benchmark on the terminal: its main table, and where the rest is."""

from finfluence.cli._screen import Screen
from finfluence.jobs.bench import BenchResult, listing
from finfluence.report import Section


def show_listing(screen: Screen) -> None:
    """Print experiments, data sets and methods."""
    for section in listing():
        show_section(screen, section)


def show_bench(screen: Screen, result: BenchResult) -> None:
    """Print the verdict, the tables, and where the folder is."""
    screen.always(result.outcome.verdict, "bold")
    for section in result.outcome.sections:
        show_section(screen, section)
    kept = "Nothing was measured anew" if not result.measured else f"Measured anew: {result.measured} answers"
    screen.say(f"{kept}; all answers and trainings are kept in {result.folder.parent}.")
    page = result.folder / "page.html"
    screen.say(f"Tables: {result.folder / 'tables.md'}")
    if page.exists():
        screen.say(f"Page: {page}")


def show_section(screen: Screen, section: Section) -> None:
    """Print a section: its title, what it says, its table."""
    screen.say("")
    screen.say(section.title, "bold")
    for text in section.text:
        screen.say(text)
    if section.columns:
        columns = [(name, False) for name in section.columns]
        screen.table(columns, [list(row) for row in section.rows])
