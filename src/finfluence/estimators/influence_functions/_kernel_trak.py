"""TRAK's linear model in its exact kernel form, on cosines of Adam-scaled gradients along one run."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from finfluence._progress import Progress
from finfluence.errors import NotSupportedError, explain
from finfluence.estimators._base import AbstractEstimator, Cost, check_number, check_whole
from finfluence.estimators._one_run import (
    activation_bytes,
    in_trainings,
    scored,
)
from finfluence.estimators._recorded_states import RecordedState, recorded_states, spaced_steps
from finfluence.grads import Projection
from finfluence.result import Influence
from finfluence.runs import AnyQuery, Tape
from finfluence.runs.describe import Subsets, sum_over

MOST_ROWS = 20_000
RANKS = (
    "a score, without an error: it ranks rows, and its size is that of a regression on cosines; to size and decide, "
    "replay what it ranks first"
)
UNSCALED = "the optimiser keeps no second moments: gradients are not divided by their roots"


@dataclass(frozen=True, kw_only=True)
class KernelTrakOptions:
    """Options of `KernelTrak`.

    Parameters
    ----------
    checkpoints : int
        States of the run, at the ends of as many stretches of equal length.
    ridge : float
        λ, beside a kernel whose diagonal is 1.
    dimensions : int
        Of a random projection of gradients; as many as parameters, or more, leave them as they are.
    rows_at_once : int
        Rows evaluated together, fewer where memory asks for it; results do not depend on it.
    seed : int
        Of the projections.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    """

    checkpoints: int = 15
    ridge: float = 3.0
    dimensions: int = 8192
    rows_at_once: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("checkpoints", self.checkpoints)
        check_number("ridge", self.ridge, above=0.0)
        check_whole("dimensions", self.dimensions)
        check_whole("rows_at_once", self.rows_at_once)
        check_whole("seed", self.seed, 0)


class KernelTrak(AbstractEstimator[Tape, KernelTrakOptions]):
    """Kernel TRAK: (K + λ)⁻¹ of the rows' kernel of Adam-scaled cosines, over many states of one run.

    φ_i = g_i/√v, of length 1, with Adam's second moments v at each state; K = (1/C) Σ_c ⟨φ_i, φ_j⟩ [n, n] and
    k = (1/C) Σ_c ⟨φ_i, φ_q⟩ [n, Q]: score(S) = σ Σ_{i∈S} [(K + λ)⁻¹k]_i, σ the query's sign: larger is more harmful.
    The same as TRAK's (ΦᵀΦ + λ)⁻¹ with Φ the features of all states side by side, and without its factors 1 − p.

    Notes
    -----
    For rows few enough that n × n numbers can be inverted, at most 20,000, and any loss. What rows have in common is
    divided out, which ranks well where many rows look like the query and few act on it. Parameters that Adam has never
    moved (v = 0) count for nothing; of an optimiser without second moments the gradients are taken as they are.

    Cost: the gradient of every row at each state, and one n × n system.

    References
    ----------
    Park et al., "TRAK: attributing model behavior at scale" (2023), with the optimiser's metric of Xia et al., "LESS"
    (2024).

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.runs import AdamW, Recipe, Rows, own_loss, train
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.1]])
    >>> recipe = Recipe(data=Rows(x=x, y=torch.tensor([0, 1, 1, 0])), model=nn.Linear(2, 2), optimizer=AdamW(lr=0.1),
    ...                 loss=lambda m, b: nn.functional.cross_entropy(m(b["x"]), b["y"], reduction="none"),
    ...                 batch_size=2, epochs=10)
    >>> found = KernelTrak().estimate(train(recipe), own_loss([0])).top(2, direction="helpful")
    >>> sorted(found.row_id)  # the row itself and the one beside it
    [0, 3]
    """

    name = "kernel-trak"
    family = "influence_functions"
    paper = "arXiv 2303.14186"
    yields = "score"
    needs = Tape
    Options = KernelTrakOptions

    def _check(self, source: Tape) -> None:
        if len(source.rows) > MOST_ROWS:
            raise NotSupportedError(
                explain(
                    f"at most {MOST_ROWS:,} rows, whose kernel can be inverted",
                    f"{len(source.rows):,}",
                    "the kernel has a number for each pair of rows",
                    "use method='trak', which inverts a matrix of the projection's dimensions",
                )
            )

    def _estimate(
        self, source: Tape, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        o = self.options
        steps = spaced_steps(source, o.checkpoints)
        kernel, beside = torch.zeros(()), torch.zeros(())
        scaled = True
        for done, state in enumerate(recorded_states(source, queries, steps, o.rows_at_once), start=1):
            rows, asked = features(state, Projection(source.layout.size, o.dimensions, o.seed, state.step))
            kernel, beside = kernel + rows @ rows.T / len(steps), beside + rows @ asked.T / len(steps)
            scaled = state.moments is not None
            progress("checkpoints", done, len(steps))
        kernel.diagonal().add_(o.ridge)
        found = torch.linalg.solve(kernel, beside).cpu().numpy()
        return scored(
            source,
            self.name,
            queries,
            subsets,
            sum_over(subsets.positions, found),
            findings=(RANKS,) if scaled else (RANKS, UNSCALED),
            details={"checkpoints": steps, "dimensions": min(o.dimensions, source.layout.size)},
        )

    def _cost(self, source: Tape, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        rows, columns = len(source.rows), sum(len(q.names) for q in queries)
        states = len(spaced_steps(source, self.options.checkpoints))
        memory = activation_bytes(source, self.options.rows_at_once) + 8 * source.layout.size * (columns + 64)
        memory += 8 * rows * (min(self.options.dimensions, source.layout.size) + 3 * rows + columns)
        return Cost(in_trainings(source, rows * (1 + states)), memory)


def features(state: RecordedState, projection: Projection) -> tuple[Tensor, Tensor]:
    """Return Adam-scaled gradients of length 1, projected: of the rows [n, k] and of the queries [Q, k]."""

    def made(gradients: Tensor) -> Tensor:
        taken = gradients if state.moments is None else state.moments.scaled(gradients)
        return normalize(projection(taken).double(), dim=1)

    return torch.cat([made(g) for g in state.objective.row_gradients()]), made(state.asked)
