"""Losses of the training rows at the end of a run."""

import numpy as np
import torch
from torch import nn

from finfluence.grads import without_graph
from finfluence.runs.describe import like_sizes
from finfluence.runs.tape._affordable_rows import affordable_rows
from finfluence.runs.tape._tape import Tape


def final_losses(tape: Tape, model: nn.Module, rows_at_once: int = 1024) -> np.ndarray:
    """Return each training row's loss under `model` [n], in evaluation mode; as many rows together as memory allows."""
    model.eval()
    parts = like_sizes(tape.rows, torch.arange(len(tape.rows)), affordable_rows(tape, rows_at_once))
    losses = [without_graph(lambda p=p: tape.loss(model, tape.batch(p))) for p in parts]  # type: ignore[misc]
    return torch.cat(losses).double().cpu()[torch.cat(parts).argsort()].numpy()
