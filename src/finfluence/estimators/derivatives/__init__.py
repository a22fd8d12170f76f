"""One step of training differentiated: exactly, by finite differences, over processes."""

from finfluence.estimators.derivatives._exact import Adjoint, adjoint_of
from finfluence.estimators.derivatives._finite_difference import FiniteDifference
from finfluence.estimators.derivatives._protocol import StepAdjoint
from finfluence.estimators.derivatives._select import (
    DIFFERENTIATIONS,
    Choice,
    Differentiation,
    choose_adjoint,
)
from finfluence.estimators.derivatives._sharded_rows import ShardedRows, by_rows, shares

__all__ = [
    "DIFFERENTIATIONS",
    "Adjoint",
    "Choice",
    "Differentiation",
    "FiniteDifference",
    "ShardedRows",
    "StepAdjoint",
    "adjoint_of",
    "by_rows",
    "choose_adjoint",
    "shares",
]
