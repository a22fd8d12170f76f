"""Libraries of the extras: imported where they are first needed, or a message that says which extra brings them."""

from importlib import import_module
from typing import Any

from finfluence.errors import ConfigError, explain


def require(module: str, purpose: str, extra: str, instead: str = "") -> Any:
    """Import a library that an extra brings.

    Parameters
    ----------
    module
        "sklearn.ensemble".
    purpose
        What it is there for, after "which": "encodes categories".
    extra
        The extra of finfluence that holds it.
    instead
        What the user can do without it, after "or": "pass executor='serial'".

    Returns
    -------
    module

    Raises
    ------
    ConfigError
        It cannot be imported.

    Examples
    --------
    >>> require("json", "writes text", "data").dumps([1])
    '[1]'
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(missing(module.split(".")[0], purpose, extra, error, instead)) from error


def missing(library: str, purpose: str, extra: str, error: ImportError, instead: str = "") -> str:
    """Return the message of `require`, for modules that import a library at their top."""
    return explain(
        f"the library {library!r}, which {purpose}",
        f"it cannot be imported ({str(error).splitlines()[0]})",
        f"finfluence was installed without its extra {extra!r}",
        f"pip install 'finfluence[{extra}]'" + (f", or {instead}" if instead else ""),
    )
