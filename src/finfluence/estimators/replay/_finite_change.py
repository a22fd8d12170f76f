"""Steps that are not linear on the scale of one row: the change that a row makes is taken as it is.

The backward pass asks what an infinitely small part of row i does, ⟨u, ∇ℓ_i⟩ with u = (∂U/∂g)ᵀλ. Adam's first update is
nearly the sign of the gradient: its derivative is 0 but where the mean gradient all but vanishes, and there it is huge.
A row that is left out moves the mean gradient by a finite amount, and turns signs. So at the first steps of a run whose
update is not linear in the gradient,

    c_i = ⟨λ_{t+1}, U_t(s_t, g + d_i) − U_t(s_t, g)⟩,    d_i = (g − ∇ℓ_i)/(B−1),

takes the place of ⟨u, d_i⟩: of the whole new state (θ, m, v), so that what the row leaves in the buffers is carried on
by λ. At the first of these steps v holds little else, and the next updates are not linear in that change either. They
are taken, too, with the gradients g_τ of the run, and θ's part is given to λ step by step:

    c_i = Σ_{τ=t}^{t+K} ⟨λ^θ_{τ+1}, θ'_{τ+1} − θ_{τ+1}⟩ + ⟨λ^{m,v}_{t+K+1}, (m, v)^i_{t+K+1} − (m, v)_{t+K+1}⟩,

θ'_{τ+1} from U_τ(θ_τ, (m, v)^i_τ, g_τ), the first one from g_t + d_i. Where the gradients themselves answer in a way
that is not linear (LoRA with B = 0: A has its first gradient one step later), which is tried on few rows, the training
is followed for K steps from the state that leaves the row out, with the gradients found there, if the run is long
enough for it to cost little:

    c_i = ⟨λ_{t+K+1}, s^i_{t+K+1} − s_{t+K+1}⟩.

All of it is decided for each query by itself, on some rows of the step: a change that is near the tangent, or little
beside what effects of rows differ by over the whole run, is not taken. A row that is not in the batch, a candidate or
one of the variance sample, comes in for an average one: d = (∇ℓ − g)/B. In either case the change is given as a slope,
what the tangent would have to be to make it: −c_i·(B−1), or c·B. Leaving out a row also makes the batch noisier, which
moves a curved update whatever the row is: an effect is that against the mean over rows, in which this cancels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import vmap

from finfluence.estimators.derivatives import RowGradients
from finfluence.estimators.replay._recomputed_states import state_bytes
from finfluence.grads import Batch
from finfluence.runs import Step, Tape

EARLY = 5
FURTHER, FOLLOWED = 2, 3
FEW_ROWS, FEWEST, TWO = 8, 3, 2
TOLERANCE, BENT, UNSETTLED = 0.05, 0.2, 0.3
LINEAR = 1e-9
OUTGROWN = 10.0
SQUARES = "_sq"  # ends the names of second moments
PRECISE = (torch.float32, torch.float64)  # in which buffers tell a gradient to a few roundings of it
NUMBERS, SHIFTS, BLOCK, MEMORY_SHARE = 2**18, 2**22, 2**17, 4
OF_STATE, OF_SHIFT, OF_RUN = 5.8, 2.2, 15.0  # numbers held for each of a row's state, of its shift, and of θ
WHOLE = slice(None)
Slots = tuple[Tensor, ...]
SHARE = 16


def looked_at(steps: int) -> list[int]:
    """Return the steps of a run at which the update is compared with its tangent: the first ones.

    Returns
    -------
    list of int

    Examples
    --------
    >>> looked_at(100)
    [0, 1, 2, 3, 4]
    """
    return list(range(min(EARLY, steps)))


def rows_together(tape: Tape, memory_bytes: float) -> int:
    """Return of how many rows finite changes are held at one time: in a quarter of the memory, and not much of it."""
    most = memory_bytes / MEMORY_SHARE / OF_STATE / precision(tape).itemsize
    return max(1, int(min(NUMBERS, most) // tape.run.width))


def shifts_together(tape: Tape, memory_bytes: float) -> int:
    """Return of how many rows shifts of the gradient are held at one time, where states are made piece by piece."""
    most = memory_bytes / MEMORY_SHARE / OF_SHIFT / precision(tape).itemsize
    return max(1, int(min(SHIFTS, most) // tape.layout.size))


def precision(tape: Tape) -> torch.dtype:
    """Return the precision of changes: the model's own where each coordinate moves by itself, else double."""
    own = tape.optimizer.part(WHOLE) is not None and tape.layout.dtype in PRECISE
    return tape.layout.dtype if own else torch.float64


