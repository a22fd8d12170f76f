"""What all influence functions have in common: the objective at the end of a run, and the result from H⁻¹∇q."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from finfluence._progress import Progress
from finfluence.curvature import (
    CURVATURES,
    EVALUATIONS,
    Curvature,
    LossCurvature,
    Objective,
    Solution,
    Solver,
    mean_eigenvalue,
)
from finfluence.errors import ConfigError, NotSupportedError, explain
from finfluence.estimators._base import AbstractEstimator, Cost, check_choice, check_number, check_whole
from finfluence.estimators._end_of_run import (
    CHECKED,
    PREDICTS,
    end_of_run,
    least_curvature,
    removal_effects,
    weight_decay,
)
from finfluence.estimators._one_run import activation_bytes, in_trainings, labels, one_run, own_losses
from finfluence.estimators.derivatives import query_gradients
from finfluence.result import Influence
from finfluence.runs import AnyQuery, Tape, seeded
from finfluence.runs.describe import Subsets, sum_over

Relative = Literal["none", "loss", "parameters"]
RELATIVES = ("none", "loss", "parameters")
SHARE = 0.1
PROBES = 16


@dataclass(frozen=True, kw_only=True)
class InfluenceOptions:
    """Options of every influence function.

    Parameters
    ----------
    damping : float, optional
        λ, added to the curvature beside the optimiser's weight decay. Unless given, 1/Σ_t η_t of a run of SGD, at least
        a tenth of the mean eigenvalue.
    relative : {"none", "loss", "parameters"}
        What each row's score is divided by (RelatIF): nothing; √(gᵀH⁻¹g), so that rows are compared at an equal change
        of the loss; or ‖H⁻¹g‖, at an equal change of the parameters.
    rows_at_once : int
        Rows evaluated together, fewer where memory asks for it; results do not depend on it.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    """

    damping: float | None = None
    relative: Relative = "none"
    rows_at_once: int = 256

    def __post_init__(self) -> None:
        check_choice("relative", self.relative, RELATIVES)
        check_whole("rows_at_once", self.rows_at_once)
        if self.damping is not None:
            check_not_negative("damping", self.damping)


@dataclass(frozen=True, kw_only=True)
class CurvatureOptions(InfluenceOptions):
    """Options of an influence function of a curvature that can be chosen.

    Parameters
    ----------
    damping, relative, rows_at_once
        As for `InfluenceOptions`.
    curvature : {"gauss-newton", "hessian", "empirical-fisher"}
        What stands for the second derivative H of the mean loss.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    """

    curvature: Curvature = "gauss-newton"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("curvature", self.curvature, self.curvatures())

    @classmethod
    def curvatures(cls) -> tuple[str, ...]:
        """Return the curvatures that the method can take."""
        return CURVATURES


@dataclass(frozen=True, kw_only=True)
class SeededOptions(CurvatureOptions):
    """Options of an influence function that draws random numbers.

    Parameters
    ----------
    curvature, damping, relative, rows_at_once
        As for `CurvatureOptions`.
    seed : int
        Of what is drawn.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("seed", self.seed, 0)


def check_not_negative(name: str, value: object) -> None:
    """Raise unless an option is a finite number of at least zero.

    Raises
    ------
    ConfigError
    """
    check_number(name, value)
    if not 0 <= float(value) < float("inf"):  # type: ignore[arg-type]
        raise ConfigError(
            explain(
                f"{name} to be a finite number of at least zero",
                repr(value),
                "a sign is wrong",
                f"leave {name} out for its default",
            )
        )


InfluenceOptionsT = TypeVar("InfluenceOptionsT", bound=InfluenceOptions)
CurvatureOptionsT = TypeVar("CurvatureOptionsT", bound=CurvatureOptions)


@dataclass(frozen=True)
class Prepared:
    """A solver for the objective, and what is to be said of it."""

    solver: Solver
    damping: float | None
    facts: Mapping[str, Any]
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ridge:
    """What is added to the curvature: the weight decay w, and the damping λ.

    Attributes
    ----------
    decay
        w.
    least
        The curvature below which the run moved no direction to its minimum; 0 where that is not known.
    """

    decay: float
    least: float

    def added(self, mean_eigenvalue: float, given: float | None) -> float:
        """Return λ + w, λ = max(`least`, a tenth of the mean eigenvalue) unless given.

        Returns
        -------
        float

        Raises
        ------
        NotSupportedError
            The mean eigenvalue is not positive, and no damping is given.

        Examples
        --------
        >>> Ridge(0.5, 0.1).added(0.2, None), Ridge(0.0, 0.1).added(20.0, None), Ridge(0.0, 0.1).added(0.2, 0.0)
        (0.6, 2.0, 0.0)
        """
        if given is not None:
            return given + self.decay
        if not mean_eigenvalue > 0:
            raise NotSupportedError(
                explain(
                    "a curvature with a positive mean eigenvalue, a tenth of which is the least damping",
                    f"{mean_eigenvalue:.2g}",
                    "the end of the run is no minimum of the loss, or the loss is flat there",
                    "use curvature='gauss-newton', or pass damping=",
                )
            )
        return max(SHARE * mean_eigenvalue, self.least) + self.decay


