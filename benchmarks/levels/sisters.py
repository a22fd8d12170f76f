"""Tables like one another, and their neighbours: the share of wrong labels found in each, not in the sum of all.

The plain one is of 569 tumours: twelve numbers with gaps, a category without meaning, a note that says nothing, 8 % of
the labels flipped in three quarters of the rows; the rest is a hold-out with right labels in a file of its own.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_wine

from finfluence.ingest import TableEncoder
from finfluence.labels import OutOfFold, judge_labels, out_of_fold

HELD, GAPS = 0.25, 25
LEVEL, HALF, TENTH = 0.1, 0.5, 0.1


@dataclass(frozen=True)
class Kind:
    """rows, numbers, rate : of wrong labels. text : whether there is a note. classes : 2 (tumours) or 3 (wines)."""

    name: str
    rows: int = 569
    numbers: int = 12
    rate: float = 0.08
    text: bool = True
    classes: int = 2


KINDS = (
    Kind("plain"),
    Kind("200 rows", rows=200),
    Kind("350 rows", rows=350),
    Kind("1,000 rows", rows=1000),
    Kind("5 % flipped", rate=0.05),
    Kind("12 % flipped", rate=0.12),
    Kind("10 numbers", numbers=10),
    Kind("14 numbers", numbers=14),
    Kind("no note", text=False),
    Kind("3 classes", classes=3, numbers=6),
    Kind("none flipped", rate=0.0),
)


@dataclass(frozen=True, eq=False)
class Drawn:
    """x : features of all rows. y, wrong : labels, and which are wrong, of the first n, the training rows."""

    x: np.ndarray
    y: np.ndarray
    wrong: np.ndarray
    n: int


def drawn(kind: Kind, seed: int) -> Drawn:
    """Return one table."""
    rng = np.random.default_rng([seed, 8])
    numbers, right = _numbers(kind, rng)
    order = rng.permutation(len(right))
    numbers, right = numbers.iloc[order].reset_index(drop=True), right[order]
    frame = numbers.round(4).astype(str)
    for name in frame.columns[:4]:
        frame.loc[rng.choice(len(frame), GAPS * len(frame) // 569, replace=False), name] = ""
    frame["ward"] = rng.choice(["a", "b", "c & d"], len(frame))
    if kind.text:
        frame["note"] = [f"seen on day {i}, nothing special" for i in rng.permutation(len(frame))]
    n = len(frame) - round(HELD * len(frame))
    y, wrong = right.copy(), np.zeros(len(frame), dtype=bool)
    wrong[rng.choice(n, int(kind.rate * n), replace=False)] = True
    y[wrong] = (y[wrong] + rng.integers(1, kind.classes, wrong.sum())) % kind.classes
    return Drawn(TableEncoder(0).fit_transform(frame), y, wrong[:n], n)


def predicted(kind: Kind, seed: int, kept: Path) -> tuple[OutOfFold, Drawn, float]:
    """Return out-of-fold predictions of the training rows, the table, and seconds; made once."""
    path, table = kept / f"sister-{kind.name.replace(' ', '-')}-{seed}.npz", drawn(kind, seed)
    if not path.exists():
        start = time.process_time()
        found = out_of_fold(table.x, table.y, seed=seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez_compressed(
            part,
            predicted=found.predicted,
            used=np.array(found.used),
            gain=found.gain,
            seconds=time.process_time() - start,
            **{f"each {name}": found.each[name] for name in found.used if name in found.each},
        )
        part.rename(path)
    with np.load(path) as file:
        used = tuple(str(name) for name in file["used"])
        each = {name: file[f"each {name}"] for name in used if f"each {name}" in file}
        found = OutOfFold("classification", file["predicted"], (), used, float(file["gain"]), each)
        return found, table, float(file["seconds"])


def counted(kind: Kind, seed: int, kept: Path) -> dict[str, float]:
    """Return how many rows of one table are wrong, named, and named falsely; training rows, judged apart."""
    found, table, seconds = predicted(kind, seed, kept)
    named = judge_labels(found.take(np.arange(table.n)), table.y[: table.n]).named(LEVEL)
    return {
        "wrong": float(table.wrong.sum()),
        "named": float(named.sum()),
        "false": float((named & ~table.wrong).sum()),
        "seconds": seconds,
    }


def sisters(seeds: Sequence[int], kept: Path) -> Iterator[str]:
    """Yield the lines of the table: a kind each, over its seeds."""
    yield (
        "| tables | number | found: least, quartiles, most | false of all named | most false in one table "
        "| half found, at most a tenth false |"
    )
    yield "|---" * 6 + "|"
    for kind in KINDS:
        each = pd.DataFrame([counted(kind, seed, kept) for seed in seeds])
        false = (each["false"] / each["named"].clip(lower=1)).to_numpy()
        if not each["wrong"].any():
            yield f"| {kind.name} | {len(each)} | {(each['named'] > 0).sum()} with a name | | | |"
            continue
        share = ((each["named"] - each["false"]) / each["wrong"]).to_numpy()
        quartiles = " ".join(f"{v:.2f}" for v in np.quantile(share, (0, 0.25, 0.5, 0.75, 1)))
        pooled = each["false"].sum() / max(1, each["named"].sum())
        done = ((share >= HALF) & (false <= TENTH)).sum()
        yield f"| {kind.name} | {len(each)} | {quartiles} | {pooled:.2f} | {false.max():.2f} | {done} |"


def _numbers(kind: Kind, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """Return numbers and right labels: measured ones, or more drawn from the normal law of each class."""
    found = load_breast_cancer() if kind.classes == 2 else load_wine()
    values, y = found.data[:, : kind.numbers], found.target
    names = [f"n{k}" for k in range(kind.numbers)]
    if kind.rows <= len(y):
        rows = rng.choice(len(y), kind.rows, replace=False)
        return pd.DataFrame(values[rows], columns=names), y[rows]
    size = np.log1p(values)
    labels = rng.choice(y, kind.rows)
    drawn = np.empty((kind.rows, kind.numbers))
    for label in np.unique(y):
        of_class = size[y == label]
        count = int((labels == label).sum())
        drawn[labels == label] = rng.multivariate_normal(of_class.mean(0), np.cov(of_class.T), count)
    return pd.DataFrame(np.expm1(drawn), columns=names), labels
