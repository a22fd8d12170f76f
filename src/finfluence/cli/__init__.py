"""The command line: `finfluence scan`, `clean`, `show`, `verify`, `demo`."""

from finfluence.cli._app import app, main
from finfluence.cli._screen import safe

__all__ = ["app", "main", "safe"]
