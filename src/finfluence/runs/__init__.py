"""Describe a training and run it: rows, recipe, queries, tape."""

from finfluence.runs._optimizers import SGD, Adam, AdamW, Optimizer
from finfluence.runs._processes import Processes, Together
from finfluence.runs._queries import AnyQuery, Query, check_queries, each_loss, gradients, mean_loss, own_loss
from finfluence.runs._recipe import SCHEDULES, Recipe
from finfluence.runs._rows import DatasetRows, Rows, RowSource, as_rows
from finfluence.runs._snapshots import read_tensors
from finfluence.runs._stepper import Stepper, initial_model, seeded, step_seed
from finfluence.runs._steps import Step, Task, Update
from finfluence.runs._tape import Tape
from finfluence.runs._train import spacing_for, train

__all__ = [
    "SCHEDULES", "SGD", "Adam", "AdamW", "AnyQuery", "DatasetRows", "Optimizer", "Processes", "Query", "Recipe",
    "RowSource", "Rows", "Step", "Stepper", "Tape", "Task", "Together", "Update", "as_rows", "check_queries",
    "each_loss", "gradients", "initial_model", "mean_loss", "own_loss", "read_tensors", "seeded", "spacing_for",
    "step_seed", "train",
]  # fmt: skip
