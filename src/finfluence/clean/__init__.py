"""From influence to decisions with an error rate, and from decisions to a cleaned file with an audit."""

from finfluence.clean._decide import (
    COLUMNS,
    DecisionOptions,
    Decisions,
    Predictions,
    decide,
    decide_influence,
)
from finfluence.clean._formulas import formula_like, neutralise, neutralised
from finfluence.clean._plan import AUDIT_COLUMNS, Action, Cleaned, apply
from finfluence.clean._rule import RULE, act
from finfluence.clean._write import CleanOptions, Layout, Written, write_clean

__all__ = [
    "AUDIT_COLUMNS",
    "COLUMNS",
    "RULE",
    "Action",
    "CleanOptions",
    "Cleaned",
    "DecisionOptions",
    "Decisions",
    "Layout",
    "Predictions",
    "Written",
    "act",
    "apply",
    "decide",
    "decide_influence",
    "formula_like",
    "neutralise",
    "neutralised",
    "write_clean",
]
