"""One step of training differentiated: exactly, by finite differences, over processes."""

from finfluence.estimators.derivatives._exact import Adjoint, adjoint_of
from finfluence.estimators.derivatives._finite_difference import FiniteDifference
from finfluence.estimators.derivatives._select import (
    DIFFERENTIATIONS,
    Choice,
    Differentiation,
    Pass,
    choose_pass,
)
from finfluence.estimators.derivatives._sharded_rows import SharedRows, by_rows, shares

__all__ = [
    "DIFFERENTIATIONS",
    "Adjoint",
    "Choice",
    "Differentiation",
    "FiniteDifference",
    "Pass",
    "SharedRows",
    "adjoint_of",
    "by_rows",
    "choose_pass",
    "shares",
]
