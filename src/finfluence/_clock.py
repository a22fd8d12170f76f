"""The clock that costs are measured by."""

import time

import torch


def clock(device: torch.device) -> float:
    """Return seconds: processor time where one thread computes, so that other work on the machine does not count."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif torch.get_num_threads() == 1:
        return time.process_time()
    return time.perf_counter()
