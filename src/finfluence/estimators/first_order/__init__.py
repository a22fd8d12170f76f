"""Estimators that multiply gradients and follow no step further."""

from finfluence.estimators.first_order._fine import Fine, FineOptions, step_influence
from finfluence.estimators.first_order._fine_monte_carlo import FineMonteCarlo, FineMonteCarloOptions, arms
from finfluence.estimators.first_order._gradient_cosine import GradientCosine
from finfluence.estimators.first_order._gradient_dot import GradientDot, GradientDotOptions
from finfluence.estimators.first_order._in_run import InRun, InRunOptions
from finfluence.estimators.first_order._in_run_shapley import (
    InRunShapley,
    InRunShapleyOptions,
    step_values,
)
from finfluence.estimators.first_order._less import Less, LessOptions
from finfluence.estimators.first_order._tracin import TracIn, TracInOptions

__all__ = [
    "Fine",
    "FineMonteCarlo",
    "FineMonteCarloOptions",
    "FineOptions",
    "GradientCosine",
    "GradientDot",
    "GradientDotOptions",
    "InRun",
    "InRunOptions",
    "InRunShapley",
    "InRunShapleyOptions",
    "Less",
    "LessOptions",
    "TracIn",
    "TracInOptions",
    "arms",
    "step_influence",
    "step_values",
]
