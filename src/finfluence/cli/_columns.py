"""How the columns of a table are read, on the terminal."""

from typing import Any

from finfluence.cli._screen import Screen


def show_columns(screen: Screen, decisions: Any) -> None:
    """Print one line a column: how it is read, how many cells are lost, what it is used as, what to know."""
    shares = ("missing", "unreadable", "holdout_lost")
    rows = [
        [
            line["column"],
            line["read_as"],
            line["format"],
            *(f"{100 * line[share]:.3g} %" if line[share] else "" for share in shares),
            line["used_as"],
            line["note"],
        ]
        for line in decisions.to_dict("records")
    ]
    columns = [
        ("column", False),
        ("read as", False),
        ("format", False),
        ("missing", True),
        ("unreadable", True),
    ]
    screen.table([*columns, ("lost in hold-out", True), ("used as", False), ("note", False)], rows)