def has_squares(tape: Tape) -> bool:
    """Whether the optimiser keeps second moments, as Adam does: its first updates are far from linear."""
    return any(name.endswith(SQUARES) for name in tape.optimizer.slots)


def first_step_bytes(tape: Tape, rows: int, directions: int, memory_bytes: float) -> int:
    """Return the bytes that finite changes take, of up to `rows` rows at one time; 0 for SGD, which has none.

    Measured on Adam: 5.8 states of each row held at one time, or 2.2 shifts of more rows where their states are made
    piece by piece; the run's own states, 15 times θ; and the λ's of further steps.

    Returns
    -------
    int
    """
    if not has_squares(tape):
        return 0
    held = OF_STATE * tape.run.width * min(rows, rows_together(tape, memory_bytes))
    if tape.optimizer.part(WHOLE) is not None:
        held = max(held, OF_SHIFT * tape.layout.size * min(rows, shifts_together(tape, memory_bytes)))
    numbers = int(held + OF_RUN * tape.layout.size)
    return numbers * precision(tape).itemsize + (1 + FURTHER) * directions * state_bytes(
        tape.layout, tape.optimizer
    )


@dataclass(frozen=True, eq=False)
class Place:
    """A step as the backward pass meets it.

    Parameters
    ----------
    t : int
    step : Step
    state : Tensor [(1+S)·P]
        s_t.
    ahead : list of Tensor [Q, 1+S, P]
        λ_{t+1}, and those of states after it up to which the training may be followed.
    gradients : list of Tensor [P] or None
        Of the run's step t and of those after it, where its buffers tell them.
    """

    t: int
    step: Step
    state: Tensor
    ahead: Sequence[Tensor]
    gradients: Sequence[Tensor | None] = ()

    @property
    def theta(self) -> Tensor:
        """Return θ_t [P]."""
        return self.state[: self.ahead[0].shape[-1]]

    def gradient(self, k: int) -> Tensor | None:
        """Return the run's gradient of step t + k [P], where its buffers tell it."""
        found = self.gradients[k] if k < len(self.gradients) else None
        return found if found is not None and found.dtype in PRECISE else None


