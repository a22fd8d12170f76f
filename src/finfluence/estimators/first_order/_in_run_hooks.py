"""Hooks on a model that is being trained: the gradients of its layers in factors, as each backward pass makes them.

The tensors that pass are read, never replaced, and a hook never raises: what goes wrong is kept, and raised by the next
call that is ours.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from finfluence.errors import FinfluenceError, NotSupportedError, explain
from finfluence.grads import Layer, layers_of
from finfluence.grads.rules import Term

Take = Callable[[int, dict[str, Term]], None]


class Hooks:
    """Watches layers of the user's model; `release` takes the hooks off.

    Parameters
    ----------
    model : nn.Module
        As it is trained.
    names : sequence of str
        Parameters whose factors are taken.
    take : callable
        `take(k, terms)`: terms of the k-th forward pass of the model, by parameter.
    problem : callable
        Told of an error.

    Attributes
    ----------
    passes : int
        Forward passes of the model with a gradient so far.
    """

    def __init__(
        self, model: nn.Module, names: list[str], take: Take, problem: Callable[[Exception], None]
    ) -> None:
        self.passes = 0
        self._begun, self._several = 0, False
        self._take, self._problem = take, problem
        self._norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        chosen = set(names)
        self._handles: list[Any] = [model.register_forward_pre_hook(_Hook(self._begin))]
        for layer in layers_of(model, names):
            if chosen & set(layer.names.values()):
                hook = _Hook(partial(self._forward, layer))
                self._handles.append(layer.module.register_forward_hook(hook, prepend=True, with_kwargs=True))

    def release(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _begin(self, module: nn.Module, args: Any) -> None:
        if not torch.is_grad_enabled():
            return
        self.passes += 1
        self._begun += 1
        self._several = False
        if any([m.training for m in self._norms]):
            self._problem(_batch_norm())

    def _forward(self, layer: Layer, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or not output.requires_grad:
            return
        if torch._C._current_graph_task_id() != -1:  # inside a backward pass: a checkpointed part runs again
            self._arrived()
            if self._several:
                self._problem(_several_passes())
                return
        a = args[0] if args else kwargs.get("input")
        if isinstance(a, Tensor):
            output.register_hook(partial(self._backward, layer, a.detach(), self.passes))

    def _backward(self, layer: Layer, a: Tensor, at: int, gradient: Tensor) -> None:
        self._arrived()
        try:
            weight = layer.module.weight
            if gradient.dtype != weight.dtype or (a.is_floating_point() and a.dtype != weight.dtype):
                raise _autocast(gradient.dtype if gradient.dtype != weight.dtype else a.dtype)
            terms = layer.terms(a, gradient.detach())
            if terms is not None:
                self._take(at, terms)
        except FinfluenceError as error:
            self._problem(error)
        except Exception as error:
            self._problem(_unreadable(error))

    def _arrived(self) -> None:
        """Note that a backward pass is under way, and whether several forward passes wait for theirs."""
        self._several |= self._begun > 1
        self._begun = 0


class _Hook:
    """A hook that stays where it was put: a copy of the model has one that does nothing."""

    def __init__(self, call: Callable[..., None]) -> None:
        self._call = call

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Look at a call."""
        self._call(*args, **kwargs)

    def __deepcopy__(self, memo: Any) -> "_Hook":
        """Return a hook that does nothing."""
        return _Hook(_nothing)


def _nothing(*args: Any, **kwargs: Any) -> None:
    pass


def _batch_norm() -> NotSupportedError:
    return NotSupportedError(
        explain(
            "a model whose loss for one row does not depend on the other rows of the batch",
            "batch normalisation in training mode",
            "the statistics of a batch mix its rows, so that no row has a gradient of its own",
            "use GroupNorm or LayerNorm, or put the layers in evaluation mode (.eval()) while training",
        )
    )


def _several_passes() -> NotSupportedError:
    return NotSupportedError(
        explain(
            "one forward pass before each backward pass, where parts are checkpointed",
            "several forward passes before one",
            "a checkpointed part that runs again during a backward pass does not say which of them it belongs to",
            "call backward() after each forward pass, or leave out the checkpoints",
        )
    )


def _autocast(kind: torch.dtype) -> NotSupportedError:
    return NotSupportedError(
        explain(
            "layers that compute in the precision of their weights",
            f"values of {kind}",
            "autocast is on: products of lower precision would not be those of the gradient",
            "train without autocast, or record the loop with fi.Tape.record and the autocast inside the loss",
        )
    )


def _unreadable(error: Exception) -> NotSupportedError:
    found = NotSupportedError(
        explain(
            "layers whose inputs and gradients can be read",
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            "a layer was called with other inputs than when it was tried on three rows",
            "record the loop with fi.Tape.record, and use method='tracin'",
        )
    )
    found.__cause__ = error
    return found
