"""One step of training differentiated: exactly, by finite differences, over processes."""

from finfluence.estimators.derivatives._check import dear
from finfluence.estimators.derivatives._checked import DifferentGradientError
from finfluence.estimators.derivatives._choice import Choice
from finfluence.estimators.derivatives._exact import Adjoint, adjoint_of, each, pulled_back
from finfluence.estimators.derivatives._finite_difference import FiniteDifference
from finfluence.estimators.derivatives._one_sided import OneSided
from finfluence.estimators.derivatives._protocol import Known, StepAdjoint
from finfluence.estimators.derivatives._query_gradients import checked_values, query_gradients
from finfluence.estimators.derivatives._row_gradients import RowGradients
from finfluence.estimators.derivatives._select import (
    DIFFERENTIATIONS,
    Differentiation,
    choose_adjoint,
    exact_choice,
)
from finfluence.estimators.derivatives._sharded_rows import ShardedRows, by_rows, shares
from finfluence.estimators.derivatives._transposed import TransposedAdjoint

__all__ = [
    "DIFFERENTIATIONS",
    "Adjoint",
    "Choice",
    "DifferentGradientError",
    "Differentiation",
    "FiniteDifference",
    "Known",
    "OneSided",
    "RowGradients",
    "ShardedRows",
    "StepAdjoint",
    "TransposedAdjoint",
    "adjoint_of",
    "by_rows",
    "checked_values",
    "choose_adjoint",
    "dear",
    "each",
    "exact_choice",
    "pulled_back",
    "query_gradients",
    "shares",
]
