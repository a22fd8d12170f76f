"""The command line: `finfluence scan`, `clean`, `show`, `verify`, `demo`."""

from finfluence.cli._app import main

__all__ = ["main"]
