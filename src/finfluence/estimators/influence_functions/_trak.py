"""TRAK: the linear model of projected gradients that a run ended in."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finfluence._progress import Progress
from finfluence.curvature import Objective
from finfluence.errors import NotSupportedError, explain
from finfluence.estimators._base import AbstractEstimator, Cost, check_whole
from finfluence.estimators._end_of_run import end_of_run
from finfluence.estimators._one_run import (
    activation_bytes,
    in_trainings,
    scored,
)
from finfluence.estimators.derivatives import query_gradients
from finfluence.estimators.influence_functions._influence_function import check_not_negative
from finfluence.grads import Projection
from finfluence.result import Influence
from finfluence.runs import AnyQuery, Tape, seeded
from finfluence.runs.describe import Subsets, sum_over

TRIED = 8


@dataclass(frozen=True, kw_only=True)
class TrakOptions:
    """Options of `Trak`.

    Parameters
    ----------
    dimensions : int
        Of the random projection of gradients; as many as parameters, or more, leave them as they are.
    checkpoints : int
        States of the run that are averaged, evenly spaced over its second half, the last one its end.
    damping : float
        λ, in units of the mean eigenvalue of ΦᵀΦ where it is not zero.
    rows_at_once : int
        Rows evaluated together, fewer where memory asks for it; results do not depend on it.
    seed : int
        Of the projections.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    """

    dimensions: int = 512
    checkpoints: int = 1
    damping: float = 0.01
    rows_at_once: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("dimensions", self.dimensions)
        check_whole("checkpoints", self.checkpoints)
        check_not_negative("damping", self.damping)
        check_whole("rows_at_once", self.rows_at_once)
        check_whole("seed", self.seed, 0)


class Trak(AbstractEstimator[Tape, TrakOptions]):
    """TRAK: rows as features of a linear model, their gradients projected at random; for losses −log p.

    With f = log(p/(1−p)) of a row's label, φ_i = P∇f_i and Q = diag(1 − p_i): τ(q) = ∇qᵀPᵀ (ΦᵀΦ + λ)⁻¹Φᵀ Q is what
    including a row adds to q, and score(S) = −σ Σ_{i∈S} τ_i, σ the query's sign: larger is more harmful.

    Notes
    -----
    Nothing is rescaled: λ is a share of the mean eigenvalue of ΦᵀΦ. With several checkpoints the two factors are
    averaged
    apart and then multiplied, as published for several models; checkpoints of one run are less different from each
    other
    than independent trainings, whose results `fi.pool` does not mix. p = e^{−ℓ}: other losses are refused.

    Cost: the gradient of every row at each checkpoint.

    References
    ----------
    Park et al., "TRAK: attributing model behavior at scale" (2023), sections 3 and 4.

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Recipe, Rows, own_loss, train
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.1]])
    >>> recipe = Recipe(data=Rows(x=x, y=np.array([0, 1, 1, 0])), model=nn.Linear(2, 2), optimizer=SGD(lr=0.5),
    ...                 loss=lambda m, b: nn.functional.cross_entropy(m(b["x"]), b["y"], reduction="none"),
    ...                 batch_size=4, epochs=20)
    >>> found = Trak().estimate(train(recipe), own_loss([0])).top(2, direction="helpful")
    >>> sorted(found.row_id)  # the row itself and the one beside it
    [0, 3]
    """

    name = "trak"
    family = "influence_functions"
    paper = "arXiv 2303.14186"
    yields = "score"
    needs = Tape
    Options = TrakOptions

    def _estimate(
        self, source: Tape, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        o = self.options
        steps = _spaced(source.steps, o.checkpoints)
        kernels, residuals = [], []
        for m, step in enumerate(steps):
            with seeded(0):
                objective = end_of_run(source, o.rows_at_once, step)
                _check_log_loss(objective)
                _, asked = query_gradients(queries, source.model(step), source)
                projection = Projection(source.layout.size, o.dimensions, o.seed, m)
                rest = _one_minus_p(objective)
                margins = _margin_features(objective, projection, rest)
                kernels.append(kernel_products(margins, projection(asked).double(), o.damping))
                residuals.append(rest)
            progress("checkpoints", m + 1, len(steps))
        rest = torch.stack(residuals).mean(0)
        included = (torch.stack(kernels).mean(0) * rest).T.cpu().numpy()
        return scored(
            source,
            self.name,
            queries,
            subsets,
            sum_over(subsets.positions, -included),
            findings=("a score, without an error: it is that of one run's linear model",),
            details={"checkpoints": steps, "dimensions": min(o.dimensions, source.layout.size)},
        )

    def _cost(self, source: Tape, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        rows, dimensions = len(source.rows), min(self.options.dimensions, source.layout.size)
        states = len(_spaced(source.steps, self.options.checkpoints))
        evaluations = rows * (1 + 2 * states) + 2 * TRIED * states
        memory = activation_bytes(source, self.options.rows_at_once) + 8 * source.layout.size * 64
        memory += 8 * (rows * dimensions + dimensions**2 + min(rows, dimensions) ** 2)
        return Cost(in_trainings(source, evaluations), memory)


def kernel_products(features: Tensor, asked: Tensor, damping: float) -> Tensor:
    """Return φ_qᵀ(ΦᵀΦ + λ)⁻¹Φᵀ [Q, n] for features Φ [n, k] and queries φ_q [Q, k].

    λ is `damping` times the mean eigenvalue that is not zero: tr ΦᵀΦ / min(n, k).

    Returns
    -------
    Tensor [Q, n]

    Raises
    ------
    NotSupportedError
        λ = 0 and more dimensions than rows, or features that depend on each other.

    Examples
    --------
    >>> phi = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> found = kernel_products(phi, torch.tensor([[2.0, 1.0]]), 0.0) * torch.tensor([0.5, 0.2, 0.1])
    >>> [round(x, 4) + 0.0 for x in found[0].tolist()]
    [0.5, 0.0, 0.1]
    """
    rows, dimensions = features.shape
    ridge = damping * float((features**2).sum()) / min(rows, dimensions)
    if ridge == 0 and int(torch.linalg.matrix_rank(features)) < dimensions:
        raise NotSupportedError(
            explain(
                "damping above zero, or features of which none depends on the others",
                f"damping={damping!r} and {dimensions} dimensions for {rows} rows, which span fewer",
                "ΦᵀΦ has no inverse then: there are few rows, or parameters that do the same",
                "leave damping out, or pass dimensions= well below the numbers of rows and of parameters",
            )
        )
    if rows < dimensions:
        inner = features @ features.T
        inner.diagonal().add_(ridge)
        return torch.linalg.solve(inner, features @ asked.T).T
    outer = features.T @ features
    outer.diagonal().add_(ridge)
    return torch.linalg.solve(outer, asked.T).T @ features.T


def _spaced(steps: int, count: int) -> list[int]:
    spaced = np.linspace(steps, steps / 2, count)
    return sorted({int(s) for s in spaced})


def _one_minus_p(objective: Objective) -> Tensor:
    """Return 1 − p [n] of every row's label."""
    with torch.no_grad():
        parts = [objective.loss(objective.model, batch) for _, batch in objective.rows.chunks()]
    return -torch.expm1(-torch.cat(parts).double())


