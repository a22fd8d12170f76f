"""A new label is written the way the source itself writes that label."""

from collections.abc import Iterable
from typing import Any

import numpy as np


def spell(label: Any, existing: Iterable[Any]) -> Any:
    """Return the value of `existing` that means `label`: the same text, else the same number; else the label.

    Returns
    -------
    object
        A Python value, never a NumPy scalar; of several that mean the same number, the first.

    Examples
    --------
    >>> spell(3.0, ["1", "3"]), spell("dog", ["cat"]), spell(1, np.array([0, 1]))
    ('3', 'dog', 1)
    """
    label = label.item() if isinstance(label, np.generic) else label
    number = _number(label)
    alike = None
    for value in existing:
        value = value.item() if isinstance(value, np.generic) else value
        if str(value) == str(label):
            return value
        if alike is None and number is not None and _number(value) == number:
            alike = value
    return label if alike is None else alike


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
