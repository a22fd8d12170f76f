"""Whether a step adjoint is the adjoint of the steps that were taken, checked on the gradient that training got.

For random u and w, and the gradient g that autograd returns at a step of the training (θ_t, rows of its batch):

    ⟨w, (∂g/∂θ)ᵀu⟩ = ⟨u, (g(θ + εw) − g(θ − εw))/2ε⟩,      Σ_i v_i x_i = ⟨u, g(θ, v)⟩ for v_i = 1/B and for random v.

The right-hand sides are made of plain backward passes in double precision: a forward pass that lies about its
derivative, a derivative that is not symmetric and a stopped value show as a difference. ε is so small that hardly ever
a kink lies between the points; of two widths, the better one counts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from finfluence.errors import NotSupportedError
from finfluence.estimators.derivatives._protocol import StepAdjoint
from finfluence.estimators.derivatives._returned import ReturnedGradient, batch_normalised
from finfluence.estimators.derivatives._transposed import TransposedAdjoint
from finfluence.grads import Batch, RowLosses, saved_tensors, without_graph
from finfluence.runs import Step, Tape, seeded
from finfluence.runs.tape import Key

FEW_ROWS, FEWEST_ROWS, DIRECTIONS = 16, 2, 2
CHECK_BYTES = 2**26  # saved for the backward passes of a check, in the model's own precision
WIDTHS = 1e-6, 1e-8
ROUNDING = 100
TOLERANCE, COARSE_TOLERANCE = 1e-5, 2e-2
NEGLIGIBLE = 1e-5

Maker = Callable[[RowLosses], StepAdjoint]


@dataclass(frozen=True)
class Agreement:
    """How far a step adjoint is from the gradients that training got: the largest difference, relative to its scale.

    rows : the most rows of a step. steps : those looked at. double : whether in double precision. products : whether
    (∂g/∂θ)ᵀu was compared, or the row derivatives alone. coupled : whether the gradient of a row depends on the other
    rows of its batch. directions : how many, drawn at random.
    """

    error: float
    rows: int
    steps: tuple[int, ...]
    double: bool
    products: bool
    coupled: bool
    directions: int = DIRECTIONS

    @property
    def holds(self) -> bool:
        """Whether the difference is one of rounding and truncation."""
        return self.error <= (TOLERANCE if self.double else COARSE_TOLERANCE)

    @property
    def sentence(self) -> str:
        """What was checked, and no more."""
        what = (
            "row derivatives and products" if self.products else "row derivatives (products were not checked)"
        )
        return (
            f"{what} along {self.directions} random direction{'s' * (self.directions > 1)} are "
            f"{self.error:.0e} from those of the gradient that training got, on up to {self.rows} "
            f"row{'s' * (self.rows > 1)} of step{'s' * (len(self.steps) > 1)} "
            f"{', '.join(map(str, self.steps))}, in {'double' if self.double else 'the model’s own'} precision"
        )


@dataclass(frozen=True, eq=False)
class Point:
    """Parameters [P] before step `t`, and some rows of its batch."""

    t: int
    theta: Tensor
    batch: Batch
    seed: int | None

    @classmethod
    def of(cls, t: int, theta: Tensor, step: Step, rows: int = FEW_ROWS) -> "Point":
        """Return step t with its first rows."""
        return cls(t, theta, few_rows(step.batch, len(step.rows), rows), step.seed)


@dataclass(frozen=True)
class _LargestMove(Key[float]):
    """Of the gradient, over the steps looked at; in double precision."""


class GradientCheck:
    """Compares step adjoints with the gradient that training got, at steps of one tape."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        try:
            self._rows = rows_checked(tape)
        except RuntimeError:
            self._try(ReturnedGradient(tape.working, tape.step_loss), self._point(0, FEWEST_ROWS))  # in words
            raise
        self._directions = 1 if dear(tape) else DIRECTIONS

    @cached_property
    def gradient(self) -> ReturnedGradient:
        """What training gets, in double precision where that can be had; a copy of the model, made when first asked."""
        try:
            found = ReturnedGradient(self._tape.working, self._tape.step_loss, double=True)
            self._try(found, self._point(0, FEWEST_ROWS))
        except (RuntimeError, TypeError, ValueError):  # its own precision only, or no memory for another copy
            return ReturnedGradient(self._tape.working, self._tape.step_loss)
        return found

    @property
    def double(self) -> bool:
        """Whether in double precision."""
        return self.gradient.double

    @property
    def steps(self) -> tuple[int, ...]:
        """The first step, the last, and one about the middle whose state the tape keeps."""
        last = self._tape.steps - 1
        return tuple(sorted({0, self._tape.checkpoint_before(last // 2)[0], last}))

    def of(self, make: Maker, fused: bool = False, rows: int | None = None) -> Agreement:
        """Check the adjoint that `make` makes of row losses, which run the kernels of training if `fused`.

        On many rows of a large network with kinks, one may lie within any width: then a single row tells more.

        Returns
        -------
        Agreement

        Raises
        ------
        NotSupportedError
            The adjoint cannot be computed, or the forward pass writes on parameters.
        """
        adjoint, rows = self.adjoint(make, fused), self._rows if rows is None else rows
        worst = max(self.at(adjoint, self._point(t, rows)) for t in self.steps)
        compared = self.double or self._reference is not None
        return Agreement(worst, rows, self.steps, self.double, compared, self._coupled(), self._directions)

    def same(self, one: Maker, other: Maker) -> bool:
        """Return whether two adjoints give the same products and row derivatives, but for rounding."""
        first, second = self.adjoint(one), self.adjoint(other)
        apart = 0.0
        with seeded(0):
            for point in (self._raised(self._point(t)) for t in self.steps):
                generator = torch.Generator().manual_seed(point.t)
                shape = DIRECTIONS, len(point.theta)
                along = torch.randn(shape, generator=generator, dtype=torch.float64).to(point.theta)
                mine, theirs = (
                    a.products(point.theta, along, point.batch, point.seed) for a in (first, second)
                )
                found = (_relative((a - b).norm(), b.norm()) for a, b in zip(mine, theirs, strict=True))
                apart = max(apart, *found)
        return self.holds(apart)

    def products(
        self, adjoint: StepAdjoint, theta: Tensor, along: Tensor, batch: Batch, seed: int | None
    ) -> tuple[Tensor, Tensor]:
        """Return (∂g/∂θ)ᵀu [Q, P] and x [Q, B] by an adjoint in the precision of the check, in that of the model."""
        raised = self._raised(Point(0, theta, batch, seed))
        with seeded(0):
            of_theta, of_rows = adjoint.products(
                raised.theta, along.to(raised.theta.dtype), raised.batch, seed
            )
        return of_theta.to(theta.dtype), of_rows.to(theta.dtype)

    def adjoint(self, make: Maker, fused: bool = False) -> StepAdjoint:
        """Return the adjoint that `make` makes of the row losses in the precision of the check."""
        return make(RowLosses(self.gradient.model, self.gradient.loss, self.gradient.layout, fused=fused))

    def holds(self, error: float) -> bool:
        """Return whether a difference is one of rounding and truncation."""
        return error <= (TOLERANCE if self.double else COARSE_TOLERANCE)

    def at(self, adjoint: StepAdjoint, point: Point) -> float:
        """Return the largest relative difference at one step."""
        point = self._raised(point)
        generator = torch.Generator().manual_seed(point.t)
        shape = self._directions, len(point.theta)
        along, across = (
            torch.randn(shape, generator=generator, dtype=torch.float64).to(point.theta) for _ in range(2)
        )
        with seeded(0):
            products, of_rows = adjoint.products(point.theta, along, point.batch, point.seed)
            even = torch.full((of_rows.shape[1],), 1 / of_rows.shape[1], dtype=torch.float64)
            random = even * torch.rand(len(even), generator=generator, dtype=torch.float64)
            weights = (even, random)[: len(even)]  # of a single row, one is as good as another
            errors = [self._row_error(point, along, of_rows, v.to(along)) for v in weights]
            if self.double:
                errors += [
                    self._product_error(point, u, w, product, even.to(along))
                    for u, w, product in zip(along, across, products, strict=True)
                ]
            elif self._reference is not None:
                want = self._reference.products(point.theta, along, point.batch, point.seed)[0]
                errors.append(_relative((products - want).norm(), want.norm()))
        return max(errors)

    def _row_error(self, point: Point, along: Tensor, of_rows: Tensor, cotangent: Tensor) -> float:
        """Return how far Σ_i v_i x_i is from ⟨u, g(θ, v)⟩."""
        gradient = self._at(point.theta, point, cotangent)
        if not bool(torch.isfinite(gradient).all()):
            return 0.0  # a training that diverged: nothing to compare with
        scale = torch.maximum(gradient.norm(), (of_rows * cotangent).norm(dim=1))
        return float(_ratio((along @ gradient - of_rows @ cotangent).abs(), scale).max())

    def _product_error(self, point: Point, u: Tensor, w: Tensor, product: Tensor, cotangent: Tensor) -> float:
        """Return how far ⟨w, product⟩ is from ⟨u, ∂g/∂θ w⟩."""
        size = point.theta.norm()
        found = []
        for relative in WIDTHS:
            width = relative * float(torch.where(size > 0, size, 1.0)) / float(w.norm())
            plus = self._at(point.theta + width * w, point, cotangent)
            minus = self._at(point.theta - width * w, point, cotangent)
            moved = (plus - minus) / (2 * width)
            if not bool(torch.isfinite(moved).all()):
                return 0.0
            rounding = ROUNDING * torch.finfo(w.dtype).eps * plus.norm() / width
            apart = ((w @ product - u @ moved).abs() - rounding).clamp_min(0.0)
            scale = torch.maximum(moved.norm(), product.norm())
            found.append(_relative(apart, scale))
            if (
                found[-1] > TOLERANCE
            ):  # where rows are fitted exactly, what there is is small against other steps
                found[-1] = _relative(apart, scale.clamp_min(NEGLIGIBLE * self._largest_move))
            if found[-1] <= TOLERANCE:
                break
        return min(found)

    @property
    def _largest_move(self) -> float:
        """‖∂g/∂θ w‖ of a random w, the largest of the steps: where rows are fitted exactly, there is rounding alone."""
        return self._tape.cache.get(_LargestMove(), lambda: max(map(self._move_at, self.steps)))

    def _move_at(self, t: int) -> float:
        point = self._raised(self._point(t))
        generator = torch.Generator().manual_seed(t)
        w = torch.randn(len(point.theta), generator=generator, dtype=torch.float64).to(point.theta)
        width = WIDTHS[0] * float(point.theta.norm() + 1e-3) / float(w.norm())
        with seeded(0):
            rows = len(without_graph(lambda: self.gradient.loss(self.gradient.model, point.batch)))
            even = torch.full((rows,), 1 / rows, dtype=torch.float64).to(w)
            plus, minus = (self._at(point.theta + side * width * w, point, even) for side in (1, -1))
        return float(((plus - minus).norm() / (2 * width)).nan_to_num(0.0, 0.0, 0.0))

    @cached_property
    def _reference(self) -> TransposedAdjoint | None:
        """Return the transposed adjoint in the model's own precision, if there is one."""
        losses = RowLosses(self.gradient.model, self.gradient.loss, self.gradient.layout)
        adjoint = TransposedAdjoint(losses, self._tape.optimizer)
        point = self._raised(self._point(0))
        try:
            adjoint.products(point.theta, point.theta.unsqueeze(0), point.batch)
        except NotSupportedError:
            return None
        return adjoint

    def _coupled(self) -> bool:
        """Whether a row's gradient is another one in a batch of its own."""
        point = self._raised(self._point(0))
        alone = few_rows(point.batch, min(self._rows, len(self._tape.at(0).rows)), 1)
        if self._tape.stochastic or alone is point.batch or batch_normalised(self.gradient.model):
            return False  # other draws in another batch; or known, and said by the recording
        rows = len(without_graph(lambda: self.gradient.loss(self.gradient.model, point.batch)))
        first = torch.zeros(rows, dtype=torch.float64).to(point.theta)
        first[0] = 1.0
        among = self._at(point.theta, point, first)
        own = self._at(point.theta, Point(0, point.theta, alone, point.seed), first[:1])
        return not self.holds(_relative((among - own).norm(), among.norm()))

    def _try(self, gradient: ReturnedGradient, point: Point) -> None:
        theta, batch = point.theta.to(gradient.layout.dtype), gradient.raised(point.batch)
        with seeded(0):
            losses = without_graph(lambda: gradient.loss(gradient.model, batch))
            gradient.at(theta, batch, point.seed, torch.ones_like(losses))

    def _at(self, theta: Tensor, point: Point, cotangent: Tensor) -> Tensor:
        return self.gradient.at(theta, point.batch, point.seed, cotangent)

    def _point(self, t: int, rows: int | None = None) -> Point:
        theta = self._tape.state(t)[: self._tape.layout.size].to(self._tape.layout.device)
        return Point.of(t, theta, self._tape.at(t), self._rows if rows is None else rows)

    def _raised(self, point: Point) -> Point:
        theta = point.theta.to(self.gradient.layout.dtype)
        return Point(point.t, theta, self.gradient.raised(point.batch), point.seed)


@dataclass(frozen=True)
class _RowsChecked(Key[int]):
    """The tape alone, whose cache it is."""


def rows_checked(tape: Tape, most: int = FEW_ROWS) -> int:
    """Return how many rows of a step are compared: those whose backward pass saves `CHECK_BYTES`, two at least.

    A check takes some fifty passes of its rows: with a language model's they would cost more than a short training.

    Returns
    -------
    int
    """

    def counted() -> int:
        each = saved_bytes(tape, fused=False) / max(1, len(tape.at(0).rows))
        return int(max(FEWEST_ROWS, CHECK_BYTES // max(1.0, each)))

    return min(most, tape.cache.get(_RowsChecked(), counted))


def dear(tape: Tape) -> bool:
    """Whether rows are so large that fewer than `FEW_ROWS` are compared: those of a language model, for instance."""
    return rows_checked(tape) < FEW_ROWS


@dataclass(frozen=True)
class _Saved(Key[float]):
    """With the kernels that training runs, or attention written out."""

    fused: bool


def saved_bytes(tape: Tape, fused: bool) -> float:
    """Return what autograd saves for one step, each tensor once, but for the parameters."""
    return tape.cache.get(_Saved(fused), lambda: _saved_bytes(tape, fused))


def _saved_bytes(tape: Tape, fused: bool) -> float:
    weights = {p.data_ptr() for p in tape.working.parameters()}
    step, losses = tape.at(0), RowLosses(tape.working, tape.step_loss, tape.layout, fused=fused)
    theta = tape.layout.theta(tape.working).requires_grad_(True)
    held = dict(saved_tensors(lambda: losses(theta, step.batch, step.seed)))
    return float(sum(size for address, size in held.items() if address not in weights))


def few_rows(batch: Batch, count: int, most: int = FEW_ROWS) -> Batch:
    """Return the first `most` of `count` rows of a step's batch; all of them where micro-batches lie side by side."""
    if any("/micro/" in name for name in batch):
        return batch
    return {k: v[:most] if v.ndim and len(v) == count else v for k, v in batch.items()}


def _relative(apart: Tensor, scale: Tensor) -> float:
    return float(_ratio(apart, scale))


def _ratio(apart: Tensor, scale: Tensor) -> Tensor:
    """Return apart/scale: 0 where nothing is apart, and infinite where it is no number."""
    found = torch.where(apart == 0, 0.0, apart / scale)
    return found.nan_to_num(nan=torch.inf, posinf=torch.inf)
