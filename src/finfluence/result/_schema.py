"""The on-disk and in-memory contract of a result: names, axes, meaning."""

from dataclasses import dataclass

VERSION = 1
FORMAT = "finfluence-influence"


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
        "spread", ("subset", "query"), "standard deviation of q over training randomness, in the query's unit"
    ),
    Field("mu", ("subset", "query"), "effect / spread; positive: removing the subset raises the query"),
    Field("se", ("subset", "query"), "standard error of mu as an estimate"),
    Field("lower", ("subset", "query"), "lower end of the interval for mu"),
    Field("upper", ("subset", "query"), "upper end of the interval for mu"),
    Field("p_value", ("subset", "query"), "two-sided, for H0: removing the subset changes nothing"),
    Field("own_loss", ("subset",), "mean final training loss of the subset's own rows, in nats"),
    Field("size", ("subset",), "number of rows in the subset"),
)
ESTIMATES = tuple(f.name for f in FIELDS if f.dims == ("subset", "query"))
REQUIRED_ATTRS = ("method", "runs", "covers", "level", "n_rows")
