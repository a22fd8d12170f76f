"""Rows without labels beside the held-out ones: what the versions of a scan say of both, and what follows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest

from finfluence._files import digest
from finfluence._seeds import stream
from finfluence.assess import METHODS, THRESHOLDED, AccuracyComparison, compare_accuracy
from finfluence.errors import DataError, TrainingError, explain
from finfluence.ingest import Table, Unlabelled
from finfluence.jobs._words import change
from finfluence.jobs.scan._measures import RowChances
from finfluence.jobs.scan._reopened import Reopened
from finfluence.jobs.scan._versions import LEVEL, Asked

FEWEST_LABELLED = 10
MOST_ROWS, MOST_CHANCES, LEAST_ROWS = 10_000, 200_000, 1_000
_COMPARED, _NEIGHBOURS, _FAR, _UNLIKE = 2_000, 5_000, 0.99, 0.05


@dataclass(frozen=True, eq=False)
class Deployed:
    """Rows without labels, the held-out rows that they are compared with, and what is said of the two.

    Attributes
    ----------
    x
        Features of the rows that are predicted.
    held
        Held-out rows that took no part in the decision.
    rows
        What was read: all rows, with their source.
    findings
        (code, text) of what was seen while reading and comparing features.
    """

    x: np.ndarray
    held: Table
    rows: Unlabelled
    findings: tuple[tuple[str, str], ...]

    @property
    def asked(self) -> Asked:
        """The question for every class's probability on the held-out rows, then on the unlabelled ones."""
        assert self.held.target.classes is not None
        x = np.concatenate([self.held.x, self.x])
        query = RowChances(torch.from_numpy(x), len(self.held.target.classes))
        return Asked(query, digest(b"chances", x.tobytes()))


def deployed_with(scan: Reopened) -> Deployed:
    """Return the rows without labels that a scan was reopened with, and what is said of them.

    Returns
    -------
    Deployed

    Raises
    ------
    DataError
        Fewer than ten held-out rows can place a threshold.
    """
    held, rows, options = scan.data.evaluation, scan.data.unlabelled, scan.options
    classes = held.target.classes
    assert rows is not None and classes is not None
    if len(held) < FEWEST_LABELLED:
        raise DataError(
            explain(
                f"at least {FEWEST_LABELLED} held-out rows that took no part in the decision",
                f"{len(held)}",
                "a small file, or held-out labels that are doubtful themselves",
                "give more checked rows by finfluence scan --holdout FILE",
            )
        )
    x, found = rows.x, [("FI030", note) for note in rows.notes]
    found += [("FI061", warning) for warning in rows.warnings]
    most = min(MOST_ROWS, max(LEAST_ROWS, MOST_CHANCES // len(classes)))
    if len(x) > most:
        chosen = stream(options.seed, "unlabelled rows").choice(len(x), most, replace=False)
        x = x[np.sort(chosen)]
        found.append(
            ("FI030", f"of {len(rows):,} unlabelled rows {most:,} are predicted, drawn by the scan's seed")
        )
    found += [("FI062", text) for text in _unlike(scan.data.train.x, held.x, x, options.seed)]
    return Deployed(x, held, rows, tuple(found))


def without_labels(
    chances: Mapping[str, np.ndarray], deployed: Deployed, *, level: float = LEVEL, score: str, seed: int
) -> dict[str, Any]:
    """Return the estimated accuracy of every version on the rows without labels, as plain values.

    Parameters
    ----------
    chances
        Of each version [runs, rows · classes], as `Deployed.asked` asks for them; the first is compared with.

    Returns
    -------
    dict
        Source, rows, `versions` (name, accuracy and difference by method), classes, what is assumed, findings.

    Raises
    ------
    TrainingError
        No training of all versions is finite.
    """
    held, classes = deployed.held, deployed.held.target.classes
    assert classes is not None
    finite = np.all([np.isfinite(v).all(1) for v in chances.values()], axis=0)
    if not finite.any():
        raise TrainingError(
            explain(
                "a training of every version that stays finite",
                f"none of {len(finite)}",
                "a learning rate that is too large for one of the versions",
                "scan again with a lower --lr",
            )
        )
    n = len(held)
    pairs = {}
    for name, values in chances.items():
        p = np.exp(values[finite].reshape(int(finite.sum()), -1, len(classes)))
        pairs[name] = (p[:, :n], p[:, n:])
    found = compare_accuracy(pairs, held.y, score=score, level=level, seed=seed)
    return _plain(found, deployed, int((~finite).sum()))


def estimated(found: Mapping[str, Any], name: str, what: str = "estimated accuracy without labels") -> str:
    """Return what a version does to the estimated accuracy, as `measured` says it of measures with labels."""
    version = next(v for v in found["versions"] if v["name"] == name)
    return change(what, version["difference"][THRESHOLDED], scale=100, unit="points")


def signs(found: Mapping[str, Any]) -> list[str]:
    """Return what was seen that speaks against the estimate."""
    return [text for code, text in found["findings"] if code in ("FI061", "FI062")]


def _plain(found: AccuracyComparison, deployed: Deployed, diverged: int) -> dict[str, Any]:
    classes = deployed.held.target.classes
    assert classes is not None
    return {
        "source": deployed.rows.source.to_dict(),
        "unlabelled_rows": len(deployed.rows),
        "predicted_rows": len(deployed.x),
        "labelled_rows": len(deployed.held),
        "runs": found.runs,
        "diverged_runs": diverged,
        "level": found.level,
        "methods": list(METHODS),
        "versions": [
            {
                "name": name,
                "accuracy": {m: _numbers(i) for m, i in by_method.items()},
                "difference": {m: _numbers(i) for m, i in found.difference.get(name, {}).items()},
            }
            for name, by_method in found.accuracy.items()
        ],
        "classes": [
            {"class": str(name), "labelled": row[0], "predicted": row[1], "predicted_unlabelled": row[2]}
            for name, row in zip(classes, found.mix.tolist(), strict=True)
        ],
        "findings": [
            ["FI060", f"The estimate {found.assumes}"],
            *(["FI062", text] for text in found.signs),
            *(list(finding) for finding in deployed.findings),
        ],
    }


def _numbers(interval: Any) -> dict[str, float]:
    return {"value": float(interval.estimate), "lower": float(interval.lower), "upper": float(interval.upper)}


def _unlike(train: np.ndarray, held: np.ndarray, new: np.ndarray, seed: int) -> list[str]:
    """Say so if many rows lie further from every training row than nearly all held-out rows do."""
    rng = stream(seed, "rows unlike")

    def some(x: np.ndarray, most: int) -> torch.Tensor:
        at = np.sort(rng.permutation(len(x))[:most])
        return torch.from_numpy(x[at].reshape(len(at), -1))

    near = some(train, _NEIGHBOURS)
    known, there = (
        torch.cat([torch.cdist(part, near).amin(1) for part in some(x, _COMPARED).split(256)])
        for x in (held, new)
    )
    far = int((there > torch.quantile(known, _FAR)).sum())
    share, by_chance = far / len(there), 1 - _FAR + 1 / len(known)
    if share <= _UNLIKE or binomtest(far, len(there), by_chance, "greater").pvalue >= 0.001:
        return []
    return [
        f"{share:.0%} of the rows without labels lie further from every training row than 99 % of the held-out rows "
        "do: they may be of a kind, or of a class, that the model has never seen."
    ]
