"""States of a training kept on disk or in memory."""

from finfluence.runs.checkpoints._regular import RegularCheckpoints
from finfluence.runs.checkpoints._store import CheckpointStore, read_tensors
from finfluence.runs.checkpoints._thinning import ThinningCheckpoints, bytes_of

__all__ = ["CheckpointStore", "RegularCheckpoints", "ThinningCheckpoints", "bytes_of", "read_tensors"]
