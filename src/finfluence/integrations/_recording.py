"""The recording that a callback of a trainer holds: its tape, or why there is none."""

import warnings

from finfluence.errors import ConfigError, FinfluenceError, explain
from finfluence.runs import Tape, TapeRecorder


class Recording:
    """One training after the other, as a callback sees them.

    Parameters
    ----------
    cause, next_step : str
        Of the error where there is no tape.
    """

    def __init__(self, cause: str, next_step: str) -> None:
        self.recorder: TapeRecorder | None = None
        self._words = cause, next_step
        self._tape: Tape | None = None
        self._error: FinfluenceError | None = None

    @property
    def tape(self) -> Tape:
        """The tape of the last training; raises what was wrong with it."""
        if self._error is not None:
            raise self._error
        if self._tape is None:
            cause, next_step = self._words
            raise ConfigError(explain("a training that was recorded", "none", cause, next_step))
        return self._tape

    def forget(self) -> None:
        """Begin anew."""
        self.recorder, self._tape, self._error = None, None, None

    def finish(self) -> None:
        """End the recording, if there is one."""
        recorder, self.recorder = self.recorder, None
        try:
            if recorder is not None:
                self._tape = recorder.finish()
        except FinfluenceError as error:
            self._error = error

    def warn(self) -> None:
        """Warn of what is wrong with the recording; it is an error where the tape is read."""
        if self._error is not None:
            warnings.warn(f"the training was recorded, but cannot be replayed: {self._error}", stacklevel=3)
