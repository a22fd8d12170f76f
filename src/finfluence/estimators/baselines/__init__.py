"""Cheap scores of rows that every detector of wrong labels must stand beside: larger is more suspect."""

from finfluence.estimators.baselines._along_the_run import (
    AlongTheRunOptions,
    Forgetting,
    MeanLoss,
    forgetting_events,
)
from finfluence.estimators.baselines._cleanlab import Cleanlab, cleanlab_score
from finfluence.estimators.baselines._gradient_norm import GradientNorm
from finfluence.estimators.baselines._margin import Margin, margin_score
from finfluence.estimators.baselines._neighbours import (
    Neighbours,
    NeighboursOptions,
    disagreement,
    representation,
)
from finfluence.estimators.baselines._own_loss import OwnLoss, loss_score
from finfluence.estimators.baselines._random import Random, RandomOptions, random_score
from finfluence.estimators.baselines._row_score import RowScore, RowScoreOptions

__all__ = [
    "AlongTheRunOptions",
    "Cleanlab",
    "Forgetting",
    "GradientNorm",
    "Margin",
    "MeanLoss",
    "Neighbours",
    "NeighboursOptions",
    "OwnLoss",
    "Random",
    "RandomOptions",
    "RowScore",
    "RowScoreOptions",
    "cleanlab_score",
    "disagreement",
    "forgetting_events",
    "loss_score",
    "margin_score",
    "random_score",
    "representation",
]
