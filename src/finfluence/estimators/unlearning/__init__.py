"""Estimators that unlearn: steps from the end of a run that raise a loss."""

from finfluence.estimators.unlearning._ascent import AscentOptions
from finfluence.estimators.unlearning._untrac import UnTrac, UnTracInv

__all__ = ["AscentOptions", "UnTrac", "UnTracInv"]
