"""All that is settled before the first backward pass of a replay."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from finfluence._clock import clock
from finfluence._files import digest
from finfluence.distributed import Processes
from finfluence.estimators.derivatives import Choice, by_rows, choose_adjoint, shares
from finfluence.estimators.replay._asked import AskedQueries
from finfluence.estimators.replay._candidates import Candidates
from finfluence.estimators.replay._options import ReplayOptions
from finfluence.estimators.replay._recomputed_states import RecomputedStates, remove_left_over
from finfluence.estimators.replay._schedule import RowSchedule, RunShape
from finfluence.estimators.replay._tail import tail_steps
from finfluence.estimators.replay._truncation import TruncationRule, truncation_for
from finfluence.estimators.replay.cost import (
    Allocation,
    MemorySplit,
    StateSizes,
    Timings,
    Workload,
    allocate,
    allocation_from,
    fitted_memory,
    measure,
    remembered,
)
from finfluence.runs import Tape

AGREED = "tape, queries and options of replay"


@dataclass(frozen=True, eq=False)
class Sharing:
    """How processes share a replay.

    Parameters
    ----------
    processes : Processes
        Who works on it.
    by_rows : bool
        Whether on the same backward passes; else each makes those of its own queries.
    """

    processes: Processes
    by_rows: bool

    def queries_of_one(self, queries: int) -> int:
        """Return how many of the queries one process follows, at most."""
        return queries if self.by_rows else -(-queries // self.processes.size)


@dataclass(frozen=True, eq=False)
class Context:
    """What a replay works with.

    Parameters
    ----------
    tape : Tape
    asked : AskedQueries
    derivative : Choice
        How steps are differentiated, and why so.
    schedule : RowSchedule
    truncation : TruncationRule
    allocation : Allocation or None
        What a budget was turned into.
    memory : MemorySplit
        Queries of one backward pass, and room for states.
    states : RecomputedStates
        Of all passes.
    sharing : Sharing
    candidates : Candidates or None
        Rows whose addition is asked about.
    folder : Path or None
        Where progress is saved.
    notes : list of str
        Filled on the way: what a reader should know.
    """

    tape: Tape
    asked: AskedQueries
    derivative: Choice
    schedule: RowSchedule
    truncation: TruncationRule
    allocation: Allocation | None
    memory: MemorySplit
    states: RecomputedStates
    sharing: Sharing
    candidates: Candidates | None
    folder: Path | None
    notes: list[str] = field(default_factory=list)

    def chunks(self) -> list[list[range]]:
        """Return the columns of the queries that share a backward pass, of each process that works by itself."""
        count, size = len(self.asked), self.memory.together
        parts = [range(count)] if self.sharing.by_rows else shares(count, self.sharing.processes.size)
        return [[part[k : k + size] for k in range(0, len(part), size)] for part in parts]


def prepare(
    tape: Tape,
    asked: AskedQueries,
    options: ReplayOptions,
    candidates: Candidates | None,
    overhead: Callable[[], float],
) -> Context:
    """Choose how steps are differentiated, divide the work and the memory, and allocate a budget.

    Parameters
    ----------
    tape : Tape
    asked : AskedQueries
    options : ReplayOptions
    candidates : Candidates or None
    overhead : callable
        Tells the seconds that the replay spends on anything but this and the backward passes.

    Returns
    -------
    Context
    """
    processes = Processes.of(options.processes)
    asked, began = asked.of_first(processes), clock(tape.layout.device)
    derivative = choose_adjoint(
        tape,
        asked.first,
        options.differentiation,
        options.memory_bytes,
        queries=len(asked) if processes.size == 1 else 0,
    )
    choosing = clock(tape.layout.device) - began
    several = processes.size > 1 and by_rows(tape, len(asked), processes)
    sharing = Sharing(processes, several and not derivative.agreement.coupled)
    folder = Path(options.out) if options.out is not None else None
    if folder is not None and processes.rank == 0:
        remove_left_over(folder)
    seed = tape.seed if options.seed is None else options.seed
    schedule = RowSchedule.asked(tape, options, seed)
    draft = _Draft(
        tape, asked, derivative, sharing, folder, candidates, schedule,
        truncation_for(options.horizon, tape.noise, tape.whole_batches),
        choosing,
    )  # fmt: skip
    allocation = None if options.budget is None else draft.allocate(options, overhead)
    if allocation is not None:
        draft = replace(
            draft,
            schedule=allocation.schedule(draft.schedule),
            truncation=draft.truncation.at_most(allocation.horizon),
        )
    return draft.context(options, allocation)


@dataclass(frozen=True, eq=False)
class _Draft:
    """A context without its division of memory; `choosing`: seconds that it took to choose and check derivatives."""

    tape: Tape
    asked: AskedQueries
    derivative: Choice
    sharing: Sharing
    folder: Path | None
    candidates: Candidates | None
    schedule: RowSchedule
    truncation: TruncationRule
    choosing: float

    def allocate(self, options: ReplayOptions, overhead: Callable[[], float]) -> Allocation:
        """Return what the budget is turned into: by process 0, or as an interrupted replay chose."""
        processes, budget = self.sharing.processes, options.budget
        memory = self._memory(options, options.late > 0 and options.spread)
        workload = Workload(
            RunShape.of(len(self.tape.rows), self.tape.epochs),
            memory,
            options.late,
            0 if self.candidates is None else len(self.candidates),
            self.tape.equal_draws,
        )

        def measured() -> Timings:
            start, tail = self.asked.gradients(range(memory.together)), options.late > 0 and options.spread
            timings = measure(self.tape, self.derivative.adjoint.for_timing(), start, memory.together, tail)
            spent = timings.measuring + self.asked.seconds + overhead()
            once = timings.tracing + self.choosing
            return replace(timings, queries=self.asked.seconds, overhead=spent, tracing=once)

        def choose() -> Allocation:
            if isinstance(budget, Mapping):
                return allocation_from(budget)
            return allocate(budget, workload, self.schedule, self.truncation.limit, measured)

        key = self._key(f"{budget}")
        processes.agree(AGREED, key)
        first = remembered(self.folder, key, choose) if processes.rank == 0 else None
        written = processes.text_of_first(json.dumps(asdict(first)) if first is not None else "")
        return Allocation(**json.loads(written))

    def context(self, options: ReplayOptions, allocation: Allocation | None) -> Context:
        """Divide the memory and return what the replay works with."""
        tape, processes = self.tape, self.sharing.processes
        covered = RunShape.of(len(tape.rows), tape.epochs).last(self.truncation.limit)
        tail = tail_steps(tape.steps, covered, options.late)
        settled = replace(self, schedule=replace(self.schedule, tail=tail))
        memory = settled._memory(options, len(tail) > 1 and options.spread)
        processes.agree(AGREED, settled._key(f"{memory.together}"))
        derivative = self.derivative
        if self.sharing.by_rows:
            derivative = derivative.over_rows(processes)
        states = RecomputedStates(tape, memory.capacity, memory.passes, self.folder, self._disk(options))
        return Context(
            tape, self.asked, derivative, settled.schedule, self.truncation, allocation, memory, states, self.sharing,
            self._sized_candidates(memory), self.folder,
        )  # fmt: skip

    def _memory(self, options: ReplayOptions, tail: bool) -> MemorySplit:
        added = 0 if self.candidates is None else len(self.candidates)
        sizes = StateSizes.of(self.tape, added)
        alone = self.sharing.queries_of_one(len(self.asked))
        return fitted_memory(
            self.tape, self.derivative, sizes, alone, tail, options.memory_bytes, self._disk(options)
        )

    def _disk(self, options: ReplayOptions) -> int:
        return 0 if self.folder is None else options.snapshot_bytes

    def _sized_candidates(self, memory: MemorySplit) -> Candidates | None:
        """Return the candidates in batches that fit in memory."""
        if self.candidates is None:
            return None
        return replace(self.candidates, rows_at_once=memory.rows_at_once)

    def _key(self, more: str) -> str:
        rules = (self.schedule, self.truncation, self.candidates)
        return work_key(self.tape, self.derivative, torch.from_numpy(self.asked.values), rules, more)


def work_key(
    tape: Tape,
    derivative: Choice,
    start: Tensor,
    rules: tuple[RowSchedule, TruncationRule, Candidates | None],
    more: str = "",
) -> str:
    """Return a hash of all that the numbers of a backward pass depend on."""
    schedule, truncation, candidates = rules
    added = () if candidates is None else (candidates.rows.digest(),)
    header = repr(
        (tape.describe(), *tape.identity().values(), schedule, truncation, derivative.name, more, *added)
    )
    return digest(header.encode(), start.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
