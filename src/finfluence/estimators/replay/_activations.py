"""What a training step saves for its backward pass."""

from dataclasses import dataclass

import torch
from torch import Tensor

from finfluence.runs import Tape, seeded
from finfluence.runs.tape import Key


@dataclass(frozen=True)
class _ActivationBytes(Key[int]):
    """What autograd saves for the tape's first step; it depends on nothing but the tape."""


def activation_bytes(tape: Tape) -> int:
    """Return the bytes of activations that a training step saves."""
    return tape.cache.get(_ActivationBytes(), lambda: _activation_bytes(tape))


def _activation_bytes(tape: Tape) -> int:
    held: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        held.append(tensor.numel() * tensor.itemsize)
        return tensor

    with seeded(0), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        tape.step_loss(tape.working, tape.at(0).batch)
    return sum(held)
