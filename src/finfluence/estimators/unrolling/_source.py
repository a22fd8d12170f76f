"""SOURCE: training unrolled in a few segments, each with one averaged curvature and one averaged gradient."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finfluence._progress import Progress
from finfluence.curvature import FISHERS, FisherKind, Kronecker
from finfluence.estimators._base import AbstractEstimator, Cost, check_choice, check_whole
from finfluence.estimators._end_of_run import removal_effects, weight_decay
from finfluence.estimators._kronecker_fit import fit_passes, said_of
from finfluence.estimators._one_run import activation_bytes, in_trainings, labels, one_run, own_losses
from finfluence.estimators._recorded_states import RecordedState, check_sgd, recorded_states, spaced_steps
from finfluence.result import Influence
from finfluence.runs import AnyQuery, Tape
from finfluence.runs.describe import Subsets, sum_over

CHECKED = 32  # evaluations of single rows by which loss and model are tried
SCORE = (
    "a score, without an error: it is the response of one run, and training randomness is not looked at; "
    "'predicted_effect' holds the change of the query, in its unit, that removing the rows is predicted to cause"
)


@dataclass(frozen=True, kw_only=True)
class SegmentOptions:
    """Options of `Segments`.

    Parameters
    ----------
    segments : int
        Parts of the run, of equal length, in each of which curvature and gradients are taken for constant.
    checkpoints : int
        States of each segment that its curvature and gradients are averaged over.
    curvature : {"gauss-newton", "empirical-fisher"}
        What EK-FAC factorises.
    rows_at_once : int
        Rows evaluated together, fewer where memory asks for it; results do not depend on it.
    seed : int
        Of the random directions in the space of outputs that stand for labels drawn from the model.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    """

    segments: int = 3
    checkpoints: int = 2
    curvature: FisherKind = "gauss-newton"
    rows_at_once: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("segments", self.segments)
        check_whole("checkpoints", self.checkpoints)
        check_choice("curvature", self.curvature, FISHERS)
        check_whole("rows_at_once", self.rows_at_once)
        check_whole("seed", self.seed, 0)


class Segments(AbstractEstimator[Tape, SegmentOptions]):
    """SOURCE: the run unrolled in segments of averaged EK-FAC curvature, between TracIn and influence functions.

    From the last segment to the first, with q = ∇q(θ_T), κ the sum of the segment's learning rates (over 1 − β with
    momentum β) and H its curvature: r = F(H) q, F(s) = (1 − e^{−κs})/s, then q ← e^{−κH} q. With x_i = Σ r·ḡ_i, ḡ_i the
    row's gradient averaged over the segment's states: score(S) = σ Σ_{i∈S} x_i/n, σ the query's sign: larger is more
    harmful. `predicted_effect` is the change of the query when S is removed: (Σ_S x − |S| x̄)/(n − |S|).

    Notes
    -----
    One segment and κ → ∞ is an influence function without damping; κ → 0 is κ times TracIn. For SGD, whose steps follow
    the gradient: of Adam, whose metric is another at each step, it is refused. Weight decay is added to H.

    Cost: EK-FAC at each state, and one evaluation of every row.

    References
    ----------
    Bae et al., "Training data attribution via approximate unrolled differentiation" (2024), section 4.

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Query, Recipe, Rows, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=4, epochs=200)
    >>> weight = Query(lambda m: m.weight.sum(), name="weight", sign=+1)
    >>> found = Segments(SegmentOptions(segments=2)).estimate(train(recipe), weight)
    >>> found.data.predicted_effect.values.ravel().round(2).tolist()  # removing the 4 leaves a mean of 0
    [0.33, 0.33, 0.33, -1.0]
    """

    name = "source"
    family = "unrolling"
    paper = "arXiv 2405.12186"
    yields = "score"
    needs = Tape
    Options = SegmentOptions

    def _check(self, source: Tape) -> None:
        check_sgd(
            source,
            "SOURCE",
            "segments take one curvature and one learning rate for all parameters",
            groups=False,
        )

    def _estimate(
        self, source: Tape, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        o = self.options
        parts = segments(source, o.segments, o.checkpoints)
        kappas = integrated_rates(source, parts)
        decay, _ = weight_decay(source)
        products = np.zeros((len(source.rows), sum(len(q.names) for q in queries)))
        asked: Tensor | None = None
        said: tuple[str, ...] = ()
        for done, (steps, kappa) in enumerate(zip(parts[::-1], kappas[::-1], strict=True), start=1):
            states = list(recorded_states(source, queries, steps, o.rows_at_once))
            if asked is None:
                states[-1].objective.check()
                asked = states[-1].asked
            curvature = Kronecker([s.objective for s in states], o.curvature, True, o.seed)
            response = curvature.apply(asked, lambda s, k=kappa: response_to(s + decay, k))  # type: ignore[misc]
            products += averaged_products(states, response)
            asked = curvature.apply(asked, lambda s, k=kappa: torch.exp(-k * (s + decay)))  # type: ignore[misc]
            said = said_of(curvature)
            progress("segments", done, len(parts))
        signs = [q.sign for q in queries for _ in q.names]
        return Influence.build(
            score=sum_over(subsets.positions, products * signs) / len(source.rows),
            extra={"predicted_effect": removal_effects(products, subsets.positions)},
            own_loss=own_losses(source, subsets),
            provenance=one_run(
                source,
                self.name,
                covers=(),
                findings=(SCORE, *said),
                details={"segments": parts, "integrated_rates": kappas, "weight_decay": decay},
            ),
            **labels(queries, subsets),
        )

    def _cost(self, source: Tape, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        rows, columns = len(source.rows), sum(len(q.names) for q in queries)
        states = sum(
            len(steps) for steps in segments(source, self.options.segments, self.options.checkpoints)
        )
        passes = 1 + states * (1 + fit_passes(self.options.curvature, True))
        memory = activation_bytes(source, self.options.rows_at_once) * (2 + columns)
        memory += 8 * source.layout.size * (4 * columns + 8) + 8 * rows * columns
        return Cost(in_trainings(source, rows * passes + CHECKED), memory)


def segments(tape: Tape, count: int, checkpoints: int) -> list[list[int]]:
    """Return the steps before which each of `count` segments is looked at; the last of each is its end.

    Returns
    -------
    list of lists of int
    """
    ends = spaced_steps(tape, count)
    every = sorted({*spaced_steps(tape, count * checkpoints), *ends})
    starts = [0, *ends[:-1]]
    return [[s for s in every if a < s <= b] for a, b in zip(starts, ends, strict=True)]


def integrated_rates(tape: Tape, parts: list[list[int]]) -> list[float]:
    """Return κ of each segment: the sum of its learning rates, over 1 − β (times 1 − dampening) with momentum."""
    described = tape.describe()["optimizer"]
    momentum = float(described["momentum"])
    gain = (1 - float(described["dampening"])) / (1 - momentum) if momentum else 1.0
    ends = [steps[-1] for steps in parts]
    return [gain * sum(tape.rates[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def response_to(curvature: Tensor, kappa: float) -> Tensor:
    """Return F(s) = (1 − e^{−κs})/s of eigenvalues s, κ where s is zero.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> [round(x, 6) for x in response_to(torch.tensor([0.0, 0.01, 1.0, 10.0]).double(), 5.0).tolist()]
    [5.0, 4.877058, 0.993262, 0.1]
    """
    zero = curvature == 0
    safe = torch.where(zero, 1.0, curvature)
    return torch.where(zero, kappa, -torch.expm1(-kappa * safe) / safe)


def averaged_products(states: list[RecordedState], response: Tensor) -> np.ndarray:
    """Return ⟨r, ḡ_i⟩ [n, Q] of directions r [Q, P] with the rows' gradients averaged over the states."""
    found = torch.stack([s.objective.row_derivatives(response) for s in states]).mean(0)
    return np.asarray(found.T.double().cpu().numpy())
