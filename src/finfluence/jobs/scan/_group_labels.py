"""Which groups of rows carry more contradicted labels than the models' own doubts explain."""

from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import binom, norm, t

GROUP_LEVEL = 0.05
FEWEST_FOR_SPREAD = 6


def judge_groups(
    groups: np.ndarray, contradicted: np.ndarray, chance: np.ndarray, oof_loss: np.ndarray, *, told: bool
) -> list[dict[str, Any]]:
    r"""Return one line per group, the worst first: contradicted labels, how many were expected, and how rare that is.

    .. math:: E_g = \sum_{i \in g} e_i, \quad
              z_g = \frac{O_g - E_g - 1/2}{\varphi \sqrt{\sum_{i \in g} e_i (1 - e_i)}}

    with e the chance that a right label contradicts, moved by one constant in the log-odds so that Σe is the number of
    contradicted labels of all groups, and φ ≥ 1 how much more the z of most groups vary than chance makes them (from
    their median deviation, for six groups or more). The one-sided p is the largest one of the normal tail, the binomial
    one and, where φ > 1, that of a Student law with half as many degrees of freedom as there are other groups; it is
    adjusted over the groups by Holm's method: a group is named at 5 %, the chance of naming any wrongly.

    Parameters
    ----------
    groups : array [n]
        Name of each row's group; names that start with a zero byte are rows without one, which are not listed.
    contradicted : array of bool [n]
        Whether models that have not seen the row contradict its label.
    chance : array [n]
        Chance of that by the models' own probabilities: one less that of their first class.
    oof_loss : array [n]
        Out-of-fold loss: its mean is listed.
    told
        Whether anything can be told: if not, no group is named.

    Returns
    -------
    list of dict
        group, rows, contradicted, expected, z_label, p_label, p_label_adjusted, named, oof_loss.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> groups = np.repeat([f"s{k}" for k in range(10)], 200)
    >>> wrong = rng.random(2000) < np.where(groups == "s3", 0.35, 0.1)
    >>> lines = judge_groups(groups, wrong, np.full(2000, 0.1), np.ones(2000), told=True)
    >>> [line["group"] for line in lines if line["named"]]
    ['s3']
    """
    listed = np.array([not str(g).startswith("\0") for g in groups])
    names, member = np.unique(groups[listed].astype(str), return_inverse=True)
    seen, doubts, losses = (
        contradicted[listed],
        _recalibrated(chance[listed], contradicted[listed]),
        oof_loss[listed],
    )
    rows = np.bincount(member)
    observed, expected = np.bincount(member, seen), np.bincount(member, doubts)
    spread = np.sqrt(np.bincount(member, doubts * (1 - doubts)))
    z = (observed - expected - 0.5) / np.maximum(spread, 1e-9)
    p = np.maximum(norm.sf(z), binom.sf(observed - 1, rows, np.clip(expected / rows, 0, 1)))
    varies = _overdispersion(z)
    if varies > 1:
        z = z / varies
        p = np.maximum(p, t.sf(z, (len(z) - 1) / 2))
    p = np.where(told, p, 1.0)
    adjusted = holm(p)
    order = np.lexsort((-z, p))
    return [
        {
            "group": str(names[g]),
            "rows": int(rows[g]),
            "contradicted": int(observed[g]),
            "expected": float(expected[g]),
            "z_label": float(z[g]),
            "p_label": float(p[g]),
            "p_label_adjusted": float(adjusted[g]),
            "named": bool(adjusted[g] <= GROUP_LEVEL and len(names) > 1),
            "oof_loss": float(losses[member == g].mean()),
        }
        for g in order
    ]


def _recalibrated(chance: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return the chances, moved by one constant in the log-odds to the total that was seen."""
    total = float(seen.sum())
    if not 0 < total < len(seen):
        return np.full(len(seen), total / max(1, len(seen)))
    odds = logit(np.clip(chance, 1e-6, 1 - 1e-6))
    moved = brentq(lambda c: float(expit(odds + c).sum()) - total, -40, 40)
    result: np.ndarray = expit(odds + moved)
    return result


def _overdispersion(z: np.ndarray) -> float:
    """Return by how much more than chance most of the z vary, at least 1."""
    if len(z) < FEWEST_FOR_SPREAD:
        return 1.0
    return max(1.0, float(np.median(np.abs(z - np.median(z)))) / 0.6745)


def holm(p: np.ndarray) -> np.ndarray:
    """Return p-values adjusted by Holm's method; unknown ones stay unknown, and do not count.

    Returns
    -------
    array

    Examples
    --------
    >>> holm(np.array([0.01, 0.04, np.nan, 0.03])).tolist()
    [0.03, 0.06, nan, 0.06]
    """
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted
