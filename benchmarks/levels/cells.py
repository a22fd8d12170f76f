"""One cell of the tables: a table with some labels made wrong, predicted out of fold; kept on disk."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from benchmarks.levels.data import DATA, Labelled, with_rare_class
from finfluence.labels import OutOfFold, out_of_fold

RATES = (0.0, 0.05, 0.1, 0.2)
EDGE = 0.1
"""Weight of the surest row when confusable rows are drawn; a row that could be either class weighs 0.6."""


@dataclass(frozen=True)
class Cell:
    """kind : "uniform", "confusable" (towards the class most like it, oftener where it is like it) or "human"."""

    data: str
    rate: float
    kind: str
    rare: bool
    seed: int

    @property
    def name(self) -> str:
        """A file name."""
        rare = "rare" if self.rare else "whole"
        return f"{self.data}-{round(100 * self.rate):02d}-{self.kind}-{rare}-{self.seed}"


@dataclass(frozen=True, eq=False)
class Predicted:
    """found : out of fold. y : labels as given [n]. wrong : which are [n]. in_sample : loss of a network [n]."""

    found: OutOfFold
    y: np.ndarray
    wrong: np.ndarray
    in_sample: np.ndarray
    seconds: float


def cells(names: Sequence[str], seeds: int) -> Iterator[Cell]:
    """Yield every cell, seed by seed, so that an interrupted run has whole seeds."""
    for seed in range(seeds):
        for name in names:
            for rare in (False, True):
                yield Cell(name, 0.0, "uniform", rare, seed)
                for rate in RATES[1:]:
                    yield Cell(name, rate, "uniform", rare, seed)
                    other = "human" if name == "film-reviews" else "confusable"
                    yield Cell(name, rate, other, rare, seed)


def predicted(cell: Cell, kept: Path) -> Predicted:
    """Return what is known of a cell, made once."""
    path = kept / f"{cell.name}.npz"
    if not path.exists():
        _make(cell, path)
    with np.load(path) as file:
        each = {str(n): file[f"each {n}"] for n in file["models"]}
        found = OutOfFold(
            "classification",
            file["predicted"],
            (),
            tuple(str(n) for n in file["used"]),
            float(file["gain"]),
            each,
        )
        return Predicted(found, file["y"], file["wrong"], file["in_sample"], float(file["seconds"]))


def _make(cell: Cell, path: Path) -> None:
    table = _table(cell.data, cell.rare, cell.seed)
    y, wrong = made_wrong(cell, table)
    with threadpool_limits(1):
        start = time.process_time()
        found = out_of_fold(table.x, y, seed=cell.seed)
        seconds = time.process_time() - start
        network = MLPClassifier(64, max_iter=60, random_state=cell.seed).fit(table.x, y)
    fitted = network.predict_proba(table.x)[np.arange(len(y)), np.searchsorted(network.classes_, y)]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez_compressed(
        part,
        y=y,
        wrong=wrong,
        predicted=found.predicted,
        used=np.array(found.used),
        gain=found.gain,
        models=np.array(list(found.each)),
        in_sample=-np.log(np.clip(fitted, 1e-12, 1)),
        seconds=seconds,
        **{f"each {name}": p.astype(np.float32) for name, p in found.each.items()},
    )
    part.rename(path)


def made_wrong(cell: Cell, table: Labelled) -> tuple[np.ndarray, np.ndarray]:
    """Return labels of which a share is replaced, and which ones are."""
    rng, clean = np.random.default_rng([cell.seed, 7]), table.y
    count, classes = round(cell.rate * len(clean)), int(clean.max()) + 1
    changed = clean.copy()
    if cell.kind == "uniform":
        rows = rng.choice(len(clean), count, replace=False)
        changed[rows] = (clean[rows] + rng.integers(1, classes, count)) % classes
    else:
        if cell.kind == "human":
            assert table.dissent is not None
            other = np.c_[clean == 1, clean == 0] * table.dissent[:, None]
            weight = np.clip(table.dissent, 1e-9, None)
        else:
            other = _other(cell.data, cell.rare, cell.seed)
            weight = EDGE + other.max(1)
        rows = rng.choice(len(clean), count, replace=False, p=weight / weight.sum())
        changed[rows] = other[rows].argmax(1)
    wrong = changed != clean
    return changed, wrong


@cache
def _table(name: str, rare: bool, seed: int) -> Labelled:
    table = DATA[name](seed)
    return with_rare_class(table, seed) if rare else table


@cache
def _other(name: str, rare: bool, seed: int) -> np.ndarray:
    """Return the chance of every class but the right one, by a model of the right labels, out of fold [n, classes]."""
    table = _table(name, rare, seed)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    with threadpool_limits(1):
        p = cross_val_predict(
            LogisticRegression(C=0.03, max_iter=300), table.x, table.y, cv=folds, method="predict_proba"
        )
    p[np.arange(len(p)), table.y] = 0
    return p
