"""SOURCE: training unrolled in a few segments, each with one averaged curvature and one averaged gradient."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finfluence._progress import Progress
from finfluence.curvature import BASES, EVALUATIONS, FISHERS, FisherKind
from finfluence.estimators._base import AbstractEstimator, Cost, check_choice, check_whole
from finfluence.estimators._end_of_run import CHECKED, predicting
from finfluence.estimators._kronecker_fit import fit_passes
from finfluence.estimators._one_run import activation_bytes, in_trainings
from finfluence.estimators._recorded_states import RecordedState, check_sgd, recorded_states, spaced_steps
from finfluence.estimators.unrolling._segment import Answered, Segment, of_adam, of_sgd
from finfluence.result import Influence
from finfluence.runs import AnyQuery, Tape
from finfluence.runs.describe import Subsets


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
        What EK-FAC factorises; of runs of Adam, what products are of.
    products : int
        Of runs of Adam: at most so many products of each segment's curvature.
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
    products: int = 60
    rows_at_once: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("segments", self.segments)
        check_whole("checkpoints", self.checkpoints)
        check_choice("curvature", self.curvature, FISHERS)
        check_whole("products", self.products)
        check_whole("rows_at_once", self.rows_at_once)
        check_whole("seed", self.seed, 0)


class Segments(AbstractEstimator[Tape, SegmentOptions]):
    """SOURCE: the run unrolled in segments of averaged curvature, between TracIn and influence functions.

    From the last segment to the first, with q = ∇q(θ_T), κ the sum of the segment's learning rates (over 1 − β with
    momentum β) and H its curvature: r = F(H) q, F(s) = (1 − e^{−κs})/s, then q ← e^{−κH} q. With x_i = Σ r·ḡ_i, ḡ_i the
    row's gradient averaged over the segment's states: score(S) = σ Σ_{i∈S} x_i/n, σ the query's sign: larger is more
    harmful. `predicted_effect` is the change of the query when S is removed: (Σ_S x − |S| x̄)/(n − |S|).

    Notes
    -----
    One segment and κ → ∞ is an influence function without damping; κ → 0 is κ times TracIn. SGD: H is that of EK-FAC,
    with the weight decay. Adam and AdamW: their metric D, the mean of 1/(√v̂ + ε) over the segment's states, is held for
    a segment, as what a row does to it is left out; r = √D F(H̃) √D q and q ← D^{−½} e^{−κH̃} √D q with H̃ = √D H √D, by
    Lanczos' iteration, which needs no factors. AdamW's decay w adds w to H̃, Adam's w to H.

    Cost: EK-FAC at each state, of Adam up to `products` products of the curvature there; and one evaluation of every
    row.

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
            adam=True,
        )

    def _estimate(
        self, source: Tape, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        o = self.options
        parts = segments(source, o.segments, o.checkpoints)
        kappas = integrated_rates(source, parts)
        decay = float(source.describe()["optimizer"].get("weight_decay") or 0.0)
        products = np.zeros((len(source.rows), sum(len(q.names) for q in queries)))
        asked: Tensor | None = None
        said: tuple[str, ...] = ()
        for done, (steps, kappa) in enumerate(zip(parts[::-1], kappas[::-1], strict=True), start=1):
            states = list(recorded_states(source, queries, steps, o.rows_at_once))
            if asked is None:
                states[-1].objective.check()
                asked = states[-1].asked
            answered = self._answered(source, Segment(states, kappa, decay), asked)
            products += averaged_products(states, answered.response)
            asked, said = answered.before, tuple(dict.fromkeys((*said, *answered.said)))
            progress("segments", done, len(parts))
        return predicting(
            source,
            self.name,
            queries,
            subsets,
            products,
            findings=said,
            details={"segments": parts, "integrated_rates": kappas, "weight_decay": decay},
        )

    def _cost(self, source: Tape, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        rows, columns = len(source.rows), sum(len(q.names) for q in queries)
        states = sum(
            len(steps) for steps in segments(source, self.options.segments, self.options.checkpoints)
        )
        fit, bases = fit_passes(self.options.curvature, True), 0
        if _adam(source) is not None:
            most, size = self.options.products, source.layout.size
            fit = EVALUATIONS[self.options.curvature] * most
            bases = min(most * columns * size, max(BASES, most * size))
        passes = 1 + states * (1 + fit)
        memory = activation_bytes(source, self.options.rows_at_once) * (2 + columns)
        memory += 8 * source.layout.size * (4 * columns + 8) + 8 * (2 * bases + rows * columns)
        return Cost(in_trainings(source, rows * passes + CHECKED), memory)

    def _answered(self, source: Tape, segment: Segment, asked: Tensor) -> Answered:
        o, adam = self.options, _adam(source)
        if adam is None:
            return of_sgd(segment, asked, o.curvature, o.seed)
        return of_adam(segment, asked, o.curvature, o.products, decoupled=adam == "AdamW")


def _adam(tape: Tape) -> str | None:
    """Return "Adam" or "AdamW", whose decay is decoupled; None of SGD."""
    described = tape.describe()["optimizer"]
    if described["name"] == "SGD":
        return None
    decoupled = described["name"] == "AdamW" or bool(described.get("decoupled_weight_decay"))
    return "AdamW" if decoupled else "Adam"


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
    """Return κ of each segment: the sum of its learning rates, of SGD over 1 − β (times 1 − dampening)."""
    described = tape.describe()["optimizer"]
    momentum = float(described.get("momentum") or 0.0)
    gain = (1 - float(described["dampening"])) / (1 - momentum) if momentum else 1.0
    ends = [steps[-1] for steps in parts]
    return [gain * sum(tape.rates[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def averaged_products(states: list[RecordedState], response: Tensor) -> np.ndarray:
    """Return ⟨r, ḡ_i⟩ [n, Q] of directions r [Q, P] with the rows' gradients averaged over the states."""
    found = torch.stack([s.objective.row_derivatives(response) for s in states]).mean(0)
    return np.asarray(found.T.double().cpu().numpy())
