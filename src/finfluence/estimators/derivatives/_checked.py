"""A step adjoint that is checked again while it goes backwards."""

from dataclasses import dataclass

import torch
from torch import Tensor

from finfluence.errors import NotSupportedError, TrainingError, explain
from finfluence.estimators.derivatives._check import (
    GradientCheck,
    Maker,
    Point,
    dear,
    few_rows,
    rows_checked,
)
from finfluence.estimators.derivatives._departures import Departure, first_departure
from finfluence.estimators.derivatives._one_sided import OneSided
from finfluence.estimators.derivatives._protocol import Known, StepAdjoint
from finfluence.estimators.derivatives._returned import ReturnedGradient
from finfluence.grads import Batch, RowLosses
from finfluence.runs import Tape, Update, seeded

FIRST, GROWTH = 4, 4
ALLOWED, LOWEST = {torch.float64: 1e-6, torch.float32: 0.1}, 0.3
EVERY_STEP = 3  # times as much where the gradient is read off what the step did
ALONG = 3e-3  # in float32, of derivatives computed alike: up to 5e-5 was seen
TOLERANCE, ROUNDING = 0.02, 100
HELD, TOGETHER = 2**18, 16  # numbers of adjoints that wait to be compared, and steps
_NAMES = {"gradient": "gradients", "parameters": "parameters after the step"}


class DifferentGradientError(NotSupportedError):
    """What went backwards is not the adjoint of the step that was taken."""


