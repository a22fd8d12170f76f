"""Three heads on the same features: which one is right more often on rows that took no part."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from finfluence._indices import same_rows
from finfluence._progress import Progress, silent
from finfluence._seeds import stream
from finfluence.errors import DataError, explain
from finfluence.mitigate._diagnostics import Spectrum, feature_matrix, spectrum
from finfluence.mitigate._heads import HEADS, HeadOptions, nmtune, one_a_row
from finfluence.stats import check_level

REPLICATES = 2000


@dataclass(frozen=True)
class HeadComparison:
    """Held-out accuracy of each head, and the mitigation effect.

    Attributes
    ----------
    right : array [heads, seeds, rows]
        Whether a head trained with a seed is right on a held-out row; heads in the order of `kinds`.
    kinds : tuple of str
    accuracy : dict
        Mean over seeds and rows.
    difference, lower, upper, level
        Accuracy of NMTune minus that of the linear probe, with a bootstrap interval over rows and seeds.
    mu : float
        The mitigation effect as a signed Gaussian influence: difference over the standard deviation between seeds.
        NaN for fewer than three seeds, and if no seed differs from another.
    before, after : Spectrum
        Of the held-out features, standardised, and of what NMTune makes of them (first seed).
    """

    right: np.ndarray
    kinds: tuple[str, ...]
    accuracy: dict[str, float]
    difference: float
    lower: float
    upper: float
    level: float
    mu: float
    before: Spectrum
    after: Spectrum

    @property
    def best(self) -> str:
        """The head to use: the linear probe, unless another is surely better than it; of two such, the better one."""
        linear = self.right[self.kinds.index("linear")].astype(float)
        surer = {
            kind: self.accuracy[kind]
            for kind in self.kinds
            if kind != "linear" and _interval(self.right[self.kinds.index(kind)] - linear, self.level)[0] > 0
        }
        return max(surer, key=surer.__getitem__, default="linear")

    def __str__(self) -> str:
        told = "more" if self.lower > 0 else "less" if self.upper < 0 else "not surely more"
        each = ", ".join(f"{k} {self.accuracy[k]:.1%}" for k in self.kinds)
        return (
            f"held-out accuracy: {each}; NMTune is right {told} often than the linear probe, by "
            f"{100 * self.difference:+.1f} points [{100 * self.lower:+.1f}, {100 * self.upper:+.1f}] "
            f"({self.level:.0%} bootstrap over rows and {self.right.shape[1]} seeds); "
            f"singular value entropy {self.before.entropy:.2f} before, {self.after.entropy:.2f} after"
        )


def compare_heads(
    rows: tuple[ArrayLike, ArrayLike],
    held_out: tuple[ArrayLike, ArrayLike],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    options: HeadOptions | None = None,
    level: float = 0.95,
    progress: Progress = silent,
) -> HeadComparison:
    """Train linear probe, MLP and NMTune on the same features and judge them on rows that took no part.

    Parameters
    ----------
    rows, held_out : (features, labels)
        To train on, and to judge by.
    seeds : sequence of int
        Each trains all three heads.
    options : HeadOptions
        The learning rate, if given, is for all three.
    level : float
        Of the interval.
    progress : callable
        Called as `progress("heads", done, total)` in trained heads.

    Returns
    -------
    HeadComparison

    Raises
    ------
    DataError
        No seed, or held-out labels that no training row has.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(2, size=300)
    >>> x = rng.normal(size=(300, 4)) + y[:, None]
    >>> found = compare_heads((x[:200], y[:200]), (x[200:], y[200:]), seeds=[0], options=HeadOptions(epochs=3))
    >>> found.right.shape, found.best
    ((3, 1, 100), 'linear')
    """
    check_level(level)
    same_rows(features=rows[0], labels=rows[1])
    same_rows(held_out_features=held_out[0], held_out_labels=held_out[1])
    features = feature_matrix(held_out[0], "held-out features")
    labels = one_a_row(held_out[1], len(features), "held-out rows")
    known = set(np.asarray(rows[1]).ravel().tolist())
    unknown = sorted({str(v) for v in labels.tolist() if v not in known})
    if unknown or not len(seeds):
        raise DataError(
            explain(
                "at least one seed and held-out rows of the classes trained on",
                f"{len(seeds)} seeds, {len(labels)} held-out rows, unknown classes: {unknown[:5]}",
                "a split that left a class on one side",
                "split each class",
            )
        )
    right = np.empty((len(HEADS), len(seeds), len(labels)), dtype=bool)
    seen: dict[str, Spectrum] = {}
    for j, seed in enumerate(seeds):
        for i, kind in enumerate(HEADS):
            head = nmtune(*rows, kind=kind, options=options, seed=seed)
            right[i, j] = head.classes[head.predict_proba(features).argmax(1)] == labels
            if kind != "mlp" and kind not in seen:
                seen[kind] = spectrum(head.transform(features))
            progress("heads", j * len(HEADS) + i + 1, len(seeds) * len(HEADS))
    gain = right[HEADS.index("nmtune")].astype(float) - right[HEADS.index("linear")]
    lower, upper = _interval(gain, level)
    per_seed = gain.mean(1)
    sd = float(right[HEADS.index("linear")].mean(1).std(ddof=1)) if len(seeds) > 2 else 0.0
    return HeadComparison(
        right,
        HEADS,
        {k: float(right[i].mean()) for i, k in enumerate(HEADS)},
        float(per_seed.mean()),
        lower,
        upper,
        level,
        float(per_seed.mean()) / sd if sd > 0 else float("nan"),
        seen["linear"],
        seen["nmtune"],
    )


def _interval(gain: np.ndarray, level: float) -> tuple[float, float]:
    rng = stream(0, "mitigation effect")
    seeds, n = gain.shape
    means = [
        gain[np.ix_(rng.integers(seeds, size=seeds), rng.integers(n, size=n))].mean()
        for _ in range(REPLICATES)
    ]
    lower, upper = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(lower), float(upper)
