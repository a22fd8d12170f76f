"""replay: one tape to the influence of every row."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from finfluence._clock import clock
from finfluence._progress import Progress, silent
from finfluence.distributed import Processes, Together
from finfluence.errors import ConfigError, explain
from finfluence.estimators.derivatives import DIFFERENTIATIONS, Differentiation
from finfluence.estimators.first_order import check_recording, fine_monte_carlo, fine_rao_blackwell
from finfluence.estimators.replay._assemble import Story, check_left, estimates, group_means, provenance_of
from finfluence.estimators.replay._backward import Plan
from finfluence.estimators.replay._chunks import prepare, walk_all
from finfluence.estimators.replay._draws import check_draws
from finfluence.estimators.replay._tail import check_late
from finfluence.estimators.replay._truncation import horizon_for
from finfluence.estimators.replay.cost import bytes_per_query
from finfluence.estimators.replay.leave_out import Groups, Pairs, pair, paired_seconds, to_pair
from finfluence.result import Held, Influence, Stream, load, one_of
from finfluence.runs import AnyQuery, Tape, check_queries, seeded
from finfluence.runs.describe import Given, find_subsets
from finfluence.runs.tape import TapeRecorder, final_losses, finished

METHODS = ("online", "full", "fine", "fine-mc")


def replay(
    tape: Tape | TapeRecorder,
    queries: Sequence[AnyQuery] | AnyQuery,
    method: Literal["online", "full", "fine", "fine-mc"] = "online",
    subsets: Given = None,
    *,
    horizon: int | Literal["auto"] = "auto",
    probe_budget: float = 0.25,
    late: float = 0.1,
    auxiliary: Tape | TapeRecorder | None = None,
    records: int = 100,
    seed: int | None = None,
    groups: Groups = "auto",
    memory_bytes: int = 2**30,
    snapshot_bytes: int = 2**30,
    differentiation: Differentiation = "auto",
    budget: float | Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    save_to: str | os.PathLike[str] | None = None,
    processes: Together = "one",
    progress: Progress = silent,
) -> Influence:
    """Estimate what removing each subset does to each query, from one training run.

    Walking the tape backwards with λ = ∂q/∂s gives for each step t the slope x_{t,i} = ⟨u_t, ∇ℓ_i(θ_t)⟩ of every
    row's loss along u_t = (∂U_t/∂g)ᵀλ_{t+1}, and with it

        effect(S) = Σ_t [mean_{j∈D∖S} x_{t,j} − mean_{j∈D} x_{t,j}]
        spread²   = Var over batch orders of Σ_t mean_{j∈B_t} x_{t,j}

    in the query's own unit, at a fixed number of steps. μ = effect/spread.

    Parameters
    ----------
    tape : Tape
        From `train`, or from `Tape.record` around a loop of your own.
    queries : Query or list
        `mean_loss`, `each_loss`, `own_loss`, or any `Query`.
    method : {"online", "full", "fine", "fine-mc"}
        *online*: each row is evaluated where the run used it. *full*: all rows at every step; exact and dear.
        *fine*, *fine-mc*: the published single-run algorithm of f-influence, in closed form and by Monte Carlo; it is
        first-order and gives μ only.
    subsets : None, {name: row ids} or list
        None: every row alone. Groups come from the same walk: their effect at first order is the sum of their rows'.
    horizon : "auto" or int
        How many epochs to walk back. "auto" stops, per query, where the response stops being stable.
    probe_budget : float
        Extra row evaluations for the spread under reshuffling, as a share of the rows that training saw (*online*).
    late : float
        Effects are those on the mean of the query over 8 states within this share of the steps walked, the last ones:
        the same but for what they change meanwhile, and the chance of one final state averages out. 0: on that alone.
    auxiliary : Tape, optional
        Second run for difference in differences (*fine-mc*).
    records : int
        Steps recorded (*fine*, *fine-mc*), after a burn-in of a tenth of the run.
    seed : int, optional
        For probe rows and Monte Carlo; default: the tape's order seed.
    groups : {"auto", "linear", "paired"}
        *paired*: each subset's effect to all orders, from a further run without it, paired with the tape's own: same
        start, same batches without the subset's rows. Costs a training for each subset and five more, stacked as
        memory allows. *linear*: from the walk alone. *auto*: pairs subsets of two or more rows if there are at most 11
        of them, or with five more no more than queries. Of paired subsets the result keeps `linear_effect`, too.
    memory_bytes : int
        Bound on the memory of a walk; queries that do not fit together walk one after the other. States that the tape
        does not keep are recomputed within a quarter of it, and kept for further walks in what the queries leave.
    snapshot_bytes : int
        How much of `out` recomputed states may take until further walks have used them, where memory has no room.
    differentiation : {"auto", "exact", "finite-difference"}
        *exact*: forward over reverse. *finite-difference*: from gradients at θ ± εu, for smooth models only; it passes
        through fused attention and operations without a second derivative. *auto*: exact where the model allows it and
        its tangents fit in `memory_bytes`, else finite differences; the result says which and why.
    budget : float or mapping, optional
        Most time to spend, in multiples of one training run. Sets epochs back (up to `horizon`), probe rows, and
        whether all rows are evaluated, in this order, from a few timed steps. Paired groups, the timing itself and
        recomputed states are counted; tracing, once a tape, is apart. The result says what was chosen; its
        `provenance.budget`, given as `budget` of another replay, chooses the same without timing anything.
    out : path, optional
        Folder for progress: an interrupted replay called again with it goes on, to the same numbers.
    save_to : path, optional
        Write the result there, as `Influence.save` would, while it is computed: memory holds the columns of the queries
        walked together, and the result returned reads what is used from there.
    processes : {"one", "all"}
        *all*: the processes of torch.distributed's group share the work, every one of them calls with the same
        arguments, and gets the same result; `out` and `save_to` are folders that all see. Queries are shared, or, where
        there are fewer than processes, the rows of each step.
    progress : callable
        Called as `progress("replay", done, total)` in epochs.

    Returns
    -------
    Influence
        `effect_se`, `se`, `lower`, `upper` and `p_value` cover the sampling error of this run's own terms and of the
        spread. They do not cover what another seed would change, nor linearisation: pool runs, or verify.

    Raises
    ------
    ConfigError, DataError, StorageError, NotSupportedError

    Notes
    -----
    Cost: two to three training runs for one query over all epochs, a fifth of that or less for each further
    query; in proportion to the horizon. Memory: sums per (row, query), never gradients.

    Assumes that removal changes training little (linear response). Fails for chaotic training, and for large groups
    unless they are paired.

    References
    ----------
    f-influence, arXiv 2510.10510, for the question and the methods *fine* and *fine-mc*.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Recipe, Rows, own_loss, train
    >>> x, y = np.ones((4, 1)), np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=x, y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=40)
    >>> influence = replay(train(recipe), own_loss([3]), method="full")
    >>> bool(influence.data.effect[3, 0] > 0)     # without row 3, its own loss is larger
    True
    """
    one_of(method, METHODS, "method")
    one_of(differentiation, DIFFERENTIATIONS, "differentiation")
    together = Processes.of(processes)
    listed = check_queries(queries)
    tape = finished(tape)
    check_draws(tape, method == "full")
    began = clock(tape.layout.device)
    found = find_subsets(tape, subsets)
    where = found.positions
    chosen = to_pair(groups, found.sizes, sum(len(q.names) for q in listed))
    check_left(tape, found.names, where)
    seed = tape.seed if seed is None else seed
    model = tape.model()
    with seeded(0):
        own = group_means(where, final_losses(tape, model))
    labels: dict[str, Any] = {
        "subsets": found.names,
        "sizes": found.sizes,
        "queries": [name for q in listed for name in q.names],
        "units": [q.unit for q in listed for _ in q.names],
        "signs": [q.sign for q in listed for _ in q.names],
        "own_loss": own,
    }
    if method in ("fine", "fine-mc"):
        other = auxiliary if auxiliary is None else finished(auxiliary)
        check_recording(tape, other, records)
        extra = {}
        with seeded(0):
            if method == "fine":
                mu = fine_rao_blackwell(tape, listed, where, records, progress)
            else:
                mu, extra["mu_scan"] = fine_monte_carlo(tape, other, listed, where, records, seed, progress)
        made = replace(provenance_of(tape, method), records=records)
        influence = Influence.build(mu=mu, extra=extra, provenance=made, **labels)
        if save_to is not None and together.rank == 0:
            influence.save(save_to)
        return influence
    if not 0 < probe_budget < np.inf:
        raise ConfigError(
            explain(
                "probe_budget above 0", repr(probe_budget), "a share was mistyped", "use the default, 0.25"
            )
        )
    check_late(late)
    plan = Plan(method == "full", probe_budget if tape.reshuffled else 0.0, seed)
    alone = max(1, int(memory_bytes // bytes_per_query(tape)))
    so_far = clock(tape.layout.device) - began

    def beside() -> float:
        return so_far + paired_seconds(tape, int(chosen.sum()), alone)

    prepared = prepare(
        tape,
        listed,
        model,
        plan,
        horizon_for(horizon, tape),
        late,
        memory_bytes,
        snapshot_bytes,
        differentiation,
        budget,
        out,
        together,
        beside,
    )
    check_draws(tape, prepared.plan.full)
    story = Story.empty(len(labels["queries"]), len(tape.epochs))
    pairs: Pairs | None = None
    sink: Stream | Held = Held(labels)
    if save_to is not None and together.rank == 0:
        sink = Stream(save_to, **labels)
    with sink:
        for sums in walk_all(prepared, out, progress):
            pairs = pairs or pair(tape, listed, found, chosen, alone, seed, progress, prepared.plan.late)
            story.add(sums)
            if save_to is None or together.rank == 0:
                sink.write(sums.columns, estimates(tape, where, sums, pairs, prepared.plan.full))
        assert pairs is not None
        made = story.provenance(
            prepared, "full" if prepared.plan.full else method, labels["queries"], pairs, where
        )
        if save_to is None or together.rank == 0:
            influence = sink.finish(made)
    together.wait()
    return influence if save_to is None or together.rank == 0 else load(save_to, lazy=True)
