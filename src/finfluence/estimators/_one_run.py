"""What methods that read one run have in common: how a result was made, its labels, gradients of rows."""

from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import nn

from finfluence.errors import ConfigError, explain
from finfluence.grads import saved_tensors
from finfluence.result import Influence, Provenance
from finfluence.runs import AnyQuery, Tape, seeded
from finfluence.runs.describe import Subsets, chosen, evaluated, sum_over
from finfluence.runs.tape import affordable_rows, final_losses

ONE_NUMBER = (
    "a score, without an error: it is one number from one run, and training randomness is not looked at"
)
ROUNDING = 1e-12  # of the largest number: differences below are none


def one_run(tape: Tape, method: str, **facts: Any) -> Provenance:
    """Return how a result was made from one tape; `facts` are further fields of it.

    Returns
    -------
    Provenance
    """
    return Provenance(
        method=method,
        runs=1,
        n_rows=len(tape.rows),
        seeds=(tape.identity(),),
        uncovered=tuple(tape.uncovered()),
        recipe=tape.describe(),
        recipe_digest=tape.digest(),
        versions={"finfluence": version("finfluence"), "torch": torch.__version__},
        **{"covers": ("batch order",), **facts},
    )


def labels(queries: list[AnyQuery], subsets: Subsets) -> dict[str, Any]:
    """Return the labels of a result, as `Influence.build` takes them."""
    return {
        "subsets": subsets.names,
        "sizes": subsets.sizes,
        "queries": [name for q in queries for name in q.names],
        "units": [q.unit for q in queries for _ in q.names],
        "signs": [q.sign for q in queries for _ in q.names],
    }


def scored(
    tape: Tape,
    method: str,
    queries: list[AnyQuery],
    subsets: Subsets,
    removed: np.ndarray,
    own_loss: np.ndarray | None = None,
    **facts: Any,
) -> Influence:
    """Return scores, larger for what is more harmful, from how much removing each subset raises each query [S, Q].

    Parameters
    ----------
    tape, method, queries, subsets
        Whose result it is.
    removed : array [S, Q]
        In no unit.
    own_loss : array [S], optional
        If it is known already; otherwise the rows are evaluated at the end of the run.
    **facts
        Further fields of the provenance; `extra` goes to the result. Of `findings` the first says why there is no μ;
        by default that it is one number from one run.

    Returns
    -------
    Influence
    """
    named = labels(queries, subsets)
    return Influence.build(
        score=removed * named["signs"],
        extra=facts.pop("extra", None),
        own_loss=own_losses(tape, subsets) if own_loss is None else own_loss,
        provenance=one_run(tape, method, **{"covers": (), "findings": (ONE_NUMBER,), **facts}),
        **{**named, "units": ["score"] * len(named["signs"])},
    )


def own_losses(tape: Tape, subsets: Subsets, rows_at_once: int = 1024) -> np.ndarray:
    """Return the mean final loss of each subset's own rows [S], in evaluation mode; NaN for an empty subset."""
    with seeded(0):
        losses = final_losses(tape, tape.model(), rows_at_once)
    return mean_over(subsets, losses)


def mean_over(subsets: Subsets, values: np.ndarray) -> np.ndarray:
    """Return the mean of the values [n] over each subset [S]; NaN for an empty one."""
    with np.errstate(invalid="ignore"):
        return sum_over(subsets.positions, values[:, None])[:, 0] / subsets.sizes


def forward_values(queries: list[AnyQuery], model: nn.Module, tape: Tape) -> np.ndarray:
    """Return the values [Q] of queries, in evaluation mode; they need not be differentiable.

    Returns
    -------
    array [Q]

    Raises
    ------
    ConfigError
        A value that is not finite, or a query that does not leave the model as it was.
    """
    model.eval()
    values = np.zeros(sum(len(q.names) for q in queries))
    with torch.no_grad(), seeded(0):
        for query, first, some in chosen(queries, None):
            for part, place, weight in query.parts(some):
                at = first + place
                with evaluated(part, model):
                    found = part.values(model, tape).double().cpu().numpy()
                values[at : at + len(part.names)] += weight * found
    if not np.isfinite(values).all():
        bad = [name for q in queries for name in q.names][int(np.argmin(np.isfinite(values)))]
        raise ConfigError(
            explain(
                f"query '{bad}' to be finite at every state that is looked at",
                f"{values[int(np.argmin(np.isfinite(values)))]}",
                "the query takes the logarithm of zero, or the states left where it is defined",
                "bound the query, or take shorter steps",
            )
        )
    return values


def against_controls(found: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """Return how many standard deviations of its controls [C, …] a value is from their mean; 0 if it is their mean.

    Returns
    -------
    array
        NaN where the controls do not differ, up to rounding, and the value differs from them.

    Examples
    --------
    >>> against_controls(np.array([3.0, 0.0, 1.0]), np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])).round(3).tolist()
    [1.414, 0.0, nan]
    """
    rounding = ROUNDING * np.maximum(np.abs(controls).max(0), np.abs(found))
    away, spread = found - controls.mean(0), controls.std(0, ddof=1)
    known = spread > rounding
    return np.where(
        known, away / np.where(known, spread, 1.0), np.where(np.abs(away) <= rounding, 0.0, np.nan)
    )


def id_order(tape: Tape) -> np.ndarray:
    """Return the positions of the rows [n] in the order of their ids, in which draws are made.

    So they do not depend on where rows stand.

    Returns
    -------
    array of int
    """
    return np.argsort(tape.rows.ids, kind="stable")


def in_trainings(tape: Tape, evaluations: float) -> float:
    """Return a number of row evaluations in multiples of those of the training."""
    return evaluations / float(sum(tape.sizes))


def activation_bytes(tape: Tape, rows: int) -> int:
    """Return what autograd saves for one evaluation of so many rows, or of as many as are evaluated together."""
    together = torch.arange(affordable_rows(tape, min(rows, len(tape.rows))))
    model, batch = tape.model().eval(), tape.batch(together)
    with seeded(0):
        return sum(dict(saved_tensors(lambda: tape.loss(model, batch))).values())
