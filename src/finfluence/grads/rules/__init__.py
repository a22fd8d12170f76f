"""Layers whose row gradients are sums of products of what goes in and what comes back: one rule a family."""

from finfluence.grads.rules._layers import RULES, Rule, is_linear_map, is_transposed, rule_of
from finfluence.grads.rules._terms import Flat, Gathered, Outer, Term

__all__ = [
    "RULES",
    "Flat",
    "Gathered",
    "Outer",
    "Rule",
    "Term",
    "is_linear_map",
    "is_transposed",
    "rule_of",
]
