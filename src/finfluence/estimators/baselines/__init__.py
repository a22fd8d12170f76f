"""Cheap scores of rows that every detector of wrong labels must stand beside: larger is more suspect."""

from finfluence.estimators.baselines._cleanlab import Cleanlab, cleanlab_score
from finfluence.estimators.baselines._gradient_norm import GradientNorm
from finfluence.estimators.baselines._margin import Margin, margin_score
from finfluence.estimators.baselines._own_loss import OwnLoss, loss_score
from finfluence.estimators.baselines._random import Random, RandomOptions, random_score
from finfluence.estimators.baselines._row_score import RowScore, RowScoreOptions

__all__ = [
    "Cleanlab",
    "GradientNorm",
    "Margin",
    "OwnLoss",
    "Random",
    "RandomOptions",
    "RowScore",
    "RowScoreOptions",
    "cleanlab_score",
    "loss_score",
    "margin_score",
    "random_score",
]
