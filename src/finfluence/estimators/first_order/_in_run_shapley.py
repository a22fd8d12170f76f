"""In-run data Shapley: what each row of each step of one run did to the query, shared out among the step's rows."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finfluence._progress import Progress
from finfluence.errors import NotSupportedError, explain
from finfluence.estimators._base import AbstractEstimator, Cost
from finfluence.estimators._one_run import activation_bytes, in_trainings, labels, one_run, own_losses
from finfluence.estimators._recorded_states import check_sgd, every_step
from finfluence.estimators.derivatives import exact_choice, query_gradients
from finfluence.result import Influence
from finfluence.runs import AnyQuery, Step, Tape, seeded
from finfluence.runs.describe import Subsets, sum_over

OF_THIS_RUN = (
    "a score, without an error: the value of each row in this very run, whose later steps are taken as they were; "
    "'predicted_effect' takes the row's own steps back, in the unit of the query"
)
HELD_SCALE = (
    "of Adam, a row's part of a step is taken with the second moments held as they came out: what the row does through "
    "them is left out"
)


@dataclass(frozen=True, kw_only=True)
class InRunShapleyOptions:
    """Options of `InRunShapley`.

    Parameters
    ----------
    second_order : bool
        Whether rows of one step are seen to interact, by the query's curvature along the step.
    """

    second_order: bool = False


class InRunShapley(AbstractEstimator[Tape, InRunShapleyOptions]):
    """In-run data Shapley: each step's change of the query shared out among its rows, for SGD and Adam.

    Step t on rows S moves θ by Δ(S) = Σ_{j∈S} δ_j, δ_j = −η_t c_j ∇ℓ_j(θ_t), c_j = 1/B of a mean. The Shapley value of
    row i for the utility q(θ_t + Δ(S)) − q(θ_t) is, to first order, φ_i = ⟨∇q(θ_t), δ_i⟩; to second order it has
    + ½ δ_iᵀ∇²q Δ(B_t), which is φ_i = ⟨∇q(θ_t + ½Δ(B_t)), δ_i⟩, exact for a quadratic query.
    score(S) = −σ Σ_{i∈S} Σ_t φ_i, σ the query's sign: larger is more harmful. `predicted_effect` = −Σ φ.

    Notes
    -----
    Rows are those of the recorded steps, with the loss in training's mode. Derived for updates that are linear in the
    gradient: SGD, with momentum or Nesterov's (the part of the gradient that moves θ at once), without clipping. A step
    of Adam or AdamW is taken for linear with its second moments held as they came out,
    δ_j = −η_t (1−β₁)/(1−β₁ᵗ) c_j ∇ℓ_j / (√v̂_{t+1} + eps): what a row does through them is left out, and the result says
    so. `fi.InRun` takes first-order values while a loop trains, without a tape.

    Cost: one evaluation of every row of every step, and a gradient of the queries at each.

    References
    ----------
    Wang et al., "Data Shapley in one training run" (2024), theorems 3 and 4.

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Recipe, Rows, mean_loss, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=40)
    >>> zero = mean_loss(np.ones((1, 1)), np.zeros(1), name="at zero")
    >>> InRunShapley().estimate(train(recipe), zero).top(1).row_id.item()
    3
    """

    name = "in-run-shapley"
    family = "first_order"
    paper = "arXiv 2406.11011"
    yields = "score"
    needs = Tape
    Options = InRunShapleyOptions

    def _check(self, source: Tape) -> None:
        check_sgd(
            source,
            "in-run data Shapley",
            "values are shared out among rows of a step that is the sum of what each row adds to it",
            groups=True,
            adam=True,
        )
        exact_choice(source)

    def _estimate(
        self, source: Tape, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        total = np.zeros((len(source.rows), sum(len(q.names) for q in queries)))
        for t, (rows, values) in enumerate(step_values(source, queries, self.options.second_order), start=1):
            np.add.at(total, rows, values)
            progress("steps", t, source.steps)
        signs = [q.sign for q in queries for _ in q.names]
        removed = sum_over(subsets.positions, -total)
        return Influence.build(
            score=removed * signs,
            extra={"predicted_effect": removed},
            own_loss=own_losses(source, subsets),
            provenance=one_run(
                source,
                self.name,
                covers=(),
                findings=(OF_THIS_RUN, HELD_SCALE) if second_moments(source) else (OF_THIS_RUN,),
            ),
            **labels(queries, subsets),
        )

    def _cost(self, source: Tape, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        rows, columns = len(source.rows), sum(len(q.names) for q in queries)
        memory = activation_bytes(source, source.batch_size) * (1 + columns)
        parameters = source.layout.size * source.layout.dtype.itemsize
        evaluations = rows + sum(len(order) for order in source.order)
        return Cost(
            in_trainings(source, evaluations), memory + parameters * (3 * columns + 40) + 8 * rows * columns
        )


def step_values(
    tape: Tape, queries: list[AnyQuery], second_order: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows [B] of every step of a run of SGD or Adam, and their Shapley values φ [B, Q] for the queries.

    Positive: having the row in the step raised the query.

    Yields
    ------
    tuple of arrays
    """
    adjoint, model, size = exact_choice(tape).adjoint, tape.model(), tape.layout.size
    for t, state, after in every_step(tape):
        step = tape.at(t)
        theta = state[:size]
        scale = moved_at_once(tape, state, step, after)
        half = 0.5 * _moved(tape, state, step, after) if second_order else 0.0
        with seeded(0):
            tape.layout.assign(model, theta + half)
            _, asked = query_gradients(queries, model, tape)
            slopes = adjoint.row_derivatives(theta, asked * scale, step.batch, step.seed)
        yield step.rows.numpy(), (slopes / len(step.rows)).T.double().cpu().numpy()


