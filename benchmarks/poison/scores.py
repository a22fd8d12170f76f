"""Scores of rows by every method: larger is more suspicious."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from benchmarks.poison.attacks import Planted
from benchmarks.poison.states import States, residual
from finfluence.estimators.first_order import step_influence

RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0)
Encoder = Callable[[Sequence[str]], np.ndarray]


def bm25(texts: Sequence[str], asked: str, k1: float = 1.5, b: float = 0.75) -> np.ndarray:
    """Return the Okapi BM25 score of every text [n] for one query.

    Σ_w idf(w) · f(k₁+1)/(f + k₁(1 − b + b·L/L̄)), idf(w) = log(1 + (n − n_w + ½)/(n_w + ½)), with f how often w is in a
    text, and L the number of its words.

    Examples
    --------
    >>> bm25(["a red cat", "a dog"], "cat").round(2).tolist()
    [0.64, 0.0]
    """
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    counts, lengths = [Counter(w) for w in words], np.array([len(w) for w in words])
    found = np.zeros(len(texts))
    for word in set(re.findall(r"\w+", asked.lower())):
        f = np.array([c[word] for c in counts], dtype=float)
        idf = math.log1p((len(texts) - (f > 0).sum() + 0.5) / ((f > 0).sum() + 0.5))
        found += idf * f * (k1 + 1) / (f + k1 * (1 - b + b * lengths / lengths.mean()))
    return found


def text_scores(planted: Planted, draw: int, encoder: Encoder | None = None) -> dict[str, np.ndarray]:
    """Return the scores that do not need the model."""
    texts, asked = [" ".join(p) for p in planted.pairs], [" ".join(p) for p in planted.asked]
    vectors = TfidfVectorizer().fit(texts)
    near = (vectors.transform(texts) @ vectors.transform(asked).T).toarray()
    found = {
        "TF-IDF": near.mean(1),
        "BM25": np.mean([bm25(texts, one) for one in asked], 0),
        "short answer": -np.array([len(answer) for _, answer in planted.pairs], dtype=float),
        "random": np.random.default_rng([draw, 1]).random(len(texts)),
    }
    if encoder is not None:
        found["sentence encoder"] = (encoder(texts) @ encoder(asked).T).mean(1)
    return found


def state_scores(states: States, counts: Sequence[int], batch: int) -> dict[str, np.ndarray]:
    """Return the scores from gradients along the run; the behaviour is the first of what is asked, and unwanted.

    A row that raises it has a positive score: its gradient of the loss points against that of the behaviour.
    """
    last, found = states.plain[-1, :, 0], {}
    for count in counts:
        some = states.every(count)
        less = np.tensordot(some.rates / (some.rates.sum() or 1.0), some.less, 1)
        found |= {
            **_kernels(some, count),
            f"LESS, {count} states": -less[:, 0],
            f"LESS, {count} states, residual": -residual(less),
            f"cosines, {count} states": -some.cosines()[:, 0],
            f"cosines, {count} states, residual": -residual(some.cosines()),
            f"standardised, {count} states": -some.standardised()[:, 0],
            f"standardised, {count} states, residual": -residual(some.standardised()),
            f"fine, {count} states": _fine(some, batch),
            f"TracIn, {count} states": -np.tensordot(some.rates, some.plain, 1)[:, 0],
        }
    return {**found, "grad-dot": -last, "grad-cosine": -last / states.sizes[-1, : len(last)]}


def _fine(states: States, batch: int) -> np.ndarray:
    """Return −μ [n] of the published single-run algorithm, with the states as its recorded steps."""
    alone = [np.array([row]) for row in range(states.plain.shape[1])]
    each = np.stack(
        [step_influence(products[:, :1].astype(float), alone, batch) for products in states.plain]
    )[..., 0]
    return np.sign(each.sum(0)) * np.sqrt((each**2).sum(0))


def _kernels(states: States, count: int) -> dict[str, np.ndarray]:
    """Return the ranking score in every form that is compared."""
    found = {}
    for ridge in RIDGES:
        for centred in (False, True):
            scores = states.kernel(ridge, centred=centred)
            name = f"kernel, {count} states, ridge {ridge:g}" + (", centred" if centred else "")
            found[name], found[f"{name}, residual"] = -scores[:, 0], -residual(scores)
    return found


def sentence_encoder(folder: Path) -> Encoder:
    """Return a function from texts to unit vectors: the mean of a transformer's outputs over the tokens."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()

    def encode(texts: Sequence[str]) -> np.ndarray:
        parts = []
        for start in range(0, len(texts), 16):
            batch = tokenizer(
                list(texts[start : start + 16]), padding=True, truncation=True, return_tensors="pt"
            )
            with torch.no_grad():
                out = model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None]
            mean = (out * mask).sum(1) / mask.sum(1)
            parts.append((mean / mean.norm(dim=1, keepdim=True)).double().numpy())
        return np.concatenate(parts)

    return encode