class CheckedAdjoint:
    """The twin of `inner`, compared with the gradient that training got: at the 4th, 16th, 64th, … step as a whole.

    Where rows are dear it is first compared at the 16th, on one row.

    At every step, the mean of the row derivatives is compared with ⟨u, g⟩, where what the step did to parameters and
    buffers tells the gradient g.

    Parameters
    ----------
    inner : StepAdjoint
    tape : Tape
        Whose steps are taken backwards.
    make : callable
        Makes the same kind of adjoint of other row losses: those in double precision.
    fused : bool
        Whether those run the kernels of training.
    exact : StepAdjoint, optional
        Compared with, too: of differences.
    """

    def __init__(
        self,
        inner: StepAdjoint,
        tape: Tape,
        make: Maker,
        fused: bool = False,
        exact: StepAdjoint | None = None,
    ) -> None:
        self.inner = inner
        self._tape, self._make, self._fused, self.exact = tape, make, fused, exact
        self._taken, self._next, self._judges = 0, FIRST, True
        self._at: int | None = None
        self._waiting: list[_Along] = []

    @property
    def moves(self) -> Tensor | None:
        """What one step takes over from the one before."""
        return self.inner.moves

    @moves.setter
    def moves(self, value: Tensor | None) -> None:
        self.inner.moves = value

    @property
    def gradient(self) -> Tensor | None:
        """Of the last step, where the optimiser hides what it got."""
        return self.inner.gradient

    @property
    def differentiation(self) -> str:
        """How derivatives are taken, in a word."""
        return self.inner.differentiation

    @property
    def engine(self) -> str:
        """How the functions ran: "traced", or "eager" with the reason."""
        return self.inner.engine

    @property
    def losses(self) -> RowLosses:
        """The row losses whose gradient the step descends."""
        return self.inner.losses

    @property
    def optimizer(self) -> Update:
        """The update, which is differentiated."""
        return self.inner.optimizer

    def around(self, inner: StepAdjoint) -> "CheckedAdjoint":
        """Return the same checks around another adjoint."""
        return CheckedAdjoint(inner, self._tape, self._make, self._fused, self.exact)

    def for_timing(self) -> "CheckedAdjoint":
        """Return a twin that makes the comparisons of an ordinary step and judges by none of them.

        Steps that are timed are taken along other directions than those of a pass, and count for none.

        Returns
        -------
        CheckedAdjoint
        """
        twin = self.around(self.inner)
        twin._next, twin._judges = 0, False
        return twin

    def fresh(self) -> StepAdjoint:
        """Return an adjoint of the same kind that has traced nothing yet."""
        return self._make(self.losses)

    def step(
        self,
        state: Tensor,
        hyper: Tensor,
        batch: Batch,
        adjoint: Tensor,
        seed: int | None = None,
        known: Known | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Take one step backwards; arguments as those of `StepAdjoint.step`.

        Returns
        -------
        adjoint [Q, 1+S, P], row derivatives x [Q, B], direction u [Q, P]

        Raises
        ------
        NotSupportedError
            What goes backwards is not the adjoint of the step that was taken.
        TrainingError
            The step that was recorded is not the one that its rows, loss and optimiser make.
        """
        known = Known() if known is None else known.read(self.optimizer, state, hyper)
        self._at = known.t
        found = self.inner.step(state, hyper, batch, adjoint, seed, known)
        self._taken += 1
        due = self._taken == self._next
        self._next *= GROWTH if due else 1
        if due and not (self._taken == FIRST and dear(self._tape)):
            self.settle()
            theta = state[: self.losses.layout.size]
            with seeded(0):
                self._compare(known.t, theta, batch, seed, (found[1], found[2]))
        if known.after is not None:
            self._compare_along(state, hyper, adjoint, known, found)
        if self._tape.recorded and known.after is not None:
            off = self.optimizer.departure(
                state, known.after, hyper.unbind(), self.inner.gradient, known.gradient
            )
            if off is not None:
                self.settle()
                first = None if known.t is None else first_departure(self._tape, known.t)
                raise _departs(known.t, *off) if first is None else _departs(first.t, first.what, first.size)
        return found

    def row_derivatives(
        self, theta: Tensor, direction: Tensor, batch: Batch, seed: int | None = None
    ) -> Tensor:
        """Return x_i = ⟨u, g_i(θ)⟩ [Q, B] of any rows along directions u [Q, P].

        Returns
        -------
        Tensor [Q, B]

        Raises
        ------
        NotSupportedError
            They are differences of losses that are NaN or infinite.
        """  # noqa: DOC501 - made by a function
        found = self.inner.row_derivatives(theta, direction, batch, seed)
        if isinstance(self.inner, OneSided) and not bool(torch.isfinite(found).all()):
            with torch.no_grad():
                losses = self.losses(theta, batch, seed)
            if not bool(torch.isfinite(losses).all()):
                raise _no_numbers(self._at)
        return found

    def products(
        self, theta: Tensor, direction: Tensor, batch: Batch, seed: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (∂g/∂θ)ᵀu [Q, P] and x [Q, B] along directions u [Q, P]."""
        return self.inner.products(theta, direction, batch, seed)

    def _compare_along(
        self,
        state: Tensor,
        hyper: Tensor,
        adjoint: Tensor,
        known: Known,
        found: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        """Compare the mean row derivative with ⟨u, g⟩, g the gradient of the step that was taken."""
        _, of_rows, direction = found
        value = along_gradient(self.optimizer, state, hyper, adjoint, direction, known)
        if value is None:
            return
        if self._waiting and self._waiting[0].of_rows.shape != of_rows.shape:
            self.settle()
        self._waiting.append(_Along(state, adjoint, direction, known, value, of_rows))
        if len(self._waiting) * adjoint.numel() >= HELD or len(self._waiting) == TOGETHER:
            self.settle()

    def settle(self) -> None:
        """Compare what is left of the last steps: of small models, several at one time.

        Raises
        ------
        NotSupportedError
            What went backwards is not the adjoint of a step that was taken, or no number.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        value = torch.stack([step.value for step in waiting])
        of_rows = torch.stack([step.of_rows for step in waiting])
        scale = value.abs() + of_rows.abs().mean(2)
        allowed = self._allowed_along(of_rows.dtype) * scale
        error = (value - of_rows.mean(2)).abs()
        if bool((error <= allowed).all()) or not self._judges:
            return
        for step, off, size, most in zip(waiting, error, scale, allowed, strict=True):
            self._judge(step, off, size, most)

    def _allowed_along(self, dtype: torch.dtype) -> float:
        """Return how far mean row derivatives may be from ⟨u, g⟩, relative to both, but for rounding."""
        exact = self.differentiation != "finite-difference"  # of differences up to .17 was seen
        if exact and dtype is torch.float32 and not self.optimizer.coarse:
            return ALONG
        return EVERY_STEP * ALLOWED.get(dtype, LOWEST)

    def _judge(self, step: "_Along", error: Tensor, scale: Tensor, allowed: Tensor) -> None:
        """Raise if a step's mean row derivatives are not ⟨u, g⟩, but for rounding, or are no numbers."""
        if bool((error > allowed).any()):
            allowed = allowed + _rounding_along(
                self.optimizer, step.state, step.adjoint, step.direction, step.known
            )
            if bool((error > allowed).any()):
                raise self._differs(step.known.t, "row derivatives", float((error / scale).max()))
        elif bool(error.isnan().any() & torch.isfinite(step.value).all()):  # else an adjoint without bounds
            raise _no_numbers(step.known.t)

    def _differs(self, t: int | None, what: str, error: float) -> DifferentGradientError:
        return _differs(t, what, error, None if t is None else first_departure(self._tape, t))

    def _compare(
        self, t: int | None, theta: Tensor, batch: Batch, seed: int | None, found: tuple[Tensor, Tensor]
    ) -> None:
        of_rows, direction = found
        plain = ReturnedGradient(self._tape.working, self._tape.step_loss)
        even = theta.new_full((of_rows.shape[1],), 1 / of_rows.shape[1])
        gradient = plain.at(theta, batch, seed, even)
        along, mean = direction @ gradient, of_rows.mean(1)
        if not bool(torch.isfinite(gradient).all() & torch.isfinite(along).all()):
            return
        rounding = 100 * torch.finfo(theta.dtype).eps * direction.norm(dim=1) * gradient.norm()
        scale = along.abs() + of_rows.abs().mean(1)
        allowed = ALLOWED.get(theta.dtype, LOWEST) * scale + rounding
        if bool(((along - mean).abs() > allowed).any()):
            raise self._differs(t, "row derivatives", float(((along - mean).abs() / scale).max()))
        check, few = GradientCheck(self._tape), 1 if dear(self._tape) else rows_checked(self._tape)
        adjoint, error = check.adjoint(self._make, self._fused), torch.inf
        if isinstance(self.inner, OneSided):
            some, along = few_rows(batch, of_rows.shape[1], few), unit(direction[:1])
            if self.exact is not None:
                wanted = self.exact.products(theta, along, some, seed)
            else:
                wanted = check.products(adjoint, theta, along, some, seed)
            usual = _usual(of_rows[0], direction[0], few)
            if not (off := apart(self.inner, wanted, theta, along, some, seed, (0.0, usual))) <= TOLERANCE:
                raise self._differs(t, "finite differences", off)
        for rows in dict.fromkeys((few, 1)):  # of many rows, one may have a kink within any width
            if not check.holds(error):
                point = Point(
                    self._taken if t is None else t, theta, few_rows(batch, of_rows.shape[1], rows), seed
                )
                error = check.at(adjoint, point)
        if not check.holds(error):
            raise self._differs(t, "products with ∂g/∂θ", error)


@dataclass(frozen=True, eq=False)
class _Along:
    """A step taken backwards whose mean row derivative is to be compared with `value`, ⟨u, g⟩ [Q]."""

    state: Tensor
    adjoint: Tensor
    direction: Tensor
    known: Known
    value: Tensor
    of_rows: Tensor


def along_gradient(
    optimizer: Update, state: Tensor, hyper: Tensor, adjoint: Tensor, direction: Tensor, known: Known
) -> Tensor | None:
    """Return ⟨u, g⟩ [Q] of the gradient g of the step that was taken; None where what it left does not tell.

    Buffers tell g; without any, θ_{t+1} − U(θ_t, 0) = ∂U/∂g g tells ⟨u, g⟩ = ⟨λ, ∂U/∂g g⟩.

    Returns
    -------
    Tensor [Q] or None
    """
    if known.gradient is not None:
        return direction @ known.gradient
    numbers, nothing = hyper.unbind(), state.new_zeros(())
    if known.after is None or optimizer.slots or optimizer.pull_back(state, (), nothing, numbers) is None:
        return None
    return adjoint[:, 0] @ (known.after - optimizer.update(state, (), nothing, numbers)[0])


def _rounding_along(
    optimizer: Update, state: Tensor, adjoint: Tensor, direction: Tensor, known: Known
) -> Tensor:
    """Return how far rounding may take `along_gradient` from what it is [Q]."""
    theta, *slots = state.view(1 + len(optimizer.slots), -1).unbind()
    eps = ROUNDING * torch.finfo(theta.dtype).eps
    if known.gradient is None:
        return eps * adjoint[:, 0].norm(dim=1) * theta.norm()
    size = known.gradient.norm() + sum(buffer.norm() for buffer in slots[:1]) + theta.norm()
    return eps * direction.norm(dim=1) * size


def _usual(of_rows: Tensor, direction: Tensor, rows: int) -> float:
    """Return the size of the row derivatives [B] of some rows of a step along u/‖u‖: the root of their mean square."""
    length = float(direction.norm())
    return float(of_rows.norm()) * (rows / len(of_rows)) ** 0.5 / length if length > 0 else 0.0


def unit(direction: Tensor) -> Tensor:
    """Return directions [Q, P] at length 1; those of no length as they are."""
    length = direction.norm(dim=1, keepdim=True)
    return direction / torch.where(length > 0, length, torch.ones_like(length))


def apart(
    one: OneSided,
    theirs: tuple[Tensor, Tensor],
    theta: Tensor,
    along: Tensor,
    batch: Batch,
    seed: int | None,
    usual: tuple[float, float] = (0.0, 0.0),
) -> float:
    """Return the largest relative difference from another's products and row derivatives along a unit u [1, P].

    Where the loss hardly changes along u, both see rounding: what is below it counts as nothing. `usual` are sizes of
    products and row derivatives of other rows, relative to which smaller ones are taken: effects are sums.

    Returns
    -------
    float
    """
    mine = one.products(theta, along, batch, seed)
    gradient, losses = one.plain.gradient(theta, batch, seed)
    rounding = ROUNDING * torch.finfo(theta.dtype).eps / (theta.norm() + 1e-30) / one.kappa
    found = [
        (a - b).norm() / torch.maximum(b.norm(), rounding * of.norm()).clamp_min(max(size, 1e-30))
        for a, b, of, size in zip(mine, theirs, (gradient, losses), usual, strict=True)
    ]
    return max(float(error.nan_to_num(torch.inf)) for error in found)


def _differs(t: int | None, what: str, error: float, first: Departure | None) -> DifferentGradientError:
    if first is not None and first.t == 0:
        got = f"{what} that are {error:.1g} from them {_at(t)}, and other {_NAMES[first.what]} {_at(0)}"
        return _opened_otherwise(got)
    edited = (
        "" if first is None else f"; step {first.t} is the first whose {_NAMES[first.what]} are other ones"
    )
    return DifferentGradientError(
        explain(
            "a backward pass that belongs to the gradients that training got",
            f"{what} that are {error:.1g} from them {_at(t)}, though a few steps agreed before{edited}",
            "the loss stops or changes gradients on some batches only, or draws other random numbers than in training; "
            "or the loop changes gradients, weights or the optimiser's buffers at some steps",
            "leave out what stops or changes gradients, let only the optimiser move the parameters, and record each "
            "phase of the training by itself",
        )
    )


def _opened_otherwise(got: str) -> DifferentGradientError:
    """Return the error of a tape none of whose steps can be taken again: one just recorded has repeated the first."""
    return DifferentGradientError(
        explain(
            "a loop that can be taken again from what was recorded",
            got,
            "the tape was opened with another loss or model than it was recorded with: another activation, coefficient "
            "or layer that has no weights of its own",
            "open it with the model and loss that were given to fi.Tape.record",
        )
    )


def _no_numbers(t: int | None) -> NotSupportedError:
    return NotSupportedError(
        explain(
            "row derivatives that are numbers, as the gradient of the step is",
            f"NaN or infinite ones {_at(t)}",
            "some rows have a loss there that is NaN or infinite, with a gradient that is not (they are masked with "
            "torch.where, for instance): differences of such losses say nothing",
            "give masked rows a loss of 0, or use differentiation='exact', which needs gradients alone",
        )
    )


def _departs(t: int | None, what: str, size: float) -> TrainingError:
    return TrainingError(
        explain(
            "a loop that can be taken again from what was recorded",
            f"{_NAMES[what]} {_at(t)} that differ by {size:.1%} from what its rows, loss and optimiser make",
            "the loop edits gradients (noise, signs, scaling), or something else than the optimiser writes on weights: "
            "they are clipped, decayed or reset, averaged weights are swapped in, or a second optimiser moves them",
            "let only the optimiser move the parameters while the recording lasts, write into the loss what is done to "
            "gradients, and record each phase of the training by itself",
        )
    )


def _at(t: int | None) -> str:
    return "at a step" if t is None else f"at step {t}"
