"""Tune a language model on texts, and find the rows that made it behave as it does. No terminal in here.

Names are loaded on first use: the command line reads the options without waiting for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finfluence.jobs.tune._options import TuneOptions as TuneOptions
    from finfluence.jobs.tune._pipeline import run_tune as run_tune
    from finfluence.jobs.tune._recommend import decide_tune as decide_tune
    from finfluence.jobs.tune._result import TuneResult as TuneResult
    from finfluence.jobs.tune._result import clean_tune as clean_tune
    from finfluence.jobs.tune._result import open_tune as open_tune
    from finfluence.jobs.tune._result import verify_tune as verify_tune
    from finfluence.jobs.tune._words import first_order_findings as first_order_findings
    from finfluence.jobs.tune._words import predicted_share as predicted_share
    from finfluence.jobs.tune._words import with_measured as with_measured

_HOME = {
    "TuneOptions": "_options",
    "run_tune": "_pipeline",
    "decide_tune": "_recommend",
    **dict.fromkeys(("TuneResult", "clean_tune", "open_tune", "verify_tune"), "_result"),
    **dict.fromkeys(("first_order_findings", "predicted_share", "with_measured"), "_words"),
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'finfluence.jobs.tune' has no attribute {name!r}")
    return getattr(import_module(f"finfluence.jobs.tune.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
