"""Look a name up among known ones, and help when it is not there."""

import difflib
from collections.abc import Sequence

from finfluence.errors import ConfigError, explain


def one_of(name: str, known: Sequence[str], kind: str) -> str:
    """Return `name` if it is among `known`.

    Returns
    -------
    str

    Raises
    ------
    ConfigError
        It is not; the nearest known name is suggested.
    """
    if name in known:
        return name
    near = difflib.get_close_matches(str(name), known, n=1)
    listed = ", ".join(repr(k) for k in known[:12]) + (" …" if len(known) > 12 else "")
    raise ConfigError(
        explain(
            f"a {kind} among {listed}",
            repr(name),
            "a mistyped name",
            f"did you mean {near[0]!r}?" if near else "use one of the names listed",
        )
    )
