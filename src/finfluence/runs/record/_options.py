"""What `Tape.record` is told of a loop beside model, optimiser, loss and data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from finfluence.distributed import Processes
from finfluence.runs.steps import Clipping, Parameters, Sampling


@dataclass(frozen=True)
class RecordOptions:
    """Options of a recording; see `Tape.record`."""

    parameters: Parameters
    collate: Callable[[list[Any]], Any] | None
    clipping: Clipping
    scaler: object
    sampling: Sampling
    snapshot_bytes: int
    processes: Processes
    resume_at: int | None = None
