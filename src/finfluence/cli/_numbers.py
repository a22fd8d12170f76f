"""Numbers as they are typed."""

from finfluence.errors import ConfigError, explain


def number(text: str | None, option: str) -> float | None:
    """Return the number that was typed for an option.

    Returns
    -------
    float | None

    Raises
    ------
    ConfigError
        It is none.

    Examples
    --------
    >>> number("16", "--budget")
    16.0
    """
    try:
        return None if text is None else float(text)
    except ValueError:
        raise ConfigError(
            explain(
                f"{option} to be a number of training runs, such as 16",
                repr(text),
                "a time or a unit was typed (only finfluence verify takes a time)",
                "give the number alone: 16 is the time of sixteen trainings",
            )
        ) from None
