"""Accuracy on rows without labels: average thresholded confidence, and the simple estimates beside it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from finfluence._indices import same_rows
from finfluence._seeds import stream
from finfluence.assess._scores import probabilities, temperature, tempered, wilson
from finfluence.assess._scores import score as row_score
from finfluence.errors import DataError, explain
from finfluence.stats import check_level

REPLICATES = 1000
_BINS = 10
_SHIFTED = 0.001
_OUTSIDE = 0.01
ASSUMES = (
    "assumes that rows of which the model is equally sure are right equally often with and without labels; "
    "classes that the model has never seen break this unseen."
)


@dataclass(frozen=True)
class AccuracyEstimate:
    """Accuracy on rows without labels, as estimated.

    Attributes
    ----------
    estimate, lower, upper, level
        Share of right predictions by average thresholded confidence, with its bootstrap interval, no narrower than
        Wilson's for so many rows (source and target rows drawn again). The interval covers chance, not a shift that
        breaks the assumption.
    source_accuracy
        Share of right predictions on the labelled rows.
    threshold, temperature
        Where the score is cut, and the temperature used before (1 if not calibrated).
    baselines
        "source accuracy" (nothing is corrected), "average confidence", "difference of confidences",
        "importance weights" (ten bins of confidence).
    rows
        Labelled and unlabelled rows used.
    findings
        What the estimate assumes, and what on these rows speaks against it.
    signs
        Those of the findings that speak against it.
    """

    estimate: float
    lower: float
    upper: float
    level: float
    source_accuracy: float
    threshold: float
    temperature: float
    baselines: dict[str, float]
    rows: tuple[int, int]
    findings: tuple[str, ...]
    signs: tuple[str, ...] = ()

    def __str__(self) -> str:
        first = (
            f"accuracy without labels {self.estimate:.1%} [{self.lower:.1%}, {self.upper:.1%}] "
            f"({self.level:.0%} bootstrap), {self.source_accuracy:.1%} on labelled rows"
        )
        return "\n".join([first, *(f"  {f}" for f in self.findings)])


@dataclass(frozen=True)
class Threshold:
    """Cut of the score: rows above count as right, rows at it with `share`."""

    value: float
    share: float

    def right(self, scores: np.ndarray) -> np.ndarray:
        """Return for each row 1 above the cut, `share` at it, 0 below."""
        return np.where(scores == self.value, self.share, (scores > self.value).astype(np.float64))


def cut(scores: np.ndarray, right: np.ndarray) -> Threshold:
    """Return the cut below which lie as many labelled rows as are predicted wrong, ties shared."""
    wrong = int((~right).sum())
    if wrong == 0:
        return Threshold(-np.inf, 1.0)
    value = float(np.sort(scores)[wrong - 1])
    ties = int((scores == value).sum())
    above = int((scores > value).sum())
    return Threshold(value, (len(scores) - wrong - above) / ties)


@dataclass(frozen=True, eq=False)
class Scored:
    """Rows as one model sees them: tempered probabilities, what is right, and how sure it is of each row."""

    temperature: float
    source: np.ndarray
    target: np.ndarray
    right: np.ndarray
    source_scores: np.ndarray
    target_scores: np.ndarray

    @classmethod
    def of(cls, p: np.ndarray, y: np.ndarray, q: np.ndarray, kind: str, *, calibrated: bool) -> "Scored":
        """Temper source p and target q, if asked to, and score them; y are the labels of the source."""
        t = temperature(p, y) if calibrated else 1.0
        p, q = tempered(p, t), tempered(q, t)
        return cls(t, p, q, p.argmax(1) == y, row_score(p, kind), row_score(q, kind))

    def estimate(self, i: np.ndarray | slice, j: np.ndarray | slice) -> float:
        """Return the accuracy estimated from source rows i on target rows j."""
        return float(cut(self.source_scores[i], self.right[i]).right(self.target_scores[j]).mean())

    def drawn(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return positions of source and target rows for one bootstrap replicate."""
        n, m = len(self.source), len(self.target)
        return rng.integers(n, size=n), rng.integers(m, size=m)


def accuracy(
    source: ArrayLike,
    labels: ArrayLike,
    target: ArrayLike,
    *,
    score: str = "max_confidence",
    calibrated: bool = True,
    level: float = 0.95,
    seed: int = 0,
) -> AccuracyEstimate:
    r"""Estimate the accuracy on unlabelled rows from how sure the model is of them.

    With a score s(x) (largest probability, or negative entropy), the threshold t is chosen on labelled rows
    that took no part in training so that

    .. math:: \Pr_{\text{source}}[s(x) > t] = \text{accuracy}_{\text{source}}, \qquad
              \widehat{\text{accuracy}} = \Pr_{\text{target}}[s(x) > t].

    Rows that tie with t count in part, so that the labelled rows fed back return their own accuracy exactly.
    No estimate of this kind can hold for every shift: it assumes that rows of equal score are right equally
    often in both places. New classes and a class whose share changes break that; a changed share of predicted
    classes is tested and said, new classes cannot be seen.

    Parameters
    ----------
    source
        Probabilities on labelled rows that the model has not seen, rows × classes.
    labels
        Their labels as positions of classes.
    target
        Probabilities on the unlabelled rows.
    score
        "max_confidence" or "negative_entropy".
    calibrated
        Whether a temperature is fitted on the labelled rows first.
    level
        Of the bootstrap interval.
    seed
        Of the bootstrap.

    Returns
    -------
    AccuracyEstimate

    Raises
    ------
    DataError
        If probabilities are no laws, labels are no classes, or fewer than ten labelled rows are given.
    ConfigError
        If score or level is unknown.

    References
    ----------
    Garg, Balakrishnan, Lipton, Neyshabur and Sedghi, "Leveraging unlabeled data to predict out-of-distribution
    performance", ICLR 2022, equation 1. Difference of confidences: Guillory et al., ICCV 2021.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> sure = rng.uniform(0.5, 1.0, 400)
    >>> labels = (rng.random(400) > sure).astype(int)
    >>> found = accuracy(np.column_stack([sure, 1 - sure]), labels, np.full((50, 2), [0.99, 0.01]))
    >>> found.estimate > found.source_accuracy
    True
    """
    p, q, y = checked(source, labels, target, level)
    seen = Scored.of(p, y, q, score, calibrated=calibrated)
    return estimated(seen, level, seed)


