"""Gradient checkpointing switched off: it works through saved-tensor hooks, which function transforms have not."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.utils.checkpoint as home


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
    """Inside the block, `torch.utils.checkpoint.checkpoint` just calls its function; same values."""
    kept = home.CheckpointFunction, home._checkpoint_without_reentrant_generator
    home.CheckpointFunction = _Direct  # type: ignore[assignment, misc]
    home._checkpoint_without_reentrant_generator = _nothing
    try:
        yield
    finally:
        home.CheckpointFunction, home._checkpoint_without_reentrant_generator = kept  # type: ignore[misc]
