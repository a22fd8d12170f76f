"""Recording a training loop that somebody else wrote."""

from finfluence.runs.record._continue import check_alone, save
from finfluence.runs.record._finish import finish
from finfluence.runs.record._gather import gather, underlying
from finfluence.runs.record._options import RecordOptions
from finfluence.runs.record._recorder import Recorder, checked_step
from finfluence.runs.record._reopen import reopen
from finfluence.runs.record._row_ids import RowIds, micro_batch_fields, micro_batches
from finfluence.runs.record._start import rows_of, start
from finfluence.runs.record._try_out import check_module, try_out

__all__ = [
    "RecordOptions", "Recorder", "RowIds", "check_alone", "check_module", "checked_step", "finish", "gather",
    "micro_batch_fields", "micro_batches", "reopen", "rows_of", "save", "start", "try_out", "underlying",
]  # fmt: skip