def estimated(seen: Scored, level: float, seed: int) -> AccuracyEstimate:
    """Return the estimate with its interval, baselines and findings."""
    everything = slice(None)
    rng = stream(seed, "accuracy without labels")
    draws = np.array([seen.estimate(*seen.drawn(rng)) for _ in range(REPLICATES)])
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    signs = signs_against(seen)
    estimate = seen.estimate(everything, everything)
    least = wilson(estimate, min(len(seen.source), len(seen.target)), level)
    return AccuracyEstimate(
        estimate,
        float(min(low, least[0])),
        float(max(high, least[1])),
        level,
        float(seen.right.mean()),
        cut(seen.source_scores, seen.right).value,
        seen.temperature,
        baselines(seen.source, seen.right, seen.target),
        (len(seen.source), len(seen.target)),
        (ASSUMES, *_undetermined(seen.right), *signs),
        signs,
    )


def checked(
    source: ArrayLike, labels: ArrayLike, target: ArrayLike, level: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return source and target probabilities and labels after checking them."""
    same_rows(source=source, labels=labels)
    p, q = probabilities(source, "source"), probabilities(target, "target")
    if p.shape[1] != q.shape[1]:
        raise DataError(
            explain(
                "as many classes in source as in target",
                f"{p.shape[1]} and {q.shape[1]}",
                "two models, or a class that only one file holds",
                "predict both with one model, all of its classes in order",
            )
        )
    y = np.asarray(labels)
    if y.shape != (len(p),) or y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= p.shape[1]:
        raise DataError(
            explain(
                f"one label from 0 to {p.shape[1] - 1} for each of {len(p)} rows",
                f"shape {y.shape}, type {y.dtype}",
                "names of classes where positions belong, or labels of other rows",
                "pass positions in the order of the columns of probabilities",
            )
        )
    if len(p) < 10:
        raise DataError(
            explain(
                "at least ten labelled rows",
                f"{len(p)}",
                "a hold-out too small to place a threshold",
                "hold out more rows (some hundreds place it within a few points)",
            )
        )
    check_level(level)
    return p, q, y.astype(np.intp)


def baselines(p: np.ndarray, right: np.ndarray, q: np.ndarray) -> dict[str, float]:
    """Return the simple estimates: nothing, mean confidence, its difference, importance weights in bins."""
    c, d, known = p.max(1), q.max(1), float(right.mean())
    i, j, count = bins(p, q)
    share = np.bincount(j, minlength=count) / len(d)
    inside = np.array([right[i == b].mean() if (i == b).any() else known for b in range(count)])
    return {
        "source accuracy": known,
        "average confidence": float(d.mean()),
        "difference of confidences": float(np.clip(known + d.mean() - c.mean(), 0.0, 1.0)),
        "importance weights": float((share * inside).sum()),
    }


def bins(p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the bin of confidence of each labelled and each unlabelled row, and how many bins there are."""
    c, d = p.max(1), q.max(1)
    edges = np.unique(np.quantile(c, np.linspace(0, 1, _BINS + 1))[1:-1])
    return np.digitize(c, edges), np.digitize(d, edges), len(edges) + 1


def _undetermined(right: np.ndarray) -> tuple[str, ...]:
    if right.all():
        return (
            "No labelled row is predicted wrong: the threshold is not determined, every row counts as right.",
        )
    return () if right.any() else ("Every labelled row is predicted wrong: no row counts as right.",)


def signs_against(seen: Scored) -> tuple[str, ...]:
    """Return what can be seen on the rows that speaks against the assumption: other classes, or other scores."""
    p, q = seen.source, seen.target
    said = []
    counts = np.array([np.bincount(x.argmax(1), minlength=p.shape[1]) for x in (p, q)], dtype=np.float64)
    counts = counts[:, counts.sum(0) > 0]
    if counts.shape[1] > 1:
        chance = float(stats.chi2_contingency(counts).pvalue)
        moved = 0.5 * float(np.abs(counts[0] / counts[0].sum() - counts[1] / counts[1].sum()).sum())
        if chance < _SHIFTED:
            said.append(
                f"The shares of predicted classes differ by {moved:.0%} (p = {chance:.1g}): if the classes' own "
                "shares changed, rows of equal score need not be right equally often. Label some of the new rows."
            )
    lowest = float(seen.source_scores.min())
    below = int((seen.target_scores < lowest).sum())
    expected = 1 / (len(p) + 1)
    if below > _OUTSIDE * len(q) and stats.binomtest(below, len(q), expected, "greater").pvalue < _SHIFTED:
        said.append(
            f"Of {below / len(q):.0%} of the rows without labels the model is less sure than of any labelled row: "
            "how often such rows are right, no labelled row can tell."
        )
    return tuple(said)
