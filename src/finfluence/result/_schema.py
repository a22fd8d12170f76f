"""The on-disk and in-memory contract of a result: names, axes, meaning."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

FORMAT = "finfluence-influence"
VERSION = 2
Kind = Literal["effect", "mu", "score"]


@dataclass(frozen=True)
class Field:
    """A variable of a result and what one entry of it means."""

    name: str
    dims: tuple[str, ...]
    meaning: str


FIELDS = (
    Field("effect", ("subset", "query"), "E[q without the subset] − E[q with it], in the query's unit"),
    Field("effect_se", ("subset", "query"), "standard error of effect as an estimate, in the query's unit"),
    Field(
        "shrunken",
        ("subset", "query"),
        "effect with chance taken out: its posterior mean given all effects on the query; a sum over subsets that were "
        "chosen for being extreme is not exaggerated",
    ),
    Field(
        "shrunken_sd", ("subset", "query"), "posterior standard deviation of the effect, in the query's unit"
    ),
    Field(
        "sign_error", ("subset", "query"), "chance that the effect has not the sign of shrunken, or is zero"
    ),
    Field(
        "spread", ("subset", "query"), "standard deviation of q over training randomness, in the query's unit"
    ),
    Field("mu", ("subset", "query"), "effect / spread; positive: removing the subset raises the query"),
    Field("se", ("subset", "query"), "standard error of mu as an estimate"),
    Field("lower", ("subset", "query"), "lower end of the interval for mu"),
    Field("upper", ("subset", "query"), "upper end of the interval for mu"),
    Field("p_value", ("subset", "query"), "two-sided, for H0: removing the subset changes nothing"),
    Field(
        "score",
        ("subset", "query"),
        "in place of all of these, only to rank by: larger is more harmful or more suspect",
    ),
    Field("own_loss", ("subset",), "mean final training loss of the subset's own rows, in nats"),
    Field("size", ("subset",), "number of rows in the subset"),
)
LINEAR = "linear_effect"
TWIN = ("shrunken", "shrunken_sd", "sign_error")
COLUMNS = tuple(f.name for f in FIELDS if f.dims == ("subset", "query"))
ESTIMATES = tuple(name for name in COLUMNS if name not in (*TWIN, "score"))
HOLDS: dict[Kind, tuple[str, ...]] = {"effect": ESTIMATES, "mu": ("mu",), "score": ("score",)}


def kind_of(names: Iterable[object]) -> Kind:
    """Return which of the three kinds a result is that has these variables.

    "effect": effects with their spread, and so μ with its error. "mu": μ alone. "score": a ranking without a unit.

    Returns
    -------
    Kind

    Examples
    --------
    >>> kind_of(["mu", "own_loss"]), kind_of(["mu", "effect"]), kind_of(["score"])
    ('mu', 'effect', 'score')
    """
    present = set(map(str, names))
    return "score" if "score" in present else "effect" if "effect" in present else "mu"
