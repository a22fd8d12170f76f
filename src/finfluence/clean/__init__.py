"""From influence to decisions with an error rate, and from decisions to a cleaned file with an audit."""

from finfluence.clean._decide import Decisions, decide
from finfluence.clean._formulas import formula_like, neutralise, neutralised
from finfluence.clean._plan import Action, Cleaned, apply
from finfluence.clean._write import Written, write_clean

__all__ = [
    "Action",
    "Cleaned",
    "Decisions",
    "Written",
    "apply",
    "decide",
    "formula_like",
    "neutralise",
    "neutralised",
    "write_clean",
]
