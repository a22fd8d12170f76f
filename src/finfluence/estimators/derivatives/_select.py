"""Which step adjoint takes a tape backwards: exact derivatives, or finite differences; none is taken unchecked."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from finfluence._files import digest
from finfluence.errors import NotSupportedError, explain
from finfluence.estimators.derivatives._check import GradientCheck, Maker, dear, saved_bytes
from finfluence.estimators.derivatives._checked import CheckedAdjoint
from finfluence.estimators.derivatives._choice import Choice
from finfluence.estimators.derivatives._differences import differences
from finfluence.estimators.derivatives._exact import Adjoint, adjoint_of
from finfluence.estimators.derivatives._quick import directly, one_sided, pays
from finfluence.estimators.derivatives._transposed import TransposedAdjoint, refused
from finfluence.grads import RowLosses
from finfluence.runs import Tape, seeded
from finfluence.runs.tape import Key

Differentiation = Literal["auto", "exact", "finite-difference"]
DIFFERENTIATIONS = ("auto", "exact", "finite-difference")
QUERIES_CHECKED = 2
CHEAPER = "a plain step a query and step costs less than the exact pass"


@dataclass(frozen=True)
class _ChoiceFor(Key[Choice]):
    """What a choice depends on beside the tape.

    count : queries, 0 if rows are shared among processes. queries : a digest of the gradients it was checked along.
    """

    differentiation: str
    memory_bytes: float
    count: int
    queries: str


@dataclass(frozen=True)
class _ForwardOf(Key[Choice | NotSupportedError]):
    """The tape alone, whose cache it is: the directions it is checked along are the same for all queries."""


def choose_adjoint(
    tape: Tape,
    start: Tensor,
    differentiation: Differentiation = "auto",
    memory_bytes: float = 2**30,
    queries: int | None = None,
) -> Choice:
    """Choose and check the step adjoint for a tape.

    *exact* is forward over reverse where that is the adjoint of the gradient that training got, and else reverse over
    reverse of that gradient. *auto* is the same, but takes finite differences, if no kink lies on the way and the
    derivative is symmetric, where the model has no forward-over-reverse derivative, or where one query's tangents
    exceed `memory_bytes` and the activations of training itself do not (fused attention over long sequences). For up to
    four queries of more than a tiny model it takes one-sided differences, at a plain step a query and step, if they
    agree with the exact pass; of rows that are dear, with double precision. Nothing depends on a clock: the same tape
    gets the same adjoint everywhere.

    Parameters
    ----------
    start : Tensor [Q, P]
        Gradients of the queries at the end of training.
    queries : int, optional
        Queries that one process takes through the steps: the exact pass shares work among them. 0 where several
        processes share the rows; by default those of `start`.

    Returns
    -------
    Choice

    Raises
    ------
    NotSupportedError
        No adjoint of the steps that were taken can be had, or not in the way asked for; the operation is named.
    """
    checked = start[:QUERIES_CHECKED]
    content = checked.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()

    def choose() -> Choice:
        with seeded(0):
            return _choose(tape, checked, differentiation, memory_bytes, most)

    most = len(start) if queries is None else queries
    return tape.cache.get(_ChoiceFor(differentiation, memory_bytes, most, digest(content)), choose)


def exact_choice(tape: Tape) -> Choice:
    """Return the exact adjoint of a tape's steps, checked: forward over reverse, or reverse over reverse.

    Returns
    -------
    Choice

    Raises
    ------
    NotSupportedError
        There is neither.
    """
    with seeded(0):
        check = GradientCheck(tape)
        found = _forward_over_reverse(tape, check)
        if isinstance(found, Choice):
            return found
        try:
            return _reverse_over_reverse(tape, check, _missing(found))
        except NotSupportedError:
            raise found from None


def _choose(tape: Tape, start: Tensor, differentiation: str, memory_bytes: float, queries: int) -> Choice:
    if differentiation == "exact":
        return exact_choice(tape)
    check = GradientCheck(tape)
    if differentiation == "finite-difference":
        return _by_differences(tape, check, start, "as asked", queries)
    needed, fused = 4 * saved_bytes(tape, fused=False), saved_bytes(tape, fused=True)
    if queries and dear(tape) and pays(tape, queries, fused):
        try:
            return replace(directly(tape, check, start, CHEAPER), exact=partial(exact_choice, tape))
        except NotSupportedError:
            pass  # what is against it stands in the reason for the exact pass, below
    if needed > memory_bytes >= fused:
        try:
            reason = f"the exact pass would need {needed / 2**30:.2g} GiB a query"
            cheaper = _by_differences(tape, check, start, reason, queries)
            return replace(cheaper, exact=partial(exact_choice, tape)) if cheaper.one_by_one else cheaper
        except NotSupportedError:
            return exact_choice(tape)
    found = _forward_over_reverse(tape, check)
    if isinstance(found, Choice):
        return _quicker(tape, check, start, found) if queries and pays(tape, queries, fused) else found
    try:
        return differences(tape, check, start, _missing(found), lambda: False)
    except NotSupportedError:
        return _reverse_over_reverse(tape, check, _missing(found))


def _by_differences(tape: Tape, check: GradientCheck, start: Tensor, reason: str, queries: int) -> Choice:
    """Return one-sided differences where an exact pass of a few rows can be held against them, else central ones."""
    found = _forward_over_reverse(tape, check) if queries else None
    if isinstance(found, Choice) and found.name == "exact":
        return one_sided(tape, check, start, reason, found)
    return differences(tape, check, start, reason, partial(_is_symmetric, tape))


def _quicker(tape: Tape, check: GradientCheck, start: Tensor, exact: Choice) -> Choice:
    """Return one-sided differences where they agree with the exact pass; else that, with what was against them."""
    if exact.name != "exact":
        return exact
    try:
        return replace(one_sided(tape, check, start, CHEAPER, exact), exact=lambda: exact)
    except NotSupportedError as error:
        got = str(error).partition("got: ")[2].splitlines()[0]
        return replace(exact, reason=f"{exact.reason}; finite differences would cost less, but: {got[:150]}")


def _is_symmetric(tape: Tape) -> bool:
    try:
        return exact_choice(tape).name == "exact"
    except NotSupportedError:
        return False


def _forward_over_reverse(tape: Tape, check: GradientCheck) -> Choice | NotSupportedError:
    """Return forward over reverse, reverse over reverse if that is another adjoint, or why the model has no former."""

    def make(losses: RowLosses) -> Adjoint:
        return Adjoint(losses, tape.optimizer, tape.stochastic)

    def choose() -> Choice | NotSupportedError:
        try:
            agreement = check.of(make)
        except NotSupportedError as error:
            return error
        if not agreement.holds and _only_kinks(tape, check, make):
            agreement = check.of(make, rows=1)
        if agreement.holds:
            reason = f"model and loss can be differentiated forward over reverse; {agreement.sentence}"
            return Choice(CheckedAdjoint(adjoint_of(tape), tape, make), reason, agreement)
        return _reverse_over_reverse(tape, check, f"forward over reverse is {agreement.error:.2g} from it")

    return tape.cache.get(_ForwardOf(), choose)


def _only_kinks(tape: Tape, check: GradientCheck, make: Maker) -> bool:
    """Whether differences fail on many rows though the adjoint is that of the operations that autograd ran."""
    if tape.stochastic:  # they cannot be written out; that one row agrees will have to do
        return True
    try:
        return check.same(make, lambda losses: TransposedAdjoint(losses, tape.optimizer))
    except NotSupportedError:
        return False


def _missing(error: NotSupportedError) -> str:
    got = str(error).partition("got: ")[2].splitlines()[0]
    return f"the model has no forward-over-reverse derivative ({got[:150]})"


def _reverse_over_reverse(tape: Tape, check: GradientCheck, reason: str) -> Choice:
    if tape.stochastic:
        raise refused(f"a loss that draws random numbers, or normalises micro-batches one by one ({reason})")

    def make(losses: RowLosses) -> TransposedAdjoint:
        return TransposedAdjoint(losses, tape.optimizer)

    agreement = check.of(make)
    if not agreement.holds:
        agreement = check.of(make, rows=1)
    if not agreement.holds:
        raise NotSupportedError(
            explain(
                "derivatives of the gradient that training got",
                agreement.sentence,
                "an operation's derivative is not that of its values (quantisation, for instance), values are taken "
                "out of tensors (item, numpy) and put back, or a hook or custom function clips or normalises "
                "gradients, so that they are not in proportion to the rows' weights",
                "write that part with elementary PyTorch operations; clip whole gradients in the training loop, and "
                "say so (clip_norm=, clip_value=)",
            )
        )
    adjoint = make(RowLosses(tape.working, tape.step_loss, tape.layout))
    return Choice(CheckedAdjoint(adjoint, tape, make), reason, agreement)
