"""A benchmark on the terminal: its main table, and where the rest is."""

from finfluence.cli._screen import Screen
from finfluence.jobs.bench import BenchResult, listing, pages_can_be_made
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
    screen.say(f"Tables: {result.folder / 'tables.md'}")
    if pages_can_be_made():
        screen.say(
            f"Page: {result.folder / 'page.html'}; all experiments: {result.folder.parent / 'index.html'}"
        )
    else:
        screen.say("No page was made, because jinja2 is not installed: pip install 'finfluence[report]'")


def show_section(screen: Screen, section: Section) -> None:
    """Print a section: its title, what it says, its table, and below it the remarks, whole."""
    screen.say("")
    screen.say(section.title, "bold")
    for text in section.text:
        screen.say(text)
    remarked = bool(section.columns) and section.columns[-1] == "remark"
    shown = section.columns[:-1] if remarked else section.columns
    if shown:
        screen.table([(name, False) for name in shown], [list(row[: len(shown)]) for row in section.rows])
    for row in section.rows if remarked else ():
        if row[-1]:
            screen.say(f"{row[0]}: {row[-1]}")
