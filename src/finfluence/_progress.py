"""Progress for long work: a callable the caller may pass; silent by default."""

from typing import Protocol


class Progress(Protocol):
    """Called as `progress(stage, done, total)`; `done == total` ends the stage."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far `stage` has come."""


def silent(stage: str, done: int, total: int) -> None:
    """Show nothing."""
