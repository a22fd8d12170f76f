"""Every way to estimate influence, by family."""

from finfluence.estimators._base import (
    AbstractEstimator,
    Cost,
    Source,
    Support,
    check_choice,
    check_number,
    check_whole,
    option_docs,
)
from finfluence.estimators._estimate import (
    METHODS,
    Method,
    estimate,
    method_class,
    methods,
    methods_table,
    supporting,
)

__all__ = [
    "METHODS",
    "AbstractEstimator",
    "Cost",
    "Method",
    "Source",
    "Support",
    "check_choice",
    "check_number",
    "check_whole",
    "estimate",
    "method_class",
    "methods",
    "methods_table",
    "option_docs",
    "supporting",
]
