"""Every way to estimate influence, by family."""

from finfluence.estimators._base import (
    AbstractEstimator,
    Cost,
    Source,
    Support,
    check_whole,
    option_docs,
)

__all__ = ["AbstractEstimator", "Cost", "Source", "Support", "check_whole", "option_docs"]
