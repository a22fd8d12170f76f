"""Random states that were stored are set again, wherever they lie in memory."""

import pytest
import torch

from finfluence.runs.steps import random_state, set_random_state, split_random_state, untouched


@pytest.mark.parametrize("place", range(8))
def test_a_state_at_any_address_is_set(place):
    cpu = torch.device("cpu")
    with untouched(5):
        state = random_state(cpu)
        room = torch.empty(len(state) + place, dtype=torch.uint8)[place:]
        want = torch.rand(3)
        set_random_state(split_random_state(room.copy_(state)), cpu)
        assert torch.equal(torch.rand(3), want)
