"""The tape of one training run, and training that leaves one."""

from finfluence.runs.tape._cache import Cache, Key
from finfluence.runs.tape._final_losses import final_losses
from finfluence.runs.tape._tape import Tape
from finfluence.runs.tape._train import spacing_for, train

__all__ = ["Cache", "Key", "Tape", "final_losses", "spacing_for", "train"]
