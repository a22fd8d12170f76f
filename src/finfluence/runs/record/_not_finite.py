"""Where a recorded loop first met NaN or infinite values: its step, and what of it."""

from bisect import bisect_left
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from finfluence.errors import TrainingError, explain
from finfluence.runs.record._causes import Comparison
from finfluence.runs.steps import RecordedSteps


@dataclass(frozen=True)
class _Found:
    """What is not finite, and at which step, in words; `t`: the step to look at."""

    what: str
    where: str
    t: int


def check_finite(comparison: Comparison) -> None:
    """Raise where a state that was kept, or a gradient that was looked at, is not finite.

    The steps between the last finite state and that one are taken again until the first of them that is not.

    Raises
    ------
    TrainingError
        It names the step, and whether it is the loss, a gradient or what the optimiser left.
    """  # noqa: DOC501 - made by a function
    kept = comparison.kept
    bad = bisect_left(kept, True, key=lambda t: not _finite(comparison.state(t)))
    checked = comparison.checked
    looked = [bool(torch.isfinite(comparison.references[t].gradient).all()) for t in checked]
    first = looked.index(False) if False in looked else len(checked)
    if bad == len(kept) and first == len(checked):
        return
    if bad == 0:
        raise _error(_Found("parameters or buffers with NaN or infinite values", "before the first step", 0))
    from_kept = (kept[bad - 1], kept[bad]) if bad < len(kept) else None
    from_checked = (checked[first - 1] if first else 0, checked[first] + 1) if first < len(checked) else None
    raise _error(_first(comparison, *min((p for p in (from_kept, from_checked) if p), key=lambda p: p[1])))


def check_loss(loss: float, t: int) -> None:
    """Raise where the loss of a step is no number, though its gradient is.

    Raises
    ------
    TrainingError
    """
    if isfinite(loss):
        return
    raise TrainingError(
        explain(
            "a training whose losses, gradients and parameters are finite",
            f"a loss of {loss} at step {t}, with a gradient that is finite",
            "rows are masked with NaN or infinite values (torch.where, masked_fill), and others make the gradient: "
            "what such a row does to the loss is not defined",
            f"give masked rows a loss of 0, or leave them out; look at the rows of step {t}",
        )
    )


def _first(comparison: Comparison, start: int, stop: int) -> _Found:
    """Take steps start … stop − 1 again until something is not finite."""
    steps: RecordedSteps = comparison.steps
    steps.set_state(start, comparison.state(start))
    after = torch.empty(steps.width, dtype=steps.layout.dtype)
    for t in range(start, stop):
        loss = float(steps.backward(t))
        gradients = zip(steps.layout.names, steps.parameters, strict=True)
        names = [name for name, p in gradients if p.grad is not None and not _finite(p.grad)]
        if not isfinite(loss):
            return _Found(f"a loss of {loss}", f"at step {t}", t)
        if names:
            return _Found(f"a gradient of '{names[0]}' with NaN or infinite values", f"at step {t}", t)
        steps.apply(t)
        steps.get_state(after)
        if not _finite(after):
            return _Found("parameters or buffers with NaN or infinite values", f"after step {t}", t)
    where = f"after step {start}" if stop - start == 1 else f"after one of the steps {start} to {stop - 1}"
    what = "a gradient, parameters or buffers with NaN or infinite values that the loss and rows given do not make"
    return _Found(what, where, start)


def _finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())


def _error(found: _Found) -> TrainingError:
    return TrainingError(
        explain(
            "a training whose losses, gradients and parameters are finite",
            f"{found.what} {found.where}",
            "the training diverged, or the loss is undefined on a row of that step (the logarithm or root of 0, a "
            "division by 0, an overflow in half precision)",
            f"lower the learning rate, clip the gradient, or look at the rows of step {found.t}",
        )
    )