def second_moments(tape: Tape) -> bool:
    """Return whether the optimiser divides by second moments of gradients."""
    return "exp_avg_sq" in tape.optimizer.slots


def moved_at_once(tape: Tape, state: Tensor, step: Step, after: Tensor) -> Tensor:
    """Return ∂θ_{t+1}/∂g [P] of a step, parameter by parameter, second moments held; −η_t of SGD without momentum.

    Of Adam the whole derivative is −a/D + 2(1−β₂)g·b, b = ∂θ_{t+1}/∂v_{t+1}: the second part is taken off.

    Returns
    -------
    Tensor [P]
    """
    theta, *slots = state.view(1 + len(tape.optimizer.slots), -1)
    gradient = _gradient(tape, state, step, after) if second_moments(tape) else theta
    pull = tape.optimizer.pull_back(theta, tuple(slots), gradient, step.hyper.unbind())
    assert pull is not None, "the update without clipping is written out"
    first = torch.zeros(1 + len(slots), len(theta), dtype=theta.dtype, device=theta.device)
    first[0] = 1.0
    back, whole = pull(first)
    if not second_moments(tape):
        return whole
    place = 1 + tape.optimizer.slots.index("exp_avg_sq")
    of_square = torch.zeros_like(first)
    of_square[place] = 1.0
    kept, through = pull(of_square)  # β₂, and ∂v_{t+1}/∂g
    return whole - through * back[place] / kept[place]


def _moved(tape: Tape, state: Tensor, step: Step, after: Tensor) -> Tensor:
    """Return how far the rows of a step moved θ [P]: all of the step but its momentum and weight decay."""
    theta, *slots = state.view(1 + len(tape.optimizer.slots), -1)
    if second_moments(tape):
        return moved_at_once(tape, state, step, after) * _gradient(tape, state, step, after)
    resting, _ = tape.optimizer.update(theta, tuple(slots), torch.zeros_like(theta), step.hyper.unbind())
    return after[: len(theta)] - resting


def _gradient(tape: Tape, state: Tensor, step: Step, after: Tensor) -> Tensor:
    """Return the gradient of a step of Adam [P], from the moments that it left."""
    theta, *slots = state.view(1 + len(tape.optimizer.slots), -1)
    left = after.view(1 + len(slots), -1)[1:]
    found = tape.optimizer.gradient(theta, tuple(slots), tuple(left), step.hyper.unbind())
    if found is None:
        raise NotSupportedError(
            explain(
                "moments of Adam that tell the gradient of each step",
                "a first moment that hardly takes in new gradients (β₁ near 1)",
                "the gradient would be read off a difference that rounding hides",
                "follow the loop with fi.InRun, or use method='replay'",
            )
        )
    return found
