"""One segment of a run under one curvature: what it answers to a row, and what a query is before it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from finfluence.curvature import FisherKind, Kronecker, LossCurvature, Operator, functions_of
from finfluence.estimators._kronecker_fit import said_of
from finfluence.estimators._recorded_states import RecordedState

TOLERANCE = 1e-3


@dataclass(frozen=True)
class Segment:
    """States of a part of a run, and how far it went.

    Attributes
    ----------
    states : sequence of RecordedState
    rate : float
        κ, the sum of its learning rates, by what momentum makes of them.
    decay : float
        Weight decay: of SGD and Adam a part of the gradient, of AdamW one of the step.
    """

    states: Sequence[RecordedState]
    rate: float
    decay: float


@dataclass(frozen=True)
class Answered:
    """What a segment makes of queries q.

    Attributes
    ----------
    response : Tensor [Q, P]
        r: ⟨r, ḡ_i⟩ is what the segment's steps along row i do to the query.
    before : Tensor [Q, P]
        The query as a function of the state before the segment.
    said : tuple of str
        Findings.
    """

    response: Tensor
    before: Tensor
    said: tuple[str, ...] = ()


def of_sgd(segment: Segment, asked: Tensor, curvature: FisherKind, seed: int) -> Answered:
    """Return r = F(H) q and e^{−κH} q, H the EK-FAC curvature with the weight decay, F(s) = (1 − e^{−κs})/s.

    Returns
    -------
    Answered
    """
    fitted = Kronecker([s.objective for s in segment.states], curvature, True, seed)
    rate, decay = segment.rate, segment.decay
    return Answered(
        fitted.apply(asked, lambda s: response_to(s + decay, rate)),
        fitted.apply(asked, lambda s: torch.exp(-rate * (s + decay))),
        said_of(fitted),
    )


def of_adam(
    segment: Segment, asked: Tensor, curvature: FisherKind, products: int, decoupled: bool
) -> Answered:
    """Return r = √D F(H̃) √D q and D^{−½} e^{−κH̃} √D q, with H̃ = √D H √D and Adam's metric D held for the segment.

    D is the mean over the segment's states of 1/(√v̂ + ε), v̂ the second moment without its bias; zero where Adam never
    moved a parameter. Decoupled decay w adds w to H̃, and decay in the gradient w to H. No factorised curvature has a
    diagonal on both sides, so that functions of H̃ are had by Lanczos' iteration, of products over all rows.

    Returns
    -------
    Answered
    """
    metric = _metric(segment.states)
    root, moved = metric.sqrt(), metric > 0
    inside, shift = (0.0, segment.decay) if decoupled else (segment.decay, 0.0)
    operators = [LossCurvature(s.objective, curvature) for s in segment.states]
    scaled = _Scaled(operators, root.to(operators[0].like), inside)
    rate = segment.rate
    found = functions_of(
        scaled, asked * root, [lambda s: response_to(s + shift, rate), lambda s: torch.exp(-rate * (s + shift))],
        products, TOLERANCE,
    )  # fmt: skip
    response, carried = found.values
    before = torch.where(moved, carried / root.where(moved, 1.0), asked)
    said: tuple[str, ...] = ()
    if found.change > TOLERANCE:
        said = (
            f"the response of a segment still changed by {found.change:.2g} of its size with the last of "
            f"{found.products} products of the curvature; pass more, by products=",
        )
    return Answered((response * root).to(asked), before.to(asked), said)


def _metric(states: Sequence[RecordedState]) -> Tensor:
    """Return D [P], the mean over states of 1/(√v̂ + ε); zero where v is.

    Returns
    -------
    Tensor
    """
    found = []
    for state in states:
        moments = state.moments
        assert moments is not None, "checked: the run is of Adam"
        square = moments.square.double()
        unbiased = square / (1 - moments.betas[1] ** state.step)
        found.append(torch.where(square > 0, 1 / (unbiased.sqrt() + moments.eps), 0.0))
    return torch.stack(found).mean(0)


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


class _Scaled:
    """√D (C̄ + w) √D, C̄ the mean of several curvatures."""

    def __init__(self, operators: Sequence[Operator], root: Tensor, added: float) -> None:
        self._operators, self._root, self._added = operators, root, added

    @property
    def size(self) -> int:
        """P."""
        return self._operators[0].size

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype and on the device of its vectors."""
        return self._operators[0].like

    def products(self, vectors: Tensor) -> Tensor:
        """Return the product with vectors [K, P]."""
        scaled = vectors * self._root
        mean = torch.stack([operator.products(scaled) for operator in self._operators]).mean(0)
        return (mean + self._added * scaled) * self._root