class FiniteChanges:
    """Finds the steps of a run whose finite changes are to be taken.

    Parameters
    ----------
    tape : Tape
    memory_bytes : float
        Of a replay; a quarter is for the changes of some rows.
    """

    def __init__(self, tape: Tape, memory_bytes: float) -> None:
        self.tape = tape
        self.rows = RowGradients(tape)
        self._looked = frozenset(looked_at(tape.steps))
        self._chunk = rows_together(tape, memory_bytes)
        self._divides = tape.optimizer.part(WHOLE) is not None
        self._shifts = shifts_together(tape, memory_bytes) if self._divides else self._chunk
        self.precision = precision(tape)
        self.translates = self._divides and tape.optimizer.translates
        self._hyper: dict[int, tuple[Tensor, ...]] = {}

    def looks_at(self, t: int) -> bool:
        """Whether step t is compared with its tangent: more rows than one, so that one can be left out."""
        return t in self._looked and len(self.tape.order[t]) > 1

    def affordable(self, rows: int, further: int) -> bool:
        """Whether so many rows may be followed so far: for a fortieth of what a replay costs."""
        return SHARE * rows * further <= self.tape.steps

    def at(self, place: Place, slopes: Tensor, scale: Tensor) -> "FiniteSlopes | None":
        """Return the finite changes of a step; None where the tangent will do.

        Parameters
        ----------
        place : Place
        slopes : Tensor [Q, B]
            By the tangent.
        scale : Tensor [Q]
            By how much effects of rows differ over the whole run: what is little beside it is not worth its price.

        Returns
        -------
        FiniteSlopes or None
        """
        step, gradient = place.step, place.gradient(0)
        if gradient is None:
            gradient = self.rows.mean(place.theta, step.batch, len(step.rows), step.seed)
        if not bool(torch.isfinite(gradient).all()) or self._is_linear(place, gradient):
            return None
        found = FiniteSlopes(self, place, gradient)
        return found if found.decide(slopes, scale) else None

    def updated(
        self, t: int, theta: Tensor, slots: Slots, gradients: Tensor, some: slice = WHOLE
    ) -> tuple[Tensor, Slots]:
        """Return θ and slots [..., p] after step t, from those before it and gradients [c, p].

        Parameters
        ----------
        t : int
        theta : Tensor
            In double precision: a small rate moves it by a few roundings.
        slots : tuple of Tensor
        gradients : Tensor
            Or one [P].
        some : slice
            The coordinates that they are of.

        Returns
        -------
        tuple
        """
        if t not in self._hyper:
            self._hyper[t] = self.tape.at(t).hyper.to(self.precision).unbind()
        numbers, part = self._hyper[t], self.tape.optimizer.part(some)
        if part is not None:
            return part.update(theta, slots, gradients, numbers)

        def one(theta: Tensor, slots: Slots, gradient: Tensor) -> tuple[Tensor, Slots]:
            return self.tape.optimizer.update(theta, slots, gradient, numbers)

        if gradients.ndim == 1:
            return one(theta, slots, gradients)
        every = theta.expand_as(gradients), tuple(slot.expand_as(gradients) for slot in slots)
        after: tuple[Tensor, Slots] = vmap(one)(*every, gradients)
        return after

    def split(self, rows: int, whole: bool = False) -> list[range]:
        """Return ranges of rows that are taken at one time; `whole`: their states are held as they are."""
        size = self._chunk if whole else self._shifts
        return [range(k, min(k + size, rows)) for k in range(0, rows, size)]

    def pieces(self, rows: int) -> list[slice]:
        """Return the coordinates in pieces, so small that what is made of them for so many rows stays in a cache."""
        size = self.tape.layout.size
        step = max(1, BLOCK // rows) if self._divides else size
        return [slice(k, min(k + step, size)) for k in range(0, size, step)]

    def _is_linear(self, place: Place, gradient: Tensor) -> bool:
        """Whether the update is a linear function of the gradient along that of the step: U(2g) − 2U(g) + U(0) = 0."""
        if has_squares(self.tape):
            return False
        theta, *slots = place.state.double().view(-1, len(gradient)).unbind()
        factors = torch.tensor([0.0, 1.0, 2.0], dtype=theta.dtype, device=gradient.device)
        new, kept = self.updated(place.t, theta, tuple(slots), factors[:, None] * gradient.double())
        none, one, two = torch.stack([new, *kept], -2)
        return bool((two - 2 * one + none).norm() <= LINEAR * (two - none).norm())


class FiniteSlopes:
    """The finite changes of one step, as slopes.

    Parameters
    ----------
    changes : FiniteChanges
    place : Place
    gradient : Tensor [P]
        The step's own.

    Attributes
    ----------
    taken : Tensor of bool [Q]
        Queries for which the tangent does not do.
    doubtful : Tensor of bool [Q]
        Those of them for which the next steps' gradients answer in a way that could not be followed to its end.
    """

    def __init__(self, changes: FiniteChanges, place: Place, gradient: Tensor) -> None:
        self._changes, self._place, self._gradient = changes, place, gradient
        step, count = place.step, len(place.step.rows)
        even = torch.full((count,), 1 / count, dtype=torch.float64)
        shares = even if step.shares is None else step.shares.double()
        self._shares = shares.to(gradient.device)
        self._size = float((self._shares**2).sum())
        theta, *slots = place.state.view(-1, len(gradient)).unbind()
        self._before = theta.double(), tuple(slot.to(changes.precision) for slot in slots)
        self._gradients = [gradient.to(changes.precision)]
        self._states: list[tuple[Tensor, Slots]] = []
        self._nowhere = gradient.new_zeros(
            (), dtype=changes.precision
        )  # moves are differences of rows' and the run's
        self._moves: list[Tensor] = []
        self.taken = torch.zeros(len(place.ahead[0]), dtype=torch.bool, device=gradient.device)
        self.doubtful, self._bent = self.taken.clone(), self.taken.clone()
        self._further = len(place.ahead) - 1 if place.t < FOLLOWED else 0
        self._known: tuple[list[int], Tensor] = [], gradient.new_zeros(0)

    def decide(self, slopes: Tensor, scale: Tensor) -> bool:
        """Compare tangent slopes [Q, B] with finite changes of some rows; say whether any query needs them."""
        count = slopes.shape[1]
        some = sorted({k * count // FEW_ROWS for k in range(FEW_ROWS)})
        x = slopes.double()
        tangent = self._weights(some) * ((x * self._shares).sum(1, keepdim=True) - x[:, some])
        known = self._absent(some)
        self._known = some, known
        self.taken = _differ(tangent, known, TOLERANCE, scale)
        if self._further and bool(self.taken.any()):
            self._try(some, count)
        return bool(self.taken.any())

    def _try(self, some: list[int], count: int) -> None:
        """Follow the training without few of the rows whose changes are known, and compare."""
        fewest = FEWEST if self._changes.affordable(FEWEST, self._further) else TWO
        few = list(range(0, len(some), max(1, len(some) // fewest)))[:fewest]
        followed = self._absent_followed([some[k] for k in few])
        bent = _differ(self._known[1][:, few], followed[-1], BENT) & self.taken
        if self._changes.affordable(count, self._further):
            self._bent = bent
            bent = bent & _differ(followed[-2], followed[-1], UNSETTLED)
        self.doubtful = bent

    def of_batch(self, slopes: Tensor) -> Tensor:
        """Return the slopes [Q, B] of the step's own rows: what leaving each of them out changes; or the tangent."""
        count, (some, known) = slopes.shape[1], self._known
        every = list(range(count))
        changed = slopes.new_zeros(slopes.shape, dtype=torch.float64)
        changed[:, some] = known
        if others := sorted(set(every) - set(some)):
            changed[:, others] = self._absent(others)
        if bool(self._bent.any()):
            changed = torch.where(self._bent[:, None], self._absent_followed(every)[-1], changed)
        return self._chosen(-changed / self._weights(every), slopes, slice(None))

    def of_others(self, batch: Batch, slopes: Tensor, part: slice) -> Tensor:
        """Return the slopes [q, m] of other rows, for a part of the queries, given their tangent ones.

        They are what each row changes in an average one's place.

        Returns
        -------
        Tensor
        """
        place, count = self._place, slopes.shape[1]
        follow = bool(self._bent.any()) and self._changes.affordable(count, self._further)
        parts = []
        for some in self._changes.split(count, whole=follow):
            own = self._changes.rows.of(place.theta, batch, count, place.step.seed, list(some))
            size = torch.full((len(own), 1), self._size, dtype=own.dtype, device=own.device)
            shifts = Shifts(own, size * place.step.total, size)
            changed = self._carried(shifts)
            if follow:
                changed = torch.where(self._bent[:, None], self._followed(shifts)[-1], changed)
            parts.append(changed)
        return self._chosen(torch.cat(parts, 1) / self._size, slopes, part)

    def _chosen(self, finite: Tensor, slopes: Tensor, part: slice) -> Tensor:
        return torch.where(self.taken[part, None], finite[part].to(slopes.dtype), slopes)

    def _weights(self, rows: list[int]) -> Tensor:
        """Return p_i/(1 − Σp²) [r]: by how much of its distance from the mean a row's absence moves the gradient."""
        return self._shares[rows] / (1 - self._size)

    def _shifts(self, rows: list[int], whole: bool = False) -> Iterator["Shifts"]:
        """Yield d_i of some rows of the step, a few at a time; `whole`: so few that their states can be held."""
        place, step = self._place, self._place.step
        for part in self._changes.split(len(rows), whole):
            some = [rows[k] for k in part]
            own = self._changes.rows.of(place.theta, step.batch, len(step.rows), step.seed, some)
            weights = self._weights(some)[:, None]
            weighed = (
                step.total if step.shares is None else 1 / (len(step.rows) * self._shares[some])[:, None]
            )
            yield Shifts(own, -weights * weighed, -weights)

    def _absent(self, rows: list[int]) -> Tensor:
        """Return what leaving out each of some rows of the step changes [Q, r]."""
        return torch.cat([self._carried(shifts) for shifts in self._shifts(rows)], 1)

    def _absent_followed(self, rows: list[int]) -> list[Tensor]:
        """Return the same by following the training: [Q, r] after each of the steps."""
        parts = [self._followed(shifts) for shifts in self._shifts(rows, whole=True)]
        return [torch.cat(of_rows, 1) for of_rows in zip(*parts, strict=True)]

    def _carried(self, shifts: "Shifts") -> Tensor:
        """Return what shifts of r rows change [Q, r]: the buffers carried on, with the gradients of the run."""
        self._run(self._further)
        found = torch.zeros(len(self.taken), len(shifts), dtype=torch.float64, device=self.taken.device)
        for some in self._changes.pieces(len(shifts)):
            found += self._carried_at(shifts, some)
        return found

    def _carried_at(self, shifts: "Shifts", some: slice) -> Tensor:
        """Return what comes of it at some coordinates [Q, r]."""
        (theta, slots), total = _at(self._before, some), torch.zeros((), dtype=torch.float64)
        gradients, last = shifts.moved(self._gradients[0], self._place.state.dtype, some), self._further
        nowhere = self._nowhere if self._changes.translates else None
        for k in range(last + 1 if slots else 1):
            start = theta if nowhere is None else nowhere
            after, slots = self._changes.updated(self._place.t + k, start, slots, gradients, some)
            theta, kept = _at(self._states[k], some)
            reached = theta if nowhere is None else self._moves[k][some]
            total = total + _along(self._place.ahead[k][:, 0, some], after - reached)
            if k < last:
                gradients = self._gradients[k + 1][some]
        return total + self._of_slots(self._place.ahead[last][..., some], slots, kept)

    def _followed(self, shifts: "Shifts") -> list[Tensor]:
        """Return what shifts of r rows change [Q, r], after step t and after each of the steps followed."""
        (theta, slots), place, found = self._before, self._place, []
        gradients = shifts.moved(self._gradients[0], place.state.dtype)
        for k in range(self._further + 1):
            if k:
                gradients = torch.stack([self._gradient_at(point, place.t + k) for point in theta])
            theta, slots = self._changes.updated(place.t + k, theta, slots, gradients)
            (of_run, kept), lam = self._run(k), place.ahead[k]
            found.append(_along(lam[:, 0], theta - of_run) + self._of_slots(lam, slots, kept))
        return found

    def _of_slots(self, lam: Tensor, slots: Slots, kept: Slots) -> Tensor:
        """Return ⟨λ, change of the buffers⟩ [Q, r], where λ can say what becomes of them; `kept`: the run's own.

        λ is that of the run. Where a row makes a second moment many times as large, such as one that was zero, what is
        left of the run's own may be so little that its derivative says nothing of what the row leaves there.

        Returns
        -------
        Tensor
        """
        changes = [slot - of_run for slot, of_run in zip(slots, kept, strict=True)]
        for name, change, of_run in zip(self._changes.tape.optimizer.slots, changes, kept, strict=True):
            if name.endswith(SQUARES):
                beyond = change - OUTGROWN * of_run  # no second moment falls by more than itself
                if bool((beyond.amax(-1) > 0).any()):
                    changes = [torch.where(beyond > 0, 0.0, c) for c in changes]
        found = torch.zeros((), dtype=torch.float64, device=lam.device)
        for place, change in enumerate(changes, start=1):
            found = found + _along(lam[:, place], change)
        return found

    def _run(self, k: int) -> tuple[Tensor, Slots]:
        """Return the run's own state after step t + k."""
        while len(self._states) <= k:
            before = self._states[-1] if self._states else self._before
            reached, done = self._place.t + len(self._states), len(self._states)
            if done:
                told = self._place.gradient(done)
                told = self._gradient_at(before[0], reached) if told is None else told
                self._gradients.append(told.to(self._changes.precision))
            self._states.append(self._changes.updated(reached, *before, self._gradients[done]))
            if self._changes.translates:
                moved, _ = self._changes.updated(reached, self._nowhere, before[1], self._gradients[done])
                self._moves.append(moved)
        return self._states[k]

    def _gradient_at(self, theta: Tensor, t: int) -> Tensor:
        """Return the gradient of step t at θ [P]."""
        step, theta = self._changes.tape.at(t), theta.to(self._place.state.dtype)
        found = self._changes.rows.mean(theta, step.batch, len(step.rows), step.seed)
        return found.to(self._changes.precision)


@dataclass(frozen=True, eq=False)
class Shifts:
    """By what rows move a step's gradient: d_i = a_i ∇ℓ_i − b_i g.

    own : Tensor [r, P], ∇ℓ_i. of_own, of_mean : Tensor [r, 1], a and b.
    """

    own: Tensor
    of_own: Tensor
    of_mean: Tensor

    def __len__(self) -> int:
        return len(self.own)

    def moved(self, gradient: Tensor, dtype: torch.dtype, some: slice = WHOLE) -> Tensor:
        """Return g + d [r, p] at some coordinates; 0 where all that is left is rounding, a whole step to Adam."""
        g, own = gradient[some], self.own[:, some].to(gradient.dtype)
        shifts = own * self.of_own.to(own) - self.of_mean.to(own) * g
        moved = g + shifts
        return torch.where(moved.abs() <= 100 * torch.finfo(dtype).eps * shifts.abs(), 0.0, moved)


def _at(state: tuple[Tensor, Slots], some: slice) -> tuple[Tensor, Slots]:
    theta, slots = state
    return theta[some], tuple(slot[some] for slot in slots)


def _along(lam: Tensor, change: Tensor) -> Tensor:
    """Return ⟨λ, change⟩ [Q, r] in float64."""
    return (lam @ change.to(lam.dtype).T).double()


def _differ(one: Tensor, other: Tensor, tolerance: float, scale: Tensor | None = None) -> Tensor:
    """Whether two kinds of changes [Q, r] differ by more, beside what is common to all rows [Q].

    Relative to their size; or to `scale` [Q], of one row, where that is larger.

    Returns
    -------
    Tensor of bool
    """
    one, other = (c - c.mean(1, keepdim=True) for c in (one, other))
    size = torch.maximum(one.norm(dim=1), other.norm(dim=1))
    if scale is not None:
        size = torch.maximum(size, scale * one.shape[1] ** 0.5)
    return (one - other).norm(dim=1) > tolerance * size
