"""Estimators from values of losses alone: rows are evaluated, and never differentiated."""

from finfluence.estimators.forward_only._mirrored import Mirrored, MirroredOptions
from finfluence.estimators.forward_only._z0_inf import StatePath, Z0Inf, Z0InfOptions, adjacent, neighbourhood

__all__ = ["Mirrored", "MirroredOptions", "StatePath", "Z0Inf", "Z0InfOptions", "adjacent", "neighbourhood"]
