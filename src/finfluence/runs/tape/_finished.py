"""A tape, from whatever an estimator is handed."""

from finfluence.runs.tape._tape import Tape, TapeRecorder


def finished(source: Tape | TapeRecorder) -> Tape:
    """Return the tape: itself, or a recording ended here; checked to belong to its model and data.

    Returns
    -------
    Tape

    Raises
    ------
    TrainingError, DataError, NotSupportedError, ConfigError
        As `TapeRecorder.finish` and `Tape.check_unchanged`.
    """
    tape = source.finish() if isinstance(source, TapeRecorder) else source
    tape.check_unchanged()
    return tape
