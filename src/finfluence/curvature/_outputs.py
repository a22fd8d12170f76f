"""A user's loss taken apart: what the model puts out, and the loss as a function of that."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from finfluence.errors import NotSupportedError, explain
from finfluence.grads import Batch, Elementary, RowLoss


def outputs_of(loss: RowLoss) -> Callable[[nn.Module, Batch], Tensor]:
    """Return the function of model and batch that gives the tensor which `loss` asks the model for.

    Returns
    -------
    callable

    Examples
    --------
    >>> loss = lambda m, b: (m(b["x"])[:, 0] - b["y"]) ** 2
    >>> outputs_of(loss)(nn.Linear(2, 1), {"x": torch.ones(4, 2), "y": torch.ones(4)}).shape
    torch.Size([4, 1])
    """

    def outputs(model: nn.Module, batch: Batch) -> Tensor:
        listening = _Listening(model)
        loss(listening, batch)  # type: ignore[arg-type]
        return _only(listening.heard)

    return outputs


def loss_of_outputs(loss: RowLoss, model: nn.Module, outputs: Tensor, batch: Batch) -> Tensor:
    """Return the losses [B] where the model's outputs are these, by operations that have second derivatives."""
    with Elementary():
        return loss(_Given(model, outputs), batch)  # type: ignore[arg-type]


class _Stand:
    """In the model's place; everything but the call is the model's own."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class _Listening(_Stand):
    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.heard: list[Any] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.heard.append(self._model(*args, **kwargs))
        return self.heard[-1]


class _Given(_Stand):
    def __init__(self, model: nn.Module, outputs: Tensor) -> None:
        super().__init__(model)
        self._outputs = outputs

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._outputs


def _only(heard: list[Any]) -> Tensor:
    if len(heard) == 1 and isinstance(heard[0], Tensor):
        return heard[0]
    if len(heard) == 1:
        got = f"an output of type {type(heard[0]).__name__}"
    else:
        got = f"a loss that calls the model {len(heard)} times"
    raise NotSupportedError(
        explain(
            "a loss of one tensor that the model puts out, for the Gauss–Newton curvature",
            got,
            "the loss calls parts of the model by themselves, several times, or the model returns a tuple or dict",
            "use curvature='hessian', or curvature='empirical-fisher', which take the loss as a whole",
        )
    )


def check_split(loss: RowLoss, model: nn.Module, batch: Batch, parameters: list[nn.Parameter]) -> None:
    """Raise unless the losses depend on the parameters through the model's outputs alone.

    Raises
    ------
    NotSupportedError
        A penalty on the weights stands in the loss, or a part of the model is used beside its outputs.
    """
    with torch.enable_grad():
        losses = loss(model, batch)
        weights = torch.linspace(
            1.0, 2.0, len(losses), dtype=losses.dtype, device=losses.device
        )  # rows may cancel
        whole = torch.autograd.grad((losses * weights).sum(), parameters, allow_unused=True)
        outputs = outputs_of(loss)(model, batch)
        held = outputs.detach().requires_grad_()
        (back,) = torch.autograd.grad((loss_of_outputs(loss, model, held, batch) * weights).sum(), held)
        parts = torch.autograd.grad(outputs, parameters, back, allow_unused=True)
    off = scale = 0.0
    for a, b in zip(whole, parts, strict=True):
        one = torch.zeros(()) if a is None else a.double()
        other = torch.zeros(()) if b is None else b.double()
        off, scale = max(off, float((one - other).abs().max())), max(scale, float(one.abs().max()))
    if off > 1e-3 * scale:
        raise NotSupportedError(
            explain(
                "a loss that depends on the weights through the model's outputs alone, for the Gauss–Newton curvature",
                f"gradients that differ by {off / scale:.2g}",
                "the loss holds a penalty on the weights, or uses parts of the model beside its outputs",
                "use curvature='hessian', which takes the loss as a whole; put the penalty into weight_decay",
            )
        )
