"""What reaches the terminal: text in which nothing hides, progress, tables. Data never reaches it as markup."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from finfluence._progress import Progress, silent
from finfluence.jobs import Stage, WholeJob, in_words

PLAIN_WIDTH = 160
_CELL = 36
_LEAST = 12


def safe(text: object, limit: int = 10_000, lines: bool = False) -> str:
    r"""Return `text` with every character that could steer a terminal or hide others written as an escape.

    Returns
    -------
    str

    Examples
    --------
    >>> print(safe("a\x1b[31mb\u202e\n"))
    a\x1b[31mb\u202e\n
    >>> safe("two\nlines", lines=True) == "two\nlines"
    True
    """
    given = str(text)
    kept = given if len(given) <= limit else given[: limit - 1] + "…"
    if kept.isprintable():
        return kept
    return "".join(
        c if c.isprintable() or (lines and c == "\n") else c.encode("unicode_escape").decode("ascii")
        for c in kept
    )


class Screen:
    """Standard output for results, standard error for errors; quiet keeps only the verdict."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.out = Console(file=sys.stdout, highlight=False, emoji=False)
        if not self.out.is_terminal:
            self.out = Console(
                file=sys.stdout, highlight=False, emoji=False, width=PLAIN_WIDTH, no_color=True
            )

    def say(self, text: object, style: str = "") -> None:
        """Print a sentence, wrapped only on a terminal."""
        if not self.quiet:
            self.always(text, style)

    def always(self, text: object, style: str = "") -> None:
        """Print a sentence even when quiet."""
        shown = Text(safe(text, lines=True), style=style)
        self.out.print(shown, soft_wrap=not self.out.is_terminal)

    def command(self, text: str) -> None:
        """Print a command to type: on its own line, never wrapped or cut."""
        if not self.quiet:
            self.out.print(Text("  " + safe(text), style="bold cyan"), soft_wrap=True)

    def table(self, columns: Sequence[tuple[str, bool]], rows: Sequence[Sequence[object]]) -> None:
        """Print a table; columns are (name, whether right-aligned); the last one takes what room is left.

        Columns for which there is no room are left out whole, from the right, and named below.
        """
        if self.quiet:
            return
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        last = len(columns) - 1
        cells = [[safe(c, 200 if i == last else _CELL) for i, c in enumerate(row)] for row in rows]
        lengths = zip([name for name, _ in columns], *cells, strict=True)
        widths = [max(cell_len(text) for text in column) + 2 for column in lengths]
        room = self.out.width - sum(widths[:last])
        if room >= min(_LEAST, widths[last] - 2):
            shown = last + 1
            for row in cells:
                row[last] = set_cell_size(row[last], min(room, cell_len(row[last])))
        else:
            shown = max(1, sum(sum(widths[: k + 1]) - 2 <= self.out.width for k in range(last)))
        for name, right in columns[:shown]:
            table.add_column(name, justify="right" if right else "left", no_wrap=True)
        for row in cells:
            table.add_row(*(Text(cell) for cell in row[:shown]))
        self.out.print(table)
        if missing := [name for name, _ in columns[shown:]]:
            self.say(f"In a wider window, and in the report: {', '.join(missing)}.")

    @contextmanager
    def progress(self, stages: Sequence[Stage] = ()) -> Iterator[Progress]:
        """Yield a progress callable: bars with the time left on a terminal, a line per finished stage elsewhere.

        Of a job whose `stages` are known there is one bar, with the time left for the whole of it.

        Yields
        ------
        Progress
        """
        if self.quiet:
            yield silent
        elif self.out.is_terminal:
            with _OneBar(self.out, stages) if stages else _Bars(self.out) as bars:
                yield bars
        else:
            yield _lines(self, stages)


class _Bars:
    """One bar per stage; finished stages stay as a line."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "_Bars":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far `stage` has come."""
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(safe(stage), total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)


class _OneBar:
    """One bar for a whole job: the stage it is in, the share that is done, the time left."""

    def __init__(self, console: Console, stages: Sequence[Stage]) -> None:
        self._whole = WholeJob(stages)
        bar = 20 if console.width >= 72 else 8
        self._room = max(6, console.width - bar - 40)
        self._bar = Bars(
            BarColumn(bar_width=bar),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._bar.add_task("", total=1.0, left="")

    def __enter__(self) -> "_OneBar":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far the job has come, now that `stage` is at `done`."""
        reached = self._whole.tell(stage, done, total)
        shown = escape(safe(stage, self._room))
        self._bar.update(
            self._task, completed=reached.share, description=shown, left=in_words(reached.seconds)
        )


def _lines(screen: Screen, stages: Sequence[Stage]) -> Progress:
    ended: set[str] = set()
    whole = WholeJob(stages)

    def tell(stage: str, done: int, total: int) -> None:
        reached = whole.tell(stage, done, total)
        if done == total and stage not in ended:
            ended.add(stage)
            left = in_words(reached.seconds)
            how_far = f" ({100 * reached.share:.0f} %{', ' if left else ''}{left})" if stages else ""
            screen.say(f"{stage}: done{how_far if reached.share < 1 else ''}")

    return tell


def complain(text: str) -> None:
    """Print an error on standard error, without markup or control characters."""
    console: Any = Console(file=sys.stderr, highlight=False, emoji=False, stderr=True)
    console.print(Text(safe(text, lines=True)), soft_wrap=True)
