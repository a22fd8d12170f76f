"""What can be chosen of a replay."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from finfluence.distributed import Together
from finfluence.errors import ConfigError, explain
from finfluence.estimators import check_number
from finfluence.estimators.derivatives import DIFFERENTIATIONS, Differentiation
from finfluence.estimators.replay._tail import check_tail
from finfluence.estimators.replay.leave_out import Groups
from finfluence.result import one_of

RowsEvaluated = Literal["online", "full"]
FirstSteps = Literal["finite", "tangent"]


@dataclass(frozen=True)
class ReplayOptions:
    """How a tape is replayed: options of `fi.estimate(tape, queries)`, and of `replay`, whose `method` is `rows` here.

    Parameters
    ----------
    rows : {"online", "full"}
        Which rows are evaluated. *online*: each where the run used it. *full*: all at every step; exact and dear.
    horizon : "auto" or int
        The truncation window: how many epochs to go back. "auto" stops, per query, where the response stops being
        stable.
    probe_budget : float
        Extra row evaluations for the spread under reshuffling, as a share of the rows that training saw (*online*).
    late : float
        Effects are those on the mean of the query over 8 states within this share of the steps of the backward pass,
        the last ones: the same but for what they change meanwhile, and the chance of one final state averages out. 0:
        on that alone.
    seed : int, optional
        Of the rows evaluated for the spread, and of the runs without groups; default: the tape's order seed.
    groups : {"auto", "linear", "paired"}
        How subsets are removed. *paired*: each subset's effect to all orders, from a further run without it under
        common random numbers: same start, same batches without the subset's rows. Costs a training for each subset and
        five more, stacked as memory allows. *linear*: from the backward pass alone. *auto*: pairs subsets of two or
        more rows if there are at most 11 of them, or with five more no more than queries. Of paired subsets the result
        keeps `linear_effect`, too.
    memory_bytes : int
        Bound on the memory of a backward pass (of one-sided differences: beside that of a plain step); queries that do
        not fit together take one pass after the other. States that the tape does not keep are recomputed within a
        quarter of it, and kept for further passes in what the queries leave.
    snapshot_bytes : int
        How much of `out` recomputed states may take until further passes have used them, where memory has no room.
    differentiation : {"auto", "exact", "finite-difference"}
        How steps are differentiated. *exact*: forward over reverse. *finite-difference*: from gradients beside θ, for
        smooth models, or with kinks that can be held on their side (ReLU, max pooling). *auto*: the cheaper one that
        can be had and agrees with the exact one where it was compared; the result says which and why.
    first_steps : {"finite", "tangent"}
        Adam's first updates are nearly the sign of the gradient, and not linear on the scale of one row. *finite*: at
        the first five steps of a run, where it matters for a query, effects and spread are made of what leaving each
        row out changes in the state, not of its derivative. *tangent*: of derivatives throughout.
    spread : bool
        Whether the spread is asked, and with it μ and its errors. Without it nothing is evaluated for its sake: no
        variance-sample rows, no second adjoint through the averaged states. The result then holds scores, the effects
        in the query's unit times its sign, so that larger is more harmful: they rank rows, and tell no row from chance.
    budget : float or mapping, optional
        Most time to spend, in multiples of one training run. Sets epochs back (up to `horizon`), rows for the spread,
        and whether all rows are evaluated, in this order, from a few timed steps. Paired groups, the timing itself and
        recomputed states are counted; checking and tracing derivatives, once a tape, is apart. The result says what was
        chosen; its `provenance.budget`, given as `budget` of another replay, chooses the same without timing anything.
    out : path, optional
        Folder for progress: an interrupted replay called again with it goes on, to the same numbers.
    save_to : path, optional
        Write the result there, as `Influence.save` would, while it is computed: memory holds the columns of the queries
        of one backward pass, and the result returned reads what is used from there.
    processes : {"one", "all"}
        *all*: the processes of torch.distributed's group share the work, every one of them calls with the same
        arguments, and gets the same result; `out` and `save_to` are folders that all see. Queries are shared, or, where
        there are fewer than processes, the rows of each step.

    Examples
    --------
    >>> ReplayOptions(rows="full", horizon=3).late
    0.1
    """

    rows: RowsEvaluated = "online"
    horizon: int | Literal["auto"] = "auto"
    probe_budget: float = 0.25
    late: float = 0.1
    seed: int | None = None
    groups: Groups = "auto"
    memory_bytes: int = 2**30
    snapshot_bytes: int = 2**30
    differentiation: Differentiation = "auto"
    first_steps: FirstSteps = "finite"
    spread: bool = True
    budget: float | Mapping[str, Any] | None = None
    out: str | os.PathLike[str] | None = None
    save_to: str | os.PathLike[str] | None = None
    processes: Together = "one"

    def __post_init__(self) -> None:
        one_of(self.rows, get_args(RowsEvaluated), "rows")
        one_of(self.differentiation, DIFFERENTIATIONS, "differentiation")
        one_of(self.groups, get_args(Groups), "groups")
        one_of(self.first_steps, get_args(FirstSteps), "first_steps")
        if not isinstance(self.spread, bool):
            raise ConfigError(
                explain(
                    "spread to be True or False",
                    repr(self.spread),
                    "a size of the spread was passed: it is measured, not given",
                    "leave spread out, or pass spread=False for effects alone",
                )
            )
        for name in ("probe_budget", "late"):
            check_number(name, getattr(self, name), finite=False)  # more is said of their bounds below
        for name in ("memory_bytes", "snapshot_bytes"):
            check_number(name, getattr(self, name), above=0)
        if not 0 < self.probe_budget < math.inf:
            raise ConfigError(
                explain(
                    "probe_budget above 0",
                    repr(self.probe_budget),
                    "a share was mistyped",
                    "use the default, 0.25",
                )
            )
        check_tail(self.late)
