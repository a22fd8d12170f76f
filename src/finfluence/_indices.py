"""Two tables with an index that meet: whether their rows are the same ones, in the same order."""

import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

from finfluence.errors import DataError, explain


def same_rows(**given: Any) -> None:
    """Refuse pandas objects that name the same rows in different orders; warn where they name other rows.

    What has no index goes by position, and so does what is of another length, which the caller refuses.

    Parameters
    ----------
    **given
        Name of an argument -> what was passed.

    Raises
    ------
    DataError
        Two indices hold the same labels in different orders.

    Examples
    --------
    >>> import pandas as pd
    >>> same_rows(x=pd.DataFrame({"a": [1, 2]}), y=pd.Series([0, 1]), groups=["s", "t"])
    """
    for note in notes_of_rows(given):
        warnings.warn(note, stacklevel=3)


def notes_of_rows(given: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each pandas object whose index names other rows than the first one's.

    Returns
    -------
    list[str]

    Raises
    ------
    DataError
        As of `same_rows`.

    Examples
    --------
    >>> import pandas as pd
    >>> cut = pd.Series([1, 2], index=[7, 3])
    >>> notes_of_rows({"x": cut, "y": pd.Series([0, 1])})
    ['y goes by position: its index names other rows than that of x (at position 0: 0 beside 7)']
    """
    indexed = {name: value.index for name, value in given.items() if hasattr(value, "iloc")}
    notes: list[str] = []
    for name, index in list(indexed.items())[1:]:
        first = next(iter(indexed))
        if len(index) != len(indexed[first]) or index.equals(indexed[first]):
            continue
        ours, theirs = indexed[first].tolist(), index.tolist()
        at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), 0)
        if Counter(ours) == Counter(theirs):
            raise DataError(
                explain(
                    f"{name} in the order of the rows of {first}",
                    f"an index of the same labels in another order: at position {at} it is {theirs[at]!r} in {name} "
                    f"and {ours[at]!r} in {first}",
                    "one of the two was shuffled, sorted or counted anew after they were parted",
                    f"pass {name}.loc[{first}.index] if the index names the rows, {name}.to_numpy() if they already "
                    "stand in one order",
                )
            )
        notes.append(
            f"{name} goes by position: its index names other rows than that of {first} (at position {at}: "
            f"{theirs[at]!r} beside {ours[at]!r})"
        )
    return notes
