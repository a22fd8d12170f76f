"""One-sided differences for a tape, held against the exact pass on steps of it, or what forbids them."""

from torch import Tensor

from finfluence.errors import NotSupportedError, explain
from finfluence.estimators.derivatives._check import GradientCheck, few_rows, rows_checked
from finfluence.estimators.derivatives._checked import TOLERANCE, CheckedAdjoint, apart
from finfluence.estimators.derivatives._choice import Choice
from finfluence.estimators.derivatives._one_sided import OneSided
from finfluence.estimators.derivatives._protocol import StepAdjoint
from finfluence.grads import RowLosses
from finfluence.runs import Tape

FEW_ROWS = 8
MOST_QUERIES = 4
MOVES, NEAR = (1.0, 3.0, 10.0), 0.5


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

    def make(losses: RowLosses) -> OneSided:
        return OneSided(losses, tape.optimizer)

    adjoint = make(RowLosses(tape.working, tape.step_loss, tape.layout, fused=True))
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
    error = _best_move(tape, adjoint, exact.adjoint.inner, start, check.steps)
    if not error <= TOLERANCE:
        raise NotSupportedError(
            explain(
                f"finite differences that agree with the exact pass to {TOLERANCE:.0%} on a few steps",
                f"a relative difference of {error:.2g}",
                "the loss bends within the step (a kink or a jump in its code), "
                "or is computed in too low a precision",
                "use differentiation='exact', smooth activations, or float32 throughout",
            )
        )
    checked = CheckedAdjoint(adjoint, tape, make, fused=True, exact=exact.adjoint.inner)
    return Choice(checked, reason, exact.agreement, error, "the exact pass")


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


def _best_move(
    tape: Tape, adjoint: OneSided, exact: StepAdjoint, start: Tensor, steps: tuple[int, ...]
) -> float:
    """Set the κ with which differences are nearest to the exact pass on these steps, and return how near.

    The rounding of a loss grows with the model, and its share of a difference falls with κ. The first κ that is near by
    far is taken: differences are truncated the less, the smaller it is.

    Returns
    -------
    float
    """
    least, found = adjoint.kappa, {}
    for factor in MOVES:
        adjoint.kappa = factor * least
        found[adjoint.kappa] = max(_error(tape, adjoint, exact, start, t) for t in steps)
        if found[adjoint.kappa] <= NEAR * TOLERANCE:
            break
    adjoint.kappa = min(found, key=lambda kappa: found[kappa])
    return found[adjoint.kappa]


def _error(tape: Tape, adjoint: OneSided, exact: StepAdjoint, start: Tensor, t: int) -> float:
    """Return how far differences are from the exact pass at step t, and what is known of the step from what it is."""
    step, state = tape.at(t), tape.state(t).to(tape.layout.device)
    theta = state[: tape.layout.size]
    gradient, losses = adjoint.plain.gradient(theta, step.batch, step.seed)
    size, error = gradient.norm().clamp_min(1e-30), 0.0
    read, kept = _read(tape, t), tape.row_losses(t)
    if read is not None:
        error = float((read - gradient).norm() / size) / adjoint.kappa
    if kept is not None:
        error = max(error, float((kept - losses).norm() / losses.norm().clamp_min(1e-30)) / adjoint.kappa)
    rows = few_rows(step.batch, len(step.rows), rows_checked(tape, FEW_ROWS))
    return max(error, apart(adjoint, exact, theta, start[:1], rows, step.seed))
