"""Losses of the training rows at the end of a run."""

import numpy as np
import torch
from torch import nn

from finfluence.runs.tape._tape import Tape


def final_losses(tape: Tape, model: nn.Module, rows_at_once: int = 1024) -> np.ndarray:
    """Return each training row's loss under `model` [n], in evaluation mode."""
    model.eval()
    with torch.no_grad():
        parts = [tape.loss(model, tape.batch(p)) for p in torch.arange(len(tape.rows)).split(rows_at_once)]
    return torch.cat(parts).double().cpu().numpy()
