"""Describe a training and run it: rows, recipe, queries, tape."""

from finfluence.distributed import Processes, Together
from finfluence.runs.checkpoints import read_tensors
from finfluence.runs.describe import (
    SCHEDULES,
    AnyQuery,
    DatasetRows,
    Query,
    Recipe,
    Rows,
    RowSource,
    Task,
    as_rows,
    check_queries,
    each_loss,
    gradients,
    mean_loss,
    own_loss,
)
from finfluence.runs.describe.optimizers import SGD, Adam, AdamW, Optimizer
from finfluence.runs.steps import Step, Stepper, Update, initial_model, seeded, step_seed
from finfluence.runs.tape import Tape, spacing_for, train

__all__ = [
    "SCHEDULES", "SGD", "Adam", "AdamW", "AnyQuery", "DatasetRows", "Optimizer", "Processes", "Query", "Recipe",
    "RowSource", "Rows", "Step", "Stepper", "Tape", "Task", "Together", "Update", "as_rows", "check_queries",
    "each_loss", "gradients", "initial_model", "mean_loss", "own_loss", "read_tensors", "seeded", "spacing_for",
    "step_seed", "train",
]  # fmt: skip
