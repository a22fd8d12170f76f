"""The command line: `finfluence scan`, `clean`, `show`, `verify`, `demo`."""

from finfluence.cli._app import app, main
from finfluence.cli._screen import Screen, safe

__all__ = ["Screen", "app", "main", "safe"]
