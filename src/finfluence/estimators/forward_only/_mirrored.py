"""Mirrored influence (Forward-INF): one step that raises the query, and what it does to the losses of rows."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finfluence._progress import Progress
from finfluence._seeds import stream
from finfluence.estimators._base import AbstractEstimator, Cost, check_number, check_whole
from finfluence.estimators._one_run import (
    activation_bytes,
    against_controls,
    id_order,
    in_trainings,
    mean_over,
    scored,
)
from finfluence.estimators.derivatives import query_gradients
from finfluence.result import Influence
from finfluence.runs import AnyQuery, Tape, own_loss, seeded
from finfluence.runs.describe import Subsets, sum_over
from finfluence.runs.tape import final_losses

ONE_STEP = (
    "a score, without an error: it is one step from the end of one run; 'against_controls' tells how many standard "
    "deviations it is from what equally long steps that raise the loss of other training rows do"
)


@dataclass(frozen=True, kw_only=True)
class MirroredOptions:
    """Options of `Mirrored`.

    Parameters
    ----------
    length : float
        Of the step, as a share of the norm of the parameters.
    controls : int
        Training rows drawn at random, whose own steps every row's change is compared with.
    rows_at_once : int
        Rows evaluated together, fewer where memory asks for it; results do not depend on it.
    seed : int
        Of the controls.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    """

    length: float = 1e-3
    controls: int = 16
    rows_at_once: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("length", self.length, above=0.0)
        check_whole("controls", self.controls, 2)
        check_whole("rows_at_once", self.rows_at_once)
        check_whole("seed", self.seed, 0)


class Mirrored(AbstractEstimator[Tape, MirroredOptions]):
    """Forward-INF, influence mirrored: what one step up the query does to the loss of each row.

    θ′ = θ_T + ε‖θ_T‖ ∇q/‖∇q‖; score(S) = σ Σ_{i∈S} (ℓ_i(θ′) − ℓ_i(θ_T)), σ the query's sign: larger is more harmful. To
    first order it is ⟨∇q, ∇ℓ_i⟩ times the step, as a step on the row would change the query. `against_controls`:
    (change − mean)/sd over equally long steps that raise the losses of random rows.

    Notes
    -----
    Published with the absolute change, which loses the sign, and with one step of Adam, whose length is its learning
    rate; here the length is a share of the parameters' norm, so that queries of small gradients are not lost.

    Cost: a gradient for each query and control, and an evaluation of every row after each step.

    References
    ----------
    Ko et al., "The mirrored influence hypothesis: efficient data influence estimation by harnessing forward passes"
    (2024).

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Recipe, Rows, mean_loss, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=40)
    >>> zero = mean_loss(np.ones((1, 1)), np.zeros(1), name="at zero")
    >>> Mirrored().estimate(train(recipe), zero).top(1).row_id.item()
    3
    """

    name = "mirrored"
    family = "forward_only"
    paper = "arXiv 2402.08922"
    yields = "score"
    needs = Tape
    Options = MirroredOptions

    def _estimate(
        self, source: Tape, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        o, model = self.options, source.model()
        order = id_order(source)
        drawn = order[stream(o.seed, "mirrored controls").permutation(len(order))[: o.controls]]
        control = own_loss(source.rows.ids[drawn].tolist())
        with seeded(0):
            theta = source.layout.theta(model)
            before = final_losses(source, model, o.rows_at_once)
            _, directions = query_gradients([*queries, control], model, source)
        changes = np.empty((len(before), len(directions)))
        for k, direction in enumerate(directions):
            with seeded(0):
                source.layout.assign(model, theta + step_up(direction, theta, o.length))
                changes[:, k] = final_losses(source, model, o.rows_at_once) - before
            progress("steps", k + 1, len(directions))
        columns = sum(len(q.names) for q in queries)
        asked, others = (sum_over(subsets.positions, part) for part in np.split(changes, [columns], axis=1))
        return scored(
            source,
            self.name,
            queries,
            subsets,
            asked,
            mean_over(subsets, before),
            extra={"against_controls": against_controls(asked, others.T[:, :, None])},
            findings=(ONE_STEP,),
            seed=o.seed,
            details={"controls": len(drawn)},
        )

    def _cost(self, source: Tape, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        rows, columns = len(source.rows), sum(len(q.names) for q in queries)
        controls = min(self.options.controls, rows)
        memory = activation_bytes(source, max(self.options.rows_at_once, controls))
        memory += source.layout.size * source.layout.dtype.itemsize * (columns + controls + 3)
        evaluations = rows * (1 + columns + controls) + controls
        return Cost(in_trainings(source, evaluations), memory + 8 * rows * (columns + controls))


def step_up(direction: Tensor, theta: Tensor, length: float) -> Tensor:
    """Return the step along `direction` [P] of `length` times the norm of θ [P]; of `length` where θ is zero."""
    size, norm = direction.norm(), theta.norm()
    width = length * float(norm if norm > 0 else 1.0)
    return direction * (width / float(size)) if size > 0 else torch.zeros_like(direction)
