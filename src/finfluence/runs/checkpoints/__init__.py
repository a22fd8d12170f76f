"""States of a training kept on disk or in memory."""

from finfluence.runs.checkpoints._regular import Snapshots, read_tensors
from finfluence.runs.checkpoints._thinning import KeptStates, bytes_of

__all__ = ["KeptStates", "Snapshots", "bytes_of", "read_tensors"]
