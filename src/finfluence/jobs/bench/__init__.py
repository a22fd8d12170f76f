"""Compare methods on the same problems, against the truth: named experiments, data sets and methods.

Names are loaded on first use: the command line reads the options without waiting for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finfluence.jobs.bench._answers import own_forecast as own_forecast
    from finfluence.jobs.bench._bench import Bench as Bench
    from finfluence.jobs.bench._bench import Outcome as Outcome
    from finfluence.jobs.bench._forecast import Forecast as Forecast
    from finfluence.jobs.bench._forecast import forecast as forecast
    from finfluence.jobs.bench._options import BenchOptions as BenchOptions
    from finfluence.jobs.bench._pipeline import BenchResult as BenchResult
    from finfluence.jobs.bench._pipeline import listing as listing
    from finfluence.jobs.bench._pipeline import pages_can_be_made as pages_can_be_made
    from finfluence.jobs.bench._pipeline import run_bench as run_bench
    from finfluence.jobs.bench._planted import Planted as Planted
    from finfluence.jobs.bench._planted import plant as plant
    from finfluence.jobs.bench._problem import DataSet as DataSet
    from finfluence.jobs.bench._problem import make_problem as make_problem
    from finfluence.jobs.bench._problem import split as split
    from finfluence.jobs.bench._registry import DATA as DATA
    from finfluence.jobs.bench._registry import EXPERIMENTS as EXPERIMENTS

_HOME = {
    "BenchOptions": "_options",
    "own_forecast": "_answers",
    **dict.fromkeys(("Forecast", "forecast"), "_forecast"),
    **dict.fromkeys(("Bench", "Outcome"), "_bench"),
    **dict.fromkeys(("BenchResult", "listing", "pages_can_be_made", "run_bench"), "_pipeline"),
    **dict.fromkeys(("Planted", "plant"), "_planted"),
    **dict.fromkeys(("DataSet", "make_problem", "split"), "_problem"),
    **dict.fromkeys(("DATA", "EXPERIMENTS"), "_registry"),
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'finfluence.jobs.bench' has no attribute {name!r}")
    return getattr(import_module(f"finfluence.jobs.bench.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
