"""Tried out before the first recorded step: one loss for each row, and from that row alone."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finfluence.errors import ConfigError, DataError, NotSupportedError, explain
from finfluence.grads import Batch, Layout, RowLoss, check_row_losses, no_checkpointing, without_graph
from finfluence.runs.describe import RowSource, try_loss
from finfluence.runs.steps import Clipping, CoarsestDtype, check_steady, tolerance_of

_LOOKED_AT = 8


def try_out(
    model: nn.Module, loss: RowLoss, rows: RowSource, layout: Layout, varying: bool
) -> tuple[bool, torch.dtype | None]:
    """Run the loss on a copy; return whether it draws random numbers in training mode, and if it rounds, to what.

    Returns
    -------
    (bool, torch.dtype or None)

    Raises
    ------
    ConfigError
        It does not give one number per row, or cannot be called.
    NotSupportedError
        It depends on other rows, or writes on buffers.
    DataError
        It is NaN.
    """  # noqa: DOC501 - made by a function
    count = min(_LOOKED_AT, len(rows))
    batch = {k: v.to(layout.device) for k, v in rows.batch(torch.arange(count)).items()}
    with no_checkpointing():
        model.eval()
        with CoarsestDtype() as seen:
            together = try_loss(loss, model, batch)
        tolerance = tolerance_of(1e-3, seen.dtype)
        check_row_losses(together, count)
        for row in range(min(count, 3)):
            one = (
                rows.batch(torch.tensor([row]))
                if not varying
                else {k: v[row : row + 1] for k, v in batch.items()}
            )
            placed = {k: v.to(layout.device) for k, v in one.items()}
            alone = _alone(loss, model, placed, rows.ids[row].item())
            check_row_losses(alone, 1)
            if not _separable(float(together[row]), float(alone[0]), rows.ids[row].item(), tolerance):
                check_steady(model, loss, batch)  # it may be another number at every call
                raise _coupled(float(together[row]), float(alone[0]), rows.ids[row].item())
        model.train()
        buffers = {n: b.clone() for n, b in model.named_buffers()}
        kind = nn.modules.batchnorm._BatchNorm
        normalised = tuple(n for n, m in model.named_modules() if isinstance(m, kind))
        before = _states(layout.device)
        without_graph(partial(loss, model, batch))
        drawn = not all(torch.equal(a, b) for a, b in zip(before, _states(layout.device), strict=True))
    for name, buffer in model.named_buffers():
        if not torch.equal(buffer.nan_to_num(), buffers[name].nan_to_num()) and not name.startswith(
            normalised
        ):
            raise NotSupportedError(
                explain(
                    "a model that training changes in its parameters only",
                    f"a forward pass that writes on buffer '{name}'",
                    "running statistics or power iterations are kept between steps",
                    "use a layer without them, or one that works in evaluation mode",
                )
            )
    check_steady(model, loss, batch)
    return drawn, seen.dtype


def _alone(loss: RowLoss, model: nn.Module, one: Batch, row: Any) -> Tensor:
    """Return the loss of a row by itself."""
    try:
        return without_graph(partial(loss, model, one))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        text = str(error).splitlines()[0] if str(error) else ""
        raise NotSupportedError(
            explain(
                "a loss that can be taken of one row by itself",
                f"{type(error).__name__} for row {row!r} alone: {text}",
                "it ranks the rows of a batch, or a layer normalises over them in evaluation mode, too "
                "(BatchNorm with track_running_stats=False)",
                "write the loss of a row with that row only, and use layers without statistics of the batch",
            )
        ) from error


def _states(device: torch.device) -> list[Tensor]:
    here = [torch.default_generator.get_state()]
    return [*here, torch.cuda.get_rng_state(device)] if device.type == "cuda" else here


def _separable(together: float, alone: float, row: Any, tolerance: float) -> bool:
    """Return whether a row's loss is the same among others and alone."""
    if not (np.isfinite(together) and np.isfinite(alone)):
        raise DataError(
            explain(
                "a finite loss of each row before training",
                f"{alone if not np.isfinite(alone) else together} for row {row!r}",
                "missing values in the data, or a loss that takes the logarithm of zero",
                "impute or drop such rows, or bound the loss",
            )
        )
    return abs(together - alone) <= tolerance * max(abs(together), abs(alone), 1e-3)


def _coupled(together: float, alone: float, row: Any) -> NotSupportedError:
    return NotSupportedError(
        explain(
            "a loss of one row that does not depend on the other rows of its batch",
            f"{together:.6g} for row {row!r} among others and {alone:.6g} alone",
            "a contrastive loss, a normalisation over the batch, padding that is not masked, or random numbers in "
            "evaluation mode, too (F.dropout without training=)",
            "write the loss of a row with that row only; mask padding; draw in training mode alone",
        )
    )


def check_clipping(clipping: Clipping) -> None:
    """Raise unless the limits are positive numbers or None.

    Raises
    ------
    ConfigError
        Another value, or both of them.
    """
    for name, given in (("clip_norm", clipping.norm), ("clip_value", clipping.value)):
        good = isinstance(given, (int, float)) and not isinstance(given, bool) and 0 < given < float("inf")
        if given is not None and not good:
            raise ConfigError(
                explain(
                    f"{name} to be a number above 0, or None",
                    repr(given),
                    "the limit was mistyped",
                    f"pass the limit that the loop clips at, or leave {name} out",
                )
            )
    if clipping.norm is not None and clipping.value is not None:
        raise ConfigError(
            explain(
                "clip_norm or clip_value",
                "both",
                "the order of the two is not known",
                "clip in one way only",
            )
        )


def check_module(model: object) -> None:
    """Raise unless the model is a module, not a function that makes one.

    Raises
    ------
    ConfigError
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(
            explain(
                "the nn.Module that the loop trains",
                type(model).__name__,
                "a function that makes a model was passed, as a Recipe takes it",
                "pass the module itself, whose parameters the optimiser holds",
            )
        )
