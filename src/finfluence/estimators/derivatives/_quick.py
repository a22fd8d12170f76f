"""One-sided differences for a tape, held against the exact pass on steps of it, or what forbids them.

Where rows are dear, the exact pass of a few of them costs as much as tens of steps. There differences are held against
the same ones in double precision, of one row, and these against the gradient that training got.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from torch import Tensor

from finfluence.errors import NotSupportedError, explain
from finfluence.estimators.derivatives._check import Agreement, GradientCheck, few_rows, rows_checked
from finfluence.estimators.derivatives._checked import TOLERANCE, CheckedAdjoint, apart, unit
from finfluence.estimators.derivatives._choice import Choice
from finfluence.estimators.derivatives._one_sided import OneSided
from finfluence.grads import Batch, RowLosses
from finfluence.runs import Tape
from finfluence.runs.tape import Key

FEW_ROWS = 8
MOST_QUERIES = 4
MOVES, NEAR = (1.0, 3.0, 10.0, 30.0), 0.5

Products = Callable[[Tensor, Tensor, Batch, int | None], tuple[Tensor, Tensor]]
"""(∂g/∂θ)ᵀu [Q, P] and x [Q, B] at θ [P], along u [Q, P], of a batch, under a seed."""


def one_sided(tape: Tape, check: GradientCheck, start: Tensor, reason: str, exact: Choice) -> Choice:
    """Return one-sided differences, which agree with the exact pass on the first step, the last, and one between.

    Parameters
    ----------
    tape : Tape
    check : GradientCheck
    start : Tensor [Q, P]
        Gradients of queries: what their accuracy is measured along.
    reason : str
        Why they are taken.
    exact : Choice
        The exact pass, checked.

    Returns
    -------
    Choice

    Raises
    ------
    NotSupportedError
        An operation with a kink that cannot be held on its piece, or differences that are not accurate.
    """
    adjoint = _held_on_pieces(tape, reason)
    error = _best_move(tape, adjoint, exact.adjoint.products, start, check.steps)
    _check_near(error, "the exact pass")
    checked = CheckedAdjoint(adjoint, tape, _maker(tape), fused=True, exact=exact.adjoint.inner)
    return Choice(checked, reason, exact.agreement, error, "the exact pass")


def directly(tape: Tape, check: GradientCheck, start: Tensor, reason: str) -> Choice:
    """Return one-sided differences that agree with double precision, without the exact pass.

    What goes backwards is right where (a) the gradient's derivative is symmetric, (b) the losses' derivative is the
    gradient, and (c) differences are accurate. (a) and (b) are seen in double precision, on one row of the first step,
    the last, and one between, along a random direction; (c) there along the first query's gradient.

    Parameters
    ----------
    tape, check, start, reason
        As of `one_sided`.

    Returns
    -------
    Choice

    Raises
    ------
    NotSupportedError
        As `one_sided`; or there is no double precision, or the derivative is not symmetric.
    """
    adjoint, make = _held_on_pieces(tape, reason), _maker(tape)
    agreement = tape.cache.get(_AgreementOf(), lambda: check.of(make, fused=True, rows=1))
    if not agreement.double or not agreement.holds:
        raise NotSupportedError(
            explain(
                "a gradient with a symmetric derivative, in double precision",
                f"{agreement.sentence} ({reason})",
                "the loss stops or changes gradients, or computes in its own precision only",
                "use differentiation='exact'",
            )
        )
    double = check.adjoint(make, fused=True)

    def products(theta: Tensor, along: Tensor, batch: Batch, seed: int | None) -> tuple[Tensor, Tensor]:
        return check.products(double, theta, along, batch, seed)

    against = "differences in double precision"
    error = _best_move(tape, adjoint, products, start, check.steps, most=1)
    _check_near(error, against)
    return Choice(CheckedAdjoint(adjoint, tape, make, fused=True), reason, agreement, error, against)


@dataclass(frozen=True)
class _AgreementOf(Key[Agreement]):
    """The tape alone, whose cache it is: of one-sided differences, along random directions."""


def _maker(tape: Tape) -> Callable[[RowLosses], OneSided]:
    def make(losses: RowLosses) -> OneSided:
        return OneSided(losses, tape.optimizer)

    return make


def _held_on_pieces(tape: Tape, reason: str) -> OneSided:
    """Return differences of a loss whose kinks can be held on their pieces."""
    adjoint = _maker(tape)(RowLosses(tape.working, tape.step_loss, tape.layout, fused=True))
    step, state = tape.at(tape.steps - 1), tape.state(tape.steps - 1)
    names = adjoint.unfrozen(state[: tape.layout.size].to(tape.layout.device), step.batch, step.seed)
    if names:
        raise NotSupportedError(
            explain(
                "smooth operations, or those that can be held on one side of their kink, for finite differences",
                f"{', '.join(names[:4])} in the model or loss ({reason})",
                "where a derivative jumps, gradients at θ and θ + εu lie on two sides of the kink "
                "and their difference is wrong for any ε",
                "use differentiation='exact', or a smooth activation such as GELU, SiLU or tanh",
            )
        )
    return adjoint


def _check_near(error: float, against: str) -> None:
    if not error <= TOLERANCE:
        raise NotSupportedError(
            explain(
                f"finite differences that agree with {against} to {TOLERANCE:.0%} on a few steps",
                f"a relative difference of {error:.2g}",
                "the loss bends within the step (a kink or a jump in its code), "
                "or is computed in too low a precision",
                "use differentiation='exact', smooth activations, or float32 throughout",
            )
        )


def pays(tape: Tape, queries: int, saved_bytes: float) -> bool:
    """Whether one-sided differences cost less than the exact pass: counted, not timed.

    They take a plain step for each query. The exact pass takes more for the first and less for each further one.

    Returns
    -------
    bool
    """
    if queries > MOST_QUERIES or saved_bytes < OneSided.least_bytes:
        return False
    return tape.stochastic or _read(tape, tape.steps - 1) is not None


def _read(tape: Tape, t: int) -> Tensor | None:
    """Return the gradient of step t, as its optimiser's buffers tell it."""
    size, device = tape.layout.size, tape.layout.device
    theta, *slots = tape.state(t).to(device).view(-1, size).unbind()
    after = tape.state(t + 1).to(device).view(-1, size)[1:].unbind()
    return tape.optimizer.gradient(theta, tuple(slots), tuple(after), tape.at(t).hyper.unbind())


