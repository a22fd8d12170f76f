"""What a training step saves for its backward pass."""

from dataclasses import dataclass

from finfluence.grads import saved_tensors
from finfluence.runs import Tape, seeded
from finfluence.runs.tape import Key


@dataclass(frozen=True)
class _ActivationBytes(Key[int]):
    """What autograd saves for the tape's first step; it depends on nothing but the tape."""


def activation_bytes(tape: Tape) -> int:
    """Return the bytes of activations that a training step saves."""
    return tape.cache.get(_ActivationBytes(), lambda: _activation_bytes(tape))


def _activation_bytes(tape: Tape) -> int:
    batch = tape.at(0).batch
    with seeded(0):
        return sum(size for _, size in saved_tensors(lambda: tape.step_loss(tape.working, batch)))
