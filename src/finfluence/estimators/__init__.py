"""Estimators of influence: replay of one run, retraining of many."""

from finfluence.estimators._batched import RunSpec
from finfluence.estimators._parallel import one_thread
from finfluence.estimators._plan import Forecast, plan
from finfluence.estimators._replay import final_losses, replay
from finfluence.estimators._retrain import retrain
from finfluence.estimators._train_many import ManyRuns, final_models, train_many
from finfluence.estimators._until import Precision, se

__all__ = [
    "Forecast",
    "ManyRuns",
    "Precision",
    "RunSpec",
    "final_losses",
    "final_models",
    "one_thread",
    "plan",
    "replay",
    "retrain",
    "se",
    "train_many",
]
