"""Exceptions named by what the user can do next; a message says expected, got, likely cause, next step."""


class FinfluenceError(Exception):
    """Base of every error this package raises on purpose."""


class DataError(FinfluenceError):
    """The data cannot be used as it is: change the data (or the option that names it)."""


class ConfigError(FinfluenceError):
    """An argument or option cannot be used: change the argument."""


class TrainingError(FinfluenceError):
    """The training went wrong (NaN loss, divergence): change the recipe."""


class NotSupportedError(FinfluenceError):
    """The model or optimiser is outside what can be measured: replace the part that is named."""


class StorageError(FinfluenceError):
    """A file or folder is missing, foreign, truncated or cannot be written."""


def explain(expected: str, got: str, cause: str, next_step: str) -> str:
    """Format the four parts of a message in the one order used everywhere."""
    return f"expected {expected}\n  got: {got}\n  likely cause: {cause}\n  next step: {next_step}"