class InfluenceFunction(AbstractEstimator[Tape, InfluenceOptionsT]):
    """The first-order effect of removing rows on a query at the minimum that a run ended in.

    score(S) = σ Σ_{i∈S} (1/n) ∇qᵀ (H + λ)⁻¹ ∇ℓ_i, σ the query's sign: larger is more harmful. A subclass says how
    (H + λ)⁻¹∇q is had.
    """

    family = "influence_functions"
    yields = "score"
    needs = Tape

    @abstractmethod
    def _prepare(self, objective: Objective, ridge: Ridge, progress: Progress) -> Prepared:
        """Return the solver of (H + λ) x = v, λ with the weight decay."""

    @abstractmethod
    def _passes(self, source: Tape, solves: int) -> float:
        """Return evaluations of every row by the solver: to prepare it, and for so many solves."""

    def _estimate(
        self, source: Tape, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        objective = end_of_run(source, self.options.rows_at_once)
        decay, decay_said = weight_decay(source)
        ridge = Ridge(decay, least_curvature(source))
        with seeded(0):
            objective.check()
            _, asked = query_gradients(queries, source.model(), source)
            prepared = self._prepare(objective, ridge, progress)
            solution = prepared.solver.solve(asked)
            progress("solve", 1, 1)
            products = objective.row_derivatives(solution.vectors).T.double().cpu().numpy()
            left = objective.gradient() + decay * objective.theta
            scores, weak = products, tuple[str, ...]()
            if self.options.relative != "none":
                sizes, weak = self._sizes(objective, prepared.solver, progress)
                scores = products / np.where(sizes > 0, sizes, np.inf)[:, None]
        drift = (solution.vectors @ left).double().cpu().numpy()
        signs = np.array([q.sign for q in queries for _ in q.names])
        effects = removal_effects(products, subsets.positions)
        said = (
            (PREDICTS,)
            if self.options.relative == "none"
            else (PREDICTS.partition(";")[0], self._relative_said())
        )
        facts = {"damping": prepared.damping, "weight_decay": decay, **prepared.facts, **solution.facts}
        names = [name for q in queries for name in q.names]
        facts["newton_step_left"] = dict(zip(names, drift.tolist(), strict=True))
        return Influence.build(
            score=sum_over(subsets.positions, scores * signs) / len(source.rows),
            extra={"predicted_effect": effects} if self.options.relative == "none" else None,
            own_loss=own_losses(source, subsets),
            provenance=one_run(
                source,
                self.name,
                covers=(),
                findings=(
                    *said,
                    *prepared.findings,
                    *solution.findings,
                    *weak,
                    *decay_said,
                    *_not_converged(names, drift, products),
                ),
                details={k: v for k, v in facts.items() if v is not None},
            ),
            **labels(queries, subsets),
        )

    def _cost(self, source: Tape, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        rows, columns = len(source.rows), sum(len(q.names) for q in queries)
        blocks = -(-rows // self.options.rows_at_once) if self.options.relative != "none" else 0
        passes = 3.0 + self._passes(source, 1 + blocks) + (self.options.relative != "none")
        parameters = source.layout.size * 8
        memory = activation_bytes(source, self.options.rows_at_once) * (2 + columns)
        memory += parameters * 4 * (columns + 2) + 8 * rows * columns + self._memory(source)
        return Cost(in_trainings(source, rows * passes + CHECKED), memory)

    def _memory(self, source: Tape) -> int:
        """Return what the solver holds, beside a few vectors for each query."""
        return 0

    def _sizes(
        self, objective: Objective, solver: Solver, progress: Progress
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return what each row's score is divided by [n], by a solve for every row, and the solver's findings."""
        found, said, done = [], list[str](), 0
        for gradients in objective.row_gradients():
            solved: Solution = solver.solve(gradients)
            if self.options.relative == "parameters":
                found.append(solved.vectors.double().norm(dim=1))
            else:
                own = (gradients.double() * solved.vectors.double()).sum(1)
                found.append(own.clamp_min(0.0).sqrt())
            said += [f for f in solved.findings if f not in said]
            done += len(gradients)
            progress("rows", done, objective.rows.count)
        return torch.cat(found).cpu().numpy(), tuple(f"for rows: {text}" for text in said[:1])

    def _relative_said(self) -> str:
        by = (
            "√(gᵀH⁻¹g), its own" if self.options.relative == "loss" else "‖H⁻¹g‖, the shift of the parameters"
        )
        return f"every row's score is divided by {by}: it ranks rows of unusual size lower, and has no unit"


class ByProducts(InfluenceFunction[CurvatureOptionsT]):
    """An influence function from products of the curvature with vectors."""

    def _operator(self, objective: Objective, ridge: Ridge, seed: int) -> tuple[LossCurvature, float]:
        """Return the curvature, and λ with the weight decay."""
        operator = LossCurvature(objective, self.options.curvature)
        given = self.options.damping
        return operator, ridge.added(
            0.0 if given is not None else mean_eigenvalue(operator, PROBES, seed), given
        )

    def _passes(self, source: Tape, solves: int) -> float:
        each = EVALUATIONS[self.options.curvature]
        return each * ((self.options.damping is None) + self._products(source, solves))

    @abstractmethod
    def _products(self, source: Tape, solves: int) -> float:
        """Return how many products the solver takes, at most, each of several vectors."""


def _not_converged(names: list[str], drift: np.ndarray, products: np.ndarray) -> tuple[str, ...]:
    """Say where one more Newton step would move a query more than the removal of any row is said to."""
    largest = np.abs(products - products.mean(0)).max(0) / max(len(products) - 1, 1)
    off = [k for k in range(len(names)) if abs(drift[k]) > largest[k]]
    if not off:
        return ()
    worst = max(off, key=lambda k: abs(drift[k]) / largest[k] if largest[k] > 0 else np.inf)
    return (
        f"the run did not end at a minimum of its loss: one Newton step more would change '{names[worst]}' by "
        f"{-drift[worst]:+.2g}, and removing any row by {largest[worst]:.2g} at most; influence functions take the end "
        "for a minimum",
    )
