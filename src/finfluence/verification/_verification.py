"""Verification: the outcome of holding an estimate against retraining."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from finfluence._files import write_json
from finfluence._version import __version__
from finfluence.errors import StorageError, explain
from finfluence.result import EXTREME, Influence, one_of
from finfluence.verification._figures import Figure
from finfluence.verification._judge import Verdict

FORMAT, VERSION = "finfluence-verification", 1
COLUMNS = (
    "subset", "kind", "query", "size", "estimate", "estimate_lower", "estimate_upper", "truth", "truth_lower",
    "truth_upper", "truth_se", "effect", "true_effect", "true_effect_se", "spread", "true_spread",
)  # fmt: skip
_TEXT, _WHOLE = COLUMNS[:3], ("size",)
_PAIRS = ("effect", "true_effect")


@dataclass(frozen=True, eq=False)
class Verification:
    """An estimate against the truth by retraining.

    Attributes
    ----------
    verdict
        "passed"; "order-only": the order holds, the size is not settled; "failed" or "undecided". The thresholds
        stand in `docs/explanation/verification.md`; `made` holds the verdicts on "order" and "size" apart.
    sentence
        What it means for the use of the estimate.
    figures
        Slope, Pearson, Spearman, spread ratio and coverage, each with its interval and the best one could reach.
    points
        One line per (subset, query): μ as estimated and as retrained with their intervals, effects and spreads.
    members
        Ids of the rows of each subset.
    findings
        What qualifies the outcome: runs that diverged, pairs that were left out, a budget that was too small.
    made
        How it was made: trainings, seed, what varied, queries, level.

    Examples
    --------
    >>> figure = Figure("slope", 1.2, 1.1, 1.3, 1.0, "Truth over estimate.")
    >>> row = dict.fromkeys(COLUMNS, 0.0) | {"subset": "top 1", "kind": "top", "query": "held-out", "size": 5}
    >>> done = Verification("passed", "Trust the order, multiply effects (μ) by 1.2 (1.1 to 1.3).", (figure,),
    ...                     pd.DataFrame([row]), {"top 1": [7]}, (), {"runs": 100, "runs_with": 490, "level": 0.95})
    >>> done.figure("slope").value
    1.2
    >>> print(repr(done).splitlines()[0])
    Verification passed: Trust the order, multiply effects (μ) by 1.2 (1.1 to 1.3).
    """

    verdict: Verdict
    sentence: str
    figures: tuple[Figure, ...]
    points: pd.DataFrame
    members: Mapping[str, Sequence[Any]]
    findings: tuple[str, ...]
    made: Mapping[str, Any]

    def figure(self, name: str) -> Figure:
        """Return one figure by its name.

        Returns
        -------
        Figure

        Raises
        ------
        ConfigError
            There is none of that name.
        """
        names = [f.name for f in self.figures]
        return self.figures[names.index(one_of(name, names, "figure"))]

    def to_frame(self) -> pd.DataFrame:
        """Return one line per (subset, query)."""
        return self.points.copy()

    def outcome(self) -> dict[str, Any]:
        """Return verdict, sentence and figures as plain values: what travels with the estimate."""
        return {
            "verdict": self.verdict,
            "sentence": self.sentence,
            "figures": [
                {k: _known(getattr(f, k)) for k in ("name", "value", "lower", "upper", "best")}
                for f in self.figures
            ],
            **{k: _known(v) for k, v in self.made.items()},
        }

    def attach(self, influence: Influence) -> Influence:
        """Return the influence with the outcome noted on it: its printout, report and file then say so.

        The retrained groups from the ends of the list go with it: `influence.select(interval="feedback")` rests on
        them.

        Returns
        -------
        Influence
        """
        ends = self.points[self.points["kind"].isin(EXTREME)]
        known = ends[ends[list(_PAIRS)].notna().all(axis=1)]
        pairs = {name: known[name].tolist() for name in ("kind", "query", "size", *_PAIRS)}
        noted = {**self.outcome(), "pairs": pairs}
        return influence.with_provenance(replace(influence.provenance, verification=noted))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one JSON file, atomically."""
        write_json(path, self._plain())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Verification":
        """Read what `save` wrote.

        Returns
        -------
        Verification

        Raises
        ------
        StorageError
            Nothing there, or no file of this kind.
        """
        plain = _read(Path(path))
        try:
            points = pd.DataFrame(plain["points"]).reindex(columns=list(COLUMNS))
            numbers = [c for c in COLUMNS if c not in (*_TEXT, *_WHOLE)]
            return cls(
                plain["verdict"],
                plain["sentence"],
                tuple(Figure(**{k: _unknown(v) for k, v in f.items()}) for f in plain["figures"]),
                points.astype(dict.fromkeys(numbers, "float64")),
                plain["members"],
                tuple(plain["findings"]),
                plain["made"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(_damaged(Path(path), f"{type(error).__name__}: {error}")) from error

    def __repr__(self) -> str:
        lines = [f"Verification {self.verdict}: {self.sentence}"]
        if "order" in self.made:
            lines.append(f"  order {self.made['order']}, size {self.made['size']}")
        lines.append(
            f"  {self.points['subset'].nunique()} subsets, {self.points['query'].nunique()} queries; "
            f"{self.made['runs_with']:,} trainings on all rows, {self.made['runs']:,} without each subset"
        )
        for f in self.figures:
            interval = "" if math.isnan(f.lower) else f" [{f.lower:.3g}, {f.upper:.3g}]"
            lines.append(f"  {f.name:13s} {f.value:.3g}{interval}, at best {f.best:.3g}")
        lines += [f"  note: {finding}" for finding in self.findings]
        lines.append("  next: .to_frame(), .figure('slope'), .attach(influence), .save('verification.json')")
        return "\n".join(lines)

    def _plain(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "finfluence": __version__,
            "verdict": self.verdict,
            "sentence": self.sentence,
            "figures": [{k: _known(v) for k, v in asdict(f).items()} for f in self.figures],
            "points": {c: [_known(v) for v in self.points[c].tolist()] for c in COLUMNS},
            "members": {name: list(rows) for name, rows in self.members.items()},
            "findings": list(self.findings),
            "made": {k: _known(v) for k, v in self.made.items()},
        }


def _read(path: Path) -> dict[str, Any]:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain["format"] != FORMAT:
            raise KeyError("format")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(_damaged(path, f"{type(error).__name__}: {error}")) from error
    if plain["version"] > VERSION:
        raise StorageError(
            explain(
                f"a verification at {path} in format {VERSION} of finfluence {__version__}, or an earlier one",
                f"format {plain['version']}, written by finfluence {plain.get('finfluence', 'of another version')}",
                "a later version wrote it",
                "read it with the version that wrote it, or update this one",
            )
        )
    return dict(plain)


def _damaged(path: Path, got: str) -> str:
    return explain(
        f"a verification of finfluence at {path}",
        got,
        "the path is mistyped, or the file was cut short or belongs to another program",
        "check the path, or verify again",
    )


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _unknown(value: Any) -> Any:
    return float("nan") if value is None else value
