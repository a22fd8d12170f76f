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
    query_values,
)
from finfluence.runs.describe.optimizers import SGD, Adam, AdamW, Optimizer
from finfluence.runs.steps import (
    Step,
    Stepper,
    Steps,
    Update,
    check_unchanged,
    initial_model,
    seeded,
    step_seed,
)
from finfluence.runs.tape import Tape, TapeRecorder, dry_run, finished, interval_for, train

__all__ = [
    "SCHEDULES", "SGD", "Adam", "AdamW", "AnyQuery", "DatasetRows", "Optimizer", "Processes", "Query", "Recipe",
    "RowSource", "Rows", "Step", "Stepper", "Steps", "Tape", "TapeRecorder", "Task", "Together", "Update", "as_rows",
    "check_queries", "check_unchanged", "dry_run", "each_loss", "finished", "gradients", "initial_model",
    "interval_for", "mean_loss", "own_loss", "query_values", "read_tensors", "seeded", "step_seed", "train",
]  # fmt: skip