def _margin_features(objective: Objective, projection: Projection, rest: Tensor) -> Tensor:
    """Return Φ [n, k]: ∇f = −∇ℓ / (1 − p); zero where p = 1, and no gradient is left."""
    projected = torch.cat([projection(g).double() for g in objective.row_gradients()])
    return -projected / torch.where(rest > 0, rest, torch.ones_like(rest))[:, None]


def _check_log_loss(objective: Objective) -> None:
    """Raise unless the loss is −log p of a label: its derivative in the outputs is then largest at 1 − p."""
    batch = objective.rows.batch(torch.arange(min(TRIED, objective.rows.count)))
    with torch.enable_grad():
        outputs = objective.outputs(objective.theta, batch).detach().requires_grad_()
        losses = objective.of_outputs(outputs, batch)
        (back,) = torch.autograd.grad(losses.sum(), outputs)
    rest = -torch.expm1(-losses.detach())
    off = (back.flatten(1).abs().max(1).values - rest).abs().max()
    if not float(off) <= 1e-3:
        raise NotSupportedError(
            explain(
                "a loss −log p of a class label, for TRAK's margin log(p / (1 − p))",
                f"derivatives in the outputs that differ from 1 − e^(−loss) by {float(off):.2g}",
                "a regression, a loss with weights or smoothed labels, or one averaged over tokens",
                "use method='if-ekfac', which takes any loss",
            )
        )
