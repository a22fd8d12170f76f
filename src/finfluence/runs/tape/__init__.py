"""The tape of one training run, and training that leaves one."""

from finfluence.runs.tape._affordable_rows import affordable_rows
from finfluence.runs.tape._cache import Cache, Key
from finfluence.runs.tape._dry_run import dry_run
from finfluence.runs.tape._final_losses import final_losses
from finfluence.runs.tape._finished import finished
from finfluence.runs.tape._tape import Tape, TapeRecorder
from finfluence.runs.tape._train import interval_for, train

__all__ = [
    "Cache",
    "Key",
    "Tape",
    "TapeRecorder",
    "affordable_rows",
    "dry_run",
    "final_losses",
    "finished",
    "interval_for",
    "train",
]
