"""One recording from the processes of a distributed training: each names its own rows, all of them make the step.

The step of a loop under DistributedDataParallel descends the mean of the processes' losses,

    g_t = (1/R) Σ_r g_{t,r},

so that it is a step of R·M micro-batches, those of each process with its weights over R. Parameters and optimiser are
the same everywhere, and every process keeps its own states; rows, weights and random states are exchanged in `gather`.
"""

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from finfluence.errors import DataError, NotSupportedError, TrainingError, explain
from finfluence.runs._processes import Processes
from finfluence.runs._recorder import Recorder
from finfluence.runs._step_log import Entry, entries_of, tensors_of


def underlying(model: nn.Module) -> nn.Module:
    """Return the model that DistributedDataParallel wraps, or the model itself.

    Raises
    ------
    NotSupportedError
        Parameters are sharded over processes.
    """
    if isinstance(model, DistributedDataParallel):
        model = model.module
    for name, parameter in model.named_parameters():
        if hasattr(parameter, "device_mesh") or type(parameter).__name__ == "FlatParameter":
            raise NotSupportedError(
                explain(
                    "parameters that every process holds in full",
                    f"'{name}' sharded over processes ({type(parameter).__name__})",
                    "the model was passed through fully_shard, FullyShardedDataParallel or tensor parallelism",
                    "train with DistributedDataParallel, or in one process",
                )
            )
    return model


def gather(recorder: Recorder, processes: Processes) -> None:
    """Exchange what the processes recorded; afterwards every one holds the steps of all.

    Raises
    ------
    TrainingError, DataError
        A process could not record, took other steps than the others, or with other options.
    """
    problem: Exception | None = None
    try:
        recorder.ready()
    except Exception as error:  # told to the others first, who would wait for ever
        problem = error
    failed = processes.gathered({"failed": torch.tensor([problem is not None, recorder.steps == 0])})
    if problem is not None:
        raise problem
    for rank, told in enumerate(failed):
        if bool(told["failed"].any()):
            raise TrainingError(
                explain(
                    f"a recording of every one of {processes.size} processes",
                    f"none of process {rank}",
                    "its loop was refused, with a message of its own, or took no step",
                    "read the message of that process",
                )
            )
    recording = recorder.recording
    found = processes.gathered(tensors_of(recording.entries, 0))
    _check(found)
    parts = [entries_of(tensors, 0) for tensors in found]
    recording.entries[:] = [_union(entries) for entries in zip(*parts, strict=True)]
    buffers = {f"{k}": b for k, b in enumerate(recorder.model.buffers())}
    kept = processes.shared(buffers if processes.rank == 0 else None, 0)
    recorder.last_buffers = [kept[f"{k}"] for k in range(len(kept))]


def _union(entries: tuple[Entry, ...]) -> Entry:
    """Return the step that all processes made together."""
    count = len(entries)
    return Entry(
        entries[0].numbers,
        [rows for e in entries for rows in e.rows],
        tuple(w / count for e in entries for w in e.weights),
        [state for e in entries for state in e.random],
        [batch for e in entries for batch in e.batches],
    )


def _check(found: list[dict[str, Tensor]]) -> None:
    """Raise unless all processes took the same number of steps with the same options."""
    steps = [len(tensors["numbers"]) for tensors in found]
    if len(set(steps)) > 1:
        raise DataError(
            explain(
                "as many steps in every process",
                f"{', '.join(map(str, steps))} steps",
                "loaders of different length, or tape.step left out in a process",
                "give every process as many batches (a DistributedSampler does), and call tape.step in all of them",
            )
        )
    for rank, tensors in enumerate(found):
        if not torch.equal(tensors["numbers"], found[0]["numbers"]):
            t = int((tensors["numbers"] != found[0]["numbers"]).flatten(1).any(1).nonzero()[0])
            raise TrainingError(
                explain(
                    "the same options of the optimiser in every process",
                    f"others in process {rank} than in process 0, first at step {t}",
                    "a scheduler that follows a process's own loss, or another learning rate in each",
                    "let every process take the same options, for instance from the mean of all losses",
                )
            )