@dataclass(frozen=True, eq=False)
class _Probe:
    """One step: what is known of it, and products of some of its rows along a unit direction, by another way."""

    theta: Tensor
    along: Tensor
    batch: Batch
    seed: int | None
    wanted: tuple[Tensor, Tensor]
    known: float

    @classmethod
    def of(
        cls, tape: Tape, adjoint: OneSided, products: Products, start: Tensor, t: int, most: int
    ) -> "_Probe":
        step, state = tape.at(t), tape.state(t).to(tape.layout.device)
        theta, along = state[: tape.layout.size], unit(start[:1])
        rows = few_rows(step.batch, len(step.rows), most)
        wanted = products(theta, along, rows, step.seed)
        known = tape.cache.get(_KnownError(t), lambda: _known_error(tape, adjoint, t))
        return cls(theta, along, rows, step.seed, wanted, known)

    def error(self, adjoint: OneSided, usual: tuple[float, float]) -> float:
        """Return how far differences are from what is wanted, and what is known of the step from what it is."""
        off = apart(adjoint, self.wanted, self.theta, self.along, self.batch, self.seed, usual)
        return max(self.known / adjoint.kappa, off)

    @property
    def sizes(self) -> tuple[float, float]:
        """Of products and row derivatives."""
        products, slopes = self.wanted
        return float(products.norm()), float(slopes.norm())


def _best_move(
    tape: Tape,
    adjoint: OneSided,
    products: Products,
    start: Tensor,
    steps: tuple[int, ...],
    most: int | None = None,
) -> float:
    """Set the κ with which differences are nearest to other products on these steps, and return how near.

    The rounding of a loss grows with the model, and its share of a difference falls with κ. The first κ that is near by
    far is taken: differences are truncated the less, the smaller it is. Where slopes are small, as at the first step of
    adapters that start from zero, errors count relative to the median size at these steps.

    Returns
    -------
    float
    """
    most = rows_checked(tape, FEW_ROWS) if most is None else most
    probes = [_Probe.of(tape, adjoint, products, start, t, most) for t in steps]
    usual = median(probe.sizes[0] for probe in probes), median(probe.sizes[1] for probe in probes)
    least, found = adjoint.kappa, {}
    for factor in MOVES:
        adjoint.kappa = factor * least
        found[adjoint.kappa] = max(probe.error(adjoint, usual) for probe in probes)
        if found[adjoint.kappa] <= NEAR * TOLERANCE:
            break
    adjoint.kappa = min(found, key=lambda kappa: found[kappa])
    return found[adjoint.kappa]


@dataclass(frozen=True)
class _KnownError(Key[float]):
    """Of a step of the tape whose cache it is."""

    t: int


def _known_error(tape: Tape, adjoint: OneSided, t: int) -> float:
    """Return how far gradient and row losses of step t, as the tape tells them, are from what they are."""
    step, state = tape.at(t), tape.state(t).to(tape.layout.device)
    theta = state[: tape.layout.size]
    gradient, losses = adjoint.plain.gradient(theta, step.batch, step.seed)
    size, error = gradient.norm().clamp_min(1e-30), 0.0
    read, kept = _read(tape, t), tape.row_losses(t)
    if read is not None:
        error = float((read - gradient).norm() / size)
    if kept is not None:
        error = max(error, float((kept - losses).norm() / losses.norm().clamp_min(1e-30)))
    return error
