"""Scores that cost nothing: loss, margin, chance, and cleanlab."""

from finfluence.estimators.baselines._scores import cleanlab_score, loss_score, margin_score, random_score

__all__ = ["cleanlab_score", "loss_score", "margin_score", "random_score"]
