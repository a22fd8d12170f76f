"""How a result was made: one typed record, written beside the numbers as plain JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from finfluence.errors import DataError, explain
from finfluence.result._names import one_of

Contrast = Literal["remove", "add"]
CONTRASTS = ("remove", "add")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How a result was made. What a method does not know is None, and is not written.

    Parameters
    ----------
    method : str
        The method's name, such as "online" or "retrain".
    runs : int
        Training runs that it comes from.
    covers : tuple of str
        Randomness of training that the spread contains: "batch order", "initialisation", "dropout", "augmentation".
    n_rows : int
        Rows of the training data.
    contrast : {"remove", "add"}
        What is done to the subset: **the effect is that of removing it, or that of adding it.**
    level : float
        Level of the intervals.
    uncovered : tuple of str
        Randomness of training that the spread leaves out.
    seeds : tuple of mappings
        The seeds of each run.
    findings : tuple of str
        Sentences that qualify the result.
    recipe, recipe_digest : mapping, str
        What was trained, and its digest: results pool and verify only where it is the same.
    versions : mapping
        Version of each library that the numbers may depend on.
    verification : mapping
        How the result stood against retraining: verdict, sentence and figures.
    engine : str
        How gradients or trainings were computed, in words.
    horizon : tuple of int
        Replay: epochs walked back, for each query.
    epochs : int
        Replay: epochs of the training.
    probe_budget : float
        Replay: extra row evaluations for the spread, as a share of the rows that training saw.
    late_states : tuple of int
        Replay: steps whose states the query is averaged over.
    differentiation, differentiation_reason : str
        Replay: "exact" or "finite-difference", and why.
    budget : mapping
        Replay: what a budget was turned into; given as the budget of another replay it chooses the same.
    query_values : tuple of tuples [runs, Q]
        Replay: value of each query at the end of each run.
    step_notes : tuple of str
        Replay: steps that hold much of the slopes' variance, and what was done with them (FI011).
    spread_profile : tuple of tuples [Q, epochs]
        Replay: what each epoch adds to the variance of a query.
    records : int
        First-order methods: recorded steps.
    design, vary, mu, seed : str, str, str, int
        Retraining: its design, what varied between runs, the estimator of μ, the seed.
    runs_with, runs_without : int
        Retraining: runs on all rows, and the least number without a subset.
    runs_without_each : tuple of int
        Retraining until a precision was reached: runs without each subset.
    halves : int
        Retraining by random halves: how many.
    scale : str
        Retraining by random halves: the presence of the other subsets.
    diverged : mapping
        Retraining: runs left out of each arm.
    runs_trained, runs_reused : int
        Retraining: runs trained by this call, and found in the store.
    until, looks, unreached : str, int, tuple
        Retraining until a precision was reached: the precision, looks taken, pairs that missed it.
    details : mapping
        Whatever else is known: facts of one method, and keys that another version wrote. Kept as they are.

    Examples
    --------
    >>> made = Provenance(method="online", runs=1, covers=("batch order",), n_rows=4)
    >>> Provenance.from_dict(made.to_dict()) == made
    True
    >>> Provenance.from_dict({**made.to_dict(), "weather": "fair"}).details
    {'weather': 'fair'}
    """

    method: str
    runs: int
    covers: tuple[str, ...]
    n_rows: int
    contrast: Contrast = "remove"
    level: float = 0.95
    uncovered: tuple[str, ...] = ()
    seeds: tuple[Mapping[str, Any], ...] = ()
    findings: tuple[str, ...] = ()
    recipe: Mapping[str, Any] | None = None
    recipe_digest: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    verification: Mapping[str, Any] | None = None
    engine: str | None = None
    horizon: tuple[int, ...] | None = None
    epochs: int | None = None
    probe_budget: float | None = None
    late_states: tuple[int, ...] | None = None
    differentiation: str | None = None
    differentiation_reason: str | None = None
    budget: Mapping[str, Any] | None = None
    query_values: tuple[tuple[float, ...], ...] | None = None
    step_notes: tuple[str, ...] | None = None
    spread_profile: tuple[tuple[float, ...], ...] | None = None
    records: int | None = None
    design: str | None = None
    vary: str | None = None
    mu: str | None = None
    seed: int | None = None
    runs_with: int | None = None
    runs_without: int | None = None
    runs_without_each: tuple[int, ...] | None = None
    halves: int | None = None
    scale: str | None = None
    diverged: Mapping[str, int] | None = None
    runs_trained: int | None = None
    runs_reused: int | None = None
    until: str | None = None
    looks: int | None = None
    unreached: tuple[tuple[str, str], ...] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of(self.contrast, CONTRASTS, "contrast")

    @property
    def harmful_side(self) -> int:
        """Sign of μ, times the query's sign, that is harmful: +1 where rows are removed, −1 where they are added."""
        return 1 if self.contrast == "remove" else -1

    def coded(self) -> list[tuple[str, str]]:
        """Return what qualifies the result, each sentence with the code of its finding, the graver ones first."""
        return [("FI011", t) for t in self.step_notes or ()] + [("FI010", t) for t in self.findings]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain values: lists, numbers, texts; `details` stands among the other keys."""
        known = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "details"}
        written = {name: plain(value) for name, value in known.items() if value is not None}
        return {**plain(self.details), **written}

    @classmethod
    def from_dict(cls, attrs: Mapping[str, Any]) -> "Provenance":
        """Return the record that `to_dict`, or any earlier version, wrote.

        Parameters
        ----------
        attrs : mapping
            Keys that are not fields are kept in `details`.

        Returns
        -------
        Provenance

        Raises
        ------
        DataError
            One of method, runs, covers, n_rows is missing.
        """
        missing = [name for name in _REQUIRED if name not in attrs]
        if missing:
            raise DataError(
                explain(
                    f"a result that says how it was made: {', '.join(_REQUIRED)}",
                    f"missing {', '.join(missing)}",
                    "an estimator built its result from mismatched parts",
                    "pass provenance=Provenance(…) with what is missing",
                )
            )
        known = {f.name for f in fields(cls)} - {"details"}
        given = {str(name): value for name, value in attrs.items() if name in known and value is not None}
        rest = {str(name): value for name, value in attrs.items() if name not in known}
        return cls(**{k: _frozen(v) if k in _SEQUENCES else v for k, v in given.items()}, details=rest)


_REQUIRED = ("method", "runs", "covers", "n_rows")
_SEQUENCES = tuple(f.name for f in fields(Provenance) if str(f.type).startswith("tuple"))


def plain(value: Any) -> Any:
    """Return a value as JSON knows it: no tuples, no NumPy scalars, keys as texts."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value.item() if hasattr(value, "item") and not isinstance(value, (str, bytes)) else value


def _frozen(value: Any) -> Any:
    """Return lists as tuples, all the way down; anything else as it is."""
    return tuple(_frozen(v) for v in value) if isinstance(value, (list, tuple)) else value
