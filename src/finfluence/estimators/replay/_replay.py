"""replay: one tape to the influence of every row; or of rows that were never in the training."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import nn

from finfluence._clock import clock
from finfluence._progress import Progress, silent
from finfluence.distributed import Together
from finfluence.errors import ConfigError, explain
from finfluence.estimators import AbstractEstimator, Cost
from finfluence.estimators.derivatives import Differentiation, choose_adjoint
from finfluence.estimators.replay._asked import AskedQueries
from finfluence.estimators.replay._assemble import (
    Estimand,
    QueryRecord,
    added_findings,
    check_rows_left,
    estimates,
    group_means,
    provenance,
    scores,
)
from finfluence.estimators.replay._candidates import Candidates, check_candidates
from finfluence.estimators.replay._chunks import ChunkResult, run_chunks
from finfluence.estimators.replay._context import Context, prepare
from finfluence.estimators.replay._draws import check_draws, draw_findings, drawn
from finfluence.estimators.replay._finite_change import has_squares
from finfluence.estimators.replay._options import FirstSteps, ReplayOptions
from finfluence.estimators.replay._schedule import RowSchedule, RunShape
from finfluence.estimators.replay._tail import tail_steps
from finfluence.estimators.replay._truncation import truncation_for
from finfluence.estimators.replay.cost import (
    RunCosts,
    StateSizes,
    Workload,
    allocation_from,
    backward_bytes,
    bytes_per_query,
    split_memory,
    trainings,
)
from finfluence.estimators.replay.leave_out import (
    NEGATIVE_CONTROLS,
    CoupledEffects,
    Coupling,
    Groups,
    choose_coupled,
    coupled_effects,
    coupled_seconds,
)
from finfluence.result import Held, Influence, Stream, load, one_of
from finfluence.runs import AnyQuery, RowSource, Tape, TapeRecorder, seeded
from finfluence.runs.describe import Given, Subsets, find_subsets

METHODS = ("online", "full")
FIRST_ORDER = ("fine", "fine-mc")


class Replay(AbstractEstimator[Tape, ReplayOptions]):
    """Effects of rows and their spread from one run, by differentiating all of its steps; see `replay`."""

    name: ClassVar[str] = "replay"
    family: ClassVar[str] = "replay"
    paper: ClassVar[str] = "finfluence; the question is that of f-influence, arXiv 2510.10510"
    yields: ClassVar[Literal["mu", "score"]] = "mu"
    needs: ClassVar[type] = Tape
    Options: ClassVar[type] = ReplayOptions

    def _check(self, source: Tape) -> None:
        """Differentiate a step along one direction, as `choose_adjoint` does along the gradients of queries."""
        self._check_first(source)
        layout = source.layout
        direction = torch.ones(1, layout.size, dtype=layout.dtype, device=layout.device)
        choose_adjoint(source, direction, self.options.differentiation, self.options.memory_bytes)

    def _check_first(self, source: Tape) -> None:
        """Leave derivatives to the estimate, which checks them along its own queries."""
        check_draws(source, self.options.rows == "full")
        truncation_for(self.options.horizon, source.noise)

    def _estimate(
        self, source: Tape, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        check_rows_left(subsets, len(source.rows))
        return _Replayed(source, queries, subsets, self.options, None).influence(progress)

    def _estimate_added(
        self,
        source: Tape,
        queries: list[AnyQuery],
        candidates: RowSource,
        subsets: Given,
        progress: Progress,
    ) -> Influence:
        check_candidates(candidates, source.rows)
        if self.options.groups == "paired":
            raise ConfigError(
                explain(
                    "groups='auto' or 'linear' where candidates are added",
                    "groups='paired'",
                    "runs under common random numbers leave rows out; they add none",
                    "leave groups out: effects of adding are linear",
                )
            )
        added = Candidates(candidates, source.loss, source.layout.device)
        return _Replayed(source, queries, find_subsets(added, subsets), self.options, added).influence(
            progress
        )

    def _cost(self, source: Tape, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        options, count = self.options, sum(len(q.names) for q in queries)
        shape, tail = RunShape.of(len(source.rows), source.epochs), options.late > 0 and options.spread
        sizes = StateSizes.of(source)
        disk = 0 if options.out is None else options.snapshot_bytes
        memory = split_memory(sizes, count, tail, options.memory_bytes, disk)
        schedule = RowSchedule.asked(source, options)
        limit = truncation_for(options.horizon, source.noise).limit
        if isinstance(options.budget, Mapping):
            allocation = allocation_from(options.budget)
            schedule, limit = allocation.schedule(schedule), min(limit, allocation.horizon)
        coupled = int(choose_coupled(options.groups, subsets.sizes, count).sum())
        replicas = coupled + NEGATIVE_CONTROLS + 1 if coupled else 0
        workload = Workload(shape, memory, options.late)
        covered = shape.last(limit)
        to_tail = _steps_to_tail(source, covered, options.late) if options.spread else 0
        run = RunCosts(tuple(source.sizes), source.stochastic, to_tail, has_squares(source))
        counted = trainings(workload, schedule, limit, run, replicas)
        if options.budget is not None and not isinstance(options.budget, Mapping):
            counted = min(counted, options.budget)
        return Cost(counted, backward_bytes(memory, sizes, tail, covered))


def replay(
    tape: Tape | TapeRecorder,
    queries: Sequence[AnyQuery] | AnyQuery,
    method: Literal["online", "full"] = "online",
    subsets: Given = None,
    *,
    candidates: Any = None,
    horizon: int | Literal["auto"] = "auto",
    probe_budget: float = 0.25,
    late: float = 0.1,
    seed: int | None = None,
    groups: Groups = "auto",
    memory_bytes: int = 2**30,
    snapshot_bytes: int = 2**30,
    differentiation: Differentiation = "auto",
    first_steps: FirstSteps = "finite",
    spread: bool = True,
    budget: float | Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    save_to: str | os.PathLike[str] | None = None,
    processes: Together = "one",
    progress: Progress = silent,
) -> Influence:
    """Estimate what removing each subset does to each query, from one training run; or what adding each candidate does.

    A backward pass over the tape with λ = ∂q/∂s gives for each step t the slope x_{t,i} = ⟨u_t, ∇ℓ_i(θ_t)⟩ of every
    row's loss along u_t = (∂U_t/∂g)ᵀλ_{t+1}, and with it

        effect of removing S = Σ_t [mean_{j∈D∖S} x_{t,j} − mean_{j∈D} x_{t,j}]
        effect of adding C   = Σ_t [mean_{j∈D∪C} x_{t,j} − mean_{j∈D} x_{t,j}]
                             = Σ_t Σ_{c∈C} (x_{t,c} − mean_D x_t) / (n + |C|)
        spread²              = Var over batch orders of Σ_t mean_{j∈B_t} x_{t,j}

    in the query's own unit, at a fixed number of steps and of rows a step. μ = effect/spread. **Positive: removing the
    subset raises the query; with candidates: adding it does.** A candidate's dose is that of any other row: one
    appearance in each pass over the n + |C| rows.

    Parameters
    ----------
    tape : Tape or TapeRecorder
        From `train`, or from `Tape.record` around a loop of your own.
    queries : Query or list
        `mean_loss`, `each_loss`, `own_loss`, or any `Query`.
    method : {"online", "full"}
        *online*: each row is evaluated where the run used it, each candidate at four steps an epoch, one drawn from
        each quarter. *full*: all of them at every step; exact and dear.
    subsets : None, {name: row ids} or list
        None: every row alone. Groups come from the same backward pass: their effect at first order is the sum of their
        rows'. With candidates: of their ids.
    candidates : Rows, mapping of arrays or map-style Dataset, optional
        Rows that training never saw, with the fields of the training rows and ids of their own.
    horizon, probe_budget, late, seed, groups, memory_bytes, snapshot_bytes, differentiation, first_steps, spread
        As documented in `ReplayOptions`.
    budget, out, save_to
        As documented in `ReplayOptions`.
    processes : {"one", "all"}
        As documented in `ReplayOptions`.
    progress : callable
        Called as `progress("replay", done, total)` in epochs.

    Returns
    -------
    Influence
        `effect_se`, `se`, `lower`, `upper` and `p_value` cover the sampling error of this run's own terms and of the
        spread. They do not cover what another seed would change, nor linearisation: pool runs, or verify. With
        candidates it is over their ids, and its contrast is "add". With `spread=False` it holds scores instead.

    Raises
    ------
    ConfigError
        Options or queries that cannot be used, or another method than these.
    DataError, StorageError, NotSupportedError
        Rows or files that cannot be used, or a model that cannot be differentiated; each says what to do.

    Notes
    -----
    Cost: two to three training runs for one query over all epochs, a fifth of that or less for each further query; in
    proportion to the horizon; less with `spread=False`, for effects alone. Memory: accumulators per (row, query), never
    gradients.

    Assumes that removal changes training little (linear response). Fails for chaotic training, and for large groups
    unless they are paired. At first order, adding a copy of row i is minus (n−1)/(n+1) times removing it.

    Eight groups of ten rows added to 300 digits, against 400 trainings of each: correlation of μ .996 (full) and .995
    (online), truth over estimate .91 and .87, for rows added together also add to the curvature
    (`tests/estimators/replay/test_candidates_against_retraining.py`).

    References
    ----------
    f-influence, arXiv 2510.10510, for the question.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Recipe, Rows, own_loss, train
    >>> x, y = np.ones((4, 1)), np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=x, y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=40)
    >>> tape = train(recipe)
    >>> influence = replay(tape, own_loss([3]), method="full")
    >>> bool(influence.data.effect[3, 0] > 0)     # without row 3, its own loss is larger
    True
    >>> another = Rows(x=x[:1], y=np.array([4.0]), ids=["another 4"])
    >>> added = replay(tape, own_loss([3]), method="full", candidates=another)
    >>> bool(added.data.effect[0, 0] < 0)         # with a further row of 4, the loss of row 3 is smaller
    True
    """
    if method in FIRST_ORDER:
        raise ConfigError(
            explain(
                "method 'online' or 'full' in fi.replay",
                repr(method),
                "it multiplies gradients and replays nothing: it is an estimator of its own",
                f"fi.estimate(tape, queries, method={method!r})",
            )
        )
    one_of(method, METHODS, "method")
    options = ReplayOptions(
        rows=method, horizon=horizon, probe_budget=probe_budget, late=late, seed=seed, groups=groups,
        memory_bytes=memory_bytes, snapshot_bytes=snapshot_bytes, differentiation=differentiation,
        first_steps=first_steps, spread=spread, budget=budget, out=out, save_to=save_to, processes=processes,
    )  # fmt: skip
    source = tape.finish() if isinstance(tape, TapeRecorder) else tape
    return Replay(options).estimate(source, queries, subsets, candidates=candidates, progress=progress)


def _steps_to_tail(tape: Tape, covered: int, late: float) -> int:
    """Return the steps taken again to the states of the tail, from kept ones; 0 where only the final state counts."""
    steps, reached = 0, -1
    for t in sorted(tail_steps(tape.steps, covered, late))[:-1]:
        reached = max(reached, tape.checkpoint_before(t)[0])
        steps, reached = steps + t - reached, t
    return steps


@dataclass(frozen=True, eq=False)
class _Replayed:
    """One call: its arguments, checked."""

    tape: Tape
    queries: list[AnyQuery]
    subsets: Subsets
    options: ReplayOptions
    candidates: Candidates | None

    def influence(self, progress: Progress) -> Influence:
        """Return the result."""
        tape, options = self.tape, self.options
        began, device = clock(tape.layout.device), tape.layout.device
        model = tape.model()
        asked = AskedQueries.of(tape, self.queries, model, options.memory_bytes)
        labels = self._labels(model, asked.losses)
        coupled = self._coupled(len(labels["queries"]))
        so_far, replicas = max(0.0, clock(device) - began - asked.seconds), self._replicas

        def overhead() -> float:
            return so_far + coupled_seconds(tape, int(coupled.sum()), replicas, tape.steps)

        context = prepare(tape, asked, options, self.candidates, overhead)
        check_draws(tape, context.schedule.full)
        influence = self._written(context, labels, coupled, progress)
        context.sharing.processes.wait()
        if influence is not None:
            return influence
        assert options.save_to is not None
        return load(options.save_to, lazy=True)

    def _written(
        self, context: Context, labels: dict[str, Any], chosen: np.ndarray, progress: Progress
    ) -> Influence | None:
        """Run the passes and write what they say; None in a process that leaves that to process 0."""
        tape, save_to = self.tape, self.options.save_to
        writes = save_to is None or context.sharing.processes.rank == 0
        estimand = Estimand(
            self.subsets, len(tape.rows), len(tape.epochs), self.candidates is not None, tape.whole_batches
        )
        record = QueryRecord.empty(len(labels["queries"]), tape)
        coupled: CoupledEffects | None = None
        sink: Stream | Held = Stream(save_to, **labels) if save_to is not None and writes else Held(labels)
        with sink:
            for chunk in run_chunks(context, progress):
                coupled = coupled or self._couple(context, chosen, progress)
                record.add(chunk)
                if writes:
                    counts = self._drawn(context, chunk.horizon)
                    sink.write(chunk.columns, self._values(estimand, chunk, coupled, counts, labels["signs"]))
            assert coupled is not None
            counts, findings = self._drawn(context, record.horizon), coupled.findings
            if counts is not None:
                findings = [*findings, *draw_findings(self.subsets.positions, counts)]
            made = provenance(context, record, labels["queries"], findings)
            return sink.finish(made) if writes else None

    def _values(
        self,
        estimand: Estimand,
        chunk: ChunkResult,
        coupled: CoupledEffects,
        counts: np.ndarray | None,
        signs: list[int],
    ) -> dict[str, np.ndarray]:
        """Return what the result holds of a chunk of queries: estimates, or effects alone as scores."""
        if self.options.spread:
            return estimates(estimand, chunk, coupled, counts)
        return scores(estimand, chunk, coupled, counts, signs)

    def _drawn(self, context: Context, horizon: np.ndarray) -> np.ndarray | None:
        """Return how many rows of each subset were in a batch [S, q]; None where all rows are evaluated."""
        if self.candidates is not None or context.schedule.full:
            return None
        return drawn(self.tape, self.subsets.positions, horizon)

    def _couple(self, context: Context, chosen: np.ndarray, progress: Progress) -> CoupledEffects:
        """Run the training without the chosen subsets, once the first backward pass is done."""
        if self.candidates is not None:
            return CoupledEffects(chosen, None, added_findings(self.subsets, len(self.tape.rows)))
        coupling = Coupling(self._replicas, context.schedule.seed, context.schedule.tail)
        return coupled_effects(self.tape, self.queries, self.subsets, chosen, coupling, progress)

    def _coupled(self, queries: int) -> np.ndarray:
        """Return which subsets [S] (bool) get a run of their own."""
        if self.candidates is not None:
            return np.zeros(len(self.subsets), dtype=bool)
        return choose_coupled(self.options.groups, self.subsets.sizes, queries)

    @property
    def _replicas(self) -> int:
        """How many runs are advanced side by side."""
        return max(1, int(self.options.memory_bytes // bytes_per_query(self.tape)))

    def _labels(self, model: nn.Module, losses: np.ndarray) -> dict[str, Any]:
        """Return what the axes of the result are called, and the final losses of its rows; `losses`: of training's."""
        if self.candidates is not None:
            with seeded(0):
                losses = self.candidates.final_losses(model)
        return {
            "subsets": self.subsets.names,
            "sizes": self.subsets.sizes,
            "queries": [name for q in self.queries for name in q.names],
            "units": [q.unit for q in self.queries for _ in q.names],
            "signs": [q.sign for q in self.queries for _ in q.names],
            "own_loss": group_means(self.subsets.positions, losses),
        }
