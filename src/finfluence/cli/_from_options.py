"""A command from an options class: its parameters are the fields, so that no option is written down twice."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from types import UnionType
from typing import Annotated, Any, get_args, get_type_hints

import typer

from finfluence.jobs import flag_of

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the verdict only.")]


def takes(options: type, **further: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that lets typer see the fields of `options` as the parameters of a command.

    Parameters
    ----------
    options
        A dataclass whose fields were made by `finfluence.jobs._options.option`.
    further
        Annotated parameters that come before those of the options; a switch (bool) is off unless typed.

    Returns
    -------
    Callable[[Callable[..., None]], Callable[..., None]]
    """

    def shown(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(options)
        parameters = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=annotation,
                default=False if get_args(annotation)[:1] == (bool,) else inspect.Parameter.empty,
            )
            for name, annotation in further.items()
        ]
        parameters += [_parameter(one, hints[one.name]) for one in fields(options)]
        quiet = inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, annotation=Quiet, default=False)
        signature = inspect.Signature([*parameters, quiet])
        command.__signature__ = signature  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        return command

    return shown


def _parameter(one: Field[Any], hint: Any) -> inspect.Parameter:
    flag, shown = flag_of(one), one.metadata["shown"]
    several = isinstance(one.default, tuple)
    typed = one.metadata["typed"] or (list[str] if several else _first(hint))
    optional = one.default is None or several
    kind: Any = (
        typer.Argument(help=one.metadata["help"])
        if flag is None
        else typer.Option(flag, help=one.metadata["help"], show_default=True if shown is None else shown)
    )
    default = inspect.Parameter.empty if one.default is MISSING else None if several else one.default
    annotation = Annotated[typed | None if optional else typed, kind]  # type: ignore[valid-type]
    return inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _first(hint: Any) -> Any:
    """Return the type that is typed: the first of a union."""
    return get_args(hint)[0] if isinstance(hint, UnionType) else hint
