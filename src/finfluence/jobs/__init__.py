"""What the command line does from a file to a report: each job leaves a folder.

Names are loaded on first use: the command line reads the options without waiting for pandas.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finfluence.jobs._folder import Job as Job
    from finfluence.jobs._folder import JobFolder as JobFolder
    from finfluence.jobs._folder import kind_of as kind_of
    from finfluence.jobs._options import flag_of as flag_of
    from finfluence.jobs._options import option as option
    from finfluence.jobs._time_left import Stage as Stage
    from finfluence.jobs._time_left import WholeJob as WholeJob
    from finfluence.jobs._time_left import in_words as in_words

_HOME = {
    **dict.fromkeys(("Job", "JobFolder", "kind_of"), "_folder"),
    **dict.fromkeys(("flag_of", "option"), "_options"),
    **dict.fromkeys(("Stage", "WholeJob", "in_words"), "_time_left"),
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'finfluence.jobs' has no attribute {name!r}")
    return getattr(import_module(f"finfluence.jobs.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
