"""The end of a run as a minimum of its loss: the objective there, its weight decay, and what removing rows does."""

from typing import Any

import numpy as np
import torch

from finfluence.curvature import Objective, RowsAtHand
from finfluence.estimators._one_run import ONE_NUMBER, id_order, labels, one_run, own_losses
from finfluence.result import Influence
from finfluence.runs import AnyQuery, Tape
from finfluence.runs.describe import Subsets, sum_over
from finfluence.runs.tape import affordable_rows

CHECKED = 32  # evaluations of single rows by which loss and model are tried
PREDICTS = (
    f"{ONE_NUMBER}; 'predicted_effect' holds the change of the query, in its unit, that removing the rows is predicted "
    "to cause"
)


def end_of_run(tape: Tape, rows_at_once: int, step: int | None = None) -> Objective:
    """Return the mean loss of the training rows at the end of a run, or before `step`, in evaluation mode.

    Random numbers are dealt out to rows in the order of their ids: where rows stand does not matter.

    Returns
    -------
    Objective
    """
    order = torch.from_numpy(id_order(tape).copy())
    rows = RowsAtHand(len(tape.rows), tape.batch, affordable_rows(tape, rows_at_once), order)
    return Objective(tape.model(step), tape.loss, tape.layout, rows)


def weight_decay(tape: Tape) -> tuple[float, tuple[str, ...]]:
    """Return the optimiser's weight decay as a part (w/2)‖θ‖² of the objective, and what has to be said of it.

    Returns
    -------
    float
        w of SGD and Adam; 0 for AdamW, whose decay is of no objective, and where groups of parameters differ.
    tuple of str
        Findings.
    """
    described = tape.describe()["optimizer"]
    name, value = str(described.get("name", "")), described.get("weight_decay")
    decoupled = name.lower() == "adamw" or bool(described.get("decoupled_weight_decay"))
    if (value is None and "groups" not in described) or value == 0:
        return 0.0, ()
    if value is not None and not decoupled and name.lower() in ("sgd", "adam"):
        return float(value), ()
    which = "differs between groups of parameters" if value is None else f"of {name} belongs to no objective"
    return 0.0, (f"the optimiser's weight decay {which}, and is left out of the curvature",)


def least_curvature(tape: Tape) -> float:
    """Return the curvature below which a run of SGD moved no direction to its minimum, 0 for other optimisers.

    After steps of total rate T = Σ_t η_t (1 − d)/(1 − m), m the momentum and d its dampening, gradient descent on a
    quadratic of curvature h has answered a change of its gradient by (1 − exp(−hT))/h. For every h that is 1 to 1.3
    times 1/(h + 1/T): as if the objective had a ridge of 1/T. Steps of Adam differ in size between directions.

    Returns
    -------
    float
        1/T.
    """
    described, total = tape.describe()["optimizer"], sum(tape.rates)
    if str(described.get("name", "")).lower() != "sgd" or "groups" in described or not total > 0:
        return 0.0
    momentum = float(described.get("momentum") or 0.0)
    damped = float(described.get("dampening") or 0.0) if momentum else 0.0
    return (1 - momentum) / (total * (1 - damped))


def predicting(
    tape: Tape, method: str, queries: list[AnyQuery], subsets: Subsets, products: np.ndarray, **facts: Any
) -> Influence:
    """Return scores and `predicted_effect` of removal from x [n, Q], as `removal_effects` has it; score = σ Σ_S x/n.

    Parameters
    ----------
    tape, method, queries, subsets
        Whose result it is.
    products : array [n, Q]
        x.
    **facts
        Further fields of the provenance; `findings` are said beside what a score is.

    Returns
    -------
    Influence
    """
    signs = [q.sign for q in queries for _ in q.names]
    findings = (PREDICTS, *facts.pop("findings", ()))
    return Influence.build(
        score=sum_over(subsets.positions, products * signs) / len(products),
        extra={"predicted_effect": removal_effects(products, subsets.positions)},
        own_loss=own_losses(tape, subsets),
        provenance=one_run(tape, method, covers=(), findings=findings, **facts),
        **labels(queries, subsets),
    )


def removal_effects(products: np.ndarray, subsets: list[np.ndarray]) -> np.ndarray:
    """Return the effect of removing each subset from a mean loss at its minimum [S, Q].

    effect(S) = (Σ_{i∈S} x_i − |S| x̄) / (n − |S|),  x_i = ∇qᵀ(H+λ)⁻¹∇ℓ_i: to first order what training on the mean
    loss of
    the others does. At a minimum without weight decay x̄ = 0.

    Parameters
    ----------
    products : array [n, Q]
        x.
    subsets : list of int arrays
        Positions of the rows of each subset.

    Returns
    -------
    array [S, Q]

    Examples
    --------
    >>> removal_effects(np.array([[3.0], [-1.0], [-2.0]]), [np.array([0]), np.array([], dtype=int)]).tolist()
    [[1.5], [0.0]]
    """
    sizes = np.array([len(s) for s in subsets])[:, None]
    effects: np.ndarray = sum_over(subsets, products - products.mean(0)) / (len(products) - sizes)
    return effects
