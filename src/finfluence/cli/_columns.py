"""How the columns of a table are read, on the terminal."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args

import typer

from finfluence.cli._screen import Screen

_HELP = "Print how each column is read, and stop; needs no --out."
_SHARES = ("missing", "unreadable", "holdout_lost")


def with_columns(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that `takes` options the flag `--columns`, beside which `--out` may be left out.

    Returns
    -------
    Callable[..., None]
    """
    parameters = dict(inspect.signature(command).parameters)
    kind, option = get_args(parameters["out"].annotation)
    parameters["out"] = parameters["out"].replace(annotation=Annotated[kind | None, option], default=None)
    parameters["columns"] = inspect.Parameter(
        "columns",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option("--columns", help=_HELP)],
    )
    command.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    command.__annotations__ = {name: one.annotation for name, one in parameters.items()}
    return command


def show_columns(screen: Screen, given: Mapping[str, Any]) -> None:
    """Print one line a column: how it is read, how many cells are lost, what it is used as, what to know."""
    from finfluence.ingest import column_decisions

    names = ("source", "target", "id_column", "group_column", "holdout")
    decisions = column_decisions(*(given[name] for name in names))
    rows = [
        [
            line["column"],
            line["read_as"],
            line["format"],
            *(f"{100 * line[share]:.3g} %" if line[share] else "" for share in _SHARES),
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
