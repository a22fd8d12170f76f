"""Estimators that multiply gradients and follow no step further."""

from finfluence.estimators.first_order._fine import Fine, FineOptions, step_influence
from finfluence.estimators.first_order._fine_monte_carlo import FineMonteCarlo, FineMonteCarloOptions, arms
from finfluence.estimators.first_order._gradient_cosine import GradientCosine
from finfluence.estimators.first_order._gradient_dot import GradientDot, GradientDotOptions

__all__ = [
    "Fine",
    "FineMonteCarlo",
    "FineMonteCarloOptions",
    "FineOptions",
    "GradientCosine",
    "GradientDot",
    "GradientDotOptions",
    "arms",
    "step_influence",
]
