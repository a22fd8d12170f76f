"""A user's loss: one number for each row, from a model and a batch."""

from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from finfluence.errors import ConfigError, explain
from finfluence.grads import Batch, RowLoss, without_graph

RAISED = (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError)


def check_loss(loss: Any) -> None:
    """Raise unless the loss can be called with a model and a batch.

    Raises
    ------
    ConfigError
        A loss module of torch, which takes outputs and targets; something that cannot be called.
    """
    of_torch = type(loss).__module__ == nn.modules.loss.__name__
    if callable(loss) and not of_torch:
        return
    name = f"nn.{type(loss).__name__}()" if of_torch else repr(loss)
    function = _FUNCTIONS.get(type(loss).__name__, "cross_entropy")
    outputs = 'model(batch["x"])' if function in ("cross_entropy", "nll_loss") else 'model(batch["x"])[:, 0]'
    raise ConfigError(
        explain(
            "loss(model, batch) -> Tensor[B], one loss for each row of the batch",
            name,
            "torch's loss modules take outputs and targets, and average over the batch"
            if of_torch
            else "a name was passed, or the loss of one batch",
            f'write: def loss(model, batch): return nn.functional.{function}({outputs}, batch["y"], '
            'reduction="none")',
        )
    )


def loss_options(loss: Any) -> str | None:
    """Return the name and the numbers of a loss that is a dataclass, with those of losses in it; None for others.

    Returns
    -------
    str or None

    Examples
    --------
    >>> from finfluence.language import DPO, mean_token_loss
    >>> loss_options(DPO(beta=0.2)), loss_options(mean_token_loss)
    ('DPO(beta=0.2)', None)
    """
    if not is_dataclass(loss):
        return None
    values = {f.name: getattr(loss, f.name) for f in fields(loss)}
    shown = {name: repr(v) if isinstance(v, (int, float)) else loss_options(v) for name, v in values.items()}
    return f"{type(loss).__name__}({', '.join(f'{k}={v}' for k, v in shown.items() if v is not None)})"


_FUNCTIONS = {
    "CrossEntropyLoss": "cross_entropy",
    "NLLLoss": "nll_loss",
    "MSELoss": "mse_loss",
    "L1Loss": "l1_loss",
    "SmoothL1Loss": "smooth_l1_loss",
    "HuberLoss": "huber_loss",
    "BCELoss": "binary_cross_entropy",
    "BCEWithLogitsLoss": "binary_cross_entropy_with_logits",
}


def try_loss(loss: RowLoss, model: nn.Module, batch: Batch, graph: bool = False) -> Tensor:
    """Return the losses of a first batch, with their graph or without.

    Returns
    -------
    Tensor

    Raises
    ------
    ConfigError
        The loss fails: it asks for a field that rows have not, or takes another kind of batch.
    """  # noqa: DOC501 - passed on
    try:
        if not graph:
            return without_graph(lambda: loss(model, batch))
        with torch.enable_grad():
            return loss(model, batch)
    except torch.OutOfMemoryError:
        raise
    except RAISED as error:
        fields = ", ".join(repr(name) for name in batch)
        missing = isinstance(error, KeyError) and error.args and error.args[0] not in batch
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        numbered = "0" in batch
        raise ConfigError(
            explain(
                f"a loss(model, batch) of a dict with the fields {fields}",
                f"one that asks for {error.args[0]!r}" if missing else f"{type(error).__name__}: {text}",
                "items of the data set that are tuples of more than two have fields called '0', '1', …"
                if numbered
                else "the loss was written for another kind of batch, or the model for other inputs",
                'write batch["0"], batch["1"], … in the loss, or let the data set return dicts, such as '
                '{"x": x, "y": y, "mask": mask}'
                if numbered
                else "write the loss with these fields, and try it: loss(model, rows.batch(torch.arange(2)))",
            )
        ) from error
