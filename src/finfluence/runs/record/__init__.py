"""Recording a training loop that somebody else wrote."""

from finfluence.runs.record._gather import gather, underlying
from finfluence.runs.record._recorder import Recorder
from finfluence.runs.record._recording import finish, reopen, start

__all__ = ["Recorder", "finish", "gather", "reopen", "start", "underlying"]
