"""One recording from the processes of a distributed training: each names its own rows, all of them make the step.

The step of a loop under DistributedDataParallel or fully_shard descends the mean of the processes' losses,

    g_t = (1/R) Σ_r g_{t,r},

so that it is a step of R·M micro-batches, those of each process with its weights over R. Rows, weights and random
states are exchanged in `gather`. Under DistributedDataParallel states are the same everywhere, and every process keeps
its own; under fully_shard it keeps its part of each, and `gather` makes them whole.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from finfluence.distributed import Processes
from finfluence.errors import DataError, TrainingError, explain
from finfluence.runs.record._recorder import Recorder, ReferenceSample
from finfluence.runs.record.sharded import Shards
from finfluence.runs.steps import Entry, entries_of, tensors_of


def underlying(model: nn.Module) -> nn.Module:
    """Return the model that DistributedDataParallel wraps, or the model itself."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def gather(recorder: Recorder, processes: Processes) -> None:
    """Exchange what the processes recorded; afterwards every one holds the steps of all.

    Raises
    ------
    TrainingError
        A process could not record, or took its steps with other options.
    DataError
        A process took other steps than the others.
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
    if recorder.shards is not None:
        _make_whole(recorder, recorder.shards, processes)


def _make_whole(recorder: Recorder, shards: Shards, processes: Processes) -> None:
    """Put states and references together from the parts of all processes."""
    recording, layout = recorder.recording, recorder.layout
    recorder.finish()
    told = {"as left": torch.tensor(recorder.as_left), "has_grad": torch.tensor(recording.has_grad)}
    found = processes.gathered(told)
    recorder.as_left = all(bool(part["as left"]) for part in found)
    if not recorder.as_left:
        recorder.states.forget_after(recorder.steps - 1)
    recording.has_grad = torch.stack([part["has_grad"] for part in found]).any(0).tolist()
    processes.agree("kept states", repr(recorder.states.steps))
    recorder.states = recorder.states.widened(shards.whole_width, recorder.folder, shards.whole)
    seen = {"places": shards.places(recorder.coordinates)}
    for t, reference in recorder.references.items():
        parts = {
            "gradient": reference.gradient,
            "norm": reference.norm,
            "after": reference.after,
            "later": reference.later,
        }
        seen.update({f"{t}/{name}": part for name, part in parts.items() if part is not None})
    every = processes.gathered(seen)

    def joined(name: str) -> Tensor:
        return torch.cat([part[name] for part in every]).to(layout.device)

    recorder.coordinates = joined("places")
    for t, reference in recorder.references.items():
        norms = torch.stack([part[f"{t}/norm"] for part in every])
        later = None if reference.later is None else joined(f"{t}/later")
        recorder.references[t] = ReferenceSample(
            joined(f"{t}/gradient"), norms.norm(), joined(f"{t}/after"), later
        )
    recording.model.to(layout.device)


def _union(entries: tuple[Entry, ...]) -> Entry:
    """Return the step that all processes made together."""
    count = len(entries)
    return Entry(
        entries[0].numbers,
        [rows for e in entries for rows in e.rows],
        tuple(w / count for e in entries for w in e.weights),
        [state for e in entries for state in e.random],
        [batch for e in entries for batch in e.batches],
        [
            part
            for e in entries
            for part in np.split(e.of_rows / count, np.cumsum([len(r) for r in e.rows])[:-1])
        ]
        if any(len(e.shares) for e in entries)
        else [],
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
