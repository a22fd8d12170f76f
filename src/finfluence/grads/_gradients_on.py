"""Computation as it is where nothing is set: whoever calls may have turned gradients off, or autocast on."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def gradients_on() -> Iterator[None]:
    """Inside the block, or the function decorated, gradients are recorded and nothing is autocast.

    Examples
    --------
    >>> with torch.inference_mode(), gradients_on():
    ...     torch.ones(1, requires_grad=True).exp().requires_grad
    True
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                # Without a cache: that is emptied only where the outermost block ends.
                stack.enter_context(torch.autocast(device, enabled=False, cache_enabled=False))
        yield
