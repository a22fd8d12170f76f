"""States along a run at which rows and queries are differentiated: spaced ones, and every one of them in turn."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finfluence.curvature import Objective
from finfluence.errors import NotSupportedError, explain
from finfluence.estimators._end_of_run import end_of_run
from finfluence.estimators.derivatives import query_gradients
from finfluence.runs import AnyQuery, Tape, seeded

AT_ONCE = 16  # states recomputed together
INSIDE_THE_ROOT = 1e-8


@dataclass(frozen=True)
class Moments:
    """Adam's running means of gradients and of their squares before a step, and how it updates them.

    Parameters
    ----------
    mean, square : Tensor [P]
        m and v, as the optimiser holds them: without bias correction.
    betas : tuple of float or Tensor [P]
        β₁ and β₂ of the step; of each coordinate, where groups of parameters differ.
    eps : float
        ε.
    """

    mean: Tensor
    square: Tensor
    betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999)
    eps: float = 1e-8

    def directions(self, gradients: Tensor) -> Tensor:
        """Return where Adam would step on each gradient alone [B, P]: m′/√(v′ + 10⁻⁸), as LESS has it.

        m′ = β₁m + (1−β₁)g, v′ = β₂v + (1−β₂)g², without bias correction.

        Returns
        -------
        Tensor [B, P]

        Examples
        --------
        >>> zero = torch.zeros(2, dtype=torch.float64)
        >>> g = torch.tensor([[2.0, -1e-3]], dtype=torch.float64)
        >>> [round(x, 6) for x in Moments(zero, zero).directions(g)[0].tolist()]
        [3.162274, -0.953463]
        """
        first, second = self.betas
        mean = first * self.mean + (1 - first) * gradients
        square = second * self.square + (1 - second) * gradients**2
        return mean / (square + INSIDE_THE_ROOT).sqrt()

    def scaled(self, gradients: Tensor) -> Tensor:
        """Return g/√v [B, P]; zero where v is, in parameters that Adam has never moved."""
        moved = self.square > 0
        return torch.where(moved, gradients / self.square.where(moved, 1.0).sqrt(), 0.0)


@dataclass(frozen=True)
class RecordedState:
    """One state of a run, in evaluation mode.

    Attributes
    ----------
    step : int
        Steps taken before it.
    rate : float
        Learning rate of the last of them.
    objective : Objective
        The rows' losses there.
    asked : Tensor [Q, P]
        Gradients of the queries.
    moments : Moments or None
        Adam's; None of an optimiser that keeps none.
    """

    step: int
    rate: float
    objective: Objective
    asked: Tensor
    moments: Moments | None


def spaced_steps(tape: Tape, count: int) -> list[int]:
    """Return the ends of `count` stretches of a run, as nearly of one length as there are steps; the last is its end.

    Returns
    -------
    list of int
    """
    ends = np.ceil(np.arange(1, count + 1) * tape.steps / count)
    return sorted({int(s) for s in ends})


def recorded_states(
    tape: Tape, queries: list[AnyQuery], steps: list[int], rows_at_once: int
) -> Iterator[RecordedState]:
    """Yield the states of a run before each of `steps`, the number of steps T meaning its end.

    Yields
    ------
    RecordedState
    """
    for step in steps:
        with seeded(0):
            model = tape.model(step)
            _, asked = query_gradients(queries, model, tape)
            objective = end_of_run(tape, rows_at_once, step)
        yield RecordedState(step, tape.rates[max(step - 1, 0)], objective, asked, moments(tape, step))


def moments(tape: Tape, step: int) -> Moments | None:
    """Return Adam's moments before a step; None where the optimiser keeps none."""
    slots = tape.optimizer.slots
    if not {"exp_avg", "exp_avg_sq"} <= set(slots):
        return None
    parts = tape.state(step).to(tape.layout.device).view(1 + len(slots), -1)
    named = dict(zip(slots, parts[1:], strict=True))
    described = tape.describe()["optimizer"]
    options = described if "eps" in described else described["groups"][0]
    first, second = (
        _spread(values, tape) for values in zip(*tape.betas_at(min(step, tape.steps - 1)), strict=True)
    )
    return Moments(named["exp_avg"], named["exp_avg_sq"], (first, second), float(options["eps"]))


def _spread(values: tuple[float, ...], tape: Tape) -> float | Tensor:
    """Return values of the parameters as those of the coordinates, or as one number."""
    if len(set(values)) == 1:
        return values[0]
    layout = tape.layout
    sizes = torch.tensor(layout.sizes)
    return torch.tensor(values, dtype=layout.dtype).repeat_interleave(sizes).to(layout.device)


def check_sgd(tape: Tape, what: str, cause: str, groups: bool, adam: bool = False) -> None:
    """Raise unless the run was of SGD without clipping, with one set of options where `groups` may not differ.

    Adam and AdamW will do, too, where `adam` says so, but not with `amsgrad`.

    Raises
    ------
    NotSupportedError
        With `cause`: why `what` needs it.
    """
    described = tape.describe()
    optimizer = described["optimizer"]
    if any(described.get(key) is not None for key in ("clip_norm", "clip_value")):
        got = "clipped gradients"
    elif optimizer["name"] not in (("SGD", "Adam", "AdamW") if adam else ("SGD",)):
        got = optimizer["name"]
    elif "max_exp_avg_sq" in tape.optimizer.slots:
        got = f"{optimizer['name']} with amsgrad"
    elif "groups" in optimizer and not groups:
        got = "groups of parameters with options of their own"
    else:
        return
    raise NotSupportedError(
        explain(
            f"a run of SGD{' or Adam' if adam else ''} without clipping, for {what}",
            got,
            cause,
            "use method='replay', which differentiates the steps of any optimiser",
        )
    )


def every_step(tape: Tape) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield every step with the states before and after it, in order; those that are not kept are recomputed.

    Yields
    ------
    tuple
        t, s_t and s_{t+1}, on the device of the parameters.
    """
    device = tape.layout.device
    state, t = tape.state(0), 0
    while t < tape.steps:
        _, following = tape.checkpoints.before(t)
        kept = tape.steps if following is None else following
        if kept == t + 1:
            after = tape.state(kept)[None]
        else:
            after = tape.states_from(t, state, min(t + AT_ONCE, kept) + 1)[1:]
        for one in after:
            yield t, state.to(device), one.to(device)
            state, t = one, t + 1


def every_step_backwards(tape: Tape) -> Iterator[tuple[int, Tensor]]:
    """Yield every step from the last to the first with the state before it; as many are held as lie between kept ones.

    Yields
    ------
    tuple
        t and s_t, on the device of the parameters.
    """
    device, stop = tape.layout.device, tape.steps
    while stop:
        first, _, start = tape.checkpoint_before(stop - 1)
        states = tape.states_from(first, start, stop)
        for t in range(stop - 1, first - 1, -1):
            yield t, states[t - first].to(device)
        stop = first
