"""Text columns as a few dense numbers: hashing, TF-IDF and truncated SVD, with bounded memory."""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finfluence.ingest._messages import require
from finfluence.ingest._text_width import telling_width

BUCKETS = 2**16
FIT_ROWS = 10_000
SHORT_SIZE = 30
_WORD = re.compile(r"\b\w+\b")
LONG_TEXT = 3
"""Mean number of words from which words (and pairs of words) are counted; below, character n-grams."""


@dataclass(eq=False)
class TextEncoder:
    """One text column: at most `size` columns (30 for short texts), mean 0 and mean variance 1 in training.

    Where the target is given, as many of them as help to predict it for rows left out (`telling_width`), perhaps none.

    The vocabulary is hashed into 65,536 buckets and the projection fitted on at most 10,000 rows, so memory
    is bounded whatever the texts are.
    """

    size: int
    seed: int
    _counter: Any = None
    _weights: Any = None
    _projection: Any = None
    _keep: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    _mean: np.ndarray = field(default_factory=lambda: np.empty(0))
    _scale: float = 1.0

    def fit(self, cells: np.ndarray, y: np.ndarray | None = None) -> "TextEncoder":
        """Estimate weights and projection from cells (texts, None where missing), and from the targets their width."""
        text = require("sklearn.feature_extraction.text", "turns text into numbers")
        decomposition = require("sklearn.decomposition", "turns text into numbers")
        present = [cell for cell in cells if cell]
        wordy = np.mean([len(_WORD.findall(cell)) for cell in present[:FIT_ROWS]]) >= LONG_TEXT
        self._counter = text.HashingVectorizer(
            n_features=BUCKETS,
            analyzer="word" if wordy else "char_wb",
            token_pattern=_WORD.pattern if wordy else None,
            ngram_range=(1, 2) if wordy else (2, 4),
            alternate_sign=False,
            norm=None,
        )
        counts = self._count(cells)
        self._weights = text.TfidfTransformer(sublinear_tf=True).fit(counts)
        rng = np.random.default_rng(self.seed)
        sample = np.sort(rng.choice(len(cells), min(len(cells), FIT_ROWS), replace=False))
        weighted = self._weights.transform(counts)
        size = max(1, min(self.size if wordy else SHORT_SIZE, self.size, len(sample) // 4))
        with np.errstate(invalid="ignore"):  # explained variance of texts that are all alike
            self._projection = decomposition.TruncatedSVD(size, random_state=self.seed).fit(weighted[sample])
        dense = self._projection.transform(weighted)
        variance = dense.var(axis=0)
        self._keep = np.flatnonzero(variance > 1e-9 * max(variance.max(), 1e-30))
        if y is not None:
            told = (
                telling_width(dense[sample][:, self._keep], np.asarray(y)[sample]) if len(self._keep) else 0
            )
            self._keep = self._keep[:told]
        self._mean = dense[:, self._keep].mean(axis=0)
        self._scale = float(np.sqrt(variance[self._keep].mean())) if len(self._keep) else 1.0
        return self

    @property
    def width(self) -> int:
        """How many columns the text becomes."""
        return len(self._keep)

    def transform(self, cells: np.ndarray) -> np.ndarray:
        """Return float32 `[n, columns]`."""
        dense = self._projection.transform(self._weights.transform(self._count(cells)))
        return ((dense[:, self._keep] - self._mean) / self._scale).astype(np.float32)

    def _count(self, cells: np.ndarray) -> Any:
        return self._counter.transform([cell or "" for cell in cells])
