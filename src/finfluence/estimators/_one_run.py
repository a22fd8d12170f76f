"""What methods that read one run have in common: how a result was made, its labels, gradients of rows."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finfluence.grads import saved_tensors
from finfluence.result import Provenance
from finfluence.runs import AnyQuery, Tape, seeded
from finfluence.runs.describe import Subsets, sum_over
from finfluence.runs.tape import final_losses


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


def own_losses(tape: Tape, subsets: Subsets, rows_at_once: int = 1024) -> np.ndarray:
    """Return the mean final loss of each subset's own rows [S], in evaluation mode; NaN for an empty subset."""
    with seeded(0):
        losses = final_losses(tape, tape.model(), rows_at_once)
    return mean_over(subsets, losses)


def mean_over(subsets: Subsets, values: np.ndarray) -> np.ndarray:
    """Return the mean of the values [n] over each subset [S]; NaN for an empty one."""
    with np.errstate(invalid="ignore"):
        return sum_over(subsets.positions, values[:, None])[:, 0] / subsets.sizes


def id_order(tape: Tape) -> np.ndarray:
    """Return the positions of the rows [n] in the order of their ids, in which draws are made.

    So they do not depend on where rows stand.

    Returns
    -------
    array of int
    """
    return np.argsort(tape.rows.ids, kind="stable")


def row_gradients(tape: Tape) -> Iterator[Tensor]:
    """Differentiate the loss of every training row at the end of the run, in evaluation mode.

    Each row is evaluated by itself: slow, and right for every model.

    Yields
    ------
    Tensor [P]
        ∇ℓ_i, in the order of the rows.
    """
    model = tape.model().eval()
    parameters = tape.layout.parameters(model)
    for position in range(len(tape.rows)):
        with seeded(0), torch.enable_grad():
            loss = tape.loss(model, tape.batch(torch.tensor([position]))).sum()
            parts = torch.autograd.grad(loss, parameters, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for g, p in zip(parts, parameters, strict=True)]
        yield tape.layout.flatten(filled)


def in_trainings(tape: Tape, evaluations: float) -> float:
    """Return a number of row evaluations in multiples of those of the training."""
    return evaluations / float(sum(tape.sizes))


def activation_bytes(tape: Tape, rows: int) -> int:
    """Return what autograd saves for one evaluation of so many rows."""
    model, batch = tape.model().eval(), tape.batch(torch.arange(min(rows, len(tape.rows))))
    with seeded(0):
        return sum(dict(saved_tensors(lambda: tape.loss(model, batch))).values())
