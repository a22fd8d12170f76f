"""finfluence: which training rows made a model worse, and how sure one can be of it.

Names are loaded on first use; importing the package imports neither torch nor pandas.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from finfluence._version import __version__ as __version__

if TYPE_CHECKING:
    import finfluence.language as lm  # noqa: F401
    from finfluence.estimators import estimate as estimate
    from finfluence.estimators import methods as methods
    from finfluence.estimators.first_order import InRun as InRun
    from finfluence.estimators.replay import replay as replay
    from finfluence.estimators.replay.cost import plan as plan
    from finfluence.estimators.retrain import retrain as retrain
    from finfluence.estimators.retrain import se as se
    from finfluence.jobs.scan import scan as scan
    from finfluence.result import Influence as Influence
    from finfluence.result import load as load
    from finfluence.result import pool as pool
    from finfluence.runs import SGD as SGD
    from finfluence.runs import Adam as Adam
    from finfluence.runs import AdamW as AdamW
    from finfluence.runs import Query as Query
    from finfluence.runs import Recipe as Recipe
    from finfluence.runs import Rows as Rows
    from finfluence.runs import Tape as Tape
    from finfluence.runs import each_loss as each_loss
    from finfluence.runs import mean_loss as mean_loss
    from finfluence.runs import own_loss as own_loss
    from finfluence.runs import train as train
    from finfluence.tradeoff import Gaussian as Gaussian
    from finfluence.tradeoff import PiecewiseLinear as PiecewiseLinear
    from finfluence.tradeoff import TradeOff as TradeOff
    from finfluence.verification import Verification as Verification
    from finfluence.verification import verify as verify

_HOME = {
    **dict.fromkeys(
        (
            "SGD",
            "Adam",
            "AdamW",
            "Query",
            "Recipe",
            "Rows",
            "Tape",
            "each_loss",
            "mean_loss",
            "own_loss",
            "train",
        ),
        "runs",
    ),
    **dict.fromkeys(("estimate", "methods"), "estimators"),
    "InRun": "estimators.first_order",
    "plan": "estimators.replay.cost",
    "scan": "jobs.scan",
    "replay": "estimators.replay",
    **dict.fromkeys(("retrain", "se"), "estimators.retrain"),
    **dict.fromkeys(("Influence", "load", "pool"), "result"),
    **dict.fromkeys(("Gaussian", "PiecewiseLinear", "TradeOff"), "tradeoff"),
    **dict.fromkeys(("Verification", "verify"), "verification"),
}

_PACKAGES = {"assess": "assess", "lm": "language", "mitigate": "mitigate"}

__all__ = sorted([*_HOME, *_PACKAGES])


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"finfluence.{_PACKAGES[name]}")
    if name not in _HOME:
        raise AttributeError(f"module 'finfluence' has no attribute {name!r}")
    return getattr(import_module(f"finfluence.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
