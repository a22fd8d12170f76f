"""Random states around code that is not ours: read, set, and left as they were."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from finfluence.grads import gradients_on
from finfluence.runs.steps._stepper import seeded


@contextmanager
def untouched(seed: int) -> Iterator[None]:
    """Seed torch, NumPy and Python inside the block, with gradients on; all is given back afterwards."""
    of_numpy, of_python = np.random.get_state(), random.getstate()
    try:
        np.random.seed(seed)  # noqa: TID251 - given back on exit
        random.seed(seed)
        with seeded(seed), gradients_on():
            yield
    finally:
        np.random.set_state(of_numpy)
        random.setstate(of_python)


def random_state(device: torch.device) -> Tensor:
    """Return the state of torch's generators that a loss on `device` draws from, as one vector of bytes."""
    here = torch.default_generator.get_state()
    return torch.cat([here, torch.cuda.get_rng_state(device)]) if device.type == "cuda" else here


def split_random_state(state: Tensor) -> list[Tensor]:
    """Return what `random_state` joined: the state of the CPU's generator, and of the GPU's if there is one.

    They are copies: torch reads a state as 8-byte words, and one read from a file may lie anywhere.

    Returns
    -------
    list[Tensor]
    """
    size = len(torch.default_generator.get_state())
    return [part.clone() for part in (state[:size], state[size:]) if len(part)]


def set_random_state(parts: Sequence[Tensor], device: torch.device) -> None:
    """Set what `split_random_state` returned; computes nothing, so that function transforms may be around it."""
    torch.default_generator.set_state(parts[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(parts[1], device)
