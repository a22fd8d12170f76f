"""Gradient checkpointing switched off: it works through saved-tensor hooks, which function transforms have not."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.utils.checkpoint as home
from torch import Tensor
from torch._C._functorch import peek_interpreter_stack


class _Direct:
    """In place of the reentrant checkpoint: call the function itself."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        """Return `function(*args)`."""
        return function(*args)


def _nothing(*args: Any, **kwargs: Any) -> Iterator[None]:
    """In place of what surrounds the function in the other checkpoint: nothing, before and after."""
    yield


@contextmanager
def no_checkpointing() -> Iterator[None]:
    """Inside the block, `torch.utils.checkpoint.checkpoint` just calls its function; same values.

    So do hooks that ask an embedding's output to require a gradient, as peft and transformers put them on a model for
    checkpointing's sake: inside a function transform, which would refuse, the tensor stays as it is.
    """
    kept = home.CheckpointFunction, home._checkpoint_without_reentrant_generator, Tensor.requires_grad_
    ask = kept[2]

    def requires_grad_(tensor: Tensor, requires_grad: bool = True) -> Tensor:
        try:
            return ask(tensor, requires_grad)
        except RuntimeError:  # refused within a transform, whose own calls are not
            if peek_interpreter_stack() is None:
                raise
            return tensor

    home.CheckpointFunction = _Direct  # type: ignore[assignment, misc]
    home._checkpoint_without_reentrant_generator = _nothing
    Tensor.requires_grad_ = requires_grad_  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        home.CheckpointFunction, home._checkpoint_without_reentrant_generator = kept[:2]  # type: ignore[misc]
        Tensor.requires_grad_ = ask  # type: ignore[method-assign]
