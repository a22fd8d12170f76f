"""Small results made by hand, one of each kind."""

from typing import Any

import numpy as np

from finfluence.result import Influence, Provenance

MADE = Provenance(method="example", runs=1, covers=("batch order",), n_rows=4)
LABELS: dict[str, Any] = {
    "subsets": ["a", "b", "c", "d"], "queries": ["held-out", "accuracy"], "units": ["nats", "share"], "signs": [-1, 1],
    "own_loss": [0.1, 3.0, 0.2, 2.0],
}  # fmt: skip
VALUES = np.array([[2.0, 1.0], [-1.0, -2.0], [0.0, 0.5], [-4.0, 0.0]])


def scores(**changes: Any) -> Influence:
    return Influence.build(**{"score": VALUES, "provenance": MADE, **LABELS, **changes})


def mu_alone(**changes: Any) -> Influence:
    return Influence.build(**{"mu": VALUES, "provenance": MADE, **LABELS, **changes})


def effects(**changes: Any) -> Influence:
    one = np.ones_like(VALUES)
    given = {"effect": VALUES, "spread": one, "se": 0.3 * one, "p_value": 0.5 * one}
    return Influence.build(**{**given, "provenance": MADE, **LABELS, **changes})
