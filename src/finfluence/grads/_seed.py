"""The generators that a loss draws from: the CPU's, and the GPU's own."""

import torch
from torch import Tensor


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed torch's default generators of the CPU and of `device`; computes nothing: transforms may be around it."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        _of(device).manual_seed(seed)


def generator_states(device: torch.device) -> list[Tensor]:
    """Return the states of the generators that a loss on `device` draws from."""
    here = [torch.default_generator.get_state()]
    return [*here, torch.cuda.get_rng_state(device)] if device.type == "cuda" else here


def _of(device: torch.device) -> torch.Generator:
    torch.cuda.init()  # the tuple of generators is empty before
    return torch.cuda.default_generators[
        torch.cuda.current_device() if device.index is None else device.index
    ]
