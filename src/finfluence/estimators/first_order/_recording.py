"""Steps recorded along a run: the query's gradient there, and its product with every row's."""

from collections.abc import Iterator

import numpy as np
import torch

from finfluence._progress import Progress
from finfluence.estimators.derivatives import exact_choice, query_gradients
from finfluence.runs import AnyQuery, Tape, seeded
from finfluence.runs.tape import affordable_rows

BURN_IN = 0.1


def recorded_steps(tape: Tape, records: int) -> list[int]:
    """Return at most `records` evenly spaced steps after the burn-in, a tenth of the run."""
    first = int(BURN_IN * tape.steps)
    spaced = np.linspace(first, tape.steps - 1, min(records, tape.steps - first))
    steps: list[int] = np.unique(spaced.astype(int)).tolist()
    return steps


def recorded_products(
    tape: Tape, queries: list[AnyQuery], records: int, rows_at_once: int, progress: Progress
) -> Iterator[np.ndarray]:
    """Yield s [n, Q] at every recorded step: s_j = ⟨∇q(θ_t), ∇ℓ_j(θ_t)⟩ of every row j."""
    adjoint, layout = exact_choice(tape).adjoint, tape.layout
    model, together = tape.model(), affordable_rows(tape, rows_at_once)
    steps = recorded_steps(tape, records)
    for done, t in enumerate(steps, start=1):
        with seeded(0):
            theta = tape.state(t)[: layout.size].to(layout.device)
            layout.assign(model, theta)
            _, gradient = query_gradients(queries, model, tape)
            parts = [
                adjoint.row_derivatives(theta, gradient, tape.batch(p, t), 0)
                for p in torch.arange(len(tape.rows)).split(together)
            ]
        progress("record", done, len(steps))
        yield torch.cat(parts, 1).T.double().cpu().numpy()


def check_products(tape: Tape) -> None:
    """Raise NotSupportedError unless the row losses can be differentiated along a direction; tried on a few steps."""
    exact_choice(tape)
