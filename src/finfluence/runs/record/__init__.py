"""Recording a training loop that somebody else wrote."""

from finfluence.runs.record._continue import check_alone, save
from finfluence.runs.record._finish import finish
from finfluence.runs.record._gather import gather, underlying
from finfluence.runs.record._options import RecordOptions
from finfluence.runs.record._recorder import Recorder
from finfluence.runs.record._reopen import reopen
from finfluence.runs.record._start import start

__all__ = [
    "RecordOptions",
    "Recorder",
    "check_alone",
    "finish",
    "gather",
    "reopen",
    "save",
    "start",
    "underlying",
]
