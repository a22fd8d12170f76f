"""AdamW-influence: the whole run unrolled through its optimiser, with a positive curvature at every step."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, jvp, vjp

from finfluence._progress import Progress
from finfluence.curvature import (
    EVALUATIONS,
    FISHERS,
    FisherKind,
    check_split,
    forward_derivatives,
    loss_of_outputs,
    outputs_of,
)
from finfluence.estimators._base import AbstractEstimator, Cost, check_choice
from finfluence.estimators._end_of_run import CHECKED, end_of_run, predicting
from finfluence.estimators._one_run import activation_bytes, in_trainings
from finfluence.estimators._recorded_states import every_step_backwards
from finfluence.estimators.derivatives import each, pulled_back, query_gradients
from finfluence.grads import RowLosses, never_moved
from finfluence.result import Influence
from finfluence.runs import AnyQuery, Step, Tape, seeded
from finfluence.runs.describe import Subsets


@dataclass(frozen=True, kw_only=True)
class AdamWInfluenceOptions:
    """Options of `AdamWInfluence`.

    Parameters
    ----------
    curvature : {"empirical-fisher", "gauss-newton"}
        Of each step's own rows. The published code takes the empirical Fisher matrix, which needs the rows' gradients
        alone.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    """

    curvature: FisherKind = "empirical-fisher"

    def __post_init__(self) -> None:
        check_choice("curvature", self.curvature, FISHERS)


class AdamWInfluence(AbstractEstimator[Tape, AdamWInfluenceOptions]):
    """AdamW-influence: the run unrolled through the optimiser's own update, with a positive curvature at every step.

    Backwards, for λ = ∂q/∂(θ, m, v), with U the update that was taken and C_t the curvature of the step's B rows:

        u_t = (∂U_t/∂g)ᵀ λ_{t+1},   x_{t,i} = ⟨u_t, ∇ℓ_i(θ_t)⟩,   λ_t = (∂U_t/∂s)ᵀ λ_{t+1} + [C_t u_t ; 0],

    C_t = (1/B) Σ ∇ℓ_i ∇ℓ_iᵀ (*empirical-fisher*) or (1/B) Σ J_iᵀ (∂²ℓ_i/∂o²) J_i (*gauss-newton*). To leave a row out
    of the steps that saw it changes the query by y_i = −Σ_t x_{t,i}/B. score(S) = σ Σ_{i∈S} y_i, σ the query's sign:
    larger is more harmful. `predicted_effect` is the change of the query when S is removed and other rows take its
    place: n (Σ_S y − |S| ȳ)/(n − |S|).

    Notes
    -----
    Replay is the same pass with the Hessian of the step that was taken, instead of C_t, and with an error. Both read
    the optimiser's update off the tape, AdamW or not. Where a model fits its rows, C_t is near the Hessian; early in a
    run it is not.

    References
    ----------
    Deng et al., "How faithful is trajectory-based data attribution?" (2026), Algorithm 1. Their proxy of the error of
    linearising is not computed here: `verify` measures that error by retraining.

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.runs import AdamW, Query, Recipe, Rows, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), batch_size=4, epochs=300,
    ...                 optimizer=AdamW(lr=0.05, weight_decay=0.0),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2)
    >>> weight = Query(lambda m: m.weight.sum(), name="weight", sign=+1)
    >>> found = AdamWInfluence(AdamWInfluenceOptions(curvature="gauss-newton")).estimate(train(recipe), weight)
    >>> found.data.predicted_effect.values.ravel().round(2).tolist()  # removing the 4 leaves a mean of 0
    [0.33, 0.33, 0.33, -1.0]
    """

    name = "adamw-influence"
    family = "unrolling"
    paper = "arXiv 2605.18814"
    yields = "score"
    needs = Tape
    Options = AdamWInfluenceOptions

    def _check(self, source: Tape) -> None:
        end_of_run(source, CHECKED).check()
        if self.options.curvature == "gauss-newton":
            few = source.batch(torch.arange(min(2, len(source.rows))))
            check_split(source.loss, source.working, few, source.layout.parameters(source.working))

    def _estimate(
        self, source: Tape, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        with seeded(0):
            _, asked = query_gradients(queries, source.model(), source)
            left_out = self._left_out(source, asked, progress)
        return predicting(source, self.name, queries, subsets, len(left_out) * left_out)

    def _left_out(self, tape: Tape, asked: Tensor, progress: Progress) -> np.ndarray:
        """Return y [n, Q]."""
        backwards = _Backwards(tape, self.options.curvature)
        adjoint = asked.new_zeros(len(asked), 1 + len(tape.optimizer.slots), tape.layout.size)
        adjoint[:, 0] = asked
        found = torch.zeros(len(tape.rows), len(asked), dtype=torch.float64)
        for t, state in every_step_backwards(tape):
            step = tape.at(t)
            with forward_derivatives():
                adjoint, slopes = backwards.step(state, step, adjoint)
            found.index_add_(0, step.rows.cpu(), -slopes.T.double().cpu() / len(step.rows))
            progress("steps", tape.steps - t, tape.steps)
        return found.numpy()

    def _cost(self, source: Tape, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        columns = sum(len(q.names) for q in queries)
        passes = {"empirical-fisher": 2, "gauss-newton": 2 + EVALUATIONS["gauss-newton"]}
        seen = sum(len(rows) for rows in source.order)
        recomputed = seen if source.interval > 1 else 0
        evaluations = seen * passes[self.options.curvature] + recomputed + len(source.rows) + CHECKED
        width = (1 + len(source.optimizer.slots)) * source.layout.size * source.layout.dtype.itemsize
        memory = activation_bytes(source, max(len(rows) for rows in source.order)) * (2 + columns)
        return Cost(
            in_trainings(source, evaluations),
            memory + width * (3 * columns + source.interval) + 8 * len(source.rows) * columns,
        )


class _Backwards:
    """Steps of a tape taken backwards, under the curvature of their own rows."""

    def __init__(self, tape: Tape, curvature: FisherKind) -> None:
        self._tape, self._curvature = tape, curvature
        self._losses = RowLosses(tape.working, tape.step_loss, tape.layout)
        self._outputs = RowLosses(tape.working, outputs_of(tape.step_loss), tape.layout)
        self._still = never_moved(tape.working, tape.layout)

    def step(self, state: Tensor, step: Step, adjoint: Tensor) -> tuple[Tensor, Tensor]:
        """Return λ_t [Q, 1+S, P] from λ_{t+1}, and the slopes [Q, B] of the losses whose mean the step descends."""
        theta = state[: self._tape.layout.size]
        of_rows = self._losses.holding(self._still, theta)

        def losses(p: Tensor) -> Tensor:
            return of_rows(p, step.batch, step.seed)

        values, back, *_ = vjp(losses, theta)
        gradient = back(torch.full_like(values, 1 / len(values)))[0]
        before, directions = pulled_back(self._tape.optimizer, state, gradient, step.hyper, adjoint)
        slopes: Tensor = each(lambda u: jvp(losses, (theta,), (u,))[1], directions)
        if self._curvature == "gauss-newton":
            curved = each(self._gauss_newton(theta, step), directions)
        else:
            unweighted = step.unweighted(slopes) / step.total
            curved = each(lambda x: back(x / len(values))[0], unweighted.to(values))
        return torch.cat([before[:, :1] + curved[:, None], before[:, 1:]], 1).detach(), slopes.detach()

    def _gauss_newton(self, theta: Tensor, step: Step) -> Callable[[Tensor], Tensor]:
        tape = self._tape
        of_rows = self._outputs.holding(self._still, theta)

        def outputs(p: Tensor) -> Tensor:
            return of_rows(p, step.batch, step.seed)

        values, back, *_ = vjp(outputs, theta)
        of_outputs = grad(lambda o: loss_of_outputs(tape.step_loss, tape.working, o, step.batch).mean())

        def product(u: Tensor) -> Tensor:
            moved = jvp(outputs, (theta,), (u,))[1]
            found: Tensor = back(jvp(of_outputs, (values,), (moved,))[1])[0]
            return found

        return product
